"""BMTPT on real text: the repulsion of particles, the form of the prior, and no target training.

    prompt-jax run experiments/real_bmtpt_ablations.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/real_bmtpt_ablations.py \
        runs/real_bmtpt_ablations runs/real_bmtpt

The lines of experiments/sandbox_bmtpt_repulsion.py and experiments/sandbox_bmtpt_priors.py with the
tasks, rows and budgets of experiments/real_bmtpt.py, whose particles are reused.

Primary contrast, declared before any run: ratio 1 minus ratio 0 (the kernel averages gradients and
nothing keeps particles apart), mean over the four targets.
"""

from experiments.real_dtvg import few_shot
from experiments.sandbox_bmtpt import LONGER, UNCOUPLED
from experiments.sandbox_bmtpt_priors import AVERAGE, FORMS, MEAN, prior
from experiments.sandbox_bmtpt_repulsion import BAYES, RATIOS, ratio
from experiments.sandbox_protocol import TUNED, Question
from prompt_jax.recipes import ExperimentConfig

PRIMARY = Question(ratio("1"), ratio("0"), why="does repulsion matter")
SECONDARY = (
    *(Question(ratio(value), LONGER, why="against one joint prompt") for value in RATIOS),
    *(Question(ratio(value), UNCOUPLED, why="against no coupling") for value in RATIOS),
    Question(prior("mixture"), prior("mean"), why="the particles, or their mean"),
    *(Question(form, BAYES, why="a prior, beyond the start (three trials)") for form in FORMS),
    *(Question(form, TUNED, why="against the well-tuned line") for form in FORMS),
    Question(AVERAGE, MEAN, why="averaged predictions against the mean prompt, zero-shot"),
)
CALIBRATED = (AVERAGE, MEAN)


def get_config() -> ExperimentConfig:
    """Five ratios, the default, four priors, and two forms without a step."""
    ratios = map(ratio, RATIOS)
    return few_shot("real_bmtpt_ablations", (*ratios, BAYES, *FORMS, MEAN, AVERAGE))
