"""Tables in memory, without the packages that make them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from prompt_jax.data.frames import as_jsonl, frame_rows, is_frame
from prompt_jax.errors import DataError

ROWS: list[dict[str, Any]] = [{"text": "a", "label": 1}, {"text": "b", "label": None}]


class Pandas:
    columns = ("text", "label")

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [{"text": "a", "label": np.int64(1)}, {"text": "b", "label": float("nan")}]


class Polars:
    def to_dicts(self) -> list[dict[str, Any]]:
        return ROWS


class Arrow:
    def to_pylist(self) -> list[dict[str, Any]]:
        return ROWS


class DataSet:
    def to_dict(self) -> dict[str, list[Any]]:
        raise AssertionError("columns, not rows")

    def to_list(self) -> list[dict[str, Any]]:
        return ROWS


@pytest.mark.parametrize("table", [Pandas(), Polars(), Arrow(), DataSet(), ROWS, tuple(ROWS)])
def test_every_table_in_memory_has_the_same_rows(table: Any) -> None:
    rows = frame_rows(table, "mine")
    assert list(rows) == ROWS
    assert rows.describe(1) == "row 2 of mine"
    assert [json.loads(line) for line in as_jsonl(rows).splitlines()] == ROWS


def test_a_column_that_is_there_twice_is_refused() -> None:
    class Twice(Pandas):
        columns = ("text", "label", "text")

    with pytest.raises(DataError, match="mine has the column 'text' more than once"):
        frame_rows(Twice(), "mine")


def test_tables_are_told_from_rows() -> None:
    polars, arrow = Polars(), Arrow()
    assert not is_frame(polars)  # it has no columns
    for table, attribute in ((polars, "columns"), (arrow, "column_names")):
        setattr(table, attribute, ["text", "label"])
        assert is_frame(table)
    assert is_frame(Pandas())
    assert not any(is_frame(each) for each in (ROWS, ROWS[0], "text", np.asarray(["a"])))


@pytest.mark.parametrize("table", ["a.xlsx", {"text": ["a"]}, 3, None, [["a", 1]], ["a"]])
def test_what_is_no_table_is_refused(table: Any) -> None:
    with pytest.raises(DataError, match=r"mine (must be|is str|is list)"):
        frame_rows(table, "mine")
