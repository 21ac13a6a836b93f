"""The fitness study: which replicas it trains, what they start from, and what it reuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.analysis.fitness import FitnessConfig, Study, judge, show
from prompt_jax.data import sandbox
from prompt_jax.evaluation import Evaluation
from prompt_jax.recipes import stages
from prompt_jax.training.types import TrainedReplica

TARGET = "sandbox/sentiment_talk"


def _moved(task: str) -> np.float32:
    return np.float32(1 + sum(map(ord, task)) % 97)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """Nothing is trained: prompts move by `_moved`; the score of a row is its prompt's mean."""
    replicas: dict[Any, Any] = {}

    def train(lm: Any, method: Any, runs: Any, config: Any, **_: Any) -> list[TrainedReplica]:
        made = []
        for run in runs:
            replicas[run.key] = run
            moved = _moved(run.key.task)
            params = jax.tree.map(lambda x, moved=moved: np.asarray(x) + moved, run.params)
            prompt = params["prompt"]
            made.append(
                TrainedReplica(run.key, params, prompt, 1, 0.5, ((1, 0.5),), 1, 1, 1, 1, True)
            )
        return made

    def evaluate(
        lm: Any, method: Any, params: Any, consts: Any, jobs: Any, metrics: Any, mesh: Any
    ) -> list[Evaluation]:
        values = [float(params["prompt"][job.prompt].mean()) for job in jobs]
        return [
            Evaluation(
                dict.fromkeys(names, value),
                np.zeros(len(job.split), np.int64),
                {names[0]: np.full(len(job.split), value, np.float32)},
                0,
            )
            for job, value, names in zip(jobs, values, metrics, strict=True)
        ]

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(stages, "evaluate_runs", evaluate)
    return replicas


def test_no_interval_leaves_the_range_of_accuracy(tmp_path: Path) -> None:
    """Two seeds that differ much support none: neither in the file nor in what is printed."""
    config = FitnessConfig(out=str(tmp_path), model="mini", tasks=False, targets=(TARGET,))
    sources, target = sandbox.SOURCES[:2], next(t for t in sandbox.TARGETS if t.name == TARGET)
    study = SimpleNamespace(config=config, sources=sources, targets=(target,))
    halves = np.zeros((2, 20)), np.stack([np.ones(20), np.zeros(20)])
    found = {f"scratch {TARGET}": halves[0]}
    found |= {f"from {source.name} {TARGET}": halves[1] for source in sources}
    result = judge(study, found)
    assert [pair["difference"] for pair in result["pairs"].values()] == [0.5, 0.5]
    assert all(np.isnan([pair["low"], pair["high"]]).all() for pair in result["pairs"].values())
    lines: list[str] = []
    show(
        result
        | {"tasks": {}, "pairs": {k: {**v, "found": "helps"} for k, v in result["pairs"].items()}},
        lines.append,
    )
    assert sum("[no interval: too few seeds]" in line for line in lines) == 2


@pytest.mark.slow
def test_pairs_of_one_target(tmp_path, trained) -> None:
    config = FitnessConfig(
        out=str(tmp_path), model="mini", seeds=2, draws=2, tasks=False, targets=(TARGET,)
    )
    said: list[str] = []
    study = Study(config, said.append)
    items = study.run()
    sources = [task.name for task in study.sources]
    assert len(trained) == len(sources) * 2 + 4 * (1 + len(sources))
    assert set(items) == {
        *(f"full {name}" for name in sources),
        f"scratch {TARGET}",
        *(f"from {name} {TARGET}" for name in sources),
    }
    for key, replica in trained.items():
        if key.stage.startswith("from"):
            (source,) = [
                other
                for other in trained.values()
                if other.key.task == key.stage.removeprefix("from ")
                and other.key.seed == key.seed % 1000
            ]
            np.testing.assert_array_equal(
                replica.params["prompt"], source.params["prompt"] + _moved(source.key.task)
            )
    scratch = items[f"scratch {TARGET}"]
    assert scratch.shape == (2, len(study.rows.rows(TARGET, 0, config.k).test))
    expected = [
        np.mean([replica.params["prompt"].mean() + _moved(TARGET) for replica in each])
        for each in (
            [r for r in trained.values() if r.key.stage == "scratch" and r.key.seed % 1000 == seed]
            for seed in (0, 1)
        )
    ]
    np.testing.assert_allclose(scratch[:, 0], expected, rtol=1e-4)
    assert set(judge(study, items)["pairs"]) == {f"{name} -> {TARGET}" for name in sources}

    trained.clear()
    again = Study(config, said.append).run()
    assert not trained
    for name, values in items.items():
        np.testing.assert_array_equal(again[name], values)
    assert "scratch: 4 replicas, 4 reused" in said[-len(sources) - 1]
