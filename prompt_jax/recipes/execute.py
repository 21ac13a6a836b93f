"""Executes the stages of a method as populations, reusing whatever was trained before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.config import digest
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import trained_templates
from prompt_jax.evaluation import Calibration, Evaluation, Job, calibration
from prompt_jax.methods import (
    Artefact,
    BaseMethod,
    Context,
    Stage,
    TemplateTokens,
    as_method,
    spec_of,
)
from prompt_jax.prompts import SoftPrompt, parse
from prompt_jax.recipes.artefacts import ArtefactStore, TestResult, run_key
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.unfinished import Progress
from prompt_jax.run_key import RunKey
from prompt_jax.training.deployed import evaluate_runs
from prompt_jax.training.fingerprint import describe_feed, is_storable, split_hash
from prompt_jax.training.loop import train
from prompt_jax.training.tracking import Tracker
from prompt_jax.training.types import Replica, TrainedReplica

_NAMED = 4  # runs that one line names


@dataclass(frozen=True)
class Member:
    """Which run of a stage.

    Attributes:
      task: a source, a target, or "" for the mixture of all sources.
      seed: of the run.
      k: training rows per class of a target, 0 for all; None for sources and mixtures.
      trial: of a target.
    """

    task: str
    seed: int
    k: int | None = None
    trial: int = 0

    @property
    def label(self) -> str:
        """For logs and files."""
        parts = [self.task or "mixture"]
        if self.k:
            parts.append(f"k={self.k}")
        parts.append(f"seed={self.seed}")
        if self.trial:
            parts.append(f"trial={self.trial}")
        return " ".join(parts)


@dataclass(frozen=True)
class Cost:
    """What training took; adds up."""

    source_steps: int = 0
    target_steps: int = 0
    rows: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.source_steps + other.source_steps,
            self.target_steps + other.target_steps,
            self.rows + other.rows,
            self.flops + other.flops,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run of the last stage, evaluated on the test rows.

    Attributes:
      member: which run.
      trained: its parameters and history; weights of a trained T5 are dropped.
      test: its evaluation.
      cost: of all stages of this seed and target, cached ones and losing trials included.
      trained_parameters: numbers in the last stage's parameters.
      trials: runs from which the development set chose.
      by_template: where the prompt depends on the row's template: [L, D] by its name.
      chosen: names of the sources that the method has chosen; None where it makes no choice.
      calibration: of the test rows' candidates; None where nothing was ranked.
    """

    member: Member
    trained: TrainedReplica
    test: Evaluation
    cost: Cost
    trained_parameters: int
    trials: int
    template_prompts: Mapping[str, np.ndarray] = field(default_factory=dict)
    chosen: tuple[str, ...] | None = None
    calibration: Calibration | None = None


class Executor:
    """Runs stages for one model and experiment; remembers every run by its key.

    Attributes:
      reused: (stage label, runs found, runs in all) of every stage, in order.
      on_stored: called in every process when a population is finished and stored.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        lm: Any,
        rows: RowStore,
        store: ArtefactStore,
        tracker: Tracker,
        mesh: jax.sharding.Mesh | None = None,
        progress: Progress | None = None,
        on_stored: Callable[[], None] | None = None,
    ) -> None:
        self.config, self.lm, self.rows, self.store = config, lm, rows, store
        self.tracker, self.mesh = tracker, mesh
        self.progress = progress or Progress(None)
        self.on_stored = on_stored
        self.reused: list[tuple[str, int, int]] = []
        self._said = 0
        self._dead: set[str] = set()  # keys of runs that died, once that was said
        self._memo: dict[str, TrainedReplica] = {}
        self._initial: dict[int, SoftPrompt] = {}
        self._sources: dict[int, dict[str, TrainedReplica]] = {}

    def initial(self, seed: int) -> SoftPrompt:
        """The experiment's initial prompt for a seed: the same for every task and method."""
        if seed not in self._initial:
            named = parse(self.config.prompt.init)
            self._initial[seed] = named(self.lm, self.config.prompt.tokens, seed)
        return self._initial[seed]

    def sources(self, seed: int) -> dict[str, TrainedReplica]:
        """The source runs of a seed that some method has asked for, by task."""
        return dict(self._sources.get(seed, {}))

    def news(self) -> list[str]:
        """One line per stage since the last call: how many runs, how many were reused."""
        fresh, self._said = self.reused[self._said :], len(self.reused)
        return [
            f"{label}: {total} run{'s' if total > 1 else ''}"
            + (f", {found} reused" if found else "")
            for label, found, total in fresh
        ]

    def run(self, method: BaseMethod | str, k: int) -> list[Outcome]:
        """All stages of a method (or of its spec) at one k, for every target and seed."""
        method, spec = as_method(method), spec_of(method)
        return self._last(method, spec, k, self._before_last(method, spec, k))

    def contexts(self, method: BaseMethod | str, k: int) -> dict[Member, Context]:
        """What the runs of a method's last stage start from; trains the stages before it."""
        method, spec = as_method(method), spec_of(method)
        return self._contexts(method, method.stages()[-1], k, self._before_last(method, spec, k))

    def tune(self, starts: Mapping[Member, np.ndarray], k: int) -> list[TrainedReplica]:
        """Prompt tuning of targets from given prompts, with their budget; each start competes.

        Args:
          starts: [L, D] of every run; of one target and seed the trials are told apart.
          k: training rows per class, 0 for all.
        """
        method, stage = BaseMethod(), Stage("given start", on="target")
        begin: dict[Member, tuple[Any, Any]] = {
            member: ({"prompt": np.asarray(start, np.float32)}, {})
            for member, start in starts.items()
        }
        named = f"prompt_tuning: {stage.title}, k = {k}"
        trained = self._train(stage, method, "prompt_tuning", begin, k, named, keep_start=True)
        return [trained[member] for member in starts]

    def _before_last(
        self, method: BaseMethod, spec: str, k: int
    ) -> dict[str, dict[Member, TrainedReplica]]:
        """The runs of every stage but the last, by its name."""
        done: dict[str, dict[Member, TrainedReplica]] = {}
        for stage in method.stages()[:-1]:
            trained = stage.trains or method
            label = f"{stage.trains.spec if stage.trains else spec}: {stage.title}"
            contexts = self._contexts(trained, stage, k, {})
            starts = {member: trained.init(context) for member, context in contexts.items()}
            done[stage.name] = self._train(
                stage, trained, stage.trains.spec if stage.trains else spec, starts, k, label
            )
            if stage.on == "source" and not stage.origin:
                for member, source in done[stage.name].items():
                    self._sources.setdefault(member.seed, {})[member.task] = source
        return done

    def _members(self, stage: Stage, k: int) -> list[Member]:
        seeds = self.config.seed_list
        if stage.on == "source":
            return [Member(s, seed) for s in self.config.sources for seed in seeds]
        if stage.on == "mixture":
            return [Member("", seed) for seed in seeds]
        return [
            Member(target, seed, k, trial)
            for target in self.config.targets
            for seed in seeds
            for trial in range(stage.trials)
        ]

    def _contexts(
        self,
        method: BaseMethod,
        stage: Stage,
        k: int,
        done: dict[str, dict[Member, TrainedReplica]],
    ) -> dict[Member, Context]:
        """What every run of a stage may use to start."""
        contexts = {}
        members = self._members(stage, k)
        templates = {task: self._wordings(task) for task in {m.task for m in members}}
        most = max((len(found) for found in templates.values()), default=0)
        own = {task: self._wordings(task, trained_on=True) for task in templates}
        sources = self._wordings("", trained_on=True)
        origins = {earlier.name: earlier.origin for earlier in method.stages()}
        for member in members:
            found = templates[member.task]
            initial = {
                name: np.asarray(self.initial(member.seed + origins[name]).embeddings)
                for name in done
            }
            contexts[member] = Context(
                self.lm,
                np.asarray(self.initial(member.seed + stage.origin).embeddings),
                member.seed,
                member.task or "mixture",
                member.trial,
                _artefacts(member, done, initial),
                found + found[-1:] * (most - len(found)),
                sources,
                own[member.task],
            )
        return contexts

    def _wordings(self, task: str, trained_on: bool = False) -> tuple[TemplateTokens, ...]:
        """The templates of a task, or of all sources, in the order of `Rows.template`."""
        found: list[TemplateTokens] = []
        for name in (task,) if task else self.config.sources:
            known = self.rows.task(name)
            templates = known.templates
            if trained_on:
                templates = trained_templates(known, self.config.data.templates)
            found += TemplateTokens.of(known.name, templates, self.lm.tokenizer)
        return tuple(found)

    def _train(
        self,
        stage: Stage,
        method: BaseMethod,
        spec: str,
        starts: dict[Member, tuple[Any, Any]],
        k: int,
        label: str,
        finish: Callable[[list[Member], list[Replica], list[TrainedReplica]], None] | None = None,
        tested: dict[Member, TestResult] | None = None,
        keep_start: bool = False,
    ) -> dict[Member, TrainedReplica]:
        """Trains the members that no store has.

        The last stage of a method passes `finish`, which sees each population with its weights and
        fills `tested`. There, or with `keep_start`, the start itself may be the best step.
        """
        tested = {} if tested is None else tested
        shots = k if stage.on == "target" else 0
        budget = self.config.stage_budget(stage, shots)
        members = list(starts)
        last = finish is not None
        batch_size = self.config.budget(stage.budget, shots).batch_size * stage.batch
        compete = last or keep_start
        identity = {m: RunKey(spec, stage.title, m.task, m.k, m.seed, m.trial) for m in members}
        runs = {
            m: self._run(stage, m, identity[m], batch_size, *start, compete)
            for m, start in starts.items()
        }
        if budget is None:
            return self._evaluate_untrained(method, runs, label, finish)
        keys = {
            m: run_key(self.lm, method, run, budget, describe_feed(run.feed))
            for m, run in runs.items()
        }
        store = self.store if is_storable(method) else ArtefactStore(None)
        found: dict[Member, TrainedReplica] = {}
        named = {m.label: m for m in members}
        by_label = {m.label: key for m, key in keys.items()}
        place = f"{label}, k = {k}"
        begun = [[named[x] for x in labels] for labels in self.progress.unfinished(place, by_label)]
        again = {m for chunk in begun for m in chunk}
        for member, key in keys.items():
            if member in again:
                continue
            if method.trains_lm and last:
                whole = self.progress.kept(self._tested_key(key, member), identity[member])
                if whole is not None:
                    found[member], tested[member] = whole
                continue
            known = self._memo.get(key) or store.load(key, identity[member])
            if known is not None:
                found[member] = replace(known, key=identity[member])
        self.reused.append((label, len(found), len(members)))
        have = [m for m in members if m in found and m not in tested]
        if finish is not None and have:
            finish(have, [runs[m] for m in have], [found[m] for m in have])
        missing = [m for m in members if m not in found and m not in again]
        for chunk in (*begun, *self._chunks(method, missing)):
            kept = self.progress.begin(place, [m.label for m in chunk], by_label)
            trained = train(
                self.lm,
                method,
                [runs[m] for m in chunk],
                budget,
                stage=label,
                mesh=self.mesh,
                tracker=self.tracker,
                checkpoints=kept,
            )
            if finish is not None:
                finish(chunk, [runs[m] for m in chunk], trained)
            for member, result in zip(chunk, trained, strict=True):
                if method.trains_lm and last:
                    result = replace(result, params=None)  # weights are not kept
                    self.progress.keep(
                        self._tested_key(keys[member], member), result, tested[member]
                    )
                else:
                    store.save(keys[member], result)
                if not method.trains_lm:
                    self._memo[keys[member]] = result
                found[member] = result
            if kept is not None:
                kept.delete()
            if self.on_stored is not None:
                self.on_stored()
        self._warn_diverged(label, {m.label: keys[m] for m in members if not found[m].healthy})
        return {m: found[m] for m in members}

    def _warn_diverged(self, stage: str, dead: Mapping[str, str]) -> None:
        """Says it in one line, once: the table will only have a gap there.

        A warning, as a damaged checkpoint is: beside progress lines nothing of `news` is shown.

        Args:
          stage: label of the stage.
          dead: key of every run that died by its label.
        """
        new = [label for label, key in dead.items() if key not in self._dead]
        self._dead.update(dead.values())
        if new and distributed.is_main():
            more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
            logging.getLogger("prompt_jax").warning(
                f"{stage}: stopped, for the loss, gradient or update was not finite:"
                f" {', '.join(new[:_NAMED])}{more}. See metrics.jsonl; lower learning_rate."
            )

    def _tested_key(self, key: str, member: Member) -> str:
        rows = self.rows.rows(member.task, member.seed, member.k or 0)
        names = [template.name for template in rows.task.templates]
        return digest(key, split_hash(rows.test), rows.task.metrics, names)

    def _evaluate_untrained(
        self,
        method: BaseMethod,
        runs: dict[Member, Replica],
        label: str,
        finish: Callable[[list[Member], list[Replica], list[TrainedReplica]], None] | None,
    ) -> dict[Member, TrainedReplica]:
        """The outcome of a stage without steps: each run's start, with its development value."""
        self.reused.append((label, 0, len(runs)))
        found: dict[Member, TrainedReplica] = {}
        for chunk in self._chunks(method, list(runs)):
            trained = untrained(self.lm, method, [runs[m] for m in chunk], self.mesh)
            if finish is not None:
                finish(chunk, [runs[m] for m in chunk], trained)
            found |= dict(zip(chunk, trained, strict=True))
        return found

    def _chunks(self, method: BaseMethod, members: list[Member]) -> Iterator[list[Member]]:
        size = 1 if method.trains_lm else self.config.population or max(1, len(members))
        for start in range(0, len(members), size):
            yield members[start : start + size]

    def _run(
        self,
        stage: Stage,
        member: Member,
        key: RunKey,
        batch_size: int,
        params: Any,
        consts: Any,
        keep_start: bool,
    ) -> Replica:
        if stage.on == "mixture":
            feed: Feed = self.rows.mixture(
                self.config.sources, member.seed, batch_size, stage.mixing
            )
            # Its tasks have no metric in common: the last step is kept.
            return Replica(key, feed, params, consts)
        k = member.k or 0
        stream = "source" if stage.on == "source" else "order"
        feed = self.rows.feed(member.task, member.seed, k, batch_size, stream)
        rows = self.rows.rows(member.task, member.seed, k)
        # A start that was never improved is a fair result of a target. As a source it would be an
        # untrained prompt, which resembles every early target prompt more than trained ones do.
        return Replica(
            key,
            feed,
            params,
            consts,
            rows.dev if len(rows.dev) else None,
            rows.task.metrics,
            stage.rates[member.trial] if stage.rates else 1.0,
            keep_start=keep_start,
        )

    def _last(
        self, method: BaseMethod, spec: str, k: int, done: dict[str, dict[Member, TrainedReplica]]
    ) -> list[Outcome]:
        stage = method.stages()[-1]
        trainer = stage.trains or method
        tested: dict[Member, TestResult] = {}

        def finish(
            members: list[Member], runs: list[Replica], trained: list[TrainedReplica]
        ) -> None:
            def stack(*leaves: Any) -> np.ndarray:
                return np.stack([np.asarray(leaf) for leaf in leaves])

            params = jax.tree.map(stack, *(t.params for t in trained))
            consts = jax.tree.map(stack, *(r.consts for r in runs))
            opened = [self.rows.rows(m.task, m.seed, k) for m in members]
            jobs = [Job(rows.test, i) for i, rows in enumerate(opened)]
            metrics = [rows.task.metrics for rows in opened]
            results = evaluate_runs(self.lm, trainer, params, consts, jobs, metrics, self.mesh)
            # Prompts beside a T5 that was trained with them would be wrong in front of any other.
            made = None if trainer.trains_lm else jax.vmap(trainer.template_prompts)(params, consts)
            for i, (member, run, result) in enumerate(zip(members, trained, results, strict=True)):
                names = [template.name for template in opened[i].task.templates]
                prompts = (
                    {}
                    if made is None
                    else {
                        name: np.asarray(prompt, np.float32)
                        for name, prompt in zip(names, made[i], strict=False)  # padded at the end
                    }
                )
                size = sum(np.size(leaf) for leaf in jax.tree.leaves(run.params))
                tested[member] = TestResult(result, size, prompts)

        label = f"{spec}: {stage.name}, {'all rows' if k == 0 else f'k = {k}'}"
        contexts = self._contexts(method, stage, k, done)
        starts = {member: method.init(context) for member, context in contexts.items()}
        members = list(starts)
        last = self._train(stage, trainer, spec, starts, k, label, finish, tested)
        outcomes = []
        for target in self.config.targets:
            for seed in self.config.seed_list:
                trials = [m for m in members if (m.task, m.seed) == (target, seed)]
                best = max(trials, key=lambda m: (*_score(last[m]), -m.trial))
                cost = sum((self._cost(trainer, stage, last[m]) for m in trials), Cost())
                cost += self._earlier(method, best, done)
                found = tested[best]
                outcomes.append(
                    Outcome(
                        best,
                        last[best],
                        found.evaluation,
                        cost,
                        found.parameters,
                        len(trials),
                        found.template_prompts,
                        self._chosen(method, contexts[best], last[best]),
                        self._calibration(best, found.evaluation),
                    )
                )
        return outcomes

    def _calibration(self, member: Member, test: Evaluation) -> Calibration | None:
        if test.scores is None:
            return None
        rows = self.rows.rows(member.task, member.seed, member.k or 0)
        return calibration(test.scores, rows.test.label)

    def _chosen(
        self, method: BaseMethod, context: Context, run: TrainedReplica
    ) -> tuple[str, ...] | None:
        group = method.selected_sources(context, run.params)
        if group is None:
            return None
        sources = [self.rows.task(name).name for name in self.config.sources]
        return tuple(name for name, taken in zip(sources, group, strict=True) if taken)

    def _earlier(
        self, method: BaseMethod, member: Member, done: dict[str, dict[Member, TrainedReplica]]
    ) -> Cost:
        cost = Cost()
        for stage in method.stages()[:-1]:
            trained = stage.trains or method
            for m, run in done[stage.name].items():
                if _is_upstream_of(m, member):
                    cost += self._cost(trained, stage, run)
        return cost

    def _cost(self, method: BaseMethod, stage: Stage, run: TrainedReplica) -> Cost:
        tokens = round(run.tokens_seen / max(1, run.rows_seen))
        tokens += 0 if run.prompt is None else len(run.prompt)
        passes = 1 if method.per_view_batches else method.views
        flops = (
            run.rows_seen
            * passes
            * self.lm.flops(
                1,
                tokens,
                max(1, round(run.targets_seen / max(1, run.rows_seen))),
                backward="full" if method.trains_lm else "prompt",
            )
        )
        target = run.steps if stage.on == "target" else 0
        return Cost(run.steps - target, target, run.rows_seen, float(flops), run.seconds)


def untrained(
    lm: Any, method: BaseMethod, runs: Sequence[Replica], mesh: jax.sharding.Mesh | None = None
) -> list[TrainedReplica]:
    """Runs as they start: deployed and read on their development sets without a step.

    Args:
      lm: the frozen model.
      method: whose runs these are.
      runs: with equal parameter shapes.
      mesh: rows are split over its 'data' axis.
    """

    def stack(*leaves: Any) -> np.ndarray:
        return np.stack([np.asarray(leaf) for leaf in leaves])

    params = jax.tree.map(stack, *(run.params for run in runs))
    consts = jax.tree.map(stack, *(run.consts for run in runs))
    having = [(i, run, run.dev) for i, run in enumerate(runs) if run.dev is not None]
    results = evaluate_runs(
        lm,
        method,
        params,
        consts,
        [Job(dev, i) for i, _, dev in having],
        [run.dev_metrics for _, run, _ in having],
        mesh,
    )
    values = {
        i: float(result.metrics[run.dev_metrics[0]])
        for (i, run, _), result in zip(having, results, strict=True)
    }
    made = []
    for i, run in enumerate(runs):
        prompt, value = method.deploy(run.params, run.consts), values.get(i, float("nan"))
        made.append(
            TrainedReplica(
                key=run.key,
                params=run.params,
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


def _artefacts(
    member: Member, done: dict[str, dict[Member, TrainedReplica]], initial: dict[str, np.ndarray]
) -> dict[str, Artefact]:
    """What earlier stages left for a run: everything of its seed, but of targets only its own."""
    found = {}
    for name, runs in done.items():
        mine = [(m.task, run) for m, run in runs.items() if _is_upstream_of(m, member)]
        prompts = [run.prompt for _, run in mine if run.prompt is not None]
        found[name] = Artefact(
            tuple(task for task, _ in mine),
            # A row-wise method deploys no prompt: what it leaves is in the parameters.
            np.stack(prompts) if prompts else np.zeros((0, 0, 0), np.float32),
            np.asarray([run.best_value for _, run in mine]),
            tuple(run.params for _, run in mine),
            initial[name],
        )
    return found


def _is_upstream_of(earlier: Member, member: Member) -> bool:
    """Whether a run of an earlier stage is of this run's seed, and not of another target."""
    return earlier.seed == member.seed and (earlier.k is None or earlier.task == member.task)


def _score(run: TrainedReplica) -> tuple[bool, float]:
    """Larger is better; a run that died is taken only where all did."""
    return run.healthy, run.best_value if np.isfinite(run.best_value) else -np.inf
