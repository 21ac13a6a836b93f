"""The ablations of DTVG on real text with a small T5, all inside the target's budget, five seeds.

    prompt-jax run experiments/real_dtvg_ablations.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/real_dtvg_ablations.py \
        runs/real_dtvg_ablations

Tasks, rows and budgets of experiments/real_dtvg.py, whose sources are reused; of the lines of
experiments/sandbox_dtvg_ablations.py those that say how much the choice of the group matters.

Primary contrast, declared before any run: all of it minus no sources (`rule=none`), mean over the
four targets.
"""

from experiments.real_dtvg import few_shot
from experiments.sandbox_dtvg_ablations import NO_SOURCES, WHOLE, ablated
from experiments.sandbox_protocol import Question
from prompt_jax.recipes import ExperimentConfig

PRIMARY = Question(WHOLE, NO_SOURCES, why="do the sources do anything")
ABLATED = (ablated("rule=positive"), ablated("rule=all"))
SECONDARY = tuple(Question(WHOLE, spec, why="all of it against its ablation") for spec in ABLATED)


def get_config() -> ExperimentConfig:
    """Four lines."""
    return few_shot("real_dtvg_ablations", (NO_SOURCES, WHOLE, *ABLATED))
