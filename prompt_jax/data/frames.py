"""Rows of tables in memory: data frames, Arrow tables, data sets and lists of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from prompt_jax.data.files import MemoryRows
from prompt_jax.data.values import is_missing, plain
from prompt_jax.errors import DataError

# Methods that return all rows as dictionaries, of pandas, polars, Arrow and Hugging Face data sets;
# none of these packages is imported.
_METHODS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("to_dicts", ()),
    ("to_pylist", ()),
    ("to_list", ()),
    ("to_dict", ("records",)),
)


def frame_rows(frame: Any, name: str) -> MemoryRows:
    """The rows of a table in memory; missing values become None, numpy values Python's.

    Args:
      frame: a data frame of pandas or polars, an Arrow table, a Hugging Face data set, or rows that
        are mappings of texts to values.
      name: of the table, for messages.

    Raises:
      DataError: it is nothing of the kind.
    """
    names = [str(each) for each in _names(frame)]
    if repeated := next((each for each in names if names.count(each) > 1), None):
        raise DataError(f"{name} has the column '{repeated}' more than once: rename one of them.")
    rows: Any = frame
    for method, arguments in _METHODS:
        if hasattr(frame, method) and not isinstance(frame, Mapping | list):
            rows = getattr(frame, method)(*arguments)
            break
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise DataError(
            f"{name} must be a data frame or a list of rows (mappings), not {type(frame).__name__}."
        )
    made = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number} of {name} is {type(row).__name__}, not a mapping of columns."
            )
        made.append({str(key): _value(value) for key, value in row.items()})
    return MemoryRows(made, name)


def is_frame(table: Any) -> bool:
    """Whether a value is a table whose rows `frame_rows` reads by a method of its own."""
    known = any(hasattr(table, method) for method, _ in _METHODS)
    return known and bool(_names(table)) and not isinstance(table, Mapping | list | str)


def _names(frame: Any) -> list[Any]:
    """The names of the columns; none where there are none."""
    for attribute in ("column_names", "columns"):
        names = getattr(frame, attribute, None)
        if names is not None and not callable(names):
            return list(names)
    return []


def as_jsonl(rows: MemoryRows) -> bytes:
    """Rows as the content of a JSONL file; what JSON cannot hold becomes its text."""
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def _value(value: Any) -> Any:
    value = plain(value)
    return None if is_missing(value) else value
