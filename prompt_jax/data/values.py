"""Values of rows: which of them are missing, which are texts, and which label a value is.

Readers give values of different types for the same row: CSV has the text "1", pandas writes 1.0,
JSON has 1 or true, numpy has scalars of its own. Here they get one meaning, or none.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

# Missing values of pandas, known by name: pandas is not imported.
_MISSING_TYPES = ("NAType", "NaTType")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
# What true and false can be called by labels.
_BOOLEANS = {"true": ("true", "yes"), "false": ("false", "no")}
# Characters without a width: soft hyphen, zero-width space and joiners, marks of direction and
# of byte order.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))


def comparable(text: str) -> str:
    r"""A text as it is compared with others.

    Case, white space, characters without a width, and the two spellings of accents in Unicode (one
    character or two) do not count.

    >>> comparable("Cafe\u0301\u200b  au lait ") == comparable("caf\u00e9 au lait")
    True
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
        text = unicodedata.normalize("NFC", text.casefold())
    return " ".join(text.casefold().split())


def plain(value: Any) -> Any:
    """Converts bytes to text and numpy values to Python values, recursively.

    Bytes that are not UTF-8 become lone surrogates, which `render` refuses in a text.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return value


def is_missing(value: Any) -> bool:
    """Whether a value stands for no value: None, NaN, or pandas' NaT and NA.

    A word such as "nan" is a text, and the empty text is a text too.

    >>> tuple(is_missing(value) for value in (None, float("nan"), "nan", "", 0))
    (True, True, False, False, False)
    """
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating | Decimal) and bool(value != value)


def as_text(value: Any) -> str | None:
    """The text of a value; None if it has none.

    Texts and finite numbers have one. Booleans, missing values, lists and tables have none.

    >>> as_text("nan"), as_text(1984), as_text(True), as_text(float("nan"))
    ('nan', '1984', None, None)
    """
    value = _scalar(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value) if isinstance(value, int) or math.isfinite(value) else None


def as_number(value: Any) -> float | None:
    """The finite number that a value is or that its text spells; None for anything else.

    >>> as_number("2.50 "), as_number(3), as_number(True), as_number("nan"), as_number("1_0")
    (2.5, 3.0, None, None, None)
    """
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads "1_0" as ten
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_number(value: Any) -> int | None:
    """The whole number that a value is or that its text spells in digits; None otherwise.

    Tables with missing values store whole numbers as 1.0, so 1.0 and "1.0" are 1.

    >>> whole_number("1"), whole_number(1.0), whole_number("1.0"), whole_number(0.5)
    (1, 1, 1, None)
    """
    value = _scalar(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    number = as_number(value)
    return None if number is None or not number.is_integer() else int(number)


def match_label(value: Any, labels: Sequence[str], count: int) -> int | None:
    """The number of the label that a value of a row names; None if it names none.

    The result does not depend on the format of the file: 1, 1.0, "1" and "1.0" are equal, and so
    are true, "true" and "TRUE". These are tried in order:

    1. A text is one of the labels, compared by `comparable`.
    2. Where labels are numbers themselves ("1" to "5"), a number is the label of that value, and
       never an index.
    3. True is the label "true" or "yes", and false is "false" or "no", without regard to case.
    4. A whole number is an index, counted from 0.

    Args:
      value: as a reader returned it.
      labels: the label words; empty if the answers of rows have no names.
      count: number of answers that an index can select.

    >>> match_label(True, ("False", "True"), 2), match_label("TRUE", ("no", "yes"), 2)
    (1, 1)
    >>> match_label(1, ("1", "2"), 2), match_label(0, ("1", "2"), 2), match_label(1, ("a", "b"), 2)
    (0, None, 1)
    """
    value = _scalar(value)
    if isinstance(value, bool):
        value = str(value)
    elif not isinstance(value, str | int | float) or is_missing(value):
        return None
    names = _names(tuple(labels))
    if isinstance(value, str):
        word = comparable(value)
        for name in (word, *_BOOLEANS.get(word, ())):
            if name in names.words:
                return names.words[name]
    if names.has_numbers:
        number = spelt_number(value)
        return None if number is None else names.numbers.get(number)
    index = whole_number(value)
    return index if index is not None and 0 <= index < count else None


class _Names(NamedTuple):
    words: dict[str, int]  # by the label as it is compared
    numbers: dict[float, int]  # by the value of labels that are numbers
    has_numbers: bool


@functools.lru_cache(maxsize=256)
def _names(labels: tuple[str, ...]) -> _Names:
    # A task's labels differ in more than `comparable` leaves.
    words = {comparable(label): i for i, label in enumerate(labels)}
    spelt = [spelt_number(label) for label in labels]
    # A number that two labels spell ("1" and "1.0") selects neither.
    numbers = {n: i for i, n in enumerate(spelt) if n is not None and spelt.count(n) == 1}
    return _Names(words, numbers, any(n is not None for n in spelt))


def spelt_number(value: str | int | float) -> float | None:
    """The number that a label or a value of a row is, if it is written as a plain number.

    >>> spelt_number("1.0"), spelt_number("1e0"), spelt_number("one")
    (1.0, None, None)
    """
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    return as_number(value)


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
