"""The rows that `predict` reads: lines, JSON and tables. No model is loaded here."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prompt_jax import methods
from prompt_jax.cli import common, inputs, loading, predict
from prompt_jax.data import registry
from prompt_jax.errors import ConfigError, DataError
from tests.cli.conftest import Invoke

TASK = """name = "tickets"
kind = "classification"
fields = ["text"]
labels = ["bug", "question"]
description = "Tickets."
[[templates]]
name = "plain"
text = "ticket: {text}"
labels = ["broken", "asked"]
"""
ROWS = [
    {"id": "t7", "text": "it crashes, often", "label": "bug"},
    {"id": "t8", "text": 'how do I "log" in?', "label": "question"},
    {"id": "t9", "text": "no sound", "label": ""},
]


def write(folder: Path, name: str) -> str:
    """The three rows in a format."""
    path = folder / name
    suffix = name.removesuffix(".gz")
    if suffix.endswith(".parquet"):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
        return str(path)
    if suffix.endswith(".csv"):
        cells = [[v.replace('"', '""') for v in row.values()] for row in ROWS]
        text = "id,text,label\n" + "".join('"{}","{}","{}"\n'.format(*row) for row in cells)
    elif suffix.endswith(".tsv"):
        text = "id\ttext\tlabel\n" + "".join("\t".join(row.values()) + "\n" for row in ROWS)
    else:
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


@pytest.fixture
def tickets(tmp_path: Path) -> str:
    path = tmp_path / "tickets.toml"
    path.write_text(TASK + '[files]\ntrain = "t.csv"\nvalidation = "t.csv"\n')
    write(tmp_path, "t.csv")
    return str(path)


@pytest.mark.parametrize(
    "name",
    ["r.csv", "r.tsv", "r.parquet", "r.jsonl", "r.ndjson", "r.csv.gz", "r.jsonl.gz", "R.CSV"],
)
def test_a_header_is_no_row_and_a_label_is_no_input(
    tickets: str, tmp_path: Path, name: str
) -> None:
    source = write(tmp_path, "x.csv" if name == "R.CSV" else name)
    if name == "R.CSV":
        source = str(Path(source).rename(tmp_path / name))
    rows = inputs.read(source, False, registry.get(tickets), None, ["p", "q"])
    assert [row.example.input for row in rows] == [f"ticket: {row['text']}" for row in ROWS]
    assert [row.example.label for row in rows] == [0, 1, -1]
    assert [row.labelled for row in rows] == [True, True, False]
    assert [row.id for row in rows] == ["t7", "t8", "t9"]
    assert [row.line for row in rows] == [1, 2, 3]
    assert {row.prompts for row in rows} == {(0, 1)}
    assert {row.is_line for row in rows} == {name in ("r.jsonl", "r.ndjson")}


def test_text_stays_lines(tickets: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("text,label\nit crashes,bug\n")
    rows = inputs.read(str(path), False, registry.get(tickets), None, ["p"])
    assert [row.example.input for row in rows] == ["ticket: text,label", "ticket: it crashes,bug"]


def test_a_table_without_a_task_has_inputs(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("input,other\na b,c\n")
    (row,) = inputs.read(str(path), False, None, None, ["p"])
    assert (row.example.input, row.task) == ("a b", None)


@pytest.mark.parametrize(
    ("name", "text", "jsonl", "says"),
    [
        (
            "r.csv",
            "subject,label\na,bug\n",
            False,
            "row 1 of {} has no field 'text' (task 'tickets'); it has subject, label.",
        ),
        ("r.csv", "text,label\na,bugs\n", False, "row 1 of {} has label 'bugs', which is not one"),
        ("r.csv", "text,label\n", False, "{} has no rows."),
        ("r.csv", "text,label\na\n", False, "line 2 of {} has 1 columns, the header has 2."),
        ("r.csv", "text\na\n", True, "{} is a table: omit --jsonl."),
        ("r.json", '[{"text": "a"}]', False, "{} is neither lines of text (.txt, or stdin) nor"),
        ("r.parquet", "hello", False, "{}: damaged parquet file"),
    ],
)
def test_one_clear_error(
    tickets: str, tmp_path: Path, name: str, text: str, jsonl: bool, says: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((DataError, ConfigError)) as error:
        inputs.read(str(path), jsonl, registry.get(tickets), None, ["p"])
    assert says.format(path) in str(error.value)


def test_a_table_without_the_column_input(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("text,label\na,bug\n")
    with pytest.raises(DataError) as error:
        inputs.read(str(path), False, None, None, ["p"])
    assert str(error.value) == (
        f'row 1 of {path} needs {{"input": TEXT}}, or --task to render its fields; it has text,'
        " label."
    )


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A prompt file, with answers in place of a model's: always the first class, the last a tie."""
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"")

    def answer(lm, loaded, rows, *_):
        made = {}
        for row in rows:
            tied = (0, 1) if row is rows[-1] else ()
            scores = {"broken": float("nan"), "asked": 2.0}
            made[row.line, 0] = predict.Answer("broken", scores, 0, tied)
        return made

    monkeypatch.setattr(loading, "load_model", lambda *_, **__: SimpleNamespace(tokenizer=None))
    monkeypatch.setattr(loading, "load_prompts", lambda *_, **__: [])
    monkeypatch.setattr(predict, "_refuse_other_answers", lambda *_: None)
    monkeypatch.setattr(predict, "_warn_about_templates", lambda *_: None)
    monkeypatch.setattr(predict, "_answer", answer)
    return str(path)


def test_json_has_labels_ids_and_gold(
    invoke: Invoke, tickets: str, tmp_path: Path, answered: str
) -> None:
    source = write(tmp_path, "r.csv")
    made = invoke("predict", "m", source, "--prompt", answered, "--task", tickets, "--json")
    assert made.code == 0, made.err
    first, second, third = (json.loads(line) for line in made.out.splitlines())
    assert first == {
        "row": 1,
        "id": "t7",
        "prompt": "p",
        "answer": "broken",
        "label": "bug",
        "scores": {"broken": None, "asked": 2.0},
        "gold": "bug",
    }
    assert (second["label"], second["gold"]) == ("bug", "question")
    assert "gold" not in third
    assert third["tied"] == ["broken", "asked"]
    assert made.err == (
        "prompt-jax: p on tickets: accuracy 50.0 on 2 rows with a label; 1 have none.\n"
    )


def test_a_tie_is_scored_as_a_part(
    invoke: Invoke, tickets: str, tmp_path: Path, answered: str
) -> None:
    source = tmp_path / "r.jsonl"
    for label in ("bug", "question"):
        source.write_text(json.dumps({"text": "a", "label": label}) + "\n")
        made = invoke("predict", "m", source, "--prompt", answered, "--task", tickets)
        assert made.out == "broken (bug)\n"
        assert made.err == "prompt-jax: p on tickets: accuracy 50.0 on 1 row with a label.\n"


def test_without_labels_nothing_is_scored(invoke: Invoke, tickets: str, answered: str) -> None:
    arguments = ("predict", "m", "--prompt", answered, "--task", tickets)
    made = invoke(*arguments, stdin=b"one\ntwo\n")
    assert (made.code, made.out, made.err) == (0, "broken (bug)\nbroken (bug)\n", "")


def test_a_missing_prompt_is_noticed_first(invoke: Invoke, tmp_path: Path) -> None:
    for arguments in (
        ("predict", "nowhere", "--prompt", tmp_path / "p.safetensors"),
        ("evaluate", "nowhere", tmp_path / "p.safetensors", "--task", "glue/rte"),
    ):
        made = invoke(*arguments)
        assert (made.code, made.out) == (2, "")
        assert made.err == f"prompt-jax: there is no file {tmp_path / 'p.safetensors'}.\n"


def test_methods_of_plugins_are_known_before_prompts_are_read(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(methods, "load_plugin", loaded.append)
    path = str(tmp_path / "p.safetensors")
    for arguments in (
        ("predict", "nowhere", "--prompt", path),
        ("evaluate", "nowhere", path, "--task", "glue/rte"),
    ):
        made = invoke(*arguments, "--plugin", "mine.py", "--plugin", "yours")
        assert made.err == f"prompt-jax: there is no file {path}.\n"
        assert loaded == ["mine.py", "yours"]
        loaded.clear()


def test_json_is_valid_on_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"answer": "café \N{PILE OF POO}", "score": float("inf"), "n": np.float64(1.5)}
    for encoding, plain in (("ascii", True), ("latin-1", True), ("utf-8", False), ("UTF8", False)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
        monkeypatch.setattr(sys, "stdout", stream)
        text = common.json_text(data)
        assert text.isascii() == plain
        print(text)
        stream.flush()
        written = stream.buffer.getvalue().decode(encoding)
        assert json.loads(written) == {"answer": data["answer"], "score": None, "n": 1.5}
        assert common.prints(["café"]) == (encoding != "ascii")


@pytest.mark.parametrize(("continues", "word"), [(True, "positive"), (False, "good")])
def test_rows_have_the_label_words_of_the_model(tmp_path, monkeypatch, continues, word):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"sentence": "fine", "label": 1}\n')
    (row,) = inputs.read(str(path), False, registry.get("mr"), None, ["p"])
    monkeypatch.setattr("prompt_jax.models.texts.continues", lambda tokenizer: continues)
    row = inputs.for_model(row, object())
    assert (row.example.target, row.example.candidates[1]) == (word, word)
    assert row.task is not None
    assert row.task.words(row.task.template())[1] == word
