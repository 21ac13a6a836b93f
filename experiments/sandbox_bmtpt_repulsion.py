"""BMTPT on the sandbox: how strong the repulsion of particles is, and how many there are.

    prompt-jax run experiments/sandbox_bmtpt_repulsion.py
    python -m experiments.sandbox_contrasts experiments/sandbox_bmtpt_repulsion.py \
        runs/sandbox_bmtpt_repulsion

One factor at a time around the default of experiments/sandbox_bmtpt.py, which holds the temperature
at 1 (Bayes) and lets the ratio of repulsion to attraction be what it is: here the ratio is held at
0, 0.01, 0.1, 1 and 10 by the temperature, and there are ten particles instead of five. The start is
inherited alone (`widths=[inf]`). Each line has a joint source stage of its own, so there are only
four targets, all of which some source should help.

Primary contrast, declared before any run: ratio 1 minus ratio 0 (the kernel averages gradients and
nothing keeps particles apart), mean over the four targets.
"""

from experiments.sandbox_protocol import RELATED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

TARGETS = RELATED[:4]
BAYES, TEN = "bmtpt(widths=[inf])", "bmtpt(particles=10,widths=[inf])"


def _ratio(value: str) -> str:
    return f"bmtpt(ratio={value},widths=[inf])"


PRIMARY = Question(_ratio("1"), _ratio("0"), why="does repulsion matter")
SECONDARY = (
    *(
        Question(_ratio(value), _ratio("0"), why="how strong it has to be")
        for value in ("0.01", "0.1", "10")
    ),
    Question(BAYES, _ratio("0"), why="at the temperature of Bayes"),
    Question(TEN, BAYES, why="more particles"),
)


def get_config() -> ExperimentConfig:
    """Five ratios, the default, and ten particles; four targets, k = 16."""
    ratios = [_ratio(value) for value in ("0", "0.01", "0.1", "1", "10")]
    return few_shot("sandbox_bmtpt_repulsion", (*ratios, BAYES, TEN), TARGETS)
