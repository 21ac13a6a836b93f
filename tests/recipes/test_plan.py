"""Plans: what will be done is what is done."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import pytest
import toy
from world import TEST, TRAIN

from prompt_jax.cli import show
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.methods import BaseMethod
from prompt_jax.models import precision
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes import DataConfig, make_plan
from prompt_jax.recipes import plan as plans
from prompt_jax.recipes.accelerators import PEAKS, chip_hours
from prompt_jax.recipes.config import with_dtype
from prompt_jax.recipes.pace import pace, remember
from prompt_jax.training import memory, speed
from prompt_jax.training.optimizers import OptimizerConfig

METHODS = (
    "prompt_tuning",
    "spot",
    "spot(variant=mixture)",
    "spot(variant=best_of_top_k,top_k=2)",
    "full_fine_tuning",
)


@pytest.fixture(scope="module")
def plan(world, tmp_path_factory):
    config = world.experiment(tmp_path_factory.mktemp("plan"), methods=METHODS)
    return config, make_plan(config, FrozenT5.abstract(toy.CONFIG, name="tiny"))


def test_plan_sums_its_stages(plan):
    _, made = plan
    assert made.steps == sum(s.steps * s.runs for s in made.stages)
    assert made.flops == sum(s.flops for s in made.stages)
    by_label = {s.label: (s.runs, s.steps) for s in made.stages}
    best = "spot(variant=best_of_top_k,top_k=2)"
    expected = {
        "prompt_tuning: target, k = 4": (4, 3),
        "prompt_tuning: sources": (4, 6),
        "prompt_tuning: keys": (4, 2),
        "prompt_tuning: probe, k = 4": (4, 2),
        "spot: target, k = 4": (4, 3),
        "prompt_tuning: mixture": (2, 6),
        "spot(variant=mixture): target, k = 4": (4, 3),
        f"{best}: target, k = 4": (8, 3),
        "full_fine_tuning: target, k = 4": (4, 1),
        "prompt_tuning: target, all rows": (4, 4),
        "prompt_tuning: probe, all rows": (4, 2),
        "spot: target, all rows": (4, 4),
        "spot(variant=mixture): target, all rows": (4, 4),
        f"{best}: target, all rows": (8, 4),
        "full_fine_tuning: target, all rows": (4, 2),
    }
    assert by_label == expected
    assert json.loads(json.dumps(made.to_dict()))["steps"] == made.steps


def test_plan_has_the_steps_of_a_run(plan, pretender, executor):
    """A run with an empty cache takes the planned steps, less what methods share by chance."""
    config, made = plan
    running = executor(config)
    for k in config.shots:
        for spec in config.specs:
            running.run(spec, k)
    shared = sum(
        found * next(s.steps for s in made.stages if s.label == label)
        for label, found, _ in running.reused
        if label in {s.label for s in made.stages} and "target" in label
    )
    assert pretender.steps() == made.steps - shared
    actual = {}
    for label, _, total in running.reused:
        actual[label] = total
    planned = {s.label: s.runs for s in made.stages if "probe" not in s.label}
    assert {label: actual[label] for label in planned} == planned


def test_plan_counts_flops_of_a_stage(plan):
    _, made = plan
    by_label = {s.label: s for s in made.stages}
    lm = FrozenT5.abstract(toy.CONFIG)
    stage = by_label["prompt_tuning: sources"]
    rows = lm.flops(toy.B, 8 + toy.L, 4, backward="prompt")
    assert stage.flops == 4 * 6 * rows
    assert stage.rows_per_step == toy.B
    full = by_label["full_fine_tuning: target, all rows"]
    assert full.flops == 4 * 2 * lm.flops(toy.B, 8, 4, backward="full")


def test_a_plan_says_what_auto_is_here(world, tmp_path, monkeypatch):
    """And the run directory records that dtype, not `auto`, which is another one elsewhere."""
    found = precision.Precision("bfloat16", "for a reason")
    monkeypatch.setattr(precision, "fastest", lambda: found)
    config = dataclasses.replace(world.experiment(tmp_path), dtype="auto")
    lm = FrozenT5.abstract(toy.CONFIG, "auto", name="tiny")
    made = make_plan(config, lm)
    assert (made.dtype, made.precision) == (
        "bfloat16",
        "auto, for a reason; losses within 3% of float32's",
    )
    assert with_dtype(config).dtype == with_dtype(config, lm).dtype == "bfloat16"
    wide = FrozenT5.abstract(toy.CONFIG)
    assert with_dtype(config, wide).dtype == "float32", "the model's, where there is one"
    named = dataclasses.replace(config, dtype="float32")
    assert with_dtype(named, lm) is named


def test_plan_names_memory_and_sizes(plan):
    _, made = plan
    weights = sum(x.size * 4 for x in jax.tree.leaves(toy.tiny_t5().params))
    assert made.parameters == toy.CONFIG.parameter_count == weights // 4
    assert made.prompt_parameters == toy.L * toy.D
    memory = made.memory
    assert memory.weights == weights
    assert memory.fine_tuning == 5 * weights
    assert memory.micro_batch_rows == 16
    assert memory.micro_batch_tokens == 8 + toy.L
    assert memory.micro_batch > 0
    assert memory.xla_flops == pytest.approx(memory.hand_flops, rel=0.35)
    # Parameters, best, gradient and two moments of 8 prompts, and little beside.
    prompt = 4 * made.prompt_parameters
    assert 8 * 5 * prompt <= memory.population <= 8 * 5 * prompt + 8 * 64


def test_runs_are_planned_where_they_will_be():
    """The gradient of all runs on every device; the rest of a run where the run is."""
    method, prompt = BaseMethod(), 4 * toy.L * toy.D

    def population(runs, data):
        made = plans._population_bytes(method, toy.budget(4), toy.L, toy.tiny_t5(), runs, data)
        return made / prompt

    assert population(8, 1) == pytest.approx(8 * 5, rel=0.05)
    assert population(8, 4) == pytest.approx(8 + 2 * 4, rel=0.05)
    assert population(9, 4) == pytest.approx(9 * 5, rel=0.05)


def test_plan_lists_tasks(plan, world):
    _, made = plan
    assert [(t.name, t.role) for t in made.tasks] == [
        (world.tasks["first"], "source"),
        (world.tasks["second"], "source"),
        (world.tasks["one"], "target"),
        (world.tasks["two"], "target"),
    ]
    assert {(t.train, t.test) for t in made.tasks} == {(TRAIN, TEST)}


def test_plan_of_absent_data_uses_published_sizes(tmp_path):
    task = plans._task("glue/rte", "target", DataConfig(root=str(tmp_path)))
    assert (task.train, task.test) == (2490, 277)
    assert task.where == "not on this machine"
    assert task.missing
    limited = plans._task(
        "glue/rte", "target", DataConfig(str(tmp_path), train_rows=9, test_rows=7)
    )
    assert (limited.train, limited.test) == (9, 7)
    papers = DataConfig(str(tmp_path), protocol="attempt")
    planned = {
        name: plans._task(name, "target", papers) for name in ("glue/rte", "paws", "yelp_polarity")
    }
    assert {name: (task.train, task.test) for name, task in planned.items()} == {
        "glue/rte": (2_490, 139),
        "paws": (49_401, 8_000),
        "yelp_polarity": (100_000, 38_000),
    }
    with pytest.raises(DataError, match="says nothing about 'trec'"):
        plans._task("trec", "target", papers)


def test_plan_reads_rows_of_files(plan, world, tmp_path):
    """A label that the task does not have is found before anything is computed."""
    shutil.copytree(world.root / "one", tmp_path / "one")
    path = Path(shutil.copy(world.tasks["one"], tmp_path))
    test = tmp_path / "one" / "validation.jsonl"
    lines = test.read_text().splitlines()
    first = (tmp_path / "one" / "train.jsonl").read_text().splitlines()[0]
    test.write_text("\n".join([first, *lines[1:]]) + "\n")
    task = plans._task(str(path), "target", DataConfig())
    assert (task.train, task.test, task.missing) == (TRAIN, TEST, False)
    assert task.warnings == (f"one: 1 of {TEST} validation rows are training rows too",)
    config = world.experiment(tmp_path, sources=(world.tasks["one"],), targets=(str(path),))
    assert list(plans._shared(config)) == []  # one task, by its name
    path.write_text(path.read_text().replace('"one"', '"other"'))
    assert list(plans._shared(config)) == [
        f"other: 1 of {TEST} validation rows are training rows of the source one (their texts)"
    ]
    made = dataclasses.replace(plan[1], shared=tuple(plans._shared(config)))
    assert made.to_dict()["warnings"] == made.shared
    path.write_text(path.read_text().replace('"other"', '"one"'))
    test.write_text("\n".join([*lines[:3], '{"text": "w0", "label": "maybe"}']) + "\n")
    with pytest.raises(DataError, match=r"row 4 of validation\.jsonl has label 'maybe'"):
        plans._task(str(path), "target", DataConfig())


def test_plan_of_a_damaged_folder_is_refused(tmp_path):
    (tmp_path / "glue_rte").mkdir()
    (tmp_path / "glue_rte" / "validation.jsonl").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        plans._task("glue/rte", "target", DataConfig(root=str(tmp_path)))


def test_a_plan_names_what_has_to_be_fetched(plan):
    made = dataclasses.replace(plan[1], shared=())
    assert (made.missing, made.warnings) == ((), ())
    tasks = [
        plans.PlannedTask(name, role, 1, 1, "", missing, warnings)
        for name, role, missing, warnings in (
            ("glue/rte", "source", True, ()),
            ("mr", "source", False, ("mr: x",)),
            ("glue/rte", "target", True, ("mr: x",)),
        )
    ]
    made = dataclasses.replace(made, tasks=tuple(tasks))
    assert (made.missing, made.warnings) == (("glue/rte",), ("mr: x",))
    assert made.to_dict()["missing"] == ("glue/rte",)


@pytest.mark.slow
def test_a_smaller_budget_plans_fewer_rows(plan):
    config, made = plan
    small = dataclasses.replace(
        config, target=toy.budget(4, micro_batch_tokens=4 * 12), methods=("prompt_tuning",)
    )
    other = make_plan(small, FrozenT5.abstract(toy.CONFIG, name="tiny"))
    assert other.memory.micro_batch_rows == 4
    assert other.memory.micro_batch < made.memory.micro_batch
    assert other.memory.fine_tuning == 0


def test_plan_refuses_what_cannot_run(world, tmp_path):
    lm = FrozenT5.abstract(toy.CONFIG)
    config = world.experiment(tmp_path)
    with pytest.raises(DataError, match="unknown task"):
        make_plan(dataclasses.replace(config, targets=("mrr",)), lm)
    with pytest.raises(ConfigError, match="both source and target"):
        make_plan(dataclasses.replace(config, targets=config.sources), lm)
    with pytest.raises(DataError, match="cannot be a source"):
        make_plan(dataclasses.replace(config, sources=("squad",), targets=("squad_small",)), lm)


def test_plan_memory_does_not_depend_on_the_schedule(world, tmp_path):
    """The state of a run depends on the optimizer, not on its rates."""
    lm = toy.tiny_t5()
    method = BaseMethod()
    sizes = {
        plans._population_bytes(method, toy.budget(3, optimizer=o), toy.L, lm, 1, 1)
        for o in (OptimizerConfig(), OptimizerConfig(learning_rate=1.0, schedule="cosine"))
    }
    assert len(sizes) == 1


def test_plan_adds_stages_that_share_a_budget(world, tmp_path):
    zero = "task_prompt_vectors(zero_shot=true)"
    config = world.experiment(
        tmp_path,
        methods=("dtvg(budget=matched)", "dtvg", zero),
        shots=(0,),
        target=toy.budget(10),
    )
    steps = {s.label: s.steps for s in plans._stages(config, world.lm)}
    assert steps == {
        "prompt_tuning: sources": 6,
        "prompt_tuning: first (25% of the steps), all rows": 2,
        "dtvg(budget=matched): target, all rows": 8,
        "prompt_tuning: first, all rows": 10,
        "dtvg: target, all rows": 10,
        f"{zero}: target, all rows": 0,
    }


def test_a_mixture_for_each_target_is_planned(world, tmp_path):
    config = world.experiment(tmp_path, methods=("spot(variant=nearest_mixture)",), shots=(4, 0))
    made = {s.label: (s.runs, s.steps) for s in plans._stages(config, world.lm)}
    assert made["prompt_tuning: mixture, k = 4"] == (4, 6)
    assert made["prompt_tuning: mixture, all rows"] == (4, 6)


def test_plan_counts_trials_and_larger_budgets_of_a_method(world, tmp_path):
    methods = ("prompt_tuning(steps=2,rates=[1,3])", "spot(variant=mixture,steps=3,batch=2)")
    config = world.experiment(tmp_path, methods=methods, shots=(0,), seeds=1)
    made = {s.label: s for s in plans._stages(config, world.lm)}
    tuned = made["prompt_tuning(steps=2,rates=[1,3]): target, all rows"]
    assert (tuned.runs, tuned.steps) == (2 * 2, 2 * config.target.steps)
    mixture = made["prompt_tuning: mixture (300% of the steps) (2 x the batch)"]
    assert (mixture.steps, mixture.rows_per_step) == (18, 2 * config.source.batch_size)


def test_plan_keeps_the_analysis_of_the_micro_batch(world, tmp_path, monkeypatch):
    """Compiled once, and again for another budget; a damaged entry is made again."""
    config, lm = world.experiment(tmp_path), FrozenT5.abstract(toy.CONFIG, name="tiny")
    first = make_plan(config, lm, tmp_path)
    calls = []
    original = memory.compile_micro

    def counted(*args, **options):
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(memory, "compile_micro", counted)
    assert make_plan(config, lm, tmp_path) == first
    assert calls == []
    (path,) = (tmp_path / "plans").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert make_plan(config, lm, tmp_path) == first
    assert make_plan(config, lm) == first  # without a folder
    assert len(calls) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["plans"]


class Compiled:
    """A program that takes 1,000 bytes, and 500 more for each row."""

    def __init__(self, rows: int) -> None:
        self.temp_size_in_bytes = 1000 + 500 * rows

    def memory_analysis(self) -> Compiled:
        return self

    def cost_analysis(self) -> dict[str, float]:
        return {}


@pytest.fixture
def sized(world, tmp_path, monkeypatch):
    """Plans for a device with so many bytes beside weights and prompts."""
    monkeypatch.setattr(memory, "compile_micro", lambda *_, rows, **__: Compiled(rows))
    config, lm = world.experiment(tmp_path, methods=METHODS), toy.tiny_decoder()
    target = dataclasses.replace(config.target, micro_batch_tokens=0)
    config = dataclasses.replace(config, target=target)
    held = make_plan(config, lm).memory
    kept = held.weights + held.population
    return lambda free: make_plan(config, lm, device_memory=kept + free)


def test_a_micro_batch_is_sized_for_the_device_that_is_assumed(sized):
    """4/5 of what is free: 1,000 bytes and as many rows, a power of two, as fit into the rest."""
    made = sized(20_000)
    assert made.memory.micro_batch_rows == 16
    assert made.memory.micro_batch == 9_000
    assert made.memory.together <= made.memory.assumed
    assert made.device.endswith("KiB, assumed")
    assert made.to_dict()["memory"]["assumed"] == made.memory.assumed


def test_a_micro_batch_has_no_more_rows_than_a_step(sized):
    made = sized(10**9)
    assert made.memory.micro_batch_rows == max(s.runs * s.rows_per_step for s in made.stages)
    assert made.memory.trained == made.memory.weights * 6 + made.memory.micro_batch


@pytest.mark.parametrize("free", [1_000, -10_000])
def test_a_device_that_is_too_small_gets_a_plan_of_one_row(sized, free):
    made = sized(free)
    assert made.memory.micro_batch_rows == 1
    assert made.memory.together > made.memory.assumed


def test_plan_estimates_seconds_from_measured_speed(world, tmp_path):
    """From the speed of earlier runs where there is one, else from a product of the model's."""
    config, lm = world.experiment(tmp_path), world.lm
    unknown = pace(tmp_path, lm)
    assert (unknown.from_runs, pace(None, lm)) == (False, unknown)
    assert unknown.flops_per_second == speed.matmul_ceiling(lm)
    remember(tmp_path, lm, tmp_path)  # of a run that has trained nothing
    lines = [{"flops_per_second": rate} for rate in (1e6, 3e6, 2e6, 0)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "x"}\n{"flops_pe'
    (tmp_path / "speed.jsonl").write_text(text)
    remember(None, lm, tmp_path)
    assert pace(tmp_path, lm) == unknown
    remember(tmp_path, lm, tmp_path)
    known = pace(tmp_path, lm)
    assert known == (2e6 / jax.device_count(), True)
    assert pace(tmp_path, FrozenT5.abstract(toy.CONFIG)) == known  # a dry run has shapes alone
    smaller = FrozenT5.abstract(dataclasses.replace(toy.CONFIG, num_layers=1))
    assert not pace(tmp_path, smaller).from_runs
    made = make_plan(config, lm, speeds=tmp_path)
    assert made.seconds == pytest.approx(made.flops / known.flops_per_second)
    assert made.to_dict()["pace"] == known._asdict()


def test_plan_names_learning_rates_of_stages(world, tmp_path):
    methods = (
        "prompt_tuning(rates=[1,3])",
        "full_fine_tuning",
        "task_prompt_vectors(zero_shot=true)",
        "dtvg(second_rate=0.1)",
        "dtvg(second_rate=0.002,second_unit=absolute,second_steps=9)",
    )
    config = world.experiment(tmp_path, methods=methods, shots=(0,))
    made = {s.label: s for s in plans._stages(config, world.lm)}
    swept = made["prompt_tuning(rates=[1,3]): target, all rows"]
    assert (swept.learning_rates, swept.unit) == ((0.5, 1.5), "absolute")
    assert made["full_fine_tuning: target, all rows"].learning_rates == (0.01,)
    zero = made["task_prompt_vectors(zero_shot=true): target, all rows"]
    assert zero.learning_rates == ()
    assert made["dtvg(second_rate=0.1): target, all rows"].learning_rates == (0.05,)
    (own,) = (s for label, s in made.items() if "second_steps" in label)
    assert (own.learning_rates, own.unit, own.steps) == ((0.002,), "absolute", 9)


def test_hours_on_accelerators(plan):
    _, made = plan
    assert [cost["chip"] for cost in made.to_dict()["chip_hours"]] == list(PEAKS)
    a100, h100, _ = chip_hours(0.4 * 3600 * 312e12, "bfloat16")
    assert (a100.chip, a100.hours) == ("A100", pytest.approx(1.0))
    assert h100.hours == pytest.approx(312 / 989)
    assert chip_hours(1e18, "float32")[0].hours == pytest.approx(
        2 * chip_hours(1e18, "bfloat16")[0].hours
    )
    assert show._chips(made) == ""  # minutes at most
    large = dataclasses.replace(made.stages[0], flops=0.4 * 3600 * 494e12 * 1000)
    text = show._chips(dataclasses.replace(made, stages=(large,)))
    assert "1,000 h on one H100" in text
    assert "40% of its peak in float32 is reached (156, 494, 197 TFLOP/s)" in text
