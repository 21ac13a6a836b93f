"""The studies: their configs, what they declare, and that archived runs are theirs."""

from __future__ import annotations

import importlib
import json
import tarfile
from pathlib import Path

import pytest

from experiments import bmtpt, suites
from experiments.suites import CONTRARY, RELATED, SANDBOX
from prompt_jax.config import load_config, to_dict
from prompt_jax.configs import glue_superglue
from prompt_jax.data import registry, sandbox
from prompt_jax.data.registry import RESERVED
from prompt_jax.errors import ConfigError
from prompt_jax.methods import REGISTRY, create
from prompt_jax.training.types import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = ROOT / "docs" / "results" / "archives"
STUDIES = {
    name: importlib.import_module(f"experiments.{name}")
    for name in ("baselines", "bmtpt", "compare", "dtvg", "rates", "real_lm", "spt", "vectors")
}
EVERY = {
    (name, *key): study.get_config(*key) for name, study in STUDIES.items() for key in study.STUDY
}
BY_NAME = {config.name: config for config in EVERY.values()}
DECLARED = {key: config for key, config in EVERY.items() if config.questions}
FIVE_SEEDS = {
    "sandbox_dtvg_rates",
    "sandbox_dtvg_second_rates",
    "real_dtvg",
    "real_dtvg_ablations",
    "real_dtvg_released",
    "real_bmtpt",
    "real_bmtpt_ablations",
    "spt_real_text",
}


# What the commands of docs/results/smollm2.md set: one seed in bfloat16, at a rate of each method.
RATES = {
    f"smollm2_{name}.tar.gz": rate
    for name, rate in {
        "rates_low": 0.1,
        "rates_high": 0.3,
        "prompt_tuning": 0.3,
        "spot": 0.1,
        "dtvg": 0.3,
        "mpt": 0.1,
    }.items()
}


def test_studies_name_their_experiments_apart():
    assert len(BY_NAME) == len(EVERY) == 35
    assert len(DECLARED) == 28


@pytest.mark.parametrize("key", DECLARED, ids="-".join)
def test_study_declares_questions_that_its_runs_can_answer(key):
    name, *variant = key
    config = DECLARED[key]
    config.check_tasks()
    if name == "real_lm":  # what others have trained that model on is not known
        assert config.seeds == 3
    else:
        assert set(config.targets) - set(config.sources) <= RESERVED
        assert config.seeds == (5 if config.name in FIVE_SEEDS else 10)
    known = {spec for other in EVERY.values() for spec in other.specs}
    primary, *others = (question.role for question in config.questions)
    assert primary == "primary"
    assert "primary" not in others
    for question in config.questions:
        assert question.a != question.b
        # The other method may be of another experiment.
        assert question.a in config.specs
        assert question.b in known
        assert set(question.targets) <= set(config.targets)
        for target in question.targets or config.targets:
            names = {template.name for template in registry.get(target).templates}
            assert set(question.templates) <= names
    assert len(set(config.questions)) == len(config.questions)
    make = STUDIES[name].STUDY[tuple(variant)]
    assert "Primary contrast, declared before any run" in " ".join(make.__doc__.split())


@pytest.mark.slow
@pytest.mark.parametrize("key", EVERY, ids="-".join)
def test_study_loads_by_its_address(key):
    name, variant, suite = key
    file = ROOT / "experiments" / f"{name}.py"
    assert load_config(f"{file}:{variant}", [f"suite={suite}"]) == EVERY[key]
    changed = load_config(str(file), [f"variant={variant}", f"suite={suite}", "seeds=2"])
    assert (changed.name, changed.seeds) == (EVERY[key].name, 2)


@pytest.mark.parametrize(
    ("name", "assignments", "message"),
    [
        ("dtvg.py:ablation", (), "'variant' must be one of .* Did you mean 'ablations'"),
        ("dtvg.py", ("suite=reel",), "'suite' must be one of sandbox, real, .* mean 'real'"),
        ("dtvg.py:rates", ("suite=real",), "no variant 'rates' with suite=real; there is main"),
        ("dtvg.py:main", ("variant=rates",), "'variant' of the config .* more than once"),
        ("dtvg.py", ("suites=real",), "unknown option 'suites'"),
    ],
)
def test_study_refuses_what_it_does_not_have(name, assignments, message):
    with pytest.raises(ConfigError, match=message):
        load_config(str(ROOT / "experiments" / name), assignments)


@pytest.mark.parametrize("path", sorted(ARCHIVES.glob("*.tar.gz")), ids=lambda path: path.stem)
def test_archived_run_has_the_config_of_its_study(path):
    """Parts of an experiment were run under other names and with some of the methods or targets."""
    with tarfile.open(path) as archive:
        stream = archive.extractfile("config.json")
        assert stream is not None
        archived = json.loads(stream.read())
    matching = [name for name in BY_NAME if path.name.startswith(name)]
    config = to_dict(BY_NAME[max(matching, key=len)])
    # Where and how a run is executed does not belong to the experiment, nor do unused budgets.
    free = {"name", "out", "population", "mesh", "checkpoint_seconds", "checkpoint_keep"}
    if path.name in RATES:
        config |= {"dtype": "bfloat16", "seeds": 1}
        config["few_shot"]["optimizer"]["learning_rate"] = RATES[path.name]
    stages = (stage for spec in archived["methods"] for stage in create(spec).stages())
    if all(stage.budget != "fine_tuning" or stage.part == (0.0, 0.0) for stage in stages):
        free |= {"fine_tuning", "fine_tuning_few_shot"}
    for part in ("methods", "targets"):
        assert set(archived[part]) <= set(config[part])
    defaults = to_dict(TrainConfig())  # of options that are younger than the archive
    for field in set(archived) & set(config) - free - {"methods", "targets", "data"}:
        then = archived[field]
        assert ({**defaults, **then} if isinstance(then, dict) and "steps" in then else then) == (
            config[field]
        ), field
    for field in set(archived["data"]) - {"root", "cache"}:
        assert archived["data"][field] == config["data"][field], field


def test_methods_whose_calibration_is_compared():
    for name in ("sandbox_bmtpt_priors", "real_bmtpt_ablations"):
        config = BY_NAME[name]
        (question,) = (q for q in config.questions if q.role == "calibration")
        assert {question.a, question.b} < set(config.specs)
        assert create(question.a).target == "average"
        assert create(question.b).target == "zero_shot"


@pytest.mark.slow
def test_every_experiment_is_listed():
    page = (ROOT / "docs" / "experiments.md").read_text("utf-8")
    for name, variant, suite in EVERY:
        default = STUDIES[name].get_config().name == EVERY[name, variant, suite].name
        address = f"{name}.py" if variant == "main" or default else f"{name}.py:{variant}"
        assert f"`{address}`" in page, address
    for path in (ROOT / "experiments" / "analysis").glob("[a-z]*.py"):
        assert f"experiments.analysis.{path.stem}" in page, path.stem


def test_questions_about_real_text_can_be_answered():
    """What a question asks under one template is asked of one task: templates are a task's own."""
    config = BY_NAME["spt_real_text"]
    assert config.data.test_templates == "all"
    held_out = [question for question in config.questions if question.templates]
    assert [len(question.targets) for question in held_out] == [1] * 4
    assert {registry.get(name).metrics[0] for name in config.targets} == {"accuracy"}


@pytest.mark.parametrize(
    ("name", "count"),
    [("sandbox_bmtpt", 7), ("sandbox_bmtpt_repulsion", 10), ("real_bmtpt", 7)],
)
def test_baselines_of_bmtpt_take_as_many_gradients(name, count):
    """BMTPT's baselines take as many gradients of as many rows as its particles."""
    config = BY_NAME[name]
    spent = {}
    for spec in config.specs:
        method = create(spec)
        for stage in method.stages():
            if stage.on == "mixture":
                budget, trainer = config.stage_budget(stage), stage.trains
                views = 1 if trainer.per_view_batches else trainer.views
                rows = budget.steps * budget.batch_size * views
                spent[spec] = rows / (config.source.steps * config.source.batch_size)
    assert len(spent) == count
    ten = {bmtpt.TEN, bmtpt.TEN_LONGER, bmtpt.TEN_LARGER, bmtpt.TEN_INDEPENDENT}
    for spec, passes in spent.items():
        assert passes == (1 if spec == bmtpt.ONE else 10 if spec in ten else 5), spec


def test_sandbox_has_related_and_contrary_targets():
    assert set(RELATED) | set(CONTRARY) <= set(SANDBOX.targets)
    assert len(SANDBOX.sources) == 6
    assert len(SANDBOX.targets) >= 12


def test_spec_writes_options_as_methods_read_them():
    text = suites.spec("prompt_tuning", steps=2, rates=(1, 0.3))
    assert create(text) == type(create(text))(steps=2, rates=(1.0, 0.3))
    text = suites.spec("dtvg", target_vector=False)
    assert create(text) == type(create(text))(target_vector=False)


def test_the_papers_table_has_their_methods_metrics_and_protocol():
    config = glue_superglue.get_config()
    published = {name for name, kind in REGISTRY.items() if kind.status != "our extension"}
    # Two are stages of others; the full form of SPT has no frozen model; SMoP has no sources.
    stages = {"bmtpt_particles", "mpt_tasks"}
    ours = {create(spec).name for spec in config.specs}
    assert published - stages - {"spt_full", "smop"} == ours
    assert config.specs[0] == "prompt_tuning"
    assert (config.model, config.data.protocol) == ("t5-base", "attempt")
    assert set(config.sources) == set(registry.PAPER_SOURCES)
    assert [len(group.targets) for group in config.target_groups] == [8, 5]
    metrics = {name: registry.get(name).metrics for name in config.targets}
    assert metrics["glue/stsb"] == ("pearson", "spearman")
    assert metrics["glue/mrpc"] == metrics["glue/qqp"] == ("accuracy", "f1")
    assert metrics["glue/cola"][0] == "matthews"
    assert metrics["super_glue/multirc"][0] == "multirc_f1a"
    others = {name: m for name, m in metrics.items() if m[0] == "accuracy"}
    assert len(others) == 10
    # As released for T5: 0.3 in stage 1, 0.001 in stage 2.
    stage = create("dtvg(rates=released_t5)").stages()[-1]
    optimizer = config.stage_budget(stage).optimizer
    assert (optimizer.unit, optimizer.learning_rate) == ("absolute", pytest.approx(1e-3))


def test_experiment_without_questions_declares_none():
    undeclared = [config.name for config in EVERY.values() if not config.questions]
    without = {"real_text", "glue_superglue", "compare_smoke", "spt_t0"}
    assert set(undeclared) == without | {"sandbox_rates", "smollm2_rates", "smollm2_smoke"}


def test_rates_are_chosen_on_development_targets_with_equal_trials():
    config = BY_NAME["sandbox_rates"]
    assert not set(config.targets) & set(sandbox.HELD_OUT)
    assert len(config.targets) == 6
    assert config.first_seed == 100
    compared = set(BY_NAME["compare_sandbox"].specs)
    assert compared - set(config.specs) == {suites.LONG, suites.TUNED, "full_fine_tuning"}
    stages = [stage for m in config.method_objects for stage in m.stages() if stage.on == "target"]
    assert all(len(stage.rates) <= 1 for stage in stages)


def test_every_registered_method_is_compared():
    config = BY_NAME["compare_smoke"]
    assert config.specs == tuple(kind().spec for kind in REGISTRY.values())
    assert (len(config.targets), config.seeds) == (2, 1)
