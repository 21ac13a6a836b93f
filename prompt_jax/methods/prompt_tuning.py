"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): train one prompt for one task."""

from __future__ import annotations

from dataclasses import dataclass

from prompt_jax.methods.base import BaseMethod


@dataclass(frozen=True)
class PromptTuning(BaseMethod):
    """min_P - sum log p(y | [P ; E(x)]), the T5 frozen.

    As published: the prompt [L, D] sits before the encoder's input embeddings only. The optimizer
    and its rate belong to the budget: the paper used Adafactor at a constant 0.3, the transfer
    papers AdamW at 0.3 with a linear decay.
    """

    name = "prompt_tuning"
    paper = "Lester et al. 2021, arXiv 2104.08691"
    status = "as published"
