"""Every method of the registry in one comparison.

    prompt-jax run experiments/compare.py            # two targets of the sandbox, one seed

`smoke` shows that every method runs through the trainer, the recipes and the report without a case
of its own: it names none, but takes what is registered, as the registry makes it. Its budgets are
far too short for the numbers to mean anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from prompt_jax.data import sandbox
from prompt_jax.methods import REGISTRY
from prompt_jax.recipes import DataConfig, ExperimentConfig
from prompt_jax.training.optimizers import OptimizerConfig

Variant = Literal["smoke"]
Suite = Literal["sandbox"]


def smoke_sandbox() -> ExperimentConfig:
    """All registered methods with their defaults on two development targets, one seed."""
    short = suites.budget(4, 0.3, every=0, batch=4)
    whole = OptimizerConfig(learning_rate=1e-3, unit="absolute")
    targets = [task.name for task in sandbox.TARGETS if task.name not in sandbox.HELD_OUT]
    return replace(
        suites.SANDBOX,
        name="compare_smoke",
        sources=suites.SANDBOX.sources[:2],
        targets=tuple(targets[:2]),
        methods=tuple(kind().spec for kind in REGISTRY.values()),
        shots=(8,),
        seeds=1,
        data=DataConfig(
            max_input_tokens=32,
            max_target_tokens=6,
            dev_rows=12,
            test_rows=24,
            templates="cycle",  # SPT retrieves by the words of templates
        ),
        source=short,
        probe=short,
        target=short,
        few_shot=short,
        fine_tuning=replace(short, optimizer=whole),
        fine_tuning_few_shot=replace(short, optimizer=whole),
        target_groups=(),
    )


STUDY = {("smoke", "sandbox"): smoke_sandbox}


def get_config(variant: Variant = "smoke", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `smoke`, all registered methods on two targets of the sandbox."""
    return suites.pick(STUDY, variant, suite)
