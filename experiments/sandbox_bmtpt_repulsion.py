"""BMTPT on the sandbox: how strong the repulsion of particles is, and how many there are.

    prompt-jax run experiments/sandbox_bmtpt_repulsion.py
    python -m experiments.sandbox_contrasts experiments/sandbox_bmtpt_repulsion.py \
        runs/sandbox_bmtpt_repulsion runs/sandbox_bmtpt runs/sandbox_tuned

One factor at a time around the default of experiments/sandbox_bmtpt.py, which holds the temperature
at 1 (Bayes) and lets the ratio of repulsion to attraction be what it is: here the ratio is held at
0, 0.01, 0.1, 1 and 10 by the temperature, and there are ten particles instead of five, with ten
times the steps, ten times the batch and ten independent joint prompts beside them. The start is
inherited alone (`widths=[inf]`). Each line has a joint source stage of its own, so there are only
four targets, all of which some source should help.

Primary contrast, declared before any run: ratio 1 minus ratio 0 (the kernel averages gradients and
nothing keeps particles apart), mean over the four targets.
"""

from experiments.sandbox_bmtpt import LONGER, UNCOUPLED
from experiments.sandbox_protocol import RELATED, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

TARGETS = RELATED[:4]
RATIOS = ("0", "0.01", "0.1", "1", "10")
TEN_STEPS, TEN_ROWS = "spot(variant=mixture,steps=10)", "spot(variant=mixture,batch=10)"
TEN_INDEPENDENT = "bmtpt(particles=10,kernel=none,batch=own,widths=[inf])"
BAYES, TEN = "bmtpt(widths=[inf])", "bmtpt(particles=10,widths=[inf])"


def ratio(value: str) -> str:
    """The spec of five particles whose repulsion is held at so many times their attraction."""
    return f"bmtpt(ratio={value},widths=[inf])"


PRIMARY = Question(ratio("1"), ratio("0"), why="does repulsion matter")
SECONDARY = (
    *(
        Question(ratio(value), ratio("0"), why="how strong it has to be")
        for value in ("0.01", "0.1", "10")
    ),
    Question(BAYES, ratio("0"), why="at the temperature of Bayes"),
    *(
        Question(ratio(value), other, why=why)
        for other, why in ((LONGER, "against one joint prompt"), (UNCOUPLED, "against no coupling"))
        for value in RATIOS
    ),
    Question(TEN, BAYES, why="more particles"),
    Question(TEN, TEN_STEPS, why="ten particles against one joint prompt, equal gradients"),
    Question(TEN, TEN_ROWS, why="likewise, with the gradients in the batch"),
    Question(TEN, TEN_INDEPENDENT, why="likewise, in ten independent joint runs, averaged"),
    Question(TEN, TUNED, why="against the well-tuned line"),
)


def get_config() -> ExperimentConfig:
    """Five ratios, the default, and ten particles with their rivals; four targets, k = 16."""
    ten = (TEN, TEN_STEPS, TEN_ROWS, TEN_INDEPENDENT)
    return few_shot("sandbox_bmtpt_repulsion", (*map(ratio, RATIOS), BAYES, *ten), TARGETS)
