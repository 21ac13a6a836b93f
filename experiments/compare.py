"""Every method of the registry in one comparison.

    prompt-jax run experiments/compare.py            # two targets of the sandbox, one seed
    prompt-jax run experiments/compare.py:sandbox    # fourteen targets, k = 16, ten seeds

`smoke` shows that every method runs through the trainer, the recipes and the report without a case
of its own: it names none, but takes what is registered, as the registry makes it. Its budgets are
far too short for the numbers to mean anything. `sandbox` is the comparison itself: every method
that keeps the model frozen, and full fine-tuning, with its defaults and the sandbox's budget.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from experiments.suites import LONG, RELATED, TUNED, declare
from prompt_jax.data import sandbox
from prompt_jax.methods import REGISTRY
from prompt_jax.recipes import DataConfig, ExperimentConfig, Question
from prompt_jax.training.optimizers import OptimizerConfig

Variant = Literal["smoke", "sandbox"]
Suite = Literal["sandbox"]

# Two are stages of other methods. The full form of SPT trains the model at rates of another unit
# than full fine-tuning, and is compared in spt.py.
_ELSEWHERE = ("bmtpt_particles", "mpt_tasks", "spt_full")


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


def whole_sandbox() -> ExperimentConfig:
    """Every method with its defaults on all targets of the sandbox, k = 16.

    All rates are those of the suite, so every method has one trial; tuned prompt tuning has three,
    and twice the steps.

    Primary contrast, declared before any run: SPoT minus tuned prompt tuning, mean over all
    targets. All other methods are secondary contrasts with the same line.
    """
    others = tuple(name for name in REGISTRY if name not in (*_ELSEWHERE, "prompt_tuning"))
    whole = OptimizerConfig(
        learning_rate=1e-3, unit="absolute", warmup_steps=10, schedule="linear", clip_norm=1.0
    )
    specs = tuple(REGISTRY[name]().spec for name in others)
    few_shot = suites.SANDBOX.few_shot
    return declare(
        replace(
            suites.SANDBOX,
            name="compare_sandbox",
            methods=("prompt_tuning", LONG, TUNED, *specs),
            fine_tuning_few_shot=replace(few_shot, optimizer=whole),
        ),
        Question("spot", TUNED, why="does any source help a target that is well tuned without?"),
        (
            *(Question(s, TUNED, why="against the same line") for s in specs if s != "spot"),
            *(Question(s, TUNED, RELATED, why="where a source should help") for s in specs),
        ),
    )


STUDY = {("smoke", "sandbox"): smoke_sandbox, ("sandbox", "sandbox"): whole_sandbox}


def get_config(variant: Variant = "smoke", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `smoke` on two targets of the sandbox, or `sandbox` on all."""
    return suites.pick(STUDY, variant, suite)
