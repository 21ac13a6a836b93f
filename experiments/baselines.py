"""Baselines: prompt tuning at a larger budget, SPoT and full fine-tuning.

    prompt-jax run experiments/baselines.py
    prompt-jax run experiments/baselines.py:keys
    prompt-jax run experiments/baselines.py:transfer suite=real model=DIR data.root=DIR
    prompt-jax run experiments/baselines.py:transfer suite=papers --dry-run   # glue_superglue

Measured (docs/results/dtvg.md, docs/results/real_text.md; points, mean ± standard deviation over
seeds of the mean over targets):

- `tuned`, sandbox, ten seeds: prompt tuning 75.2 ± 3.8, twice the steps 82.6 ± 2.5, the best of
  three rates with them 83.9 ± 2.7.
- `keys`, sandbox, ten seeds: SPoT 83.1 ± 1.7 by early keys, 83.1 ± 1.8 by final keys.
- `transfer`, real text, three seeds: SPoT differs significantly from prompt tuning on no target.
- `transfer`, papers: not run; it needs an accelerator, T5-base and the data sets
  (`prompt-jax tasks fetch NAME`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from experiments.suites import (
    CONTRARY,
    LONG,
    RELATED,
    SPOT_FINAL,
    TUNED,
    declare,
)
from prompt_jax.configs import glue_superglue
from prompt_jax.recipes import ExperimentConfig, Question
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig

Variant = Literal["tuned", "keys", "transfer"]
Suite = Literal["sandbox", "real", "papers"]


def tuned_sandbox() -> ExperimentConfig:
    """Prompt tuning with the plain budget, twice its steps, and the best of three rates with them.

    Most published gains of transfer are over an under-trained baseline.

    Primary contrast, declared before any run: tuned and long minus the budget itself, mean over all
    targets. It measures how much of a gain over plain prompt tuning needs no source at all.
    """
    return declare(
        replace(suites.SANDBOX, name="sandbox_tuned", methods=("prompt_tuning", LONG, TUNED)),
        Question(TUNED, "prompt_tuning", why="what budget and rate alone give"),
        (Question(LONG, "prompt_tuning", why="what steps alone give"),),
    )


def keys_sandbox() -> ExperimentConfig:
    """SPoT by the paper's keys, early source prompts, against its keys in `main` of dtvg.py.

    There an early prompt of the target was compared with the sources' final prompts. Both inherit
    the final prompts. Prompt tuning and SPoT by final keys are those of `main`'s archives.

    Primary contrast, declared before any run: early keys minus final keys, mean over all targets.
    """
    return declare(
        replace(suites.SANDBOX, name="sandbox_keys", methods=("prompt_tuning", SPOT_FINAL, "spot")),
        Question("spot", SPOT_FINAL, why="what the sources are compared by"),
        (
            Question("spot", "prompt_tuning", why="SPoT itself"),
            Question("spot", "prompt_tuning", RELATED, why="where a source should help"),
            Question("spot", "prompt_tuning", CONTRARY, why="where a source should hurt"),
        ),
    )


def transfer_real() -> ExperimentConfig:
    """Six sources, six targets, k = 16 and all rows, 3 seeds with their own source prompts.

    The T5 must not have been trained on the targets (RTE, MRPC, MR, TREC, Subj and IMDB are in
    `prompt_jax.data.registry.RESERVED`). Result and spread: docs/results/real_text.md.
    """
    prompt = TrainConfig(steps=250, batch_size=8, optimizer=suites.REAL_PROMPT, eval_every=125)
    full = OptimizerConfig(
        learning_rate=5e-4, unit="absolute", warmup_steps=10, schedule="linear", clip_norm=1.0
    )
    return replace(
        suites.REAL_TEXT,
        targets=("glue/rte", "glue/mrpc", "mr", "trec", "subj", "imdb"),
        methods=("prompt_tuning", SPOT_FINAL, "full_fine_tuning"),
        shots=(16, 0),
        seeds=3,
        source=prompt,
        target=prompt,
        few_shot=replace(prompt, steps=150, eval_every=50),
        fine_tuning=replace(prompt, steps=120, optimizer=full, eval_every=60),
        fine_tuning_few_shot=replace(prompt, steps=45, optimizer=full, eval_every=15),
    )


STUDY = {
    ("tuned", "sandbox"): tuned_sandbox,
    ("keys", "sandbox"): keys_sandbox,
    ("transfer", "real"): transfer_real,
    ("transfer", "papers"): glue_superglue.get_config,
}


def get_config(variant: Variant = "tuned", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `tuned` or `keys` on the sandbox; `transfer` (real text, or papers)."""
    return suites.pick(STUDY, variant, suite)
