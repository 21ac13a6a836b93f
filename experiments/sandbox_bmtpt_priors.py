"""BMTPT on the sandbox: the form of the target's prior, and no training on the target at all.

    prompt-jax run experiments/sandbox_bmtpt_priors.py
    python -m experiments.sandbox_contrasts experiments/sandbox_bmtpt_priors.py \
        runs/sandbox_bmtpt_priors runs/sandbox_bmtpt runs/sandbox_tuned

All lines share the five particles of experiments/sandbox_bmtpt.py. The priors (isotropic around the
mean, the mixture of the particles, their variances, their principal directions) are tuned on one
grid of widths without `inf`, where they would all be the same. Without a step on the target: the
mean prompt, and the average of the particles' predictions, in accuracy and in how far their
probabilities can be trusted (`CALIBRATED`). The four targets of
experiments/sandbox_bmtpt_repulsion.py.

Primary contrast, declared before any run: the mixture of the particles minus the isotropic prior
around their mean, mean over the targets: does the form of the posterior matter, or only its middle?
"""

from experiments.sandbox_bmtpt import LONGER
from experiments.sandbox_protocol import RELATED, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

TARGETS = RELATED[:4]
START = "bmtpt(widths=[inf])"


def prior(name: str) -> str:
    """The spec of a form of the target's prior, its width one of three."""
    return f"bmtpt(prior={name},widths=[100,10,1])"


MEAN, AVERAGE = "bmtpt(target=zero_shot)", "bmtpt(target=average)"

FORMS = tuple(map(prior, ("mean", "mixture", "diagonal", "low_rank")))
PRIMARY = Question(prior("mixture"), prior("mean"), why="the particles, or their mean")
SECONDARY = (
    Question(prior("diagonal"), prior("mean"), why="the particles' variances"),
    Question(prior("low_rank"), prior("mean"), why="their principal directions"),
    *(Question(form, START, why="a prior, beyond the start (three trials)") for form in FORMS),
    *(Question(form, TUNED, why="against the well-tuned line") for form in FORMS),
    *(Question(form, LONGER, why="against a joint prompt (three trials)") for form in FORMS),
    Question(AVERAGE, MEAN, why="averaged predictions against the mean prompt, zero-shot"),
)
CALIBRATED = (AVERAGE, MEAN)


def get_config() -> ExperimentConfig:
    """Four priors, the start alone, and two forms without a step; k = 16."""
    return few_shot("sandbox_bmtpt_priors", (START, *FORMS, MEAN, AVERAGE), TARGETS)
