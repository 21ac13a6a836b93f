"""Runs a stage in steps that return data: resolve what is known, train the rest, test it.

    runner = StageRunner(lm, ArtefactStore(folder))
    known = runner.resolve(job)                        # what is stored, what is unfinished
    for population in known.missing:
        trained = runner.train(job, known, population)
        tests = runner.test(job, trained)
        runner.keep(job, known, trained, tests)

`StageRunner.run` is these lines. Nothing here depends on an experiment or a published method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.arrays import fields_repr
from prompt_jax.config import digest
from prompt_jax.evaluation import Job as Evaluated
from prompt_jax.models.base import LanguageModel
from prompt_jax.recipes.artefacts import ArtefactStore, TestResult, run_key
from prompt_jax.recipes.rows import TaskRows
from prompt_jax.recipes.unfinished import Unfinished
from prompt_jax.run_key import RunKey
from prompt_jax.training.deployed import evaluate_runs
from prompt_jax.training.fingerprint import describe_feed, is_storable, split_hash
from prompt_jax.training.loop import train
from prompt_jax.training.population import development_values
from prompt_jax.training.protocol import Method
from prompt_jax.training.tracking import NullTracker, Tracker
from prompt_jax.training.types import Replica, TrainConfig, TrainedReplica

_NAMED = 4  # replicas that one line names


@dataclass(frozen=True, eq=False)
class StageJob:
    """The replicas of a stage.

    Attributes:
      label: of the stage, for people and logs.
      method: what trains them.
      replicas: by their keys, with equal parameter shapes.
      budget: None: no step is taken, replicas are evaluated as they start.
      tests: rows of the replicas that are evaluated on test rows. Weights of the model that such a
        replica has trained are not kept, its test result is.
      place: names the stage within its experiment, where its label does not; to resume it.
    """

    label: str
    method: Method
    replicas: Mapping[RunKey, Replica]
    budget: TrainConfig | None
    tests: Mapping[RunKey, TaskRows] = field(default_factory=dict)
    place: str = ""

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class Resolved:
    """What is known of a job before anything is computed.

    Attributes:
      keys: under which each replica is stored.
      trained: replicas that were trained before.
      tests: their test results, as far as they are known.
      missing: populations that have to be trained, those that were begun first.
    """

    keys: Mapping[RunKey, str]
    trained: Mapping[RunKey, TrainedReplica]
    tests: Mapping[RunKey, TestResult]
    missing: Sequence[Sequence[RunKey]]

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class StageResult:
    """A finished stage, in the order of the job's replicas.

    Attributes:
      trained: every replica; without parameters where they are not kept.
      tests: the test results that the job has asked for.
      reused: how many replicas were not trained now.
    """

    trained: dict[RunKey, TrainedReplica]
    tests: dict[RunKey, TestResult]
    reused: int

    __repr__ = fields_repr


class StageRunner:
    """Runs stages for one model; its results are kept in memory.

    Args:
      lm: the frozen model.
      store: of trained replicas and test results.
      tracker: receives the numbers of training.
      mesh: rows, and replicas where it divides their number, are split over its 'data' axis.
      unfinished: where populations that are being trained are remembered.
      population: at most this many replicas are trained together; 0: all of a job.
      on_stored: called in every process when a population is finished and stored.
    """

    def __init__(
        self,
        lm: LanguageModel,
        store: ArtefactStore | None = None,
        *,
        tracker: Tracker | None = None,
        mesh: jax.sharding.Mesh | None = None,
        unfinished: Unfinished | None = None,
        population: int = 0,
        on_stored: Callable[[], None] | None = None,
    ) -> None:
        self.lm, self.mesh, self.population = lm, mesh, population
        self.store = store or ArtefactStore(None)
        self.tracker = tracker or NullTracker()
        self.unfinished = unfinished or Unfinished(None)
        self.on_stored = on_stored
        self._trained: dict[str, TrainedReplica] = {}
        self._tests: dict[str, TestResult] = {}
        self._diverged: set[str] = set()  # keys of replicas whose divergence was reported

    def run(self, job: StageJob) -> StageResult:
        """All steps: whatever of a job is not known is trained and tested, then stored.

        Raises:
          PromptJaxError: as `training.loop.train`, or the store cannot be written.
        """
        known = self.resolve(job)
        trained, tests = dict(known.trained), dict(known.tests)
        untested = {key: x for key, x in trained.items() if key in job.tests and key not in tests}
        if untested:
            tests |= self.test(job, untested)
            self.keep(job, known, untested, tests)
        for population in known.missing:
            new = self.train(job, known, population)
            measured = self.test(job, new)
            trained |= self.keep(job, known, new, measured)
            tests |= measured
        self._report_diverged(job, known, trained)
        return StageResult(
            {key: trained[key] for key in job.replicas},
            {key: tests[key] for key in job.replicas if key in tests},
            len(known.trained),
        )

    def resolve(self, job: StageJob) -> Resolved:
        """What is stored of a job, and which populations have to be trained.

        A population that was begun is trained as a whole, even where some of it is stored: sums
        of floating-point numbers depend on which rows share a micro-batch.
        """
        keys = {
            key: run_key(self.lm, job.method, replica, job.budget, describe_feed(replica.feed))
            for key, replica in job.replicas.items()
        }
        begun = self.unfinished.populations(_place(job), keys) if job.budget else []
        again = {key for population in begun for key in population}
        trained: dict[RunKey, TrainedReplica] = {}
        tests: dict[RunKey, TestResult] = {}
        for key in job.replicas:
            if key in again:
                continue
            stored = self._load(job, key, keys[key])
            if stored is None:
                continue
            trained[key] = stored
            test = self._load_test(job, key, keys[key])
            if test is not None:
                tests[key] = test
            elif key in job.tests and stored.params is None:
                del trained[key]  # without weights there is nothing to test
        rest = [key for key in job.replicas if key not in trained and key not in again]
        return Resolved(keys, trained, tests, [*begun, *self._cut(job, rest)])

    def train(
        self, job: StageJob, known: Resolved, population: Sequence[RunKey]
    ) -> dict[RunKey, TrainedReplica]:
        """Trains a population of a job, from its newest checkpoint if there is one.

        Raises:
          PromptJaxError: as `training.loop.train`.
        """
        replicas = [job.replicas[key] for key in population]
        if job.budget is None:
            made = untrained(self.lm, job.method, replicas, self.mesh)
        else:
            made = train(
                self.lm,
                job.method,
                replicas,
                job.budget,
                stage=job.label,
                mesh=self.mesh,
                tracker=self.tracker,
                checkpoints=self.unfinished.begin(_place(job), population, known.keys),
            )
        return dict(zip(population, made, strict=True))

    def test(
        self, job: StageJob, trained: Mapping[RunKey, TrainedReplica]
    ) -> dict[RunKey, TestResult]:
        """Evaluates replicas on the test rows that the job names for them; all at once."""
        tested = [key for key in trained if key in job.tests]
        if not tested:
            return {}
        params = jax.tree.map(_stacked, *(trained[key].params for key in tested))
        consts = jax.tree.map(_stacked, *(job.replicas[key].consts for key in tested))
        rows = [job.tests[key] for key in tested]
        jobs = [Evaluated(part.test, i) for i, part in enumerate(rows)]
        metrics = [part.task.metrics for part in rows]
        self.tracker.doing("evaluating test rows")
        evaluations = evaluate_runs(self.lm, job.method, params, consts, jobs, metrics, self.mesh)
        self.tracker.doing("")
        # Prompts beside a model that was trained with them are wrong in front of any other.
        by_template = (
            None if job.method.trains_lm else jax.vmap(job.method.template_prompts)(params, consts)
        )
        results = {}
        for i, (key, evaluation) in enumerate(zip(tested, evaluations, strict=True)):
            names = [template.name for template in rows[i].task.templates]
            prompts = () if by_template is None else by_template[i]
            size = sum(np.size(leaf) for leaf in jax.tree.leaves(trained[key].params))
            # Shorter lists of templates are padded at the end.
            named = {
                name: np.asarray(prompt, np.float32)
                for name, prompt in zip(names, prompts, strict=False)
            }
            results[key] = TestResult(evaluation, size, named)
        return results

    def keep(
        self,
        job: StageJob,
        known: Resolved,
        trained: Mapping[RunKey, TrainedReplica],
        tests: Mapping[RunKey, TestResult],
    ) -> dict[RunKey, TrainedReplica]:
        """Stores replicas and their test results; what is returned has no weights of the model.

        Raises:
          ConfigError: the store cannot be written.
        """
        kept = {}
        for key, replica in trained.items():
            name, store = self._place_of(job, key, known.keys[key])
            if _is_weightless(job, key):
                replica = replace(replica, params=None)
            kept[key] = replica
            if key not in known.trained:
                store.save(name, replica)
                if replica.params is None or not job.method.trains_lm:
                    self._trained[name] = replica
            if key in tests:
                name = _test_name(job, key, known.keys[key])
                store.save_test(name, tests[key])
                self._tests[name] = tests[key]
        self.unfinished.end()
        if self.on_stored is not None:
            self.on_stored()
        return kept

    def _load(self, job: StageJob, key: RunKey, stored: str) -> TrainedReplica | None:
        name, store = self._place_of(job, key, stored)
        known = self._trained.get(name) or store.load(name, key)
        return None if known is None else replace(known, key=key)

    def _load_test(self, job: StageJob, key: RunKey, stored: str) -> TestResult | None:
        if key not in job.tests:
            return None
        name = _test_name(job, key, stored)
        store = self._place_of(job, key, stored)[1]
        return self._tests.get(name) or store.load_test(name, key)

    def _place_of(self, job: StageJob, key: RunKey, stored: str) -> tuple[str, ArtefactStore]:
        """Under which name, and where, a replica of a job is stored."""
        if not is_storable(job.method):
            return stored, ArtefactStore(None)
        if not _is_weightless(job, key):
            return stored, self.store
        # Hours of training: without a store, they are kept until the experiment is finished.
        store = self.unfinished.results if self.store.folder is None else self.store
        return digest("without weights", stored), store

    def _cut(self, job: StageJob, keys: list[RunKey]) -> Iterator[list[RunKey]]:
        size = 1 if job.method.trains_lm else self.population or max(1, len(keys))
        for start in range(0, len(keys), size):
            yield keys[start : start + size]

    def _report_diverged(
        self, job: StageJob, known: Resolved, trained: Mapping[RunKey, TrainedReplica]
    ) -> None:
        """Reports diverged replicas in one line, once: the table shows only a missing value."""
        dead = {key for key, replica in trained.items() if not replica.healthy}
        new = [key for key in job.replicas if key in dead and known.keys[key] not in self._diverged]
        self._diverged.update(known.keys[key] for key in dead)
        if new and distributed.is_main():
            names = ", ".join(str(key) for key in new[:_NAMED])
            more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
            logging.getLogger("prompt_jax").warning(
                f"{job.label}: stopped, for the loss, gradient or update was not finite:"
                f" {names}{more}. See metrics.jsonl; lower learning_rate."
            )


def untrained(
    lm: LanguageModel,
    method: Method,
    replicas: Sequence[Replica],
    mesh: jax.sharding.Mesh | None = None,
) -> list[TrainedReplica]:
    """Replicas as they start: deployed and evaluated on their development sets without a step.

    Args:
      lm: the frozen model.
      method: whose replicas these are.
      replicas: with equal parameter shapes.
      mesh: rows are split over its 'data' axis.
    """
    params = jax.tree.map(_stacked, *(replica.params for replica in replicas))
    consts = jax.tree.map(_stacked, *(replica.consts for replica in replicas))
    having = {i: replica for i, replica in enumerate(replicas) if replica.developments}
    found = development_values(lm, method, params, consts, having, mesh)
    values = dict(zip(having, found, strict=True))
    made = []
    for i, replica in enumerate(replicas):
        prompt, value = method.deploy(replica.params, replica.consts), values.get(i, float("nan"))
        made.append(
            TrainedReplica(
                key=replica.key,
                params=replica.params,
                prompt=None if prompt is None else np.asarray(prompt),
                best_step=0,
                best_value=value,
                history=((0, value),) if i in values else (),
                steps=0,
                rows_seen=0,
                tokens_seen=0,
                targets_seen=0,
                healthy=True,
            )
        )
    return made


def _stacked(*leaves: Any) -> np.ndarray:
    return np.stack([np.asarray(leaf) for leaf in leaves])


def _is_weightless(job: StageJob, key: RunKey) -> bool:
    return job.method.trains_lm and key in job.tests


def _place(job: StageJob) -> str:
    return job.place or job.label


def _test_name(job: StageJob, key: RunKey, stored: str) -> str:
    """The key of a replica's test result: of all that it depends on."""
    rows = job.tests[key]
    templates = [template.name for template in rows.task.templates]
    return digest("test", stored, split_hash(rows.test), rows.task.metrics, templates)
