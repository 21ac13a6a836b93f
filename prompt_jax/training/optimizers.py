"""Optimizers of one replica, without the learning rate, and learning-rate schedules.

The step vmaps `init` and `update` over the replicas of a population, so that Adafactor's RMS and
global-norm clipping are per replica. The learning rate is applied by the step, as a number per
replica and optimizer group, which makes a grid of rates one compiled program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import optax

from prompt_jax.config.checks import check_types
from prompt_jax.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its schedule.

    Attributes:
      name: `adamw`, or `adafactor` as in the prompt tuning paper (no multiplication by the
        parameter scale, no momentum).
      learning_rate: peak rate; see `unit`.
      unit: `embedding_rms` multiplies the rate by the root mean square of the model's token
        embeddings, so that one number serves checkpoints of different scale; `absolute` does not.
        The default 0.03 is meant for `embedding_rms`. The papers' rate of 0.3 is `absolute`: it was
        chosen for the embeddings of published T5s, whose scale is large.
      group_rates: `group=multiplier` for methods with several optimizer groups.
      warmup_steps: linear warm-up from 0.
      schedule: after the warm-up: `constant`, or `linear` or `cosine` decay to 0 at the last step.
      weight_decay: decoupled, scaled by the learning rate.
      clip_norm: global norm of one replica's gradient of a mean loss; 0 for none. Methods that sum
        the loss of all rows (BMTPT) are not clipped: clipping sums would normalise nearly every
        step and couple the particles.
      b1: AdamW's first decay.
      b2: AdamW's second decay; Adafactor's decay exponent is 0.8.
    """

    name: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = 0.03
    unit: Literal["embedding_rms", "absolute"] = "embedding_rms"
    group_rates: tuple[str, ...] = ()
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self) -> None:
        check_types(self)
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ConfigError(f"learning_rate must be a positive number, not {self.learning_rate}.")
        for name in ("warmup_steps", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, but is {getattr(self, name)}.")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), but is {getattr(self, name)}.")
        self.group_multipliers()

    def group_multipliers(self) -> dict[str, float]:
        """`group_rates` as a dictionary."""
        pairs = {}
        for entry in self.group_rates:
            group, equals, text = entry.partition("=")
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            pairs[group.strip()] = number
            if not equals or not 0 <= number < math.inf:
                raise ConfigError(f"group_rates entry '{entry}' is not of the form group=number.")
        return pairs


def build(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer of one replica; its updates are still to be multiplied by -learning rate."""
    parts: list[optax.GradientTransformation] = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.name == "adamw":
        parts.append(optax.scale_by_adam(b1=config.b1, b2=config.b2))
    else:
        parts += [optax.scale_by_factored_rms(decay_rate=0.8), optax.clip_by_block_rms(1.0)]
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    return standard_promotion(optax.chain(*parts))


def standard_promotion(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs a transformation under JAX's standard type promotion.

    Optax raises floats to integer step counts, which a caller's strict promotion refuses.
    """

    def init(params: optax.Params) -> optax.OptState:
        with jax.numpy_dtype_promotion("standard"):
            return tx.init(params)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(init, update)


def rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of a step as a fraction of the peak, in [0, 1].

    Args:
      config: the schedule.
      step: 0-based.
      steps: the total number of steps.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
