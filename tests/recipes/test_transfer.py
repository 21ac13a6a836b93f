"""The five-line form: one target, one method, the best seed's prompt in hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import prompt_jax as pj
from prompt_jax.data import definition, registry
from prompt_jax.errors import ConfigError
from prompt_jax.recipes.transfer import transfer
from prompt_jax.training.optimizers import OptimizerConfig


@pytest.fixture(autouse=True)
def cache_of_the_test(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_prompt_is_the_best_seed_s(pretender, world, tmp_path):
    stage, task = "spot: target, k = 4", world.tasks["one"]
    pretender.values[stage, f"{task} k=4 seed=1"] = 0.9
    run = transfer(
        world.lm,
        target=task,
        sources=[world.tasks["first"], world.tasks["second"]],
        k=4,
        seeds=3,
        tokens=4,
        steps=2,
        out=str(tmp_path / "run"),
        show=False,
    )
    assert run.prompt.embeddings.shape == (4, world.lm.d_model)
    assert run.prompt.record.seed == 1
    assert (run.prompt.record.method, run.prompt.record.task) == ("spot", "one")
    # What `predict` renders rows with: a task file may be gone by then.
    assert run.prompt.record.config["task_definition"] == definition.to_json(registry.get(task))
    assert run.prompt.record.config["templates"] == "first"
    start = pretender.runs[stage, f"{task} k=4 seed=1"].params["prompt"]
    np.testing.assert_array_equal(run.prompt.embeddings, start + 0.5)
    assert {config.steps for _, _, config in pretender.calls} == {2, 50}  # 50: the probe
    assert run.table().rows[0][:2] == ("k = 4", "spot")
    assert "| k = 4 | spot |" in run.markdown()
    assert (tmp_path / "run" / "results.jsonl").is_file()

    assert repr(run).startswith(f"Transfer(spot, target='{task}', out=")
    assert len(repr(run)) < 500


def test_a_dry_run_is_a_plan_and_trains_nothing(pretender, world, tmp_path, monkeypatch):
    planned = []
    module = sys.modules["prompt_jax.recipes.transfer"]
    monkeypatch.setattr(module, "make_plan", lambda config, lm: planned.append(config) or "a plan")
    task = world.tasks["one"]
    options = {"target": task, "sources": [world.tasks["first"], task], "steps": 7}
    plan = pj.transfer(
        world.lm, **options, learning_rate=0.5, allow_overlap=True, dry_run=True, out="nowhere"
    )
    assert plan == "a plan"
    (config,) = planned
    budgets = (config.source, config.probe, config.target, config.few_shot)
    assert [budget.optimizer.learning_rate for budget in budgets] == [0.5] * 4
    assert [budget.steps for budget in budgets] == [7, 50, 7, 7]
    assert config.allow_overlap
    pj.transfer(world.lm, **options, dry_run=True)
    default = OptimizerConfig().learning_rate
    assert planned[1].target.optimizer.learning_rate == default
    assert not planned[1].allow_overlap
    assert pretender.calls == []


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("full_fine_tuning", "leaves no prompt"),
        ("spt(slots=6)", "a prompt for every template, not one"),
        ("spt(slots=6,transfer=zero_shot)", "a prompt for every template, not one"),
        ("attempt", "attempt leaves a prompt for every row, not one: run it with `prompt-jax run`"),
    ],
)
def test_a_method_without_a_prompt_is_refused(world, tmp_path, method, says):
    with pytest.raises(ConfigError, match=says):
        pj.transfer(
            world.lm,
            target=world.tasks["one"],
            sources=[world.tasks["first"]],
            method=method,
            out=str(tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_prompt_that_was_tuned_from_a_bank(pretender, world, tmp_path):
    run = transfer(
        world.lm,
        target=world.tasks["one"],
        sources=[world.tasks["first"], world.tasks["second"]],
        method="spt(slots=6,tokens=2,transfer=prompt)",
        templates="cycle",
        k=4,
        seeds=2,
        tokens=4,
        steps=2,
        out=str(tmp_path / "run"),
        show=False,
    )
    assert run.prompt.embeddings.shape == (4, world.lm.d_model)
    assert run.config.data.templates == "cycle"
