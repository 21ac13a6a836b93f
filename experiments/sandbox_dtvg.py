"""DTVG on the sandbox, as published and at an equal budget, against prompt tuning, SPoT and TPV.

    prompt-jax run experiments/sandbox_dtvg.py
    prompt-jax oracle experiments/sandbox_dtvg.py
    python -m experiments.sandbox_contrasts experiments/sandbox_dtvg.py runs/sandbox_dtvg \
        runs/sandbox_tuned
    python -m experiments.sandbox_groups runs/sandbox_dtvg

The oracle evaluates all 64 subsets of the sources, chosen on one half of the test rows and reported
on the other, against the best of {none, each single one, all}; with `--tuned`, after the target's
budget of steps from each merged prompt. Tuned starts *without* the target's own vector, chosen by
development rows: experiments/sandbox_starts.py. Ablations:
experiments/sandbox_dtvg_ablations.py. Long and tuned prompt tuning: experiments/sandbox_tuned.py.

Primary contrast, declared before any run: DTVG with both its stages inside the target's budget
minus prompt tuning with that budget, mean over all targets. DTVG as published spends the budget
twice, so its fair line of comparison is prompt tuning with twice the steps.
"""

from experiments.sandbox_protocol import CONTRARY, LONG, RELATED, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

MATCHED = "dtvg(budget=matched)"
TPV = "task_prompt_vectors"

PRIMARY = Question(MATCHED, "prompt_tuning", why="do grouped sources help at equal steps")
SECONDARY = (
    Question(MATCHED, "prompt_tuning", RELATED, why="where a source should help"),
    Question(MATCHED, "prompt_tuning", CONTRARY, why="where a source should hurt"),
    Question("dtvg", LONG, why="as published, at equal steps on the target"),
    Question(MATCHED, TUNED, why="against the well-tuned line"),
    Question(MATCHED, "spot", why="against the nearest source"),
    Question(MATCHED, TPV, why="against the sum of all sources"),
    Question("spot", "prompt_tuning", why="SPoT itself"),
    Question(TPV, "prompt_tuning", why="the sum itself"),
)


def get_config() -> ExperimentConfig:
    """Six lines, all targets, k = 16."""
    return few_shot("sandbox_dtvg", ("prompt_tuning", LONG, "spot", TPV, "dtvg", MATCHED))
