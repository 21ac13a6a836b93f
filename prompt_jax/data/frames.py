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


def as_jsonl(rows: MemoryRows) -> bytes:
    """Rows as the content of a JSONL file; what JSON cannot hold becomes its text."""
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def _value(value: Any) -> Any:
    value = plain(value)
    return None if is_missing(value) else value
