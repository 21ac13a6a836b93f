"""Rows that are in two splits are counted; the same rows as both splits are refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from prompt_jax.data import Task, Template, load_splits, make_splits, overlap, render_rows
from prompt_jax.data.overlap import Overlap, check_rows
from prompt_jax.errors import DataError, MissingDataError

from .conftest import NLI, nli_rows, write_jsonl

FIELDS = ("premise", "hypothesis", "label")


def own(train: Path, validation: Path) -> Task:
    """A user's task of two files."""
    return dataclasses.replace(NLI, files=(("train", str(train)), ("validation", str(validation))))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_rows_are_counted_by_input_and_answer():
    rows = nli_rows(6)
    flipped = {**rows[1], "label": 1 - rows[1]["label"]}
    train, test = ([rows[0], rows[1], rows[5]], [rows[0], rows[0], flipped, rows[3]])
    made = [render_rows(NLI, part) for part in (train, test)]
    assert overlap.count(*made) == Overlap(same=2, other=1, rows=4)
    # A training row with either answer: the test row's own is there.
    assert overlap.count(render_rows(NLI, [*train, flipped]), made[1]) == Overlap(3, 0, 4)
    assert overlap.count([], made[1]) == Overlap(0, 0, 4)
    assert overlap.count(made[0], []) == Overlap(0, 0, 0)


def test_choices_are_part_of_the_input():
    template = Template("t", "Which is right?", choice_answers="text")
    task = Task("pairs", "choice", ("good", "bad"), (template,), choices=("good", "bad"))
    train, test = (
        render_rows(task, [{"good": good, "bad": "x", "label": 0}]) for good in ("a", "b")
    )
    assert overlap.count(train, test) == Overlap(0, 0, 1)
    assert overlap.count(train, train) == Overlap(1, 0, 1)


def same_file(folder: Path, train: Path) -> Path:
    return train


def symbolic_link(folder: Path, train: Path) -> Path:
    (folder / "link.jsonl").symlink_to(train)
    return folder / "link.jsonl"


def hard_link(folder: Path, train: Path) -> Path:
    os.link(train, folder / "hard.jsonl")
    return folder / "hard.jsonl"


def copied(folder: Path, train: Path) -> Path:
    (folder / "copy.jsonl").write_bytes(train.read_bytes())
    return folder / "copy.jsonl"


def shuffled(folder: Path, train: Path) -> Path:
    return write_jsonl(folder / "other.jsonl.gz", nli_rows(10)[::-1])


def as_csv(folder: Path, train: Path) -> Path:
    return write_csv(folder / "same.csv", nli_rows(10))


@pytest.mark.parametrize("make", [same_file, symbolic_link, hard_link, copied, shuffled, as_csv])
def test_the_same_rows_as_train_and_validation_are_refused(tmp_path, make):
    train = write_jsonl(tmp_path / "train.jsonl", nli_rows(10))
    task = own(train, make(tmp_path, train))
    for read in (load_splits, check_rows):
        with pytest.raises(
            DataError,
            match=r"train and validation are the same 10 rows \(train\.jsonl.*set holdout = 0\.2",
        ):
            read(task)


def test_one_object_as_both_splits_is_refused():
    rows = nli_rows(10)
    with pytest.raises(DataError, match="are the same 10 rows, so"):
        make_splits(NLI, rows, rows)


def test_a_source_whose_rows_are_the_test_rows_of_a_target_is_refused(tmp_path, monkeypatch):
    one, two = (
        own(
            *(
                write_jsonl(tmp_path / f"{name}{split}.jsonl", nli_rows(6, first))
                for split, first in (("a", start), ("b", start + 50))
            )
        )
        for name, start in (("x", 0), ("y", 100))
    )
    # The same texts under other names of fields, in capitals, with other answers.
    rows = [{"s": f"P{i} is HERE  h{i}", "t": "is", "label": "k"} for i in range(150, 156)]
    other = dataclasses.replace(
        NLI,
        name="other",
        fields=("s", "t"),
        templates=(Template("t", "Say: {s} {t}"),),
        labels=("k", "l"),
        files=(
            ("train", str(write_jsonl(tmp_path / "other.jsonl", rows[::-1]))),
            ("validation", str(tmp_path / "xb.jsonl")),
        ),
    )
    target = dataclasses.replace(two, name="target")
    overlap.refuse_tested_sources([one], [target])
    with pytest.raises(DataError, match="source 'other' trains on the 6 test texts of the target"):
        overlap.refuse_tested_sources([one, other], [one, target])
    overlap.refuse_tested_sources([target, NLI], [target, NLI])
    monkeypatch.setattr(overlap, "CHECKED_ROWS", 5)
    overlap.refuse_tested_sources([other], [target])


def test_columns_of_other_names_hide_nothing(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", nli_rows(4))
    rows = [{"p": row["premise"], **row} for row in nli_rows(4)]
    task = own(
        train, write_jsonl(tmp_path / "val.jsonl", [{**row, "premise": "x"} for row in rows])
    )
    assert check_rows(task).overlap == Overlap(0, 0, 4)
    renamed = own(*(write_jsonl(tmp_path / f"{name}.jsonl", rows) for name in ("a", "b")))
    renamed = dataclasses.replace(renamed, columns=(("premise", "p"),))
    with pytest.raises(DataError, match="are the same 4 rows"):
        check_rows(renamed)


def test_held_out_rows_of_one_file_are_others(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", nli_rows(8))
    task = dataclasses.replace(NLI, files=(("train", str(train)),), holdout=0.5)
    assert check_rows(task) == ({"train": 4, "validation": 4}, Overlap(0, 0, 4))


def test_the_same_rows_in_a_folder_are_refused(tmp_path):
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "toy_nli" / f"{split}.jsonl", nli_rows(10))
    with pytest.raises(DataError, match="are the same 10 rows"):
        load_splits(NLI, tmp_path, k=1)


def test_rows_that_are_in_both_files_are_counted(tmp_path):
    rows = nli_rows(10)
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    flipped = {**rows[2], "label": 1}
    task = own(train, write_csv(tmp_path / "val.csv", [*rows[:2], flipped, *nli_rows(7, 50)]))
    assert check_rows(task) == ({"train": 10, "validation": 10}, Overlap(2, 1, 10))
    assert len(load_splits(task).test) == 10


def test_large_files_and_generated_rows_are_not_read(tmp_path, monkeypatch):
    train = write_jsonl(tmp_path / "train.jsonl", nli_rows(10))
    task = own(train, write_jsonl(tmp_path / "val.jsonl", nli_rows(3)))
    monkeypatch.setattr(overlap, "CHECKED_ROWS", 9)
    assert check_rows(task) == ({"train": 10, "validation": 3}, None)
    assert check_rows(task).shared is None
    folder = tmp_path / "toy_nli"
    for split, count in (("train", 3), ("validation", 4)):
        write_jsonl(folder / f"{split}.jsonl", nli_rows(count, 50 * count))
    monkeypatch.setattr(overlap, "CHECKED_ROWS", 39)
    assert check_rows(NLI, tmp_path).overlap is None
    monkeypatch.setattr(overlap, "CHECKED_ROWS", 40)
    assert check_rows(NLI, tmp_path).overlap == Overlap(0, 0, 4)
    monkeypatch.setattr(overlap, "render_rows", lambda *args: pytest.fail("rows are read"))
    made = dataclasses.replace(NLI, make_rows=lambda split: [{"never": "rendered"}])
    assert check_rows(made) == ({"train": 1, "validation": 1}, None)


SINGLE = Task(
    "single",
    "classification",
    ("sentence",),
    (Template("t", "it says {sentence}"),),
    labels=("bad", "good"),
)


def test_texts_are_compared_across_tasks(tmp_path):
    pairs = nli_rows(6)
    louder = [{**row, "premise": f" {row['premise'].upper()} ", "label": 0} for row in pairs[:2]]
    source = own(write_jsonl(tmp_path / "a.jsonl", pairs), write_jsonl(tmp_path / "b.jsonl", []))
    tested = write_jsonl(tmp_path / "c.jsonl", [*louder, *nli_rows(3, 70)])
    target = dataclasses.replace(own(tested, tested), name="target")
    assert overlap.shared_texts([source], [target]) == [("toy/nli", "target", 2, 5)]
    assert overlap.shared_texts([], [target]) == []
    assert overlap.shared_texts([target], [target]) == []  # known from their names
    # The first field of a pair is not the row, and a task of one field is compared by that.
    texts = [{"sentence": row["premise"], "label": 0} for row in pairs]
    write_jsonl(tmp_path / "single" / "train.jsonl", texts[:4])
    write_jsonl(tmp_path / "single" / "validation.jsonl", texts[4:])
    named = dataclasses.replace(
        SINGLE,
        name="named",
        fields=("body",),
        templates=(Template("t", "{body}"),),
        files=(("validation", str(tmp_path / "d.jsonl")),),
    )
    write_jsonl(tmp_path / "d.jsonl", [{"body": row["sentence"], "label": 1} for row in texts])
    assert overlap.shared_texts([source, SINGLE], [named], tmp_path) == [("single", "named", 4, 6)]
    assert overlap.shared_texts([SINGLE], [named], tmp_path / "single") == []  # not here


def test_large_splits_of_other_tasks_are_said_to_be_unread(tmp_path, monkeypatch):
    source = own(*(write_jsonl(tmp_path / f"{name}.jsonl", nli_rows(9)) for name in "ab"))
    target = dataclasses.replace(source, name="target")
    monkeypatch.setattr(overlap, "CHECKED_ROWS", 8)
    monkeypatch.setattr(overlap, "_fingerprint", lambda *_: pytest.fail("rows are read"))
    assert overlap.shared_texts([source], [target]) == [("toy/nli", "target", None, 9)]


def test_every_row_of_files_is_checked(tmp_path):
    good = write_jsonl(tmp_path / "good.jsonl", nli_rows(4))
    bad = write_jsonl(tmp_path / "bad.jsonl", [*nli_rows(3, 9), {**nli_rows(1)[0], "label": "so"}])
    for task in (own(good, bad), own(bad, good)):
        with pytest.raises(DataError, match=r"^row 4 of bad\.jsonl has label 'so'"):
            check_rows(task)
    only = dataclasses.replace(NLI, split_protocol="evaluation", files=(("validation", str(bad)),))
    with pytest.raises(DataError, match=r"^row 4 of bad\.jsonl has label 'so'"):
        check_rows(only)
    alone = dataclasses.replace(only, files=(("validation", str(good)),))
    assert check_rows(alone) == ({"validation": 4}, None)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="its validation split has no rows"):
        check_rows(own(good, tmp_path / "empty.jsonl"))


def test_data_that_is_not_here_is_told_from_data_that_is_wrong(tmp_path):
    with pytest.raises(MissingDataError):
        check_rows(NLI, tmp_path)
    (tmp_path / "toy_nli").mkdir()
    (tmp_path / "toy_nli" / "validation.jsonl").write_text(json.dumps(nli_rows(1)[0]) + "\n[")
    with pytest.raises(DataError, match="line 2 of") as caught:
        check_rows(NLI, tmp_path)
    assert not isinstance(caught.value, MissingDataError)
