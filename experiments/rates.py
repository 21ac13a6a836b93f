"""A learning rate for every method: equal trials on development targets of the sandbox.

    prompt-jax run experiments/rates.py few_shot.optimizer.learning_rate=RATE out=runs/rates_RATE

with RATE 0.03, 0.1, 0.3 and 1. Every method that keeps the model frozen, with its defaults, at four
rates of the target's stages in units of the embeddings' root mean square: four trials each. Sources
are trained once, at the sandbox's rate, and read from the cache by the later three runs. Targets
are the development targets with classes; seeds are from 100, so no number of another table is
chosen here.

Declared before the run: a method's default is the rate with the highest mean test accuracy over
targets and seeds if that is a point or more above its value at 0.3, the sandbox's rate, and 0.3
otherwise. A default that another recipe's published numbers rest on is pinned in that recipe.

Not run yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from experiments.compare import whole_sandbox
from experiments.suites import CLASSES
from prompt_jax.data import sandbox
from prompt_jax.methods import as_method
from prompt_jax.recipes import ExperimentConfig

Variant = Literal["main"]
Suite = Literal["sandbox"]

RATES = (0.03, 0.1, 0.3, 1.0)


def main_sandbox() -> ExperimentConfig:
    """The methods of `compare.py:sandbox`, one trial each, on the development targets."""
    return replace(
        suites.SANDBOX,
        name="sandbox_rates",
        targets=tuple(name for name in CLASSES if name not in sandbox.HELD_OUT),
        methods=tuple(
            method
            for method in whole_sandbox().specs
            if not as_method(method).trains_lm and "prompt_tuning(" not in method
        ),
        seeds=2,
        first_seed=100,
        target_groups=(),
    )


STUDY = {("main", "sandbox"): main_sandbox}


def get_config(variant: Variant = "main", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment, at the rate of the sandbox; the rate is an override."""
    return suites.pick(STUDY, variant, suite)
