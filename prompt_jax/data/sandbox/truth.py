"""What every source is expected to do to every target, written down before any prompt was trained.

No method reads this; reports and studies compare with it afterwards.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from prompt_jax.data.sandbox import suite

Expected = Literal["helps", "neutral", "hurts"]

# The same question and label words, in other sentences: a prompt should carry over.
_HELPS = {
    "sentiment": ("sentiment_talk",),
    "topic": ("topic_headlines",),
    "entailment": ("entailment_reports", "paraphrase"),
    "acceptability": ("acceptability_questions",),
    "question_type": ("question_indirect",),
    "giver": ("giver_tales",),
}
# The same form of input and label words, with the labels inverted, moved on, or of another role: a
# prompt from there answers confidently and wrongly.
_HURTS = {
    "sentiment": ("complaints",),
    "topic": ("topic_next",),
    "entailment": ("contradiction", "difference"),
    "acceptability": ("errors",),
    "question_type": ("question_next",),
    "giver": ("receiver",),
}


def truth() -> MappingProxyType[tuple[str, str], Expected]:
    """(source, target) -> what starting the target's prompt from the source's should do.

    Compared is few-shot prompt tuning (k = 16) from the source's prompt with the same tuning from
    scratch: "helps" and "hurts" mean a difference of at least 5 points, "neutral" a smaller one.

    >>> truth()["sandbox/sentiment", "sandbox/complaints"]
    'hurts'
    """
    table: dict[tuple[str, str], Expected] = {}
    for source in suite.SOURCES:
        for target in suite.TARGETS:
            key = source.name.removeprefix("sandbox/")
            other = target.name.removeprefix("sandbox/")
            expected: Expected = "neutral"
            if other in _HELPS[key]:
                expected = "helps"
            elif other in _HURTS[key]:
                expected = "hurts"
            table[source.name, target.name] = expected
    return MappingProxyType(table)
