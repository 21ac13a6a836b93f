"""The five-line form: one target, one method, the best seed's prompt in hand."""

from __future__ import annotations

import numpy as np
import pytest

import prompt_jax as pj
from prompt_jax.data import definition, registry
from prompt_jax.errors import ConfigError
from prompt_jax.recipes.transfer import transfer


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


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("full_fine_tuning", "leaves no prompt"),
        ("spt(slots=6)", "a prompt for every template, not one"),
        ("spt(slots=6,transfer=zero_shot)", "a prompt for every template, not one"),
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
