"""What the one real experiment writes, the same again, and the rules of a run directory."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import toy
from world import METHODS, TEST, Ran, call

from prompt_jax import config as configs
from prompt_jax.errors import ConfigError, DataError, PromptJaxError
from prompt_jax.evaluation import Calibration, Job, calibration, evaluate
from prompt_jax.methods import Stage
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes import ExperimentConfig, PromptConfig, experiment, run
from prompt_jax.recipes.rows import RowStore
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import folder as rundir_folder
from prompt_jax.rundir import results
from prompt_jax.rundir.findings import Findings, find
from prompt_jax.training import speed


class Done(NamedTuple):
    """The shared run, read back."""

    config: ExperimentConfig
    folder: Path
    findings: Findings
    world: Any


@pytest.fixture(scope="module")
def done(ran: Ran) -> Done:
    assert ran.result.code == 0, ran.result.err
    world = ran.world
    config = configs.load_config(world.config, ["seeds=2"])
    return Done(config, world.folder, find(rundir_folder.read(world.folder)), world)


class Again(NamedTuple):
    """The same with a warm cache in another run directory."""

    folder: Path
    summary: dict[str, Any]
    err: str


@pytest.fixture(scope="module")
def again(done: Done) -> Again:
    folder = done.world.root / "again"
    result = call(["run", done.world.config, "seeds=2", f"out={folder}", "--json"])
    assert result.code == 0, result.err
    return Again(folder, json.loads(result.out), result.err)


# Rows


@pytest.mark.slow
def test_run_has_rows_for_every_cell(done):
    keys = [(r.method, r.target, r.k, r.seed, r.metric, r.split) for r in done.findings.run.rows]
    assert len(keys) == len(set(keys))
    one, two = done.config.targets
    expected = set()
    for method in METHODS:
        for k in (4, 0):
            for seed in (0, 1):
                expected |= {(method, one, k, seed, "accuracy", s) for s in ("dev", "test")}
                expected |= {(method, two, k, seed, "f1", s) for s in ("dev", "test")}
                expected.add((method, two, k, seed, "accuracy", "test"))
                for name in Calibration._fields:
                    expected |= {(method, target, k, seed, name, "test") for target in (one, two)}
    assert set(keys) == expected


@pytest.mark.slow
def test_result_rows_have_plausible_numbers(done):
    for row in done.findings.run.rows:
        assert 0 <= row.value <= {"nll": 10, "brier": 2}.get(row.metric, 1)
        steps = {"prompt_tuning": 4, "spot": 4 + 2, "full_fine_tuning": 2}
        few = {"prompt_tuning": 3, "spot": 3 + 2, "full_fine_tuning": 1}
        assert row.target_steps == (few if row.k else steps)[row.method]
        assert row.source_steps == (12 + 4 if row.method == "spot" else 0)
        assert row.rows_seen == toy.B * (row.target_steps + row.source_steps)
        assert row.flops > 0
        assert row.wall_s > 0
        assert row.trials == 1
        full = row.method == "full_fine_tuning"
        size = toy.CONFIG.parameter_count if full else toy.L * toy.D
        assert row.trained_parameters == row.stored_parameters == size
    by_method = {r.method: r.flops for r in done.findings.run.rows if r.k == 0}
    assert by_method["spot"] > by_method["prompt_tuning"]


@pytest.mark.slow
def test_results_file_holds_the_rows(done):
    assert results.read_rows(done.folder / "results.jsonl") == done.findings.run.rows


@pytest.mark.slow
def test_result_values_are_those_of_the_saved_prompts(done):
    """Whoever loads a prompt of the run directory measures what the table says."""
    data = dataclasses.replace(done.config.data, cache="")
    rows = RowStore(data, done.world.lm.tokenizer, None)
    cells = [("spot", done.config.targets[0], 0), ("prompt_tuning", done.config.targets[1], 4)]
    jobs, prompts, metrics, expected = [], [], [], []
    for method, target, k in cells:
        for seed in (0, 1):
            name = rows.task(target).name
            shots = f"k{k}" if k else "all"
            path = done.folder / "prompts" / method / f"{name}-{shots}-seed{seed}.safetensors"
            prompt = SoftPrompt.load(path, model=done.world.lm)
            assert (prompt.record.method, prompt.record.task) == (method, name)
            assert prompt.record.seed == seed
            jobs.append(Job(rows.rows(target, seed).test, len(prompts)))
            prompts.append(np.asarray(prompt.embeddings))
            metrics.append(rows.task(target).metrics)
            expected.append(
                next(
                    r.value
                    for r in done.findings.run.rows
                    if (r.method, r.target, r.k, r.seed) == (method, target, k, seed)
                    and r.split == "test"
                    and r.metric == metrics[-1][0]
                )
            )
    got = evaluate(done.world.lm, jobs, np.stack(prompts), metrics=metrics)
    assert [g.metrics[m[0]] for g, m in zip(got, metrics, strict=True)] == expected
    found = {
        (r.method, r.target, r.k, r.seed, r.metric): r.value
        for r in done.findings.run.rows
        if r.split == "test"
    }
    whose = [(*cell, seed) for cell in cells for seed in (0, 1)]
    for (method, target, k, seed), evaluation, job in zip(whose, got, jobs, strict=True):
        measured = [found[method, target, k, seed, name] for name in Calibration._fields]
        assert measured == pytest.approx(calibration(evaluation.scores, job.split.label), rel=1e-4)


@pytest.mark.slow
def test_saved_prompts_carry_their_records(done):
    folder = done.folder / "prompts"
    paths = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    assert paths == {
        f"{place}-seed{seed}.safetensors"
        for place in (
            "sources/first",
            "sources/second",
            *(
                f"{method}/{task}-{shots}"
                for method in ("prompt_tuning", "spot")
                for task in ("one", "two")
                for shots in ("all", "k4")
            ),
        )
        for seed in (0, 1)
    }
    record = SoftPrompt.load(done.world.prompt("spot", "two", "k4")).record
    assert record is not None
    assert (record.method, record.task, record.seed) == ("spot", "two", 0)
    assert record.config["k"] == 4
    assert record.config["max_input_tokens"] == 8


# Items


@pytest.mark.slow
def test_items_file_holds_scores_of_items(done):
    items = results.read_items(done.folder / "items.npz")
    # Only the first target's primary metric is a mean of items: F1 is not.
    one = done.config.targets[0]
    assert set(items) == {
        RunKey(method, "target", one, k, seed)
        for method in METHODS
        for k in (4, 0)
        for seed in (0, 1)
    }
    for row in done.findings.run.rows:
        if row.split == "test" and row.target == one and row.metric == "accuracy":
            scores = items[row.key]
            assert scores.shape == (TEST,)
            assert scores.mean() == pytest.approx(row.value)


@pytest.mark.slow
def test_run_has_contrasts_with_the_baseline(done):
    assert len(done.findings.contrasts) == 2 * 2 * 2  # methods x targets x shots
    assert {c.baseline for c in done.findings.contrasts} == {"prompt_tuning"}
    items = {(c.target, c.verdict.comparison.items) for c in done.findings.contrasts}
    assert items == {(done.config.targets[0], TEST), (done.config.targets[1], 1)}


# The run directory


@pytest.mark.slow
def test_run_directory_is_complete(done):
    names = {path.name for path in done.folder.iterdir()}
    assert names == {
        "config.json",
        "provenance.json",
        "answers.json",
        "reference.json",
        "metrics.jsonl",
        "results.jsonl",
        "data.json",
        "items.npz",
        "summary.md",
        "prompts",
        "report.html",
        "speed.jsonl",
        "tensorboard",
        "profile",
    }
    config = json.loads((done.folder / "config.json").read_text())
    assert config["targets"] == list(done.config.targets)
    facts = json.loads((done.folder / "provenance.json").read_text())
    assert facts["model"]["weights_sha256"] == done.world.lm.weights_hash
    assert facts["versions"]["jax"]
    assert facts["started"] <= facts["finished"]
    assert facts["seconds"] > 0
    data = json.loads((done.folder / "data.json").read_text())
    assert set(data) == set(done.config.sources) | set(done.config.targets)
    for entry in done.findings.run.answers:
        assert np.sum(entry.confusion) == TEST * 2  # seeds
        assert {row.right for row in entry.rows} <= {True, False}
    reference = done.findings.run.reference
    assert [(line.kind, line.target) for line in reference.lines] == [
        (kind, target) for kind in ("majority", "no_prompt") for target in done.config.targets
    ]
    assert reference.values(done.config.targets[0], "accuracy")["majority"] == 0.5
    assert len(reference.runs) == len(done.findings.run.answers) * 2  # seeds
    assert all(run.history for run in reference.runs)
    summary = (done.folder / "summary.md").read_text()
    assert summary.startswith("# toy\n")
    for name in ("majority class", "no prompt"):
        assert summary.count(f"| k = 4 | {name} |") == summary.count(f"| all rows | {name} |") == 1
    assert summary.count("| k = 4 | spot |") == summary.count("| all rows | spot |") == 1


@pytest.mark.slow
def test_results_file_has_all_columns(done):
    rows = read_lines(done.folder / "results.jsonl")
    assert set(rows[0]) == {
        "method",
        "stage",
        "task",
        "k",
        "seed",
        "trial",
        "metric",
        "split",
        "value",
        "source_steps",
        "target_steps",
        "rows_seen",
        "flops",
        "wall_s",
        "trained_parameters",
        "stored_parameters",
        "trials",
        "suite",
        "chosen",
        "rate",
        "learning_rate",
    }
    assert all(row["rate"] is None for row in rows)  # there was one alone
    rates = {(row["method"], row["k"]): row["learning_rate"] for row in rows}
    assert rates["spot", 0] == 0.5
    assert rates["full_fine_tuning", 4] == 0.01
    assert all(row["chosen"] is None for row in rows if row["method"] != "spot")
    for row in rows:
        if row["method"] == "spot":
            assert len(row["chosen"]) == 1
            assert set(row["chosen"]) < {Path(source).stem for source in done.config.sources}


@pytest.mark.slow
def test_metrics_file_has_every_stage(done):
    records = read_lines(done.folder / "metrics.jsonl")
    stages = {(r["method"], r["stage"], r["k"]) for r in records}
    assert {("prompt_tuning", "sources", None), ("spot", "target", 4)} <= stages
    sources = [r for r in records if r["stage"] == "sources" and "loss" in r]
    assert len(sources) == 4 * 6
    assert any("dev" in r for r in records)
    assert not [r for r in records if "event" in r]


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_speed_is_in_file_summary_and_tensorboard(done, again):
    """Every stage that was trained, in the file, in the summary and at TensorBoard."""
    records = read_lines(done.folder / "speed.jsonl")
    trained = {f"{r['method']}: {r['stage']}" for r in read_lines(done.folder / "metrics.jsonl")}
    assert {r["stage"].partition(", ")[0] for r in records} == trained
    sources = [r for r in records if r["stage"] == "prompt_tuning: sources"]
    assert sum(r["steps"] for r in sources) == 6
    for record in records:
        assert record["rows_per_second"] > 0
        assert 0 < record["utilisation"] < 10  # a busy machine may slow the ceiling down as well
    summary = (done.folder / "summary.md").read_text()
    assert "| prompt_tuning: sources | 6 |" in summary
    assert all(f"| {stage.stage} | " in summary for stage in speed.read(done.folder))
    events = (done.folder / "tensorboard").rglob("events.out.tfevents.*")
    found = {p.relative_to(done.folder / "tensorboard") for p in events}
    assert len({p.parts[0] for p in found}) == len({r["stage"] for r in records})
    assert {len(p.parts) for p in found} == {2, 3}  # of a stage and of every run in it
    # Nothing was trained.
    assert again.summary["speed"] == []
    assert not (again.folder / "speed.jsonl").exists()


@pytest.mark.slow
def test_profile_traces_the_steps_asked_for(done, again):
    assert list((done.folder / "profile").rglob("*.xplane.pb"))
    assert not (again.folder / "profile").exists()


# A warm cache


@pytest.mark.slow
def test_a_warm_cache_trains_nothing_and_counts_it(ran, done, again):
    """Of full fine-tuning too, of which results are kept and weights are not."""
    assert all(stage["reused"] == stage["runs"] for stage in again.summary["reused"])
    assert (again.folder / "results.jsonl").read_text() == (
        done.folder / "results.jsonl"
    ).read_text()
    assert "prompt_tuning: sources: 4 replicas" in map(str.strip, ran.result.out.splitlines())
    # With --json, stage lines go to stderr.
    assert "prompt_tuning: sources: 4 replicas, 4 reused" in map(str.strip, again.err.splitlines())
    assert [cell["method"] for cell in again.summary["cells"]] == 6 * list(METHODS)
    assert [cell["kind"] for cell in again.summary["cells"][::3]] == 2 * [
        "target",
        "target",
        "average",
    ]
    assert len(again.summary["contrasts"]) == 2 * 2 * 2
    assert len(again.summary["prompts"]) == 2 * 2 * 2 * 2
    assert all(Path(path).is_file() for path in again.summary["prompts"])


@pytest.mark.slow
def test_run_of_a_finished_directory_changes_nothing(again, monkeypatch):
    """The same command once more: no page is drawn, and the time that the run took stays."""
    kept = {
        path: path.read_bytes()
        for path in again.folder.rglob("*")
        if path.is_file() and path.name != "items.npz"  # a zip file holds the time
    }
    drawn = []
    monkeypatch.setattr("prompt_jax.report.page.write", lambda *_: drawn.append(1))
    config = again.folder.parent / "toy.py"
    command = ["run", config, "seeds=2", f"out={again.folder}", "--json"]
    assert json.loads(call(command).out)["cells"] == again.summary["cells"]
    assert {path: path.read_bytes() for path in kept} == kept
    assert drawn == []
    (again.folder / "report.html").unlink()
    assert call(command).code == 0
    assert drawn == [1]


@pytest.mark.slow
def test_run_of_another_config_in_a_directory_is_refused(done):
    before = (done.folder / "config.json").read_text()
    result = call([*done.world.arguments, "target.steps=9"])
    assert result.code == 2
    assert "target.steps: 4 -> 9" in result.err
    assert "Choose another out=DIR" in result.err
    assert (done.folder / "config.json").read_text() == before
    assert result.out == ""  # refused before the plan, and by a dry run too
    assert call([*done.world.arguments, "target.steps=9", "--dry-run"]) == result


def test_run_in_a_foreign_folder_is_refused(world, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and is no run directory"):
        run(world.experiment(tmp_path), world.lm, show=False)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_second_process_in_one_run_directory_is_refused(world, tmp_path):
    """It would write every line of the logs twice, and remove the other's checkpoints."""
    config = world.experiment(tmp_path)

    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with experiment.opened(config, world.lm, show=False) as (folder, _):
        before = files()
        with pytest.raises(ConfigError, match=r"run is being written by process \d+ on "):
            run(config, world.lm, show=False)
        refused = call(["run", world.config, f"out={folder}", *usual(tmp_path)])
        assert (refused.code, refused.out) == (2, "")
        assert "is being written by process" in refused.err
        assert files() == before
    assert not (folder / ".lock").exists()
    with experiment.opened(config, world.lm, show=False):
        pass


def usual(folder):
    """What `World.experiment` changes in the config file, as overrides."""
    return ("model=tiny", "seeds=2", "methods=prompt_tuning,spot", f"data.cache={folder / 'cache'}")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"targets": ("mrr",)}, "unknown task 'mrr'"),
        ({"mesh": "data=3000"}, "3000 devices"),
        ({"mesh": "rows=3"}, "mesh 'rows=3' is not of the form"),
        ({"prompt": PromptConfig(toy.L, "vocab:2")}, "cannot draw 4 distinct pieces from 2"),
        ({"prompt": PromptConfig(toy.L, "vocb:2")}, "unknown initialiser"),
        ({"out": "gss://bucket/run"}, "out=gss://bucket/run cannot be used"),
    ],
)
def test_run_refuses_a_wrong_config_before_anything_is_written(world, tmp_path, changes, error):
    with pytest.raises(PromptJaxError, match=error):
        run(world.experiment(tmp_path, **changes), world.lm, show=False)
    assert not (tmp_path / "run").exists()


def test_source_and_target_overlap_must_be_allowed(world, tmp_path):
    config = world.experiment(tmp_path, targets=(world.tasks["first"],))
    with pytest.raises(ConfigError, match="allow_overlap"):
        config.check_tasks()
    dataclasses.replace(config, allow_overlap=True).check_tasks()
    twice = world.experiment(tmp_path, targets=("mr", "mr"))
    with pytest.raises(ConfigError, match="more than once"):
        twice.check_tasks()
    for name in ("mr+digits", f"{world.tasks['one']}+digits"):
        with pytest.raises(ConfigError, match=r"data\.answers=digits .* Leave \+digits out"):
            world.experiment(tmp_path, targets=(name,)).check_tasks()
    leaking = world.experiment(tmp_path, sources=("squad",), targets=("squad_small",))
    with pytest.raises(DataError, match="cannot be a source"):
        leaking.check_tasks()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ()}, "at least one target"),
        ({"methods": ()}, "at least one method"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 10**9}, r"seeds must lie in 1 ... 10,000"),
        ({"first_seed": 2**31}, "first_seed"),
        ({"population": -1}, "population must not be negative"),
        ({"shots": (4, 4)}, "different numbers"),
        ({"shots": (-1,)}, "different numbers"),
        ({"shots": ()}, "different numbers"),
        ({"sources": ()}, "'spot' needs sources"),
        ({"methods": ("sopt",)}, "unknown method"),
    ],
)
def test_impossible_experiments_are_refused(world, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        world.experiment(tmp_path, **changes)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage("t", "target"), (100, 10, 0.3, "embedding_rms")),
        (Stage("t", "target", part=(0.25, 1.0), rate=0.1), (75, 8, 0.03, "embedding_rms")),
        (Stage("t", "target", rate=0.001, absolute_rate=True), (100, 10, 0.001, "absolute")),
        (Stage("t", "target", steps=50), (50, 5, 0.3, "embedding_rms")),
        (Stage("t", "target", steps=30_000), (30_000, 10, 0.3, "embedding_rms")),
    ],
)
def test_a_stage_has_steps_and_a_rate_of_its_own(world, tmp_path, stage, expected):
    budget = toy.budget(100, learning_rate=0.3, warmup_steps=10)
    spent = world.experiment(tmp_path, target=budget).stage_budget(stage)
    optimizer = spent.optimizer
    assert (spent.steps, optimizer.warmup_steps, optimizer.unit) == (*expected[:2], expected[3])
    assert optimizer.learning_rate == pytest.approx(expected[2])


def test_budgets_by_name(world, tmp_path):
    config = world.experiment(tmp_path)
    assert config.budget("target") is config.target
    assert config.budget("target", 16) is config.few_shot
    assert config.budget("fine_tuning", 16) is config.fine_tuning_few_shot
    assert config.budget("probe", 16) is config.probe
    with pytest.raises(ConfigError, match="unknown budget 'few_shot'"):
        config.budget("few_shot")


# What a dead run leaves


def test_diverged_replica_has_no_result(world, tmp_path, pretender):
    target = world.tasks["one"]
    pretender.dead = {("prompt_tuning: target, all rows", f"{target} seed=0")}
    config = world.experiment(
        tmp_path, targets=(target,), methods=("prompt_tuning",), shots=(0,), sources=()
    )
    report = run(config, world.lm, show=False, say=lambda line: None)
    values = {(r.seed, r.split): r.value for r in report.findings.run.rows}
    assert math.isnan(values[0, "dev"])
    assert math.isnan(values[0, "test"])
    assert math.isfinite(values[1, "test"])
    assert report.findings.rows[0].summaries["prompt_tuning"].failed == 1
    assert "(1 failed)" in (report.folder / "summary.md").read_text()
    assert [key.seed for key in results.read_items(report.folder / "items.npz")] == [1]


def test_failing_report_page_loses_no_results(world, tmp_path, pretender, monkeypatch):
    def fail(findings, path):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr("prompt_jax.report.page.write", fail)
    target = world.tasks["one"]
    config = world.experiment(
        tmp_path, targets=(target,), methods=("prompt_tuning",), shots=(0,), sources=()
    )
    said: list[str] = []
    report = run(config, world.lm, show=False, say=said.append)
    assert said[-1] == (
        f"  warning: {report.folder / 'report.html'} was not made: RuntimeError('no\\nfont')"
    )
    assert (report.folder / "summary.md").is_file()
    assert report.findings.rows


# Small things
