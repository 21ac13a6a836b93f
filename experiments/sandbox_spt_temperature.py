"""SPT on the sandbox, zero-shot, with softer weights: how much of it is one slot alone?

    prompt-jax run experiments/sandbox_spt_temperature.py
    python -m experiments.sandbox_contrasts experiments/sandbox_spt_temperature.py \
        runs/sandbox_spt_temperature runs/sandbox_spt

Keys and queries both have the norm sqrt(D), so a score over sqrt(D) is sqrt(D) times a cosine: soft
attention over all slots is nearly the nearest one alone, and of five retrieved slots the first
weighs most. At a temperature of sqrt(D) = 11.3 a weight depends on the cosine itself, and both are
nearly even. The other lines are those of experiments/sandbox_spt.py, and their numbers were known
when this was written.

Primary contrast, declared before any run of the softer lines: retrieval minus attention over all
slots at that temperature, held-out tasks under worded templates.
"""

from experiments.sandbox_protocol import SOURCES, TARGETS, Question
from experiments.sandbox_spt import HELD_OUT, RETRIEVED, SHARED, WORDED, line, zero_shot
from prompt_jax.recipes import ExperimentConfig


def softer(retrieval: str) -> str:
    """The spec of a line at the temperature sqrt(D)."""
    return f"spt(slots=64,retrieval={retrieval},transfer=zero_shot,temperature=11.3)"


ATTENTION = line("attention")
SOFT, SOFT_ATTENTION = softer("top_k"), softer("attention")

PRIMARY = Question(RETRIEVED, SOFT_ATTENTION, TARGETS, WORDED, "held-out tasks")
SECONDARY = (
    Question(RETRIEVED, SOFT_ATTENTION, SOURCES, HELD_OUT, "held-out wordings"),
    Question(SOFT_ATTENTION, ATTENTION, TARGETS, WORDED, "softer attention"),
    Question(SOFT, RETRIEVED, TARGETS, WORDED, "evenly weighted slots"),
    Question(SOFT, RETRIEVED, SOURCES, HELD_OUT, "evenly weighted slots, held-out wordings"),
    Question(SOFT, SHARED, TARGETS, WORDED, "evenly weighted slots against one shared prompt"),
)


def get_config() -> ExperimentConfig:
    """Five lines, three of them those of another experiment."""
    methods = (SHARED, ATTENTION, RETRIEVED, SOFT_ATTENTION, SOFT)
    return zero_shot("sandbox_spt_temperature", methods)
