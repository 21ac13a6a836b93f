"""What columns mean: every kind of table, and every table that can be read in no way or in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prompt_jax.data.files import MemoryRows
from prompt_jax.data.guess import Guess, guess
from prompt_jax.data.label_words import clean, distinct, label_words
from prompt_jax.data.task_file import task_name, task_text
from prompt_jax.data.toml import load_task
from prompt_jax.errors import DataError

SENTENCE = "the app crashes when I open it after login and my screen stays black"
WORDS = SENTENCE.split()


def text(number: int, length: int = 8) -> str:
    """A sentence that differs from number to number."""
    return " ".join([*(WORDS[(number + i) % len(WORDS)] for i in range(length)), str(number)])


def table(rows: int = 40, **columns: Any) -> MemoryRows:
    """Rows of columns: a list of values in turn, or a function of the row's number."""
    made = []
    for i in range(rows):
        row = {
            name: values(i) if callable(values) else values[i % len(values)]
            for name, values in columns.items()
        }
        made.append(row)
    return MemoryRows(made, "t.csv")


def read(rows: MemoryRows, **options: Any) -> Guess:
    return guess(rows, "t.csv", **options)


def test_a_label_and_a_text_by_their_names() -> None:
    made = read(table(id=str, review=text, sentiment=["pos", "neg", "neg"]))
    assert (made.kind, made.answer) == ("classification", "sentiment")
    assert made.fields == (("review", "review"),)
    assert (made.labels, made.counts) == (("neg", "pos"), (26, 14))
    assert made.why == (
        "answer: column 'sentiment', for it is named like a label and has few values.",
        "input: column 'review', for it is named like a text.",
        "not read: id.",
        "kind: classification, for 'sentiment' has 2 different values in 40 rows.",
        "labels: neg (26), pos (14); always saying 'neg' is right in 65.0% of the rows.",
    )


@pytest.mark.parametrize(
    ("columns", "options", "fields", "answer"),
    [
        # Names that are no plain words
        (
            {"Ticket Text": text, "Owner team": ["HR", "IT"]},
            {},
            (("ticket_text", "Ticket Text"),),
            "Owner team",
        ),
        # Pairs, by their names or because there are two long texts
        (
            {"hypothesis": text, "label": [0, 1, 2], "premise": text},
            {},
            (("premise", "premise"), ("hypothesis", "hypothesis")),
            "label",
        ),
        (
            {"what": lambda i: text(i, 12), "heading": lambda i: text(i, 4), "kind": ["a", "b"]},
            {},
            (("heading", "heading"), ("what", "what")),
            "kind",
        ),
        # Given columns
        (
            {"a": text, "b": text, "c": text, "x": ["1", "2"], "y": ["1", "2"]},
            {"text": ["c", "a"], "label": "x"},
            (("c", "c"), ("a", "a")),
            "x",
        ),
        # A text of one word, and columns that are numbers or ids
        (
            {"word": lambda i: WORDS[i % 9], "size": int, "tag": ["x", "y"]},
            {},
            (("word",) * 2,),
            "tag",
        ),
        # A field may not be called like the answer
        ({"label": text, "class": ["x", "y"]}, {}, (("text", "label"),), "class"),
    ],
)
def test_fields_and_answer(
    columns: dict[str, Any], options: dict[str, Any], fields: Any, answer: str
) -> None:
    made = read(table(**columns), **options)
    assert (made.kind, made.fields, made.answer) == ("classification", fields, answer)


def test_generation_and_regression() -> None:
    made = read(table(question=text, answer=lambda i: text(i, 3)))
    assert (made.kind, made.answer, made.labels) == ("text", "answer", ())
    lists = read(table(question=text, answers=lambda i: [text(i, 3), "other"]), label="answers")
    assert lists.kind == "text"
    stated = read(table(text=text, score=lambda i: i / 8), label="score", kind="regression")
    assert (stated.kind, stated.value_range) == ("regression", (0.0, 39 / 8))
    short = read(table(text=text, code=lambda i: f"x{i}"), label="code", kind="text")
    assert short.kind == "text"


def test_labels_are_what_a_row_means_in_every_format() -> None:
    def of(values: list[Any]) -> tuple[str, ...]:
        return read(table(text=text, label=values)).labels

    assert of([True, False]) == ("false", "true")
    assert of([2.0, 10.0, 1.0]) == of([2, 10, 1]) == of(["2", "10", "1"]) == ("1", "2", "10")
    assert of(["Bug", "bug ", "Bug", "wish"]) == ("Bug", "wish")
    merged = read(table(text=text, label=["Bug", "bug", "Bug", "wish"]))
    assert "labels: 'Bug', 'bug' are one label, 'Bug'." in merged.why
    assert any(
        line.startswith("label words: the labels are numbers")
        for line in read(table(text=text, label=["1", "2"])).why
    )


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (table(5, text=text, label=["a", "b"]), {}, "t.csv has 5 rows; at least 20 are needed"),
        (table(text=text, label=["one"]), {}, "every row has the same 'label', 'one'"),
        (table(text=text, label=lambda i: f"x{i}"), {}, "has 40 different values in 40 rows, too"),
        (table(text=text, score=lambda i: i / 7), {"label": "score"}, "use --kind regression"),
        (table(text=text, score=["1", "x"]), {"label": "score", "kind": "regression"}, "has 'x'"),
        (table(text=text, a=["x", "y"], b=["x", "y"]), {}, "which column is the answer? a, b have"),
        (table(a=text, b=text, c=text, label=["x", "y"]), {}, "which column is the text"),
        (table(x=text, y=text, z=text), {}, "no column looks like an answer"),
        (table(text=text), {}, "has one column, 'text'"),
        (table(**{"text;label": text}), {}, "seem to be separated by semicolons"),
        (
            table(**{"it was a very good film indeed": text, "pos": ["pos", "neg"]}),
            {},
            "not a header",
        ),
        (table(fine=text, pos=["pos", "neg"]), {}, "(it names a column 'pos')"),
        (table(**{"fine": text, "4": ["4", "neg"]}), {}, "(it names a column '4')"),
        (
            table(text=["x y z", ""], label=["a", "b"]),
            {},
            "'text' is empty in 20 of 40 rows (row 2 of",
        ),
        (
            table(text=text, label=["a", "b", None]),
            {},
            "'label' is empty in 13 of 40 rows (row 3 of",
        ),
        (table(text=text, label=["a", "b", float("nan")]), {}, "'label' is empty in 13 of 40"),
        (
            table(text=text, label=lambda i: "bugg" if i == 3 else ["bug", "wish"][i % 2]),
            {},
            "one row only has the label 'bugg'",
        ),
        (table(text=text, label=["a", "b"]), {"label": "labl"}, "no column 'labl'. Did you mean"),
        (table(text=text, label=["a", "b"]), {"text": ["label"], "label": "label"}, "as text and"),
        (table(text=text, label=["a", "b"]), {"kind": "regresion"}, "Did you mean 'regression'?"),
        (MemoryRows([], "t.csv"), {}, "t.csv has no rows."),
    ],
)
def test_a_table_that_cannot_be_read_says_what_to_do(
    rows: MemoryRows, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(rows, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_may_have_an_empty_field_but_not_two() -> None:
    made = read(table(title=["", "some title"], body=text, label=["a", "b", "c"]))
    assert made.optional == ("title",)
    with pytest.raises(DataError, match=r"row 1 of t\.csv has no text at all"):
        read(table(title=["", "x"], body=lambda i: text(i) if i else "", label=["a", "b", "c"]))


# --- label words ---------------------------------------------------------------------------------


def test_label_words_never_begin_alike() -> None:
    assert label_words(["not_entailment", "entailment"]) == ("not entailment", "entailment")
    assert label_words(["Billing/refund", "Billing/invoice"]) == ("refund", "invoice")
    assert label_words(["not good", "not bad", "good"]) == ("not good", "bad", "good")
    assert label_words(["good", "very good", "good, very"]) == ("A", "B", "C")
    assert label_words(["1", "2", "10"]) == ("1", "2", "10")
    assert len(set(label_words([f"a {n % 3} b {n % 5}" for n in range(30)]))) == 30
    assert label_words(["👍", "👎"]) == ("👍", "👎")


def test_label_words_of_a_tokenizer() -> None:
    def letters(texts: list[str]) -> list[list[int]]:
        return [[7, *map(ord, text)] for text in texts]  # a piece that every text begins with

    assert label_words(["good", "bad"], letters) == ("good", "bad")
    assert label_words(["positive", "possible"], letters) == ("A", "B")
    assert label_words(["billing refund", "billing invoice"], letters) == ("refund", "invoice")
    assert distinct(["same", "same thing"], letters) is False
    assert label_words(["x", "y"], lambda texts: [[2] for _ in texts]) == ("A", "B")
    assert clean("__label__NotEntailment") == "not entailment"


# --- the task file -------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["", 'a "quoted" \\ name', "line\nbreak", "Straße 😀", "x\x7f"])
def test_the_file_is_a_task_that_reads_the_table(tmp_path: Path, odd: str) -> None:
    column = f"Text {odd}"
    rows = table(**{column: text, "Team": ["Billing/refund", "Billing/fee", odd or "HR"]})
    made = read(rows)
    words = label_words(made.labels)
    (tmp_path / "t.csv").touch()
    path = tmp_path / "t.toml"
    path.write_text(task_text(made, "mine", "t.csv", words, 0.25, 3), encoding="utf-8")
    task = load_task(path)
    assert (task.kind, task.holdout, task.holdout_seed) == ("classification", 0.25, 3)
    assert task.labels == made.labels
    assert task.words(task.templates[0]) == words
    row = task.renamed(rows[0])
    assert row[task.fields[0]] == rows[0][column]
    assert row["label"] == rows[0]["Team"]
    comments = [line for line in path.read_text("utf-8").splitlines() if line[:1] == "#"]
    assert len(comments) >= len(made.why)


@pytest.mark.parametrize(
    ("options", "kind", "metrics"),
    [
        ({"label": "x", "kind": "regression"}, "regression", ("pearson", "spearman")),
        ({"label": "x", "kind": "text"}, "text", ("squad_f1", "squad_em")),
        ({"label": "x"}, "classification", ("macro_f1", "accuracy")),
    ],
)
def test_the_file_of_every_kind(
    tmp_path: Path, options: dict[str, Any], kind: str, metrics: tuple[str, ...]
) -> None:
    made = read(table(text=text, x=["1", "1", "1", "1", "3"]), **options)
    (tmp_path / "t.csv").touch()
    (tmp_path / "t.toml").write_text(task_text(made, "mine", "t.csv"))
    task = load_task(tmp_path / "t.toml")
    assert (task.kind, task.metrics) == (kind, metrics)
    if kind == "regression":
        assert (task.value_range, task.value_step) == ((1.0, 3.0), 0.1)


@pytest.mark.parametrize("holdout", [0, 1, 1.5, -0.2, float("nan")])
def test_a_holdout_that_is_no_fraction_writes_no_file(holdout: float) -> None:
    made = read(table(text=text, label=["a", "b"]))
    with pytest.raises(DataError, match=r"holdout is a fraction between 0 and 1, like 0\.2, not"):
        task_text(made, "mine", "t.csv", (), holdout)


def test_names_of_tasks() -> None:
    assert task_name("My tickets (2024)") == "My_tickets_2024"
    assert task_name("…") == "task"
