"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): train one prompt for one task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import BaseMethod, Stage


@dataclass(frozen=True)
class PromptTuning(BaseMethod):
    """min_P - sum log p(y | [P ; E(x)]), the language model frozen.

    As published: the prompt [L, D] is put before the input embeddings (of a T5: the encoder's
    only). The optimizer and its rate belong to the budget: the paper used Adafactor at a constant
    0.3, the transfer papers AdamW at 0.3 with a linear decay.

    The options spend more than the budget. They make tuned baselines, since many published gains
    are over an under-trained one. All steps are counted.

    Attributes:
      steps: multiplies the budget's steps.
      rates: multiply the budget's learning rate: one replica each, the development set chooses.
    """

    # Not in repr, by which replicas are stored: a replica has its own steps and rate.
    steps: float = field(default=1.0, repr=False)
    rates: tuple[float, ...] = field(default=(1.0,), repr=False)

    name = "prompt_tuning"
    paper = "Lester et al. 2021, arXiv 2104.08691"
    status = "as published"

    def __post_init__(self) -> None:
        if not 0 < self.steps < math.inf:
            raise ConfigError(f"{self.name}: steps must be a positive factor, not {self.steps}.")
        good = all(0 < rate < math.inf for rate in self.rates)
        if not self.rates or not good or len(set(self.rates)) < len(self.rates):
            raise ConfigError(
                f"{self.name}: rates are different positive factors, as in [0.3,1,3], not"
                f" {list(self.rates)}."
            )

    def stages(self) -> tuple[Stage, ...]:
        """One stage on the target, one trial a rate."""
        return (
            Stage(
                "target",
                on="target",
                trains=BaseMethod(),
                trials=len(self.rates),
                part=(0.0, self.steps),
                rates=self.rates,
            ),
        )
