"""BMTPT on real text with a small T5: the main lines of experiments/sandbox_bmtpt.py, five seeds.

    prompt-jax run experiments/real_bmtpt.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/real_bmtpt.py runs/real_bmtpt

Tasks, rows and budgets of experiments/real_dtvg.py, whose source prompts and lines of prompt tuning
are reused. Ten particles cost twice the gradients of every other source stage. Ratios and priors:
experiments/real_bmtpt_ablations.py.

Primary contrast, declared before any run: five coupled particles, start alone, minus one joint
prompt with five times the steps, mean over the four targets.
"""

from experiments.real_dtvg import few_shot
from experiments.sandbox_bmtpt import AVERAGE, INDEPENDENT, LARGER, LONGER, STEIN, UNCOUPLED
from experiments.sandbox_bmtpt_repulsion import TEN
from experiments.sandbox_protocol import TUNED, Question
from prompt_jax.recipes import ExperimentConfig

PRIOR = "bmtpt(widths=[inf,10])"

PRIMARY = Question(STEIN, LONGER, why="coupled particles against one joint prompt, equal gradients")
SECONDARY = (
    Question(STEIN, LARGER, why="likewise, with the gradients in the batch"),
    Question(STEIN, INDEPENDENT, why="likewise, in five independent joint runs, averaged"),
    Question(STEIN, UNCOUPLED, why="the coupling itself"),
    Question(STEIN, AVERAGE, why="the paper's contrast: joint against averaged sources"),
    Question(TEN, STEIN, why="more particles"),
    Question(PRIOR, "prompt_tuning", why="BMTPT as a whole (two trials against one)"),
    Question(PRIOR, TUNED, why="against the well-tuned line"),
    Question(STEIN, TUNED, why="likewise, the start alone"),
)


def get_config() -> ExperimentConfig:
    """Ten lines."""
    joint = (LONGER, LARGER, INDEPENDENT, UNCOUPLED, AVERAGE)
    return few_shot("real_bmtpt", ("prompt_tuning", TUNED, *joint, STEIN, TEN, PRIOR))
