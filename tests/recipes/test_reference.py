"""The lines that results are held against: constant answers and the model without a prompt."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from prompt_jax.data import Example, registry
from prompt_jax.evaluation import Evaluation
from prompt_jax.recipes import reference
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.stages import StageRunner
from prompt_jax.run_key import RunKey


class Rows(SimpleNamespace):
    """The part of a split that is read without a model."""

    def __len__(self):
        return len(self.label)


def rows(labels, candidates=("a", "b", "c")):
    examples = [Example("", candidates[y], y, candidates, (candidates[y],)) for y in labels]
    return Rows(label=np.array(labels, np.int32), examples=examples)


def test_the_majority_class_is_that_of_the_test_rows():
    task = SimpleNamespace(
        kind="classification", labels=("x", "y", "z"), metrics=("accuracy", "macro_f1")
    )
    line = reference.constant("t", task, rows([2, 1, 2, 0, 1, 2, 2, 0]))
    assert (line.kind, line.target, line.answer) == ("majority", "t", "z")
    # z: precision 1/2, recall 1, so F1 2/3; the others 0
    assert line.metrics == pytest.approx({"accuracy": 0.5, "macro_f1": 2 / 9})


def test_a_choice_has_chance_whichever_position_is_right():
    task = SimpleNamespace(kind="choice", labels=(), metrics=("accuracy",))
    examples = [*rows([0, 0], ("a", "b")).examples, *rows([0], ("a", "b", "c", "d")).examples]
    test = Rows(label=np.zeros(3, np.int32), examples=examples)
    line = reference.constant("t", task, test)
    assert (line.kind, line.answer) == ("chance", "")
    assert line.metrics["accuracy"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)


def test_generated_answers_have_no_constant_line():
    for kind in ("span", "text", "regression"):
        assert reference.constant("t", SimpleNamespace(kind=kind), rows([0])) is None
    task = registry.get("glue/rte")
    assert reference.constant("t", task, rows([])) is None


def test_a_run_that_answers_one_class():
    task = SimpleNamespace(kind="classification", labels=("x", "y", "z"))
    test, key = rows([0, 1, 2, 1]), RunKey("m", "target", "t", 4, 0)

    def of(predictions, healthy=True):
        evaluation = Evaluation({}, predictions, {}, 0, ties=3)
        trained = SimpleNamespace(healthy=healthy, history=((0, 0.5), (10, np.float32(0.75))))
        return reference.tested(key, SimpleNamespace(test=evaluation, trained=trained), task, test)

    found = of(np.array([1, 1, 1, 1]))
    assert (found.answer, found.share, found.gold, found.ties) == ("y", 1.0, 0.5, 3)
    assert found.history == ((0, 0.5), (10, 0.75))
    assert found.one_class
    assert not of(np.array([0, 1, 1, 2])).one_class
    assert of(np.array([-1] * 4), healthy=False).answer == ""
    assert of(["a", "b", "c", "d"]).answer == ""


def test_the_model_without_a_prompt_is_evaluated_once(world, tmp_path, monkeypatch):
    config = world.experiment(tmp_path)
    asked = []

    def evaluate(lm, jobs, state=None, *, metrics, mesh=None):
        assert state is None
        asked.extend(job.split.name for job in jobs)
        return [
            Evaluation(dict.fromkeys(names, 0.25), np.zeros(len(job.split), np.int64), {}, 0)
            for job, names in zip(jobs, metrics, strict=True)
        ]

    monkeypatch.setattr(reference, "evaluate", evaluate)
    for _ in range(2):
        store = RowStore(config.data, world.lm.tokenizer, None)
        runner = StageRunner(world.lm, ArtefactStore(tmp_path / "runs"))
        lines = reference.lines(config, store, runner)
        assert [(line.kind, line.target) for line in lines] == [
            ("majority", config.targets[0]),
            ("majority", config.targets[1]),
            ("no_prompt", config.targets[0]),
            ("no_prompt", config.targets[1]),
        ]
        assert lines[3].metrics == {"f1": 0.25, "accuracy": 0.25}
        assert lines[0].metrics == {"accuracy": 0.5}
        assert asked == ["one", "two"]
    # Other test rows are another question.
    fewer = dataclasses.replace(config.data, test_rows=8)
    reference.lines(config, RowStore(fewer, world.lm.tokenizer, None), runner)
    assert len(asked) == 4
