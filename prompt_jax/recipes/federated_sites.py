"""The sites of one process: a population in which each replica has the rows of its own task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from prompt_jax.data.tasks import Task
from prompt_jax.evaluation import Evaluation, Job
from prompt_jax.methods import PromptTuning
from prompt_jax.models.base import LanguageModel
from prompt_jax.prompts import parse
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.outcomes import Cost, Outcome
from prompt_jax.recipes.rows import RowStore, TaskRows
from prompt_jax.run_key import RunKey
from prompt_jax.training.deployed import evaluate_runs
from prompt_jax.training.population import Population
from prompt_jax.training.tracking import NullTracker
from prompt_jax.training.types import Replica, TrainConfig, TrainedReplica

METHOD = "federated"
"""Names the prompts of a federation in files."""


def budget_of(config: ExperimentConfig) -> TrainConfig:
    """The budget of every site: that of prompt tuning on a target."""
    budget = config.stage_budget(PromptTuning().stages()[0], config.shots[0])
    assert budget is not None
    return budget


class LocalSites:
    """The sites of this process, in the order of `names`, for one seed.

    Args:
      lm: the frozen model.
      config: the experiment; its one k is that of all sites.
      names: targets of the sites, as the config names them.
      seed: of the initial prompt, which all sites share, and of the rows.
      rows: of their tasks.
      mesh: rows are split over its 'data' axis.

    Attributes:
      initial: the prompt that vectors are differences from, [L, D] float32.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: ExperimentConfig,
        names: Sequence[str],
        seed: int,
        rows: RowStore,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        self.lm, self.names, self.mesh = lm, tuple(names), mesh
        self.budget, k = budget_of(config), config.shots[0]
        start = parse(config.prompt.init)(lm, config.prompt.tokens, seed)
        self.initial, self._record = np.asarray(start.embeddings, np.float32), start.record
        method = PromptTuning().stages()[0].trains
        assert method is not None
        self._method = method
        self._rows: list[TaskRows] = [rows.rows(name, seed, k) for name in names]
        replicas = [
            Replica(
                RunKey(METHOD, METHOD, name, k, seed),
                rows.feed(name, seed, k, self.budget.batch_size, "order"),
                {"prompt": self.initial},
                {},
                part.dev if len(part.dev) else None,
                part.task.metrics,
            )
            for name, part in zip(names, self._rows, strict=True)
        ]
        self._population = Population(lm, self._method, replicas, self.budget, mesh)
        self._tracker = NullTracker()

    def vectors(self) -> np.ndarray:
        """The sites' task vectors, [sites, L, D] float32."""
        return self._prompts() - self.initial

    def move(self, changes: Mapping[int, np.ndarray]) -> None:
        """Adds to the prompts of some sites.

        Args:
          changes: [L, D] by place of the site.
        """
        if not changes:
            return
        prompts = self._prompts()
        for place, change in changes.items():
            prompts[place] += change
        population = self._population
        params = population.put({"prompt": prompts})
        population.state = population.state._replace(params=params)

    def train(self, begin: int, end: int, up: np.ndarray) -> None:
        """Steps `begin` ... `end` - 1 of the sites that are up, bool [sites]."""
        population = self._population
        stopped = population.folded.copy()  # early, by the budget's patience
        population.folded = stopped & up
        for step in range(begin, end):
            if population.active.any():
                population.step(step)
        population.folded = stopped

    def evaluate(self, begin: int, end: int, up: np.ndarray) -> None:
        """Evaluates the development sets of the sites that are up, if it is due.

        Args:
          begin: step before the round.
          end: step after it; 0: the start.
          up: bool [sites].
        """
        every = self.budget.eval_every or self.budget.steps
        if end and end != self.budget.steps and begin // every == end // every:
            return
        population = self._population
        away = population.folded & ~up
        population.folded &= ~away
        population.evaluate(end, self._tracker)
        population.folded |= away

    def results(self, tested: np.ndarray) -> list[tuple[Task, Outcome]]:
        """The task and the prompt of every site, at its best step.

        Args:
          tested: bool [sites], which are evaluated on their test rows.
        """
        trained = self._population.results()
        places = np.flatnonzero(tested).tolist()
        params = {"prompt": np.stack([replica.params["prompt"] for replica in trained])}
        found = evaluate_runs(
            self.lm,
            self._method,
            params,
            {},
            [Job(self._rows[place].test, place) for place in places],
            [self._rows[place].task.metrics for place in places],
            self.mesh,
        )
        tests = dict(zip(places, found, strict=True))
        return [
            (part.task, self._outcome(replica, tests.get(place)))
            for place, (part, replica) in enumerate(zip(self._rows, trained, strict=True))
        ]

    def last_vector(self, key: RunKey, vector: np.ndarray, step: int) -> Outcome:
        """The prompt of a lost site, by the newest vector that came of it.

        Args:
          key: names the site.
          vector: [L, D].
          step: that it is from.
        """
        prompt = self.initial + vector
        nan = float("nan")
        trained = TrainedReplica(
            key, {"prompt": prompt}, prompt, step, nan, (), step, 0, 0, 0, healthy=True
        )
        return self._outcome(trained, None)

    def _outcome(self, trained: TrainedReplica, test: Evaluation | None) -> Outcome:
        empty = Evaluation({}, np.zeros(0, np.int64), {}, 0)
        return Outcome(
            trained.key,
            trained,
            test or empty,
            Cost(),
            int(self.initial.size),
            1,
            learning_rate=self.budget.optimizer.learning_rate,
            start=self._record,
        )

    def _prompts(self) -> np.ndarray:
        return np.array(jax.device_get(self._population.state.params["prompt"]))
