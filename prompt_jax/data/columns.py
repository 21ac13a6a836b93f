"""Columns of a table whose meaning is not known yet."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from prompt_jax.data.sources import Source, column, iter_rows
from prompt_jax.data.values import as_number, as_text, comparable, is_missing, plain
from prompt_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Column:
    """What is known of a column.

    Attributes:
      name: in the header.
      values: one text per row, None where there is none.
      words: per value, on average.
      distinct: number of different values, without regard to case and white space.
      numbers: whether all values are numbers.
      whole: whether all values are whole numbers.
      lists: number of rows with a list of several values, of which the first is taken.
    """

    name: str
    values: tuple[str | None, ...]
    words: float
    distinct: int
    numbers: bool
    whole: bool
    lists: int = 0

    @property
    def filled(self) -> int:
        """Number of rows with a value."""
        return sum(value is not None for value in self.values)

    @property
    def key(self) -> str:
        """The name as it is compared with known ones."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.casefold()).strip("_")


def read_columns(rows: Source, name: str) -> dict[str, Column]:
    """All columns by their names, in the order of the file.

    Raises:
      DataError: there are no rows.
    """
    if not len(rows):
        raise DataError(f"{name} has no rows.")
    names = dict.fromkeys(str(key) for row in iter_rows(rows) for key in row)
    found = {}
    for each in names:
        raw = column(rows, each)
        values = raw if raw is not None else [row.get(each) for row in iter_rows(rows)]
        found[each] = _column(each, values)
    return found


def _column(name: str, raw: Iterable[Any]) -> Column:
    raw = [plain(value) for value in raw]
    values = tuple(_text_of(value) for value in raw)
    filled = [value for value in values if value is not None]
    numbers = [as_number(value) for value in filled]
    return Column(
        name,
        values,
        sum(len(value.split()) for value in filled) / max(1, len(filled)),
        len({comparable(value) for value in filled}),
        bool(filled) and None not in numbers,
        bool(filled) and all(n is not None and n.is_integer() for n in numbers),
        sum(isinstance(value, list) and len(value) > 1 for value in raw),
    )


def _text_of(value: Any) -> str | None:
    """The text of a value; lists of texts (several answers) give their first."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with gaps stores whole numbers as 1.0
    text = None if is_missing(value) else as_text(value)
    return text if text and text.strip() else None
