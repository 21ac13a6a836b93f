"""What an experiment reads of a finished replica of a method's last stage, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.evaluation import Calibration, Evaluation
from prompt_jax.methods import BaseMethod, Stage
from prompt_jax.models.base import LanguageModel
from prompt_jax.prompts import PromptRecord
from prompt_jax.recipes.config import is_on_targets
from prompt_jax.run_key import RunKey
from prompt_jax.training.types import TrainedReplica


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
    """A finished replica of the last stage, evaluated on the test rows.

    Attributes:
      key: which replica.
      trained: its parameters and history; weights of a trained model are dropped.
      test: its evaluation.
      cost: of all stages of this seed and target, with those that are stored and the trials that
        were not chosen.
      trained_parameters: numbers in the last stage's parameters.
      trials: replicas from which the development set chose.
      template_prompts: where the prompt depends on the row's template: [L, D] by its name.
      chosen: names of the sources that the method has chosen; None where it makes no choice.
      rate: factor of the budget's learning rate that the development set chose; None where there
        was one rate alone.
      learning_rate: peak rate of the last stage, in its optimizer's `unit`; None where it takes no
        step.
      calibration: of the test rows' candidates; None where nothing was ranked.
      start: record of the initialisation that the replica's stage was given.
      consts: constants of the method that trained the replica.
    """

    key: RunKey
    trained: TrainedReplica
    test: Evaluation
    cost: Cost
    trained_parameters: int
    trials: int
    template_prompts: Mapping[str, np.ndarray] = field(default_factory=dict)
    chosen: tuple[str, ...] | None = None
    rate: float | None = None
    learning_rate: float | None = None
    calibration: Calibration | None = None
    start: PromptRecord | None = None
    consts: Any = None

    __repr__ = fields_repr


def cost_of(
    lm: LanguageModel,
    method: BaseMethod,
    stage: Stage,
    trained: TrainedReplica,
    *,
    prompt_tokens: int,
    targets: int = 1,
) -> Cost:
    """What a replica of a stage took; of one on all targets together, the share of each.

    Args:
      lm: the frozen model.
      method: what has trained it.
      stage: the stage.
      trained: the replica.
      prompt_tokens: L where each row has its own prompt.
      targets: number of targets of the experiment.
    """
    tokens = round(trained.tokens_seen / max(1, trained.rows_seen))
    if trained.prompt is not None:
        tokens += len(trained.prompt)
    elif method.rowwise:
        tokens += prompt_tokens
    passes = 1 if method.per_view_batches else method.views
    answer = max(1, round(trained.targets_seen / max(1, trained.rows_seen)))
    each = flops_of_row(lm, method, tokens, answer)
    flops = trained.rows_seen * passes * each
    share = targets if stage.on == "targets" else 1  # a step has rows for each of them
    target = trained.steps if is_on_targets(stage) else 0
    return Cost(
        trained.steps - target,
        target,
        trained.rows_seen // share,
        float(flops) / share,
        trained.seconds / share,
    )


def flops_of_row(lm: LanguageModel, method: BaseMethod, inputs: int, targets: int) -> int:
    """Operations of a training row under one view, with the pass under its teacher if it has one.

    Args:
      lm: the frozen model.
      method: what is trained.
      inputs: L + S.
      targets: T.
    """
    backward = "full" if method.trains_lm else "prompt"
    trained = lm.flops(1, inputs, targets, backward=backward)
    return trained + (lm.flops(1, inputs, targets) if method.has_teacher else 0)


def rank(trained: TrainedReplica) -> tuple[bool, float]:
    """Larger is better; a diverged replica is taken only if all diverged."""
    return trained.healthy, trained.best_value if np.isfinite(trained.best_value) else -np.inf
