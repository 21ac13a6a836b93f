"""The ablations of DTVG on the sandbox, all inside the target's budget.

    prompt-jax run experiments/sandbox_dtvg_ablations.py
    python -m experiments.sandbox_contrasts experiments/sandbox_dtvg_ablations.py \
        runs/sandbox_dtvg_ablations
    python -m experiments.sandbox_groups runs/sandbox_dtvg_ablations

They share sources and first stage. `rule=positive` is the paper's number 1, `consistency` 2, `none`
3, `all` 4, `regroup_every=0` 5, `target_vector=false` 6; cosine and the exact objective are ours.
Number 10, the most similar source as a start, is SPoT in experiments/sandbox_dtvg.py.

The twelve targets that have classes. Primary contrast, declared before any run: all of it minus no
sources (`rule=none`), mean over them: do the sources do anything, beyond the scales that are
trained with them?
"""

from experiments.sandbox_protocol import CLASSES, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

WHOLE = "dtvg(budget=matched)"


def ablated(option: str) -> str:
    """The spec of DTVG inside the target's budget with one option."""
    return f"dtvg(budget=matched,{option})"


ABLATED = tuple(
    ablated(option)
    for option in (
        "rule=positive",
        "rule=consistency",
        "rule=all",
        "regroup_every=0",
        "target_vector=false",
        "metric=cosine",
        "rule=objective",
    )
)
NO_SOURCES = ablated("rule=none")
PRIMARY = Question(WHOLE, NO_SOURCES, why="do the sources do anything")
SECONDARY = tuple(Question(WHOLE, spec, why="all of it against its ablation") for spec in ABLATED)


def get_config() -> ExperimentConfig:
    """DTVG, without sources, and seven variants; twelve targets, k = 16."""
    return few_shot("sandbox_dtvg_ablations", (NO_SOURCES, WHOLE, *ABLATED), CLASSES)
