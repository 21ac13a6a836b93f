"""The description of an experiment: what `prompt-jax run` executes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from prompt_jax.config import check_types, split_list
from prompt_jax.data import registry
from prompt_jax.data.digits import SUFFIX, Answers, check_answers
from prompt_jax.data.protocols import Protocol, check_protocol
from prompt_jax.data.shots import ShotsCount, check_shots_count
from prompt_jax.data.tokenise import RankBy
from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod, Stage, as_method, resolve, spec_of
from prompt_jax.models import LanguageModel, precision
from prompt_jax.paths import is_url
from prompt_jax.rundir.questions import Question, TargetGroup
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig

_SEEDS, _SEED = 10_000, 2**31 - 10_000  # JAX's keys take 31 bits


@dataclass(frozen=True)
class PromptConfig:
    """The soft prompt.

    Attributes:
      tokens: L, how many tokens it has.
      init: a named initialisation, as in `prompt_jax.prompts.parse`.
    """

    tokens: int = 100
    init: str = "vocab:5000"

    def __post_init__(self) -> None:
        check_types(self)
        if self.tokens < 1:
            raise ConfigError(f"prompt.tokens must be at least 1, but is {self.tokens}.")


@dataclass(frozen=True)
class DataConfig:
    """Where rows come from and how they are split and truncated.

    Attributes:
      root: folder with one sub-folder per task; None: TFDS or the Hugging Face cache.
      cache: folder of tokenised rows, trained replicas and test results; "" (`data.cache=`) stores
        and reuses nothing, None (`data.cache=none`) is the user's cache folder.
      max_input_tokens: longer inputs are truncated, counted and reported.
      max_target_tokens: longer targets are truncated, counted and reported.
      train_rows: at most this many training rows per task; 0: all.
      dev_rows: at most this many development rows per task.
      test_rows: at most this many test rows per task; 0: all.
      protocol: `development` takes the development set from train and tests on the official
        validation set; `attempt` makes the sets of ATTEMPT, MPT and their followers, by the name of
        the task; `task_prompt_vectors` halves the validation set of a small task.
      answers: of classifications and choices: label words that are ranked (`words`), or generated
        digits that have to match, with the task's name before every input (`digits`, as in the
        papers).
      rank_by: whether candidates are ranked by the mean log-likelihood of their tokens, or by the
        `sum`, as T0 does.
      shots_count: whether k counts the rows per class (`per_class`) or all rows (`total`, as in
        the papers).
      templates: of training rows: `first`; all templates of a task in turn (`cycle`); all but
        the first in turn (`rest`), so that development and test rows, which are under the first,
        come in a wording that was never trained on; or all but the last (`most`).
      test_templates: of test rows: `first`, or every row under each template (`all`).
    """

    root: str | None = None
    cache: str | None = None
    max_input_tokens: int = 128
    max_target_tokens: int = 16
    train_rows: int = 0
    dev_rows: int = 200
    test_rows: int = 0
    protocol: Protocol = "development"
    answers: Answers = "words"
    rank_by: RankBy = "mean"
    shots_count: ShotsCount = "per_class"
    templates: Literal["first", "cycle", "rest", "most"] = "first"
    test_templates: Literal["first", "all"] = "first"

    def __post_init__(self) -> None:
        # Before the types: these say what replaces a value or which one was meant.
        check_protocol(str(self.protocol))
        check_shots_count(str(self.shots_count))
        check_answers(str(self.answers))
        if self.rank_by not in get_args(RankBy):
            raise ConfigError(f"data.rank_by is mean or sum, not '{self.rank_by}'.")
        check_types(self)
        if self.root == "":
            raise ConfigError(
                "data.root is empty: name a folder, or set data.root=none for TFDS or the Hugging"
                " Face cache."
            )
        for name in ("train_rows", "dev_rows", "test_rows"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"data.{name} must not be negative, but is {getattr(self, name)}."
                )
        _refuse_url("data.root", self.root)
        _refuse_url("data.cache", self.cache)


def _refuse_url(key: str, path: str | None) -> None:
    """Files there are opened in place and moved into place, which object stores cannot do."""
    if path and is_url(path):
        raise ConfigError(
            f"{key} must be a directory of this machine (a mounted one is fine), not the URL"
            f" {path}. Copy what you need from the store before the run; out= may be a URL."
        )


def _fine_tuning() -> TrainConfig:
    return TrainConfig(optimizer=OptimizerConfig(learning_rate=1e-3, unit="absolute"))


@dataclass(frozen=True)
class ExperimentConfig:
    """A table of methods x targets x shots x seeds.

    Attributes:
      name: names the run directory under `runs/`.
      model: a directory, a hub id, or `mini`.
      dtype: of weights and activations; prompts and optimizer state stay float32. `auto` is the
        fastest one here; the run directory records which.
      remat: recompute activations in the backward pass: less memory, a third more time.
      sources: tasks whose trained prompts are transferred.
      targets: tasks for which prompts are wanted.
      allow_overlap: let a task be source and target, as the transfer papers do: such a target may
        then start from a prompt that was trained on its own rows.
      methods: objects of method classes (a class need not be registered), or specs, as in
        `prompt_jax.methods.create`; a spec is also the method's name in files and tables. A file of
        one's own stands for its method: `./my_method.py:Mine(option=value)`. The
        first is the baseline of the contrasts.
      shots: training rows per class (or in all, `data.shots_count`), one column group each; 0
        means all rows.
      seeds: number of seeds, each with its own source prompts.
      first_seed: the seeds are first_seed, first_seed + 1, ...
      prompt: the soft prompt.
      data: the rows.
      source: budget of source stages.
      probe: budget of the short stage on the target that measures similarity (SPoT).
      target: budget of target stages on all rows.
      few_shot: budget of target stages with k > 0.
      fine_tuning: budget of full fine-tuning on all rows.
      fine_tuning_few_shot: budget of full fine-tuning with k > 0.
      population: at most this many replicas are trained together; 0: all of a stage.
      mesh: devices, as `data=4,model=2`.
      checkpoint_seconds: seconds between checkpoints of what is being trained; 0: none.
      checkpoint_keep: how many of the newest checkpoints are kept; with more than one, a damaged
        one costs only the steps after the one before.
      questions: contrasts that are declared before the run, answered by `prompt-jax contrasts`.
      target_groups: targets whose macro average is shown beside that of all targets.
      minimum_effect: smallest difference (a fraction) that counts in a contrast; None: 0.05 on a
        generated suite, 0.02 on text.
      out: the run directory, or an fsspec URL that mirrors it; "" is runs/NAME.
    """

    name: str = "experiment"
    model: str = "mini"
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    remat: bool = False
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    allow_overlap: bool = False
    methods: tuple[str | BaseMethod, ...] = ("prompt_tuning", "spot", "full_fine_tuning")
    shots: tuple[int, ...] = (16, 0)
    seeds: int = 3
    first_seed: int = 0
    prompt: PromptConfig = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    source: TrainConfig = field(default_factory=TrainConfig)
    probe: TrainConfig = field(default_factory=lambda: TrainConfig(steps=50, eval_every=0))
    target: TrainConfig = field(default_factory=TrainConfig)
    few_shot: TrainConfig = field(default_factory=TrainConfig)
    fine_tuning: TrainConfig = field(default_factory=_fine_tuning)
    fine_tuning_few_shot: TrainConfig = field(default_factory=_fine_tuning)
    population: int = 0
    mesh: str = ""
    checkpoint_seconds: float = 60.0
    checkpoint_keep: int = 2
    questions: tuple[Question, ...] = ()
    target_groups: tuple[TargetGroup, ...] = ()
    minimum_effect: float | None = None
    out: str = ""

    def __post_init__(self) -> None:
        # In Python one name, or a text of several as on the command line, is easily given alone.
        for name in ("sources", "targets", "methods"):
            if isinstance(text := getattr(self, name), str):
                object.__setattr__(self, name, split_list(text))
        named = (resolve(m) if isinstance(m, str) else m for m in self.methods)
        object.__setattr__(self, "methods", tuple(named))
        if isinstance(self.shots, int):
            object.__setattr__(self, "shots", (self.shots,))
        self._check_declared()
        check_types(self)
        if not self.targets:
            raise ConfigError("name at least one target, as in targets=glue/rte,mr.")
        if not self.methods:
            raise ConfigError("name at least one method, as in methods=prompt_tuning,spot.")
        if not 0 <= self.checkpoint_seconds < float("inf"):
            raise ConfigError(
                f"checkpoint_seconds must not be negative, but is {self.checkpoint_seconds}."
            )
        if self.checkpoint_keep < 1:
            raise ConfigError(
                f"checkpoint_keep must be at least 1, but is {self.checkpoint_keep}: to keep none,"
                " set checkpoint_seconds=0."
            )
        if not 1 <= self.seeds <= _SEEDS or not 0 <= self.first_seed < _SEED:
            raise ConfigError(
                f"seeds must lie in 1 ... {_SEEDS:,} and first_seed in 0 ... {_SEED - 1:,}, not be"
                f" {self.seeds} and {self.first_seed}."
            )
        if self.population < 0:
            raise ConfigError(f"population must not be negative, but is {self.population}.")
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) != len(self.shots):
            raise ConfigError(f"shots must be different numbers >= 0, not {self.shots}.")
        self._check_questions()
        for spec, method in zip(self.specs, self.method_objects, strict=True):
            if self.method_objects.count(method) > 1:
                raise ConfigError(f"methods name '{spec}' more than once.")
            on = {stage.on for stage in method.stages()}
            if on & {"source", "mixture"} and not self.sources:
                raise ConfigError(f"method '{spec}' needs sources, as in sources=snli,glue/qqp.")

    @property
    def method_objects(self) -> tuple[BaseMethod, ...]:
        """`methods` as objects."""
        return tuple(map(as_method, self.methods))

    @property
    def specs(self) -> tuple[str, ...]:
        """`methods` as texts, which are their names in files and tables."""
        return tuple(map(spec_of, self.methods))

    def _check_declared(self) -> None:
        kinds = (("questions", Question), ("target_groups", TargetGroup))
        for name, kind in kinds:
            if not all(isinstance(entry, kind) for entry in getattr(self, name)):
                raise ConfigError(
                    f"{name} are declared in the config file, as {kind.__name__}(...)."
                )

    def _check_questions(self) -> None:
        for question in self.questions:
            for spec in {question.a, question.b}.difference(self.specs):
                as_method(spec)
        if sum(question.role == "primary" for question in self.questions) > 1:
            raise ConfigError("questions have more than one primary contrast: it is one test.")
        if self.minimum_effect is not None and not 0 <= self.minimum_effect < 1:
            raise ConfigError(
                f"minimum_effect is a fraction, 0 ... 1 (0.02: two points), not"
                f" {self.minimum_effect}."
            )

    def check_tasks(self) -> None:
        """Checks that the tasks exist, are different ones and do not leak into each other.

        Raises:
          DataError: for an unknown task, or a target whose test rows a source trains on.
          ConfigError: for one task under two names, or a task with answers of its own.
        """
        for name in (*self.sources, *self.targets):
            if name.endswith(SUFFIX):
                raise ConfigError(
                    f"'{name}' cannot be a source or target: data.answers=digits gives all tasks of"
                    f" an experiment their answers in digits. Leave {SUFFIX} out."
                )
        found = {
            role: [registry.get(name).name for name in names]
            for role, names in (("sources", self.sources), ("targets", self.targets))
        }
        for role, names in found.items():
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"{role} name the task '{name}' more than once.")
        both = sorted(set(found["sources"]) & set(found["targets"]))
        if both and not self.allow_overlap:
            raise ConfigError(
                f"{', '.join(both)} cannot be both source and target; allow_overlap=true permits"
                " it, as the transfer papers do."
            )
        registry.check_conflicts(found["sources"], found["targets"])

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    def stage_budget(self, stage: Stage, shots: int = 0) -> TrainConfig | None:
        """What a stage of a method may spend: its part of a budget, at its rate.

        The warm-up is shortened in proportion to the steps, never prolonged.

        Args:
          stage: of a method.
          shots: k of its targets; stages on sources have the budget of all rows.

        Returns:
          None where the stage takes no step.

        Raises:
          ConfigError: for a budget that the config does not have.
        """
        whole = self.budget(stage.budget, shots if is_on_targets(stage) else 0)
        # Rounded at the ends, so that adjoining parts add up.
        begin, end = (round(whole.steps * fraction) for fraction in stage.part)
        steps, warm = end - begin, whole.optimizer.warmup_steps
        if stage.steps:
            steps = stage.steps
            warm = round(warm * min(1, steps / whole.steps))
        else:
            warm = round(warm * steps / whole.steps)
        if steps == 0:
            return None
        optimizer = replace(whole.optimizer, warmup_steps=warm)
        if stage.absolute_rate:
            optimizer = replace(optimizer, learning_rate=stage.rate, unit="absolute")
        elif stage.rate != 1:
            rate = whole.optimizer.learning_rate * stage.rate
            optimizer = replace(optimizer, learning_rate=rate)
        return replace(
            whole,
            steps=steps,
            batch_size=self.batch_size(stage, shots),
            optimizer=optimizer,
        )

    def batch_size(self, stage: Stage, shots: int = 0) -> int:
        """The rows of a step of one replica of a stage; one on all targets has those of each."""
        rows = self.budget(stage.budget, shots if is_on_targets(stage) else 0).batch_size
        return rows * stage.batch * (len(self.targets) if stage.on == "targets" else 1)

    def budget(self, name: str, shots: int = 0) -> TrainConfig:
        """The budget that a stage names, in its few-shot form where k > 0.

        Raises:
          ConfigError: for a budget that the config does not have.
        """
        few = {"target": "few_shot", "fine_tuning": "fine_tuning_few_shot"}
        known = ("source", "probe", "target", "fine_tuning")
        if name not in known:
            raise ConfigError(f"unknown budget '{name}'; the config has {', '.join(known)}.")
        return getattr(self, few.get(name, name) if shots else name)


def is_on_targets(stage: Stage) -> bool:
    """Whether a stage trains on rows of targets, of which there may be k per class."""
    return stage.on in ("target", "targets")


def with_dtype(config: ExperimentConfig, lm: LanguageModel | None = None) -> ExperimentConfig:
    """The experiment with the dtype that `auto` is here, so that every record names it.

    Args:
      config: the experiment.
      lm: its model, whose dtype is taken; None: it is not loaded yet.
    """
    if config.dtype != precision.AUTO:
        return config
    dtype: Any = precision.fastest().dtype if lm is None else str(np.dtype(lm.dtype))
    return replace(config, dtype=dtype)
