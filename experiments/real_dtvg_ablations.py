"""The ablations of DTVG on real text with a small T5, all inside the target's budget, five seeds.

    prompt-jax run experiments/real_dtvg_ablations.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/real_dtvg_ablations.py \
        runs/real_dtvg_ablations

Tasks, rows and budgets of experiments/real_dtvg.py, whose sources are reused; the lines are those
of experiments/sandbox_dtvg_ablations.py. `scale_rate=0.005`: the scales are trained at 0.01 a step,
the largest rate that the paper names, where the default follows the prompt's 2. (No sources, all
positive and all six were run first; the others were declared when those were known.)

Primary contrast, declared before any run: all of it minus no sources (`rule=none`), mean over the
four targets.
"""

from experiments.real_dtvg import few_shot
from experiments.sandbox_dtvg_ablations import ABLATED, NO_SOURCES, WHOLE, ablated
from experiments.sandbox_protocol import Question
from prompt_jax.recipes import ExperimentConfig

SLOWER = ablated("scale_rate=0.005")

PRIMARY = Question(WHOLE, NO_SOURCES, why="do the sources do anything")
SECONDARY = (
    *(Question(WHOLE, spec, why="all of it against its ablation") for spec in ABLATED),
    Question(SLOWER, WHOLE, why="slower scales"),
    Question(SLOWER, "prompt_tuning", why="slower scales against no source"),
)


def get_config() -> ExperimentConfig:
    """DTVG, without sources, seven variants, slower scales, and prompt tuning."""
    lines = ("prompt_tuning", NO_SOURCES, WHOLE, *ABLATED, SLOWER)
    return few_shot("real_dtvg_ablations", lines)
