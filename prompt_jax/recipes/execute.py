"""Executes the stages of an experiment's methods, reusing whatever was trained before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.data.feed import Feed
from prompt_jax.evaluation import Calibration, Evaluation, calibration
from prompt_jax.methods import BaseMethod, Context, Stage, as_method, spec_of
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.contexts import ContextMaker, Stages, is_upstream
from prompt_jax.recipes.method_checks import check_method, own_errors
from prompt_jax.recipes.outcomes import Cost, Outcome, cost_of, rank
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.stages import StageJob, StageResult, StageRunner
from prompt_jax.run_key import RunKey
from prompt_jax.training.types import Replica, TrainedReplica

Starts = Mapping[RunKey, tuple[Any, Any]]  # parameters and constants


class Executor:
    """Makes the stages of an experiment's methods into jobs of a stage runner.

    Attributes:
      config: the experiment.
      rows: of its tasks.
      runner: trains, tests and stores.
      reused: (stage label, replicas reused, replicas in all) of every stage, in order.
    """

    def __init__(self, config: ExperimentConfig, rows: RowStore, runner: StageRunner) -> None:
        self.config, self.rows, self.runner, self.lm = config, rows, runner, runner.lm
        self.reused: list[tuple[str, int, int]] = []
        self._maker = ContextMaker(config, runner.lm, rows)
        self._reported = 0
        self._sources: dict[int, dict[str, TrainedReplica]] = {}

    def initial(self, seed: int) -> SoftPrompt:
        """The experiment's initial prompt for a seed: the same for every task and method."""
        return self._maker.initial(seed)

    def sources(self, seed: int) -> dict[str, TrainedReplica]:
        """The source replicas of a seed that some method has asked for, by task."""
        return dict(self._sources.get(seed, {}))

    def stage_summaries(self) -> list[str]:
        """One line per stage since the last call: how many replicas, how many were reused."""
        new, self._reported = self.reused[self._reported :], len(self.reused)
        return [
            f"{label}: {total} replica{'s' if total > 1 else ''}"
            + (f", {reused} reused" if reused else "")
            for label, reused, total in new
        ]

    def run(self, method: BaseMethod | str, k: int) -> list[Outcome]:
        """All stages of a method, or of its spec, at one k, for every target and seed."""
        method, spec = as_method(method), spec_of(method)
        stage, done = method.stages()[-1], self._before_last(method, spec, k)
        trainer = stage.trains or method
        contexts = self._maker.contexts(method, spec, stage, k, done)
        with own_errors(method, "init()"):
            starts = {key: method.init(context) for key, context in contexts.items()}
        label = f"{spec}: {stage.name}, {'all rows' if k == 0 else f'k = {k}'}"
        last = self._run(self._job(stage, trainer, starts, k, label, is_last=True))
        outcomes = []
        for target in self.config.targets:
            for seed in self.config.seed_list:
                trials = [key for key in starts if (key.task, key.seed) == (target, seed)]
                best = max(trials, key=lambda key: (*rank(last.trained[key]), -key.trial))
                costs = [self._cost(trainer, stage, last.trained[key]) for key in trials]
                cost = sum(costs, Cost()) + self._cost_before(method, best, done)
                trained, test = last.trained[best], last.tests[best]
                outcomes.append(
                    Outcome(
                        best,
                        trained,
                        test.evaluation,
                        cost,
                        test.parameters,
                        len(trials),
                        test.template_prompts,
                        self._chosen(method, contexts[best], trained),
                        *self._rates(stage, best),
                        self._calibration(best, test.evaluation),
                        self.initial(seed).record,
                        starts[best][1],
                    )
                )
        return outcomes

    def contexts(self, method: BaseMethod | str, k: int) -> dict[RunKey, Context]:
        """What the replicas of a method's last stage start from; trains the stages before it."""
        method, spec = as_method(method), spec_of(method)
        done = self._before_last(method, spec, k)
        return self._maker.contexts(method, spec, method.stages()[-1], k, done)

    def tune(self, prompts: Mapping[RunKey, np.ndarray], k: int) -> list[TrainedReplica]:
        """Prompt tuning of targets from given prompts, with their budget; each start competes.

        Args:
          prompts: [L, D] of every replica; of one target and seed the trials are told apart.
          k: shots, as `data.shots_count` counts them; 0: all rows.
        """
        method, stage = BaseMethod(), Stage("given start", on="target")
        starts: Starts = {
            key: ({"prompt": np.asarray(prompt, np.float32)}, {}) for key, prompt in prompts.items()
        }
        label = f"{method.name}: {stage.title}, k = {k}"
        job = self._job(stage, method, starts, k, label, keep_start=True)
        return list(self._run(job).trained.values())

    def _before_last(self, method: BaseMethod, spec: str, k: int) -> Stages:
        """The replicas of every stage but the last, by its name."""
        done: dict[str, Mapping[RunKey, TrainedReplica]] = {}
        for stage in method.stages()[:-1]:
            trainer, name = method, spec
            if stage.trains is not None:
                trainer, name = stage.trains, stage.trains.spec
            contexts = self._maker.contexts(method, name, stage, k, done)
            mixed: dict[RunKey, tuple[str, ...]] = {}
            if stage.chosen:
                with own_errors(method):
                    mixed = {key: self._mixed(method, made) for key, made in contexts.items()}
            with own_errors(trainer, "init()"):
                starts = {key: trainer.init(context) for key, context in contexts.items()}
            label = f"{name}: {stage.title}"
            result = self._run(self._job(stage, trainer, starts, k, label, mixed=mixed))
            done[stage.name] = result.trained
            # Not those of other origins, nor the short runs that sources are compared by.
            if stage.on == "source" and stage.budget == "source" and not stage.origin:
                for key, trained in result.trained.items():
                    self._sources.setdefault(key.seed, {})[key.task] = trained
        return done

    def _run(self, job: StageJob) -> StageResult:
        first = next(iter(job.replicas.values()))
        check_method(job.method, first.params, first.consts, self.lm)
        with own_errors(job.method):
            result = self.runner.run(job)
        self.reused.append((job.label, result.reused, len(job.replicas)))
        return result

    def _job(
        self,
        stage: Stage,
        trainer: BaseMethod,
        starts: Starts,
        k: int,
        label: str,
        *,
        is_last: bool = False,
        keep_start: bool = False,
        mixed: Mapping[RunKey, tuple[str, ...]] | None = None,
    ) -> StageJob:
        """A stage as a job; the last one of a method is tested, and its start may be the best."""
        feeds: dict[tuple[int, tuple[str, ...]], Feed] = {}  # replicas share what they mix
        batch_size = self.config.batch_size(stage, k)
        replicas = {
            key: self._mixture(stage, key, batch_size, *start, (mixed or {}).get(key), feeds)
            if stage.on == "mixture"
            else self._replica(stage, key, batch_size, *start, is_last or keep_start)
            for key, start in starts.items()
        }
        budget = self.config.stage_budget(stage, k)
        rows = {key: self.rows.rows(key.task, key.seed, k) for key in starts} if is_last else {}
        return StageJob(label, trainer, replicas, budget, rows, f"{label}, k = {k}")

    def _mixture(
        self,
        stage: Stage,
        key: RunKey,
        batch_size: int,
        params: Any,
        consts: Any,
        names: tuple[str, ...] | None,
        feeds: dict[tuple[int, tuple[str, ...]], Feed],
    ) -> Replica:
        """A replica on the rows of several sources, of all unless they are named.

        They have no metric in common: the last step is kept.
        """
        place = key.seed, names or self.config.sources
        if place not in feeds:
            feeds[place] = self.rows.mixture(place[1], key.seed, batch_size, stage.mixing)
        return Replica(key, feeds[place], params, consts)

    def _mixed(self, method: BaseMethod, context: Context) -> tuple[str, ...]:
        """The sources that a method mixes for a target, in the config's order."""
        chosen = set(map(int, method.mixed_sources(context)))
        return tuple(name for i, name in enumerate(self.config.sources) if i in chosen)

    def _replica(
        self,
        stage: Stage,
        key: RunKey,
        batch_size: int,
        params: Any,
        consts: Any,
        keep_start: bool,
    ) -> Replica:
        k = key.k or 0
        if stage.on == "targets":
            targets = self.config.targets
            return Replica(
                key,
                self.rows.mixture(targets, key.seed, batch_size, stage.mixing, k, "order"),
                params,
                consts,
                dev_parts=self.rows.dev_parts(targets, key.seed, k),
                rate=stage.rates[key.trial] if stage.rates else 1.0,
            )
        stream = "source" if stage.on == "source" else "order"
        rows = self.rows.rows(key.task, key.seed, k)
        # A start that was never improved is a fair result of a target. As a source it would be an
        # untrained prompt, which resembles every early target prompt more than trained ones do.
        return Replica(
            key,
            self.rows.feed(key.task, key.seed, k, batch_size, stream),
            params,
            consts,
            rows.dev if len(rows.dev) else None,
            rows.task.metrics,
            stage.rates[key.trial] if stage.rates else 1.0,
            keep_start=keep_start,
        )

    def _calibration(self, key: RunKey, test: Evaluation) -> Calibration | None:
        if test.scores is None:
            return None
        rows = self.rows.rows(key.task, key.seed, key.k or 0)
        return calibration(test.scores, rows.test.label)

    def _chosen(
        self, method: BaseMethod, context: Context, trained: TrainedReplica
    ) -> tuple[str, ...] | None:
        with own_errors(method):
            group = method.selected_sources(context, trained.params)
        if group is None:
            return None
        sources = [self.rows.task(name).name for name in self.config.sources]
        return tuple(name for name, taken in zip(sources, group, strict=True) if taken)

    def _rates(self, stage: Stage, key: RunKey) -> tuple[float | None, float | None]:
        """The factor of the learning rate where there were several, and the peak rate."""
        budget = self.config.stage_budget(stage, key.k or 0)
        factor = stage.rates[key.trial] if stage.rates else 1.0
        peak = None if budget is None else budget.optimizer.learning_rate * factor
        return (factor if len(stage.rates) > 1 else None), peak

    def _cost_before(self, method: BaseMethod, key: RunKey, done: Stages) -> Cost:
        """The cost of the stages before the last one, as far as a replica depends on them."""
        cost = Cost()
        for stage in method.stages()[:-1]:
            trainer = stage.trains or method
            for earlier, trained in done[stage.name].items():
                if is_upstream(earlier, key):
                    cost += self._cost(trainer, stage, trained)
        return cost

    def _cost(self, trainer: BaseMethod, stage: Stage, trained: TrainedReplica) -> Cost:
        tokens, targets = self.config.prompt.tokens, len(self.config.targets)
        return cost_of(self.lm, trainer, stage, trained, prompt_tokens=tokens, targets=targets)
