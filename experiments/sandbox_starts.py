"""The best start by development rows: none, each single source, or all, each tuned on the target.

    prompt-jax run experiments/sandbox_starts.py
    python -m experiments.sandbox_contrasts experiments/sandbox_starts.py runs/sandbox_starts
    python -m experiments.sandbox_groups runs/sandbox_starts

Eight runs of the target's budget per cell, of which the development set chooses: what a method that
chooses sources has to beat, and eight times as dear. `all` is the mean of the sources' vectors, so
that it does not grow with their number.

Primary contrast, declared before any run: this choice minus budget-matched DTVG, mean over all
targets. The choice has eight trials and DTVG one; against as dear a line without sources it is
compared with well-tuned prompt tuning (six times the budget).
"""

from experiments.sandbox_protocol import CONTRARY, RELATED, SOURCES, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

_EACH = [name.removeprefix("sandbox/") for name in SOURCES]
BEST = f"task_prompt_vectors(vectors={';'.join(['none', *_EACH, 'all'])},combine=mean)"

MATCHED = "dtvg(budget=matched)"

PRIMARY = Question(BEST, MATCHED, why="is choosing by trial better")
SECONDARY = (
    Question(BEST, TUNED, why="against the well-tuned line, eight budgets against six"),
    Question(BEST, "spot", why="against the nearest source, eight trials against one"),
    Question(BEST, "prompt_tuning", RELATED, why="where a source should help"),
    Question(BEST, "prompt_tuning", CONTRARY, why="where a source should hurt"),
)


def get_config() -> ExperimentConfig:
    """Five lines, all targets, k = 16; all but one are those of other experiments."""
    return few_shot("sandbox_starts", ("prompt_tuning", TUNED, "spot", MATCHED, BEST))
