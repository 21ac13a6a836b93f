"""The experiments on the sandbox and on real text: their configs, and what they declare."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from experiments.sandbox_protocol import CONTRARY, RELATED, SOURCES, TARGETS, Question
from prompt_jax.data import registry
from prompt_jax.data.registry import RESERVED
from prompt_jax.methods import create
from prompt_jax.recipes import ExperimentConfig

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "sandbox_tuned",
    "sandbox_dtvg",
    "sandbox_dtvg_rates",
    "sandbox_dtvg_ablations",
    "sandbox_starts",
    "sandbox_vectors",
    "sandbox_vectors_tuned",
    "sandbox_bmtpt",
    "sandbox_bmtpt_repulsion",
    "sandbox_bmtpt_priors",
    "sandbox_spt",
    "sandbox_spt_tuned",
    "sandbox_spt_temperature",
    "sandbox_spt_full",
    "sandbox_spt_full_tuned",
    "real_dtvg",
    "real_dtvg_ablations",
    "real_bmtpt",
    "real_bmtpt_ablations",
    "spt_real_text",
]
FIVE_SEEDS = {
    "sandbox_dtvg_rates",
    "real_dtvg",
    "real_dtvg_ablations",
    "real_bmtpt",
    "real_bmtpt_ablations",
    "spt_real_text",
}


def load(name: str) -> tuple[ExperimentConfig, Question, tuple[Question, ...]]:
    made = runpy.run_path(str(ROOT / "experiments" / f"{name}.py"))
    return made["get_config"](), made["PRIMARY"], made["SECONDARY"]


@pytest.fixture(scope="module")
def every() -> dict[str, tuple[ExperimentConfig, Question, tuple[Question, ...]]]:
    return {name: load(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_config_and_questions(every, name):
    config, primary, secondary = every[name]
    config.check_tasks()
    assert config.name == name
    assert set(config.targets) - set(config.sources) <= RESERVED
    assert config.seeds == (5 if name in FIVE_SEEDS else 10)
    known = {spec for other, *_ in every.values() for spec in other.methods}
    for question in (primary, *secondary):
        assert question.a != question.b
        # The other line may be of another experiment.
        assert question.a in config.methods
        assert question.b in known
        assert set(question.targets) <= set(config.targets)
        for target in question.targets or config.targets:
            names = {template.name for template in registry.get(target).templates}
            assert set(question.templates) <= names
    assert len(set(secondary)) == len(secondary)
    assert "Primary contrast, declared before any run" in runpy.run_path(
        str(ROOT / "experiments" / f"{name}.py")
    )["__doc__"].replace("\n", " ")


def test_lines_whose_calibration_is_compared():
    made = runpy.run_path(str(ROOT / "experiments" / "sandbox_bmtpt_priors.py"))
    assert set(made["CALIBRATED"]) < set(made["get_config"]().methods)
    assert [create(spec).target for spec in made["CALIBRATED"]] == ["average", "zero_shot"]


def test_every_experiment_is_listed(every):
    page = (ROOT / "docs" / "experiments.md").read_text("utf-8")
    for path in (ROOT / "experiments").glob("*.py"):
        if path.stem not in ("__init__", "sandbox_protocol"):
            assert path.stem in page, path.stem


def test_questions_about_real_text_can_be_answered(every):
    """What a question asks under one template is asked of one task: templates are a task's own."""
    config, *questions = every["spt_real_text"]
    assert config.data.test_templates == "all"
    asked = [questions[0], *questions[1]]
    held_out = [question for question in asked if question.templates]
    assert [len(question.targets) for question in held_out] == [1] * 4
    assert {registry.get(name).metrics[0] for name in config.targets} == {"accuracy"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [("sandbox_bmtpt", 7), ("sandbox_bmtpt_repulsion", 10), ("real_bmtpt", 7)],
)
def test_equal_gradients(name, lines):
    """BMTPT's lines of comparison take as many gradients of as many rows as its particles."""
    config, _, _ = load(name)
    spent = {}
    for spec in config.methods:
        method = create(spec)
        for stage in method.stages():
            if stage.on == "mixture":
                budget, trainer = config.stage_budget(stage), create(stage.trains)
                views = 1 if trainer.per_view_batches else trainer.views
                rows = budget.steps * budget.batch_size * views
                spent[spec] = rows / (config.source.steps * config.source.batch_size)
    assert len(spent) == lines
    ten = {"spot(variant=mixture,steps=10)", "spot(variant=mixture,batch=10)"}
    for spec, passes in spent.items():
        many = 10 if "particles=10" in spec or spec in ten else 5
        assert passes == (1 if "particles=1," in spec else many), spec


def test_what_the_suite_expects_of_targets():
    assert set(RELATED) | set(CONTRARY) <= set(TARGETS)
    assert len(SOURCES) == 6
    assert len(TARGETS) >= 12
