"""Tables that would be read otherwise than meant: labels in several spellings, swapped columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prompt_jax.data.guess import guess
from prompt_jax.data.holdout import text_groups
from prompt_jax.data.overlap import fingerprints
from prompt_jax.data.render import label_of
from prompt_jax.data.tasks import Task, Template
from prompt_jax.data.values import comparable, plain
from prompt_jax.errors import DataError
from prompt_jax.evaluation.metrics import match_label

from .test_guess import read, table, text

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["bug", "wish", "bug\u200b", "\ufeffwish"], ("bug", "wish")),
        ([COMPOSED, "tea", DECOMPOSED, COMPOSED], (COMPOSED, "tea")),
        (["bug", "wish", "bug\u00a0", " WISH"], ("bug", "wish")),
        (["very good", "bad", "very  good"], ("bad", "very good")),
        (["0", "1", "0.0", "1.0"], ("0", "1")),
        (["0.5", "1", "0.50"], ("0.5", "1")),
    ],
)
def test_spellings_of_one_label(values: list[str], labels: tuple[str, ...]) -> None:
    made = read(table(text=text, label=values))
    assert made.labels == labels
    task = Task("t", "classification", ("text",), (Template("p", "{text}"),), labels=labels)
    numbers = [label_of(task, {"text": "x", "label": value}) for value in values]
    counted = [made.labels[number] for number in numbers] * 40
    assert made.counts == tuple(counted[:40].count(label) for label in labels)


@pytest.mark.parametrize(
    ("values", "pair"),
    [
        (["yes", "no", "true", "false"], "false and true"),
        ([True, False, 1, 0], "false and true"),
        (["Y", "N", "no"], "no and yes"),
    ],
)
def test_two_spellings_of_true_and_false_are_refused(values: list[Any], pair: str) -> None:
    with pytest.raises(DataError, match=f"two spellings of true and false.*{pair}"):
        read(table(text=text, label=values))


def test_words_among_others_are_no_truth() -> None:
    assert read(table(text=text, label=["yes", "no", "maybe", "true"])).labels[0] == "maybe"


def test_several_labels_in_a_row_are_refused() -> None:
    labels = [["bug", "wish"], ["bug"], ["wish"]]
    with pytest.raises(DataError, match=r"a list of several labels in 14 rows.*one label"):
        read(table(text=text, label=labels))
    assert read(table(text=text, label=labels), kind="text").kind == "text"


@pytest.mark.parametrize("word", ["NA", "nan", "None", "-1", "?", "<NA>"])
def test_a_label_that_may_be_missing_is_pointed_at(word: str) -> None:
    others = ["0", "1"] if word == "-1" else ["bug", "wish"]
    (note,) = [why for why in read(table(text=text, label=[*others, word])).why if word in why][1:]
    assert note == (
        f"labels: '{word}' is a label like the others. If it means that the label is missing,"
        " remove its 13 rows."
    )


def test_minus_one_is_a_label_beside_one() -> None:
    assert not any("missing" in why for why in read(table(text=text, label=["-1", "1"])).why)


def test_swapped_columns_are_refused() -> None:
    rows = table(text=["bug", "wish"], label=text)
    with pytest.raises(DataError, match="are --text and --label swapped"):
        read(rows, text=["text"], label="label")
    assert read(rows, text=["text"], label="label", kind="text").kind == "text"
    assert read(rows, text=["label"], label="text").labels == ("bug", "wish")


def test_quoted_values_of_a_tsv_are_pointed_at() -> None:
    rows = table(text=lambda i: f'"{text(i)} ""x"""' if i < 3 else text(i), label=["a", "b"])
    (note,) = [why for why in guess(rows, "t.tsv").why if "quotation" in why]
    assert note.startswith("input: 3 values of column 'text' are written in quotation marks")
    assert not any("quotation" in why for why in guess(rows, "t.csv").why)


def test_texts_are_compared_as_they_are_read() -> None:
    assert comparable(f" {DECOMPOSED}  AU\u200b lait") == comparable(f"{COMPOSED} au\u00a0Lait")
    assert comparable("Stra\u00dfe") == comparable("STRASSE")
    assert comparable("caf\u00e9") != comparable("cafe")
    rows = [{"text": COMPOSED}, {"text": f"{DECOMPOSED}\u200b "}, {"text": "cafe"}]
    assert text_groups(rows, ("text",)).tolist() == [0, 0, 1]
    task = Task("t", "text", ("text",), (Template("p", "{text}"),))
    first, second, other = fingerprints(task, rows)
    assert first == second != other
    assert match_label(f"{COMPOSED} ", ("tea", DECOMPOSED)) == 1


def test_labels_that_look_alike_are_refused() -> None:
    with pytest.raises(DataError, match="differ only in case, white space or the spelling"):
        Task("t", "text", ("text",), (Template("p", "{text}"),), labels=(COMPOSED, DECOMPOSED))


def test_bytes_that_are_no_text_are_not_repaired(tmp_path: Path) -> None:
    assert plain(b"caf\xc3\xa9") == COMPOSED
    with pytest.raises(UnicodeEncodeError):
        plain(b"caf\xe9").encode()
