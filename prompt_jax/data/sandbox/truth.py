"""The expected effect of every source on every target.

No method reads this table; reports and studies compare with it afterwards. It was derived from
results on the development targets and is a prediction for seeds that had not been run when it was
written. What was known of the held-out targets by then: docs/results/sandbox.md.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from prompt_jax.data.sandbox import suite

Expected = Literal["helps", "neutral", "hurts"]

# The same question and label words, in other sentences, and noisy labels, which do not determine
# the question: a prompt should transfer. (`giver_tales` has the question of `giver`, but clean
# rows, from which tuning from scratch learns the task as well.)
_HELPS = {
    "sentiment": ("sentiment_talk",),
    "topic": ("topic_headlines",),
    "entailment": ("entailment_reports", "paraphrase"),
    "acceptability": ("acceptability_questions",),
    "question_type": ("question_indirect",),
}
# This source's prompt has learnt word order and not meaning: it hurts where the task is about
# meaning and tuning from scratch would learn it (targets with clean labels).
_HURTS = {
    "acceptability": ("complaints", "topic_next", "contradiction", "difference", "question_next"),
}
# All other pairs are neutral, also those with inverted or rotated labels: such a source has the
# right features, and a few steps relearn the labels.


def truth() -> MappingProxyType[tuple[str, str], Expected]:
    """(source, target) -> expected effect of initialising the target's prompt with the source's.

    The comparison is few-shot prompt tuning (k = 16) from the source's prompt with the same tuning
    from scratch: "helps" and "hurts" mean a difference of at least 5 points, "neutral" a smaller
    one.

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
