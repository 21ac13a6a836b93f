"""Task vectors: do sums of them carry over, and what does the best start by trial reach?

    prompt-jax run experiments/vectors.py
    prompt-jax run experiments/vectors.py:tuned
    prompt-jax run experiments/vectors.py:starts

Measured (docs/results/dtvg.md; points [95 % interval], ten seeds):

- `main`: a vector on another origin against none +12.9 [+4.2, +22.3], on its own +48.7 [+46.6,
  +51.2].
- `tuned`: a pair of vectors as the start against prompt tuning +12.9 [+4.7, +21.2].
- `starts`: declared, not run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from experiments.suites import (
    CONTRARY,
    RELATED,
    SPOT_FINAL,
    TUNED,
    declare,
    spec,
)
from prompt_jax.recipes import ExperimentConfig, Question

Variant = Literal["main", "tuned", "starts"]
Suite = Literal["sandbox"]


def vectors(expression: str, **options: object) -> str:
    """The sum of task vectors as a start."""
    return spec("task_prompt_vectors", vectors=expression, **options)


def main_sandbox() -> ExperimentConfig:
    """Sums of task vectors without a step on the target: pairs, negation, other origins.

    The targets are three of the source tasks themselves. Two vectors are added and the sum is
    evaluated on both of its tasks; a vector is subtracted, and evaluated on the task that it was
    learnt from; and the vectors of prompts that were trained from the next seed's initialisation
    are added to this seed's. Sources are those of experiments/dtvg.py, so little is trained.

    Primary contrast, declared before any run: the vector of sentiment learnt from another
    initialisation minus no vector at all, on sentiment: does a vector carry over to another origin?
    """
    sentiment, topic, giver = ("sandbox/sentiment",), ("sandbox/topic",), ("sandbox/giver",)

    def zero_shot(expression: str, **options: object) -> str:
        return vectors(expression, zero_shot=True, **options)

    none, one, negated = map(zero_shot, ("none", "sentiment", "-sentiment"))
    pair, far = map(zero_shot, ("sentiment + topic", "sentiment + giver"))
    elsewhere = zero_shot("sentiment", origin="other")
    pair_elsewhere = zero_shot("sentiment + topic", origin="other")
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_vectors",
            targets=sentiment + topic + giver,
            allow_overlap=True,
            methods=(none, one, negated, elsewhere, pair, far, pair_elsewhere),
        ),
        Question(elsewhere, none, sentiment, why="a vector on another origin"),
        (
            Question(one, none, sentiment, why="a vector on its own origin"),
            Question(elsewhere, one, sentiment, why="what the other origin costs"),
            Question(negated, none, sentiment, why="negation on its own task"),
            Question(pair, none, sentiment + topic, why="a pair on both of its tasks"),
            Question(pair, one, sentiment, why="what the second vector costs the first"),
            Question(far, none, sentiment + giver, why="another pair on both of its tasks"),
            Question(pair_elsewhere, none, sentiment + topic, why="a pair on another origin"),
        ),
    )


def tuned_sandbox() -> ExperimentConfig:
    """Task vectors as the start of a target with few rows: one, a pair, and from another origin.

    Two targets that ask the questions of two sources, so that one sum of two vectors holds what
    each of them needs, beside what it does not. Without a step on the target: `main`; the sum of
    all six sources: experiments/dtvg.py.

    Primary contrast, declared before any run: the pair minus prompt tuning, mean over both targets.
    """
    talk, headlines = ("sandbox/sentiment_talk",), ("sandbox/topic_headlines",)
    sentiment, topic, pair = map(vectors, ("sentiment", "topic", "sentiment + topic"))
    elsewhere = vectors("sentiment + topic", origin="other")
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_vectors_tuned",
            targets=talk + headlines,
            methods=("prompt_tuning", SPOT_FINAL, sentiment, topic, pair, elsewhere),
        ),
        Question(pair, "prompt_tuning", why="a pair that holds what the target needs"),
        (
            Question(sentiment, "prompt_tuning", talk, why="the vector of its own question"),
            Question(topic, "prompt_tuning", headlines, why="the vector of its own question"),
            Question(pair, sentiment, talk, why="what the other vector costs"),
            Question(pair, topic, headlines, why="what the other vector costs"),
            Question(elsewhere, pair, why="what another origin costs"),
            Question(pair, SPOT_FINAL, why="against the nearest source"),
        ),
    )


def starts_sandbox() -> ExperimentConfig:
    """The best start by development rows: none, each single source, or all, each tuned.

    Eight runs of the target's budget per cell, of which the development set chooses: what a method
    that chooses sources has to beat, at eight times the cost. `all` is the mean of the sources'
    vectors, so that it does not grow with their number.

    Primary contrast, declared before any run: this choice minus budget-matched DTVG, mean over all
    targets. The choice has eight trials and DTVG one; against a baseline without sources at a
    similar cost it is compared with tuned prompt tuning (six times the budget).
    """
    each = [name.removeprefix("sandbox/") for name in suites.SANDBOX.sources]
    best = vectors(";".join(("none", *each, "all")), combine="mean")
    matched = spec("dtvg", budget="matched")
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_starts",
            methods=("prompt_tuning", TUNED, SPOT_FINAL, matched, best),
        ),
        Question(best, matched, why="is choosing by trial better"),
        (
            Question(best, TUNED, why="against the tuned baseline, eight budgets against six"),
            Question(best, SPOT_FINAL, why="against the nearest source, eight trials against one"),
            Question(best, "prompt_tuning", RELATED, why="where a source should help"),
            Question(best, "prompt_tuning", CONTRARY, why="where a source should hurt"),
        ),
    )


STUDY = {
    ("main", "sandbox"): main_sandbox,
    ("tuned", "sandbox"): tuned_sandbox,
    ("starts", "sandbox"): starts_sandbox,
}


def get_config(variant: Variant = "main", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `main` (zero-shot), `tuned`, or `starts` (chosen by trial)."""
    return suites.pick(STUDY, variant, suite)
