"""One row means the same, or is refused, whichever reader it comes from."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from prompt_jax.data.files import MemoryRows, read_rows
from prompt_jax.data.sources import Mapped, labels
from prompt_jax.data.tokenise import render_rows
from prompt_jax.errors import DataError

from .conftest import NLI

FORMATS = ["csv", "tsv", "jsonl", "parquet", "tfds"]
TASK = dataclasses.replace(NLI, templates=NLI.templates[:1])
GOOD = {"premise": "a", "hypothesis": "b"}


def source(folder: Path, form: str, rows: list[dict[str, Any]]) -> Any:
    """Rows as a reader of this format returns them; texts of CSV and TSV are those of pandas."""
    path = folder / f"rows.{form}"
    if form == "tfds":  # bytes, as TensorFlow Datasets returns texts
        encoded = [
            {name: v.encode() if isinstance(v, str) else v for name, v in row.items()}
            for row in rows
        ]
        return Mapped(MemoryRows(encoded, path.name))
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        made = io.StringIO()
        writer = csv.writer(made, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
        writer.writerows([list(rows[0]), *([_cell(v) for v in row.values()] for row in rows)])
        path.write_text(made.getvalue())
    return read_rows(path)


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def with_labels(*values: Any) -> list[dict[str, Any]]:
    return [{**GOOD, "label": value} for value in values]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (("True", "False"), (True, False), [0, 1]),
        (("no", "yes"), (True, False), [1, 0]),
        (("yes", "no"), ("True", "False"), [0, 1]),
        (("low", "high"), (0, 1), [0, 1]),
        (("low", "high"), (0.0, 1.0), [0, 1]),
        (("low", "high"), ("0", "1.0"), [0, 1]),
        (("1", "2"), (1, 2), [0, 1]),
        (("2", "1"), (1.0, 2.0), [1, 0]),
        (("low", "high"), (" High", "LOW "), [1, 0]),
    ],
)
def test_labels_mean_the_same_in_every_format(tmp_path, form, names, values, expected):
    task = dataclasses.replace(TASK, labels=names)
    rows = source(tmp_path, form, with_labels(*values))
    assert labels(task, rows).tolist() == expected
    assert [example.target for example in render_rows(task, rows)] == [names[i] for i in expected]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("low", "high"), (True, False)),
        (("1", "2"), (1, 0)),
        (("low", "high"), (1.0, math.nan)),
        (("low", "high"), ("low", None)),
        (("low", "high"), (0, 0.5)),
    ],
)
def test_labels_are_refused_in_every_format(tmp_path, form, names, values):
    task = dataclasses.replace(TASK, labels=names)
    rows = source(tmp_path, form, with_labels(*values))
    for read in (labels, render_rows):
        with pytest.raises(DataError, match=rf"^row \d of rows\.{form} has label"):
            read(task, rows)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("missing", [None, math.nan, ""])
def test_missing_texts_are_refused_or_empty_in_every_format(tmp_path, form, missing):
    if form == "parquet" and missing is not None and missing != "":
        missing = None  # a column of texts has nulls
    rows = source(tmp_path, form, [{**GOOD, "label": 0}, {**GOOD, "premise": missing, "label": 1}])
    with pytest.raises(
        DataError, match=rf"^row 2 of rows\.{form}: field 'premise' (must|is empty)"
    ):
        render_rows(TASK, rows)
    optional = dataclasses.replace(TASK, optional_fields=("premise",))
    assert render_rows(optional, rows)[1].input == "premise:  hypothesis: b"


def test_a_column_of_numbers_with_a_gap(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"premise": [1.5, math.nan], "hypothesis": ["a", "b"], "label": [0, 1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"^row 2 of rows\.parquet: field 'premise' must be a text"):
        render_rows(TASK, read_rows(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("word", ["nan", "None", "null", "NA"])
def test_words_stay_words_in_every_format(tmp_path, form, word):
    rows = source(tmp_path, form, [{**GOOD, "premise": word, "label": 0}])
    assert render_rows(TASK, rows)[0].input == f"premise: {word} hypothesis: b"
