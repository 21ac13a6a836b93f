"""The data that goes into training and comes out of it: budgets, replicas, trained replicas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.config.checks import check_types
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.errors import ConfigError
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class TrainConfig:
    """The budget of one stage.

    Attributes:
      steps: optimizer steps.
      batch_size: rows of one replica per step, B.
      optimizer: optimizer and schedule.
      eval_every: steps between development evaluations; the best step is kept. 0: only the start
        and the end.
      patience: stop a replica after this many evaluations without improvement; 0: never.
      micro_batch_tokens: tokens of a micro-batch, prompts included (of a T5 the encoder's); 0
        chooses from the compiled memory analysis. Gradients are accumulated over micro-batches.
      log_every: steps between lines in metrics.jsonl.
      dropout: share of the frozen model's values that is dropped while the stage trains, where its
        architecture has dropout; 0: none, as google-research/prompt-tuning. Re-implementations on
        transformers train with T5's 0.1.
    """

    steps: int = 300
    batch_size: int = 16
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval_every: int = 50
    patience: int = 0
    micro_batch_tokens: int = 0
    log_every: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        for name in ("eval_every", "patience", "micro_batch_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, but is {getattr(self, name)}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout must lie in [0, 1), but is {self.dropout}.")

    def evaluates_at(self, step: int) -> bool:
        """Whether the development set is evaluated after `step` steps."""
        every = self.eval_every or self.steps
        return step == self.steps or step % every == 0


@dataclass(frozen=True, eq=False)
class Replica:
    """One member of a population.

    Attributes:
      key: its identity; its fields are in every line that is logged about it.
      feed: its rows.
      params: initial parameters, without the axis R.
      consts: what the method reads but never trains.
      dev: development rows; None (without `dev_parts`) keeps the last step instead of the best.
      dev_metrics: the first decides which step is best.
      dev_parts: in place of both, the development rows and metrics of each task of a mixture; the
        mean of their first metrics decides.
      rate: multiplies the learning rate.
      keep_start: whether the starting point may be the best step.
    """

    key: RunKey
    feed: Feed
    params: Any
    consts: Any = ()
    dev: TokenisedSplit | None = None
    dev_metrics: tuple[str, ...] = ("accuracy",)
    rate: float = 1.0
    keep_start: bool = True
    dev_parts: tuple[tuple[TokenisedSplit, tuple[str, ...]], ...] = ()

    __repr__ = fields_repr

    @property
    def seed(self) -> int:
        """Of its random streams."""
        return self.key.seed

    @property
    def developments(self) -> tuple[tuple[TokenisedSplit, tuple[str, ...]], ...]:
        """Development rows with their metrics: of its task, of each of several, or none."""
        if self.dev is None:
            return self.dev_parts
        return ((self.dev, self.dev_metrics), *self.dev_parts)


@dataclass(frozen=True, eq=False)
class TrainedReplica:
    """The result of training one replica.

    Attributes:
      key: its identity.
      params: numpy parameters at the best step.
      prompt: the deployed prompt [L, D] float32; None for prompt-free and row-wise methods.
      best_step: the step the parameters are from.
      best_value: development value there; NaN without a development set or a finite value on it.
      history: (step, development value) pairs.
      steps: steps computed, until the end, early stopping or the log line after it diverged.
      rows_seen: training rows, repetitions counted.
      tokens_seen: input tokens of these rows, prompt and padding not counted.
      targets_seen: target tokens of these rows.
      healthy: False when its loss or gradient was not finite; it kept its last good state.
      seconds: wall-clock share of this replica, where it was measured.
    """

    key: RunKey
    params: Any
    prompt: np.ndarray | None
    best_step: int
    best_value: float
    history: tuple[tuple[int, float], ...]
    steps: int
    rows_seen: int
    tokens_seen: int
    targets_seen: int
    healthy: bool
    seconds: float = 0.0

    __repr__ = fields_repr
