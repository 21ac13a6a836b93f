"""Words that a model says for labels, made from the names of the labels."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

Encode = Callable[[list[str]], list[list[int]]]

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def label_words(names: Sequence[str], encode: Encode | None = None) -> tuple[str, ...]:
    """One text per label, such that no two begin alike.

    The words of the name are used where they suffice ("not_entailment" is "not entailment"). Where
    two would begin with the same word, or with the same token, those words of the names are used
    that no other name has, and where there are none, all labels become letters or numbers.

    Args:
      names: of the labels, different without regard to case.
      encode: token ids of texts under the model's tokenizer, without an end of sequence; None:
        only words are compared.

    >>> label_words(["not_entailment", "Entailment"])
    ('not entailment', 'entailment')
    >>> label_words(["billing/refund", "billing/invoice", "PasswordReset"])
    ('refund', 'invoice', 'password reset')
    >>> label_words(["good", "very good", "good, very"])
    ('A', 'B', 'C')
    """
    plain = [clean(name) or name.strip() for name in names]
    for words in (plain, _distinguishing(plain)):
        if distinct(words, encode):
            return tuple(words)
    letters = string.ascii_uppercase
    if len(names) <= len(letters):
        return tuple(letters[: len(names)])
    return tuple(str(number) for number in range(1, len(names) + 1))


def clean(name: str) -> str:
    """A name as lower-case words.

    >>> clean("__label__PriceComplaint"), clean("1.5")
    ('price complaint', '1.5')
    """
    if re.fullmatch(r"[-+]?[0-9.]+", name.strip()):
        return name.strip()
    text = _CAMEL.sub(" ", name.removeprefix("__label__"))
    return " ".join(re.sub(r"[\W_]+", " ", text).split()).lower()


def distinct(words: Sequence[str], encode: Encode | None = None) -> bool:
    """Whether no two texts begin with the same word or token; a piece for a space does not count.

    Args:
      words: at least one.
      encode: as in `label_words`.
    """
    firsts = [word.split()[0].casefold() if word.split() else "" for word in words]
    if len(set(firsts)) < len(firsts) or "" in firsts:
        return False
    if encode is None:
        return True
    *tokens, one, two = encode([*words, "A", "B"])
    # Some tokenizers begin every text with such a piece.
    space = one[0] if len(one) > 1 and one[:1] == two[:1] else None
    tokens = [ids[1:] if ids[:1] == [space] else ids for ids in tokens]
    return all(tokens) and len({ids[0] for ids in tokens}) == len(tokens)


def _distinguishing(names: Sequence[str]) -> list[str]:
    """The words of each name from the first one that no other name has; the name if all have."""
    words = [name.split() for name in names]
    found = []
    for number, own in enumerate(words):
        others = {word for i, other in enumerate(words) if i != number for word in other}
        start = next((i for i, word in enumerate(own) if word not in others), 0)
        found.append(" ".join(own[start:]))
    return found
