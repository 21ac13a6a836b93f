"""What every source is expected to do to every target.

No method reads this; reports and studies compare with it afterwards. What it says follows from what
was learnt on the development targets, and is a forecast for seeds that had not been run when it was
written down. What was known of the frozen targets by then: docs/results/sandbox.md.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from prompt_jax.data.sandbox import suite

Expected = Literal["helps", "neutral", "hurts"]

# The same question and label words, in other sentences, and careless labels, which leave open what
# is asked: a prompt should carry over. (`giver_tales` has the question of `giver`, but clean rows,
# from which tuning from scratch gets there, too.)
_HELPS = {
    "sentiment": ("sentiment_talk",),
    "topic": ("topic_headlines",),
    "entailment": ("entailment_reports", "paraphrase"),
    "acceptability": ("acceptability_questions",),
    "question_type": ("question_indirect",),
}
# A prompt that has learnt to look at the order of words and not at what they mean: it hurts where
# meaning is asked for and tuning from scratch would get there (targets with clean labels).
_HURTS = {
    "acceptability": ("complaints", "topic_next", "contradiction", "difference", "question_next"),
}
# Everything else is neutral, labels inverted or moved on included: such a source has the right
# features, and a few steps turn its labels round.


def truth() -> MappingProxyType[tuple[str, str], Expected]:
    """(source, target) -> what starting the target's prompt from the source's should do.

    Compared is few-shot prompt tuning (k = 16) from the source's prompt with the same tuning from
    scratch: "helps" and "hurts" mean a difference of at least 5 points, "neutral" a smaller one.

    >>> truth()["sandbox/acceptability", "sandbox/complaints"]
    'hurts'
    """
    table: dict[tuple[str, str], Expected] = {}
    for source in suite.SOURCES:
        for target in suite.TARGETS:
            key = source.name.removeprefix("sandbox/")
            other = target.name.removeprefix("sandbox/")
            expected: Expected = "neutral"
            if other in _HELPS.get(key, ()):
                expected = "helps"
            elif other in _HURTS.get(key, ()):
                expected = "hurts"
            table[source.name, target.name] = expected
    return MappingProxyType(table)
