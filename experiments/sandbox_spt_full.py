"""SPT's full form on the sandbox: bank and T5 trained together on the mixture, zero-shot.

    prompt-jax run experiments/sandbox_spt_full.py
    python -m experiments.sandbox_contrasts experiments/sandbox_spt_full.py runs/sandbox_spt_full

As experiments/sandbox_spt.py, whose frozen line stands beside it, with the T5's weights trained
too (`lm_rate`), one run at a time. Not comparable with methods whose T5 is frozen: this says what
the bank adds to a T5 that is trained anyway. After k = 16: experiments/sandbox_spt_full_tuned.py.

Primary contrast, declared before any run: retrieval minus one shared prompt, both in the full form,
held-out tasks under worded templates.
"""

from experiments.sandbox_protocol import SOURCES, TARGETS, Question
from experiments.sandbox_spt import HELD_OUT, RETRIEVED, WORDED, zero_shot
from prompt_jax.recipes import ExperimentConfig


def full(retrieval: str = "top_k", transfer: str = "zero_shot") -> str:
    """The spec of a line of the full form."""
    return f"spt_full(slots=64,lm_rate=0.01,retrieval={retrieval},transfer={transfer})"


RETRIEVED_FULL, SHARED_FULL = full(), full("shared")
OTHERS = ("task", "random", "attention")

PRIMARY = Question(RETRIEVED_FULL, SHARED_FULL, TARGETS, WORDED, "held-out tasks, full form")
SECONDARY = (
    Question(RETRIEVED_FULL, SHARED_FULL, SOURCES, HELD_OUT, "held-out wordings, full form"),
    Question(RETRIEVED_FULL, RETRIEVED, TARGETS, WORDED, "full against frozen, held-out tasks"),
    *(
        Question(RETRIEVED_FULL, full(other), TARGETS, WORDED, f"held-out tasks: against {other}")
        for other in OTHERS
    ),
)


def get_config() -> ExperimentConfig:
    """Five full lines and the frozen one, twenty tasks."""
    others = map(full, OTHERS)
    return zero_shot("sandbox_spt_full", (SHARED_FULL, *others, RETRIEVED, RETRIEVED_FULL))
