"""Prompt tuning on the sandbox, long and well tuned: what every other table is held against.

    prompt-jax run experiments/sandbox_tuned.py
    python -m experiments.sandbox_contrasts experiments/sandbox_tuned.py runs/sandbox_tuned

Most published gains of transfer are over an under-trained baseline. The budget itself, twice its
steps, and twice its steps at the best of three rates by development rows; all targets.

Primary contrast, declared before any run: tuned and long minus the budget itself, mean over all
targets. It says how much of a gain over plain prompt tuning needs no source at all.
"""

from experiments.sandbox_protocol import LONG, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

PRIMARY = Question(TUNED, "prompt_tuning", why="what budget and rate alone give")
SECONDARY = (Question(LONG, "prompt_tuning", why="what steps alone give"),)


def get_config() -> ExperimentConfig:
    """Three lines, all targets, k = 16."""
    return few_shot("sandbox_tuned", ("prompt_tuning", LONG, TUNED))
