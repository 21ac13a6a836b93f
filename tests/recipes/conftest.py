"""Executors over the tiny experiment of `world`, and a trainer that only pretends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from world import World

from prompt_jax.evaluation import Evaluation
from prompt_jax.recipes import ExperimentConfig, stages
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.rows import RowStore
from prompt_jax.training import population
from prompt_jax.training.types import TrainedReplica


@pytest.fixture(scope="session")
def world(files: World) -> World:
    """Model, tasks and config; nothing has been run."""
    return files


def name_of(run: Any) -> str:
    """A run within its stage: the stage's label says whether it has all rows."""
    return str(run.key).replace(" all rows", "")


class Pretender:
    """Stands for `train` and `evaluate_runs`: remembers what it was asked and moves nothing much.

    Attributes:
      calls: (stage, names of the runs, budget) of every population.
      values: development value by (stage, name); others get 0.5.
      dead: (stage, name) of runs that die.
      evaluated: how many sets of rows were evaluated.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], Any]] = []
        self.runs: dict[tuple[str, str], Any] = {}
        self.values: dict[tuple[str, str], float] = {}
        self.prompts: dict[tuple[str, str], np.ndarray] = {}
        self.dead: set[tuple[str, str]] = set()
        self.evaluated = 0

    def train(
        self, lm: Any, method: Any, runs: Sequence[Any], config: Any, *, stage: str, **_: Any
    ) -> list[TrainedReplica]:
        self.calls.append((stage, [name_of(run) for run in runs], config))
        assert len({run.key for run in runs}) == len(runs)
        trained = []
        for run in runs:
            name = (stage, name_of(run))
            self.runs[name] = run
            params = jax.tree.map(lambda x: np.asarray(x) + 0.5, run.params)
            if name in self.prompts:
                params = {"prompt": self.prompts[name]}
            rows = config.steps * config.batch_size
            trained.append(
                TrainedReplica(
                    run.key,
                    params,
                    params.get("prompt"),
                    config.steps,
                    self.values.get(name, 0.5),
                    ((config.steps, 0.5),),
                    config.steps,
                    rows,
                    6 * rows,
                    2 * rows,
                    name not in self.dead,
                )
            )
        return trained

    def evaluate_runs(
        self, lm: Any, method: Any, params: Any, consts: Any, jobs: Any, metrics: Any, mesh: Any
    ) -> list[Evaluation]:
        self.evaluated += len(jobs)
        first = jax.tree.leaves(params)[0]
        values = [float(np.asarray(first[job.prompt]).mean()) for job in jobs]
        return [
            Evaluation(
                dict.fromkeys(names, value),
                # Answers are chosen from candidates, or are texts.
                np.zeros(len(job.split), np.int64)
                if job.split.examples[0].candidates
                else [""] * len(job.split),
                {"accuracy": np.full(len(job.split), value, np.float32)},
                0,
            )
            for job, names, value in zip(jobs, metrics, values, strict=True)
        ]

    def steps(self) -> int:
        """Optimizer steps of all runs."""
        return sum(len(names) * config.steps for _, names, config in self.calls)


@pytest.fixture
def pretender(monkeypatch: pytest.MonkeyPatch) -> Pretender:
    made = Pretender()
    monkeypatch.setattr(stages, "train", made.train)
    monkeypatch.setattr(stages, "evaluate_runs", made.evaluate_runs)
    monkeypatch.setattr(population, "evaluate_runs", made.evaluate_runs)
    return made


@pytest.fixture
def executor(world: World, tmp_path: Path) -> Callable[..., Executor]:
    """Makes executors over one cache folder."""

    def make(config: ExperimentConfig | None = None, **changes: Any) -> Executor:
        config = config or world.experiment(tmp_path, **changes)
        cache = None if config.data.cache == "" else Path(config.data.cache)
        rows = RowStore(config.data, world.lm.tokenizer, cache)
        store = ArtefactStore(None if cache is None else cache / "runs")
        runner = stages.StageRunner(world.lm, store, population=config.population)
        return Executor(config, rows, runner)

    return make
