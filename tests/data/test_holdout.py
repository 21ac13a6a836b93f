"""Test rows held out of one file, and columns of other names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.data import definition, load_splits, open_split
from prompt_jax.data.holdout import draw_groups, first_of_each, text_groups
from prompt_jax.data.render import render
from prompt_jax.data.sources import HeldOut, labels
from prompt_jax.data.splits import Limits
from prompt_jax.data.tasks import Task
from prompt_jax.data.toml import load_task
from prompt_jax.errors import DataError

TASK = """name = "mood"
kind = "classification"
fields = ["text"]
labels = ["sad", "glad"]
holdout = 0.2

[[templates]]
text = "{text}"

[columns]
text = "Review text"
label = "Mood"

[files]
train = "rows.jsonl"
"""


def write(folder: Path, rows: list[tuple[str, str]], text: str = TASK) -> Task:
    lines = [json.dumps({"Review text": x, "Mood": y, "label": "junk"}) for x, y in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    (folder / "mood.toml").write_text(text)
    return load_task(folder / "mood.toml")


def rows_of(count: int, copies: int = 1) -> list[tuple[str, str]]:
    """`count` rows, a fifth of them sad, of which `copies` rows each say the same."""
    return [
        (f"Number  {i // copies}" if i % 2 else f"number {i // copies}", "glad" if i % 5 else "sad")
        for i in range(count)
    ]


def texts(rows: object) -> set[str]:
    return {" ".join(row["text"].split()).casefold() for row in rows}  # type: ignore[attr-defined]


def test_every_label_keeps_its_share_and_the_draw_its_rows(tmp_path: Path) -> None:
    task = write(tmp_path, rows_of(100))
    train, test = open_split(task, "train"), open_split(task, "validation")
    assert (len(train), len(test)) == (80, 20)
    assert np.bincount(labels(task, test)).tolist() == [4, 16]
    assert np.bincount(labels(task, train)).tolist() == [16, 64]
    assert not texts(train) & texts(test)
    again = open_split(load_task(tmp_path / "mood.toml"), "validation")
    assert list(again) == list(test)
    assert test.describe(0).endswith("of rows.jsonl")  # type: ignore[attr-defined]
    other = write(tmp_path, rows_of(100), TASK.replace("0.2", "0.2\nholdout_seed = 1"))
    assert list(open_split(other, "validation")) != list(test)


def test_rows_of_equal_texts_stay_together_and_are_counted(tmp_path: Path) -> None:
    """Triples of one text, of which some have two labels: train, development, test share none."""
    task = write(tmp_path, rows_of(90, copies=3))
    for k in (0, 4):
        splits = load_splits(task, seed=1, limits=Limits(dev=20), k=k)
        parts = [texts(part) for part in (splits.train, splits.dev, splits.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert len(splits.test) == 18
        repeated, contrary = splits.notes[:2]
        assert repeated.startswith("60 of 90 rows repeat the text of another row")
        assert contrary == (
            "24 rows have the text of another row and a different label (row 1 of rows.jsonl and"
            " row 2 of rows.jsonl): at most one of them is right"
        )
    assert len(load_splits(task, limits=Limits(dev=200)).dev) in range(12, 16)


def test_groups_of_texts() -> None:
    rows = [{"a": "x Y", "b": 1}, {"a": "X  y", "b": "1"}, {"a": "x y", "b": 2}, {"a": None}]
    groups = text_groups(rows, ("a", "b"))
    assert groups.tolist() == [0, 0, 1, 2]
    assert first_of_each(groups).tolist() == [0, 2, 3]


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_whole_groups_are_drawn_of_every_class_that_has_two(fraction: float) -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 30, 200)
    classes = groups % 3
    classes[groups == 29] = 7  # a class of one group
    drawn = draw_groups(groups, classes, fraction, np.random.default_rng(1))
    for group in np.unique(groups):
        assert len(set(drawn[groups == group].tolist())) == 1
    for kind in range(3):
        assert drawn[classes == kind].any()
    assert not drawn[classes == 7].any()
    assert drawn.sum() <= max(0.01, fraction) * 200 + 30


def test_a_task_without_labels_holds_rows_out_too(tmp_path: Path) -> None:
    text = TASK.replace("classification", "text").replace('labels = ["sad", "glad"]\n', "")
    task = write(tmp_path, rows_of(50), text.replace("label = ", "answers = "))
    train, test = open_split(task, "train"), open_split(task, "validation")
    assert (len(train), len(test)) == (40, 10)
    assert isinstance(train, HeldOut)
    assert set(train.classes) == {0}
    assert render(task, task.templates[0], test[0]).target in ("sad", "glad")


def test_too_few_texts_to_hold_any_out(tmp_path: Path) -> None:
    task = write(tmp_path, [("same", "sad")] * 30)
    with pytest.raises(DataError, match="30 rows with 1 different texts are too few to hold 20%"):
        open_split(task, "train")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("0.2", "1.5", "'holdout' must be a fraction between 0 and 1, like 0.2, not 1.5"),
        ("0.2", '"0.2"', "'holdout' must be a fraction"),
        ("0.2", "0.2\nholdout_seed = -1", "holdout_seed is not negative"),
        ("holdout = 0.2", "holdout_seed = 1", "'validation' is missing"),
        ("train =", 'validation = "rows.jsonl"\ntrain =', "with 'holdout' there is one file"),
        ('train = "rows.jsonl"', "", "with 'holdout' there is one file, 'train'"),
        ("Mood", "Review text", "column 'Review text' cannot be read as"),
        ('"Mood"', '"text"', "column 'text' cannot be read as 'label': it is the name of"),
        ('label = "Mood"', 'lable = "Mood"', "unknown field 'lable'. Did you mean 'label'"),
        ('label = "Mood"', "label = 3", "columns: 'label' must be a text, not 3"),
    ],
)
def test_wrong_task_files(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert TASK.count(old)
    with pytest.raises(DataError) as caught:
        write(tmp_path, rows_of(30), TASK.replace(old, new, 1))
    assert says in str(caught.value)


def test_a_row_is_read_under_its_own_names_or_those_of_the_task(tmp_path: Path) -> None:
    """A junk column that is called like the answer is not the answer."""
    task = write(tmp_path, rows_of(30))
    template = task.templates[0]
    for row in ({"Review text": "x", "Mood": "glad", "label": "junk"}, {"text": "x", "label": 1}):
        example = render(task, template, row)
        assert (example.input, example.target) == ("x", "glad")
        assert render(task, template, task.renamed(row)) == example
    # The definition in a prompt's record knows the columns, without the data.
    recorded = definition.from_json(definition.to_json(task), "record")
    assert (recorded.columns, recorded.files, recorded.holdout) == (task.columns, (), 0)
    with pytest.raises(DataError, match=r"no field 'text' \(column 'Review text'\)"):
        render(task, template, {"Mood": "glad"})
