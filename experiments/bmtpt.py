"""BMTPT: does the Stein coupling of particles, or the form of the prior, add to joint training?

    prompt-jax run experiments/bmtpt.py
    prompt-jax run experiments/bmtpt.py:repulsion
    prompt-jax run experiments/bmtpt.py:priors
    prompt-jax run experiments/bmtpt.py suite=real data.root=DIR
    prompt-jax run experiments/bmtpt.py:ablations suite=real data.root=DIR

Measured (docs/results/bmtpt.md; points, mean ± standard deviation over seeds of the mean over
targets):

- `main`, sandbox, ten seeds: five coupled particles 77.2 ± 5.1, without coupling 76.9 ± 4.8, one
  particle 82.6 ± 4.1, one joint prompt with five times the steps 81.1 ± 4.1.
- `repulsion`, sandbox, ten seeds: ratio 1 63.2 ± 6.8, ratio 0 68.4 ± 7.4.
- `priors`, sandbox, ten seeds: mixture of the particles 74.1 ± 7.5, isotropic 73.4 ± 6.9.
- `main` and `ablations`, real text, five seeds: no significant difference.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Literal

from experiments import suites
from experiments.suites import (
    CONTRARY,
    RELATED,
    TUNED,
    declare,
    spec,
)
from prompt_jax.recipes import ExperimentConfig, Question

Variant = Literal["main", "repulsion", "priors", "ablations"]
Suite = Literal["sandbox", "real"]


def start(**options: object) -> str:
    """BMTPT that inherits the start alone: no prior."""
    return spec("bmtpt", **options, widths=(inf,))


def prior(form: str) -> str:
    """A form of the target's prior, its width the best of three."""
    return spec("bmtpt", prior=form, widths=(100, 10, 1))


def joint(**options: object) -> str:
    """One joint prompt (SPoT's generic mixture)."""
    return spec("spot", variant="mixture", **options)


FIVE, TEN = start(), start(particles=10)
ONE = start(particles=1)
UNCOUPLED = start(kernel="none")  # on the same rows: nothing else differs
INDEPENDENT = start(kernel="none", batch="own")
TEN_INDEPENDENT = start(particles=10, kernel="none", batch="own")
SOURCES_APART = start(posterior="independent")
LONGER, LARGER = joint(steps=5), joint(batch=5)
TEN_LONGER, TEN_LARGER = joint(steps=10), joint(batch=10)
RATIOS = tuple(start(ratio=ratio) for ratio in (0, 0.01, 0.1, 1, 10))
FORMS = tuple(map(prior, ("mean", "mixture", "diagonal", "low_rank")))
MEAN, AVERAGE = spec("bmtpt", target="zero_shot"), spec("bmtpt", target="average")

_EQUAL_GRADIENTS = (
    Question(FIVE, LONGER, why="coupled particles against one joint prompt, equal gradients"),
    Question(FIVE, LARGER, why="likewise, with the gradients in the batch"),
    Question(FIVE, INDEPENDENT, why="likewise, in five independent joint runs, averaged"),
    Question(FIVE, UNCOUPLED, why="the coupling itself"),
)
_PAPER = Question(FIVE, SOURCES_APART, why="the paper's contrast: joint against averaged sources")
_REPULSION = Question(RATIOS[3], RATIOS[0], why="does repulsion matter")
_RATIOS = tuple(
    Question(ratio, other, why=why)
    for other, why in ((LONGER, "against one joint prompt"), (UNCOUPLED, "against no coupling"))
    for ratio in RATIOS
)
_FORM = Question(FORMS[1], FORMS[0], why="the particles, or their mean")
_FORMS = tuple(
    Question(form, other, why=why)
    for other, why in (
        (FIVE, "a prior, beyond the start (three trials)"),
        (TUNED, "against the tuned baseline"),
    )
    for form in FORMS
)
_PREDICTIONS = Question(
    AVERAGE, MEAN, why="averaged predictions against the mean prompt, zero-shot"
)


def main_sandbox() -> ExperimentConfig:
    """Five coupled particles against joint training with as many gradients; nine targets.

    Five particles cost five times the gradients of one joint prompt, so the baselines get as much:
    one joint prompt (SPoT's generic mixture) with five times the steps, one with five times the
    batch, and five independent joint prompts (rows of their own, no kernel), averaged. Only
    particles without a kernel on the very same rows differ in nothing but the coupling: SPoT's
    joint prompts have no prior and begin at one start instead of the middle of five. A single
    particle measures what is left of the posterior without particles, at a fifth of the gradients.
    The average of prompts that were trained on one source each is the contrast that the paper
    draws. `widths=[inf]` inherits the start alone; with a prior its width is one of three trials,
    which are counted.

    One factor at a time around this default: `repulsion` (and the number of particles), and
    `priors`. Joint source stages are expensive, so the targets here are those that some source
    should help, and three that some source should hurt.

    Primary contrast, declared before any run: five particles, start alone, minus the joint prompt
    with five times the steps, mean over all targets.
    """
    whole = spec("bmtpt", widths=(inf, 10, 1))
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_bmtpt",
            targets=(*RELATED, *CONTRARY[:3]),
            methods=(
                "prompt_tuning",
                LONGER,
                LARGER,
                INDEPENDENT,
                UNCOUPLED,
                ONE,
                SOURCES_APART,
                FIVE,
                whole,
            ),
        ),
        _EQUAL_GRADIENTS[0],
        (
            *_EQUAL_GRADIENTS[1:],
            Question(FIVE, ONE, why="five particles or one, a fifth of the gradients"),
            _PAPER,
            Question(whole, FIVE, why="the prior, beyond the start (three trials against one)"),
            Question(whole, "prompt_tuning", why="BMTPT as a whole (three trials against one)"),
            Question(whole, "prompt_tuning", RELATED, why="where a source should help"),
            Question(whole, TUNED, why="against the tuned baseline"),
            Question(FIVE, TUNED, why="likewise, the start alone"),
        ),
    )


def main_real() -> ExperimentConfig:
    """The main methods of `main_sandbox` on real text, five seeds.

    Tasks, rows and budgets of `main` of experiments/dtvg.py with `suite=real`, whose source prompts
    and prompt tuning are reused. Ten particles cost twice the gradients of every other source
    stage. Ratios and priors: `ablations`.

    Primary contrast, declared before any run: five coupled particles, start alone, minus one joint
    prompt with five times the steps, mean over the four targets.
    """
    whole = spec("bmtpt", widths=(inf, 10))
    return declare(
        replace(
            suites.REAL_TEXT,
            name="real_bmtpt",
            methods=(
                "prompt_tuning",
                TUNED,
                LONGER,
                LARGER,
                INDEPENDENT,
                UNCOUPLED,
                SOURCES_APART,
                FIVE,
                TEN,
                whole,
            ),
        ),
        _EQUAL_GRADIENTS[0],
        (
            *_EQUAL_GRADIENTS[1:],
            _PAPER,
            Question(TEN, FIVE, why="more particles"),
            Question(whole, "prompt_tuning", why="BMTPT as a whole (two trials against one)"),
            Question(whole, TUNED, why="against the tuned baseline"),
            Question(FIVE, TUNED, why="likewise, the start alone"),
        ),
    )


def repulsion_sandbox() -> ExperimentConfig:
    """How strong the repulsion of particles is, and how many there are; four targets.

    One factor at a time around the default of `main`, which holds the temperature at 1 (Bayes) and
    does not fix the ratio of repulsion to attraction: here the ratio is held at 0, 0.01, 0.1, 1 and
    10 by the temperature, and there are ten particles instead of five, with ten times the steps,
    ten times the batch and ten independent joint prompts beside them. The start is inherited alone
    (`widths=[inf]`). Each method has a joint source stage of its own, so there are only four
    targets, all of which some source should help.

    Primary contrast, declared before any run: ratio 1 minus ratio 0 (the kernel averages gradients
    and nothing keeps particles apart), mean over the four targets.
    """
    zero, some, more, _, most = RATIOS
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_bmtpt_repulsion",
            targets=RELATED[:4],
            methods=(*RATIOS, FIVE, TEN, TEN_LONGER, TEN_LARGER, TEN_INDEPENDENT),
        ),
        _REPULSION,
        (
            *(Question(r, zero, why="how strong it has to be") for r in (some, more, most)),
            Question(FIVE, zero, why="at the temperature of Bayes"),
            *_RATIOS,
            Question(TEN, FIVE, why="more particles"),
            Question(
                TEN, TEN_LONGER, why="ten particles against one joint prompt, equal gradients"
            ),
            Question(TEN, TEN_LARGER, why="likewise, with the gradients in the batch"),
            Question(TEN, TEN_INDEPENDENT, why="likewise, in ten independent joint runs, averaged"),
            Question(TEN, TUNED, why="against the tuned baseline"),
        ),
    )


def priors_sandbox() -> ExperimentConfig:
    """The form of the target's prior, and no training on the target at all; four targets.

    All methods share the five particles of `main`. The priors (isotropic around the mean, the
    mixture of the particles, their variances, their principal directions) are tuned on one grid of
    widths without `inf`, where they would all be the same. Without a step on the target: the mean
    prompt, and the average of the particles' predictions, in accuracy and in calibration.

    Primary contrast, declared before any run: the mixture of the particles minus the isotropic
    prior around their mean, mean over the targets: does the form of the posterior matter, or only
    its middle?
    """
    isotropic, _, diagonal, low_rank = FORMS
    return declare(
        replace(
            suites.SANDBOX,
            name="sandbox_bmtpt_priors",
            targets=RELATED[:4],
            methods=(FIVE, *FORMS, MEAN, AVERAGE),
        ),
        _FORM,
        (
            Question(diagonal, isotropic, why="the particles' variances"),
            Question(low_rank, isotropic, why="their principal directions"),
            *_FORMS,
            *(Question(f, LONGER, why="against a joint prompt (three trials)") for f in FORMS),
            _PREDICTIONS,
        ),
        (AVERAGE, MEAN),
    )


def ablations_real() -> ExperimentConfig:
    """Ratios of repulsion, forms of the prior, and no target training on real text.

    The methods of `repulsion` and `priors` with the tasks, rows and budgets of `main`, whose
    particles are reused.

    Primary contrast, declared before any run: ratio 1 minus ratio 0 (the kernel averages gradients
    and nothing keeps particles apart), mean over the four targets.
    """
    return declare(
        replace(
            suites.REAL_TEXT,
            name="real_bmtpt_ablations",
            methods=(*RATIOS, FIVE, *FORMS, MEAN, AVERAGE),
        ),
        _REPULSION,
        (*_RATIOS, _FORM, *_FORMS, _PREDICTIONS),
        (AVERAGE, MEAN),
    )


STUDY = {
    ("main", "sandbox"): main_sandbox,
    ("main", "real"): main_real,
    ("repulsion", "sandbox"): repulsion_sandbox,
    ("priors", "sandbox"): priors_sandbox,
    ("ablations", "real"): ablations_real,
}


def get_config(variant: Variant = "main", suite: Suite = "sandbox") -> ExperimentConfig:
    """The experiment: `main`; `repulsion`, `priors` (sandbox) or `ablations` (real text)."""
    return suites.pick(STUDY, variant, suite)
