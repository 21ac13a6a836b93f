"""The replicas of a stage, and what each of them may use to start."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from prompt_jax import streams
from prompt_jax.data import Ragged
from prompt_jax.data.tokenise import trained_templates
from prompt_jax.methods import (
    Artefact,
    BaseMethod,
    Context,
    SourceInstances,
    Stage,
    TemplateTokens,
)
from prompt_jax.models.base import LanguageModel
from prompt_jax.prompts import SoftPrompt, parse
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.rows import RowStore
from prompt_jax.run_key import RunKey
from prompt_jax.training.types import TrainedReplica

Stages = Mapping[str, Mapping[RunKey, TrainedReplica]]  # finished stages, by name


def replica_keys(config: ExperimentConfig, spec: str, stage: Stage, k: int) -> list[RunKey]:
    """The replicas of a stage, in the order in which they are trained.

    Args:
      config: the experiment.
      spec: of the method that is trained.
      stage: the stage.
      k: shots of targets, as `data.shots_count` counts them.
    """
    seeds = config.seed_list
    if stage.on == "source":
        return [
            RunKey(spec, stage.title, source, seed=seed)
            for source in config.sources
            for seed in seeds
        ]
    if stage.on == "mixture" and not stage.chosen:
        return [RunKey(spec, stage.title, seed=seed) for seed in seeds]
    if stage.on == "targets":
        return [
            RunKey(spec, stage.title, "", k, seed, trial)
            for seed in seeds
            for trial in range(stage.trials)
        ]
    return [
        RunKey(spec, stage.title, target, k, seed, trial)
        for target in config.targets
        for seed in seeds
        for trial in range(stage.trials)
    ]


def is_upstream(earlier: RunKey, key: RunKey) -> bool:
    """Whether a replica of an earlier stage has this one's seed, and not another target.

    One on all targets together is upstream of each of them.
    """
    of_this = earlier.k is None or earlier.task in ("", key.task)
    return earlier.seed == key.seed and of_this


class ContextMaker:
    """Makes the contexts of an experiment's replicas."""

    def __init__(self, config: ExperimentConfig, lm: LanguageModel, rows: RowStore) -> None:
        self.config, self.lm, self.rows = config, lm, rows
        self._initial: dict[int, SoftPrompt] = {}

    def initial(self, seed: int) -> SoftPrompt:
        """The experiment's initial prompt for a seed: the same for every task and method."""
        if seed not in self._initial:
            named = parse(self.config.prompt.init)
            self._initial[seed] = named(self.lm, self.config.prompt.tokens, seed)
        return self._initial[seed]

    def contexts(
        self, method: BaseMethod, spec: str, stage: Stage, k: int, done: Stages
    ) -> dict[RunKey, Context]:
        """What every replica of a stage may use to start.

        Args:
          method: the method of the experiment.
          spec: of the method that is trained.
          stage: the stage.
          k: shots of targets, as `data.shots_count` counts them.
          done: the stages before it.
        """
        keys = replica_keys(self.config, spec, stage, k)
        names = {key.task: self._tasks(stage, key.task) for key in keys}
        every = {task: self._templates(rows) for task, rows in names.items()}
        own = {task: self._templates(rows, trained_on=True) for task, rows in names.items()}
        sources = self._templates(self.config.sources, trained_on=True)
        most = max((len(templates) for templates in every.values()), default=0)
        origins = {earlier.name: earlier.origin for earlier in method.stages()}
        rate = self._rate(stage, k)
        joint = "targets" if stage.on == "targets" else "mixture"
        contexts = {}
        for key in keys:
            starts = {name: self._start(key.seed + origins[name]) for name in done}
            templates = every[key.task]
            contexts[key] = Context(
                self.lm,
                self._start(key.seed + stage.origin),
                key.seed,
                key.task or joint,
                key.trial,
                _artefacts(key, done, starts),
                templates + templates[-1:] * (most - len(templates)),
                sources,
                own[key.task],
                rate,
                stage.name,
                self.config.sources,
                self.config.targets,
                functools.partial(self._instances, key.seed),
            )
        return contexts

    def _tasks(self, stage: Stage, task: str) -> tuple[str, ...]:
        """The tasks of a replica's rows."""
        if task:
            return (task,)
        return self.config.targets if stage.on == "targets" else self.config.sources

    def _rate(self, stage: Stage, k: int) -> float | None:
        """The peak learning rate of a stage in the units of its parameters."""
        budget = self.config.stage_budget(stage, k)
        if budget is None:
            return None
        relative = budget.optimizer.unit == "embedding_rms"
        return budget.optimizer.learning_rate * (float(self.lm.embedding_rms()) if relative else 1)

    def _instances(self, seed: int, count: int) -> SourceInstances:
        """Training rows of the sources; see `Context.instances`."""
        parts, template = [], []
        known = self._templates(self.config.sources, trained_on=True)
        numbers = {f"{words.task}/{words.template}": i for i, words in enumerate(known)}
        for name in self.config.sources:
            train = self.rows.rows(name, seed).train
            for place, full_name in enumerate(train.template_names):
                rows = np.flatnonzero(train.template == place)
                drawn = streams.rng(seed, "init", 4, numbers.get(full_name, 0)).permutation(rows)
                if full_name in numbers:
                    parts.append(train.inputs.take(np.sort(drawn[:count])))
                    template += [numbers[full_name]] * len(parts[-1])
        inputs = Ragged.concat(parts)
        ids = inputs.padded(np.arange(len(inputs)))
        mask = np.arange(ids.shape[1])[None] < inputs.lengths[:, None]
        return SourceInstances(ids, mask.astype(np.int32), np.asarray(template, np.int32))

    def _start(self, seed: int) -> np.ndarray:
        return np.asarray(self.initial(seed).embeddings)

    def _templates(
        self, tasks: tuple[str, ...], trained_on: bool = False
    ) -> tuple[TemplateTokens, ...]:
        """The templates of tasks, in the order of `Rows.template`."""
        tokens: list[TemplateTokens] = []
        for name in tasks:
            known = self.rows.task(name)
            templates = known.templates
            if trained_on:
                templates = trained_templates(known, self.config.data.templates)
            tokens += TemplateTokens.of(known.name, templates, self.lm.tokenizer)
        return tuple(tokens)


def _artefacts(key: RunKey, done: Stages, initial: Mapping[str, np.ndarray]) -> dict[str, Artefact]:
    """What earlier stages give a replica: all replicas of its seed, but of targets only its own."""
    artefacts = {}
    for name, replicas in done.items():
        own = [(other.task, r) for other, r in replicas.items() if is_upstream(other, key)]
        prompts = [replica.prompt for _, replica in own if replica.prompt is not None]
        artefacts[name] = Artefact(
            tuple(task for task, _ in own),
            # A row-wise method deploys no prompt: what it has learnt is in the parameters.
            np.stack(prompts) if prompts else np.zeros((0, 0, 0), np.float32),
            np.asarray([replica.best_value for _, replica in own]),
            tuple(replica.params for _, replica in own),
            initial[name],
        )
    return artefacts
