"""Rows that two splits share, of a task or of two: tests that the training data answers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prompt_jax.data.files import ArrowRows, MemoryRows
from prompt_jax.data.render import Example
from prompt_jax.data.sources import Renamed, Source, Subset, iter_rows, open_split
from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import render_rows
from prompt_jax.data.values import as_text, comparable
from prompt_jax.errors import DataError, MissingDataError

CHECKED_ROWS = 50_000
"""Most rows of a split of a user's file that are read before a run: about a second."""


class Overlap(NamedTuple):
    """How many rows of a split are training rows too.

    Attributes:
      same: rows with the input and the answer of a training row.
      other: rows with the input of training rows, all of which have other answers.
      rows: rows of the split.
    """

    same: int
    other: int
    rows: int


class CheckedRows(NamedTuple):
    """What `check_rows` found.

    Attributes:
      rows: number of rows of "train" and "validation" (as published).
      overlap: of the validation split with the training rows; None: not compared.
    """

    rows: dict[str, int]
    overlap: Overlap | None

    @property
    def shared(self) -> dict[str, int] | None:
        """`overlap`, JSON-able."""
        return None if self.overlap is None else self.overlap._asdict()


def count(train: Iterable[Example], rows: Sequence[Example]) -> Overlap:
    """Counts the rows of a split whose input is that of a training row.

    The rows of both have to be under the same template. Inputs are equal if their texts are, with
    the candidates of a choice.

    Args:
      train: the training rows.
      rows: the split.

    >>> count([Example("a", "yes"), Example("b", "no")], [Example("a", "yes"), Example("b", "yes")])
    Overlap(same=1, other=1, rows=2)
    """
    answers: dict[object, set[object]] = {_input(example): set() for example in rows}
    for example in train:
        known = answers.get(_input(example))
        if known is not None:
            known.add(_answer(example))
    seen = [(_answer(example), answers[_input(example)]) for example in rows]
    same = sum(answer in known for answer, known in seen)
    return Overlap(same, sum(bool(known) for _, known in seen) - same, len(seen))


def refuse_identical_splits(task: Task, train: Source, validation: Source) -> None:
    """Refuses to train and test on the same rows of files.

    Links, copies, other orders and other formats of the same rows are the same.

    Raises:
      DataError: the two have the same rows; the message says what to do.
    """
    if train is not validation:
        if not (_in_file(train) and _in_file(validation)) or len(train) != len(validation):
            return
        first = Counter(map(_row, render_rows(task, train)))
        if first != Counter(map(_row, render_rows(task, validation))):
            return
    names = list(dict.fromkeys(_file(rows) for rows in (train, validation)))
    where = f" ({' and '.join(names)})" if all(names) else ""
    raise DataError(
        f"task '{task.name}': train and validation are the same {len(train):,} rows{where}, so the"
        " test would be answered by the training data. Name a file with other rows as 'validation',"
        " or leave it out and set holdout = 0.2, which draws the test rows from 'train'."
    )


def check_rows(task: Task, root: str | Path | None = None) -> CheckedRows:
    """Opens the splits of a task and reads the rows of files, if there are not too many.

    Args:
      task: the task.
      root: as in `open_split`.

    Raises:
      MissingDataError: the data is not on this machine.
      DataError: a file is damaged, a row does not match the task, or both splits are the same rows.
    """
    validation = open_split(task, "validation", root)
    if not len(validation):
        raise DataError(f"task '{task.name}': its validation split has no rows.")
    if task.split_protocol == "evaluation":
        _rendered(task, validation)
        return CheckedRows({"validation": len(validation)}, None)
    train = open_split(task, "train", root)
    refuse_identical_splits(task, train, validation)
    rows = [_rendered(task, source) for source in (train, validation)]
    shared = None if rows[0] is None or rows[1] is None else count(rows[0], rows[1])
    return CheckedRows({"train": len(train), "validation": len(validation)}, shared)


def fingerprints(task: Task, rows: Source) -> np.ndarray:
    """A hash of the texts of every row, uint64 [n]: equal where two rows say the same.

    The texts of all fields count, one after the other, without regard to case and white space;
    names of fields, templates and answers do not. So rows of different tasks can be compared.
    """
    return np.asarray([_fingerprint(task, row) for row in iter_rows(rows)], np.uint64)


class SharedTexts(NamedTuple):
    """Rows of a target whose texts are training rows of a source.

    Attributes:
      source: name of the task that is trained on.
      target: name of the task that is tested.
      same: how many of the target's validation rows; None: not compared, the training rows of the
        source or the rows of the target are more than `CHECKED_ROWS`.
      rows: validation rows of the target.
    """

    source: str
    target: str
    same: int | None
    rows: int


def shared_texts(
    sources: Iterable[Task], targets: Iterable[Task], root: str | Path | None = None
) -> list[SharedTexts]:
    """Counts the validation rows of targets that sources train on.

    Pairs without such rows are left out, and so are tasks whose data is not on this machine.

    Args:
      sources: tasks that are trained on.
      targets: tasks that are tested.
      root: as in `open_split`.
    """
    trained = [(task, _read(task, "train", root)) for task in sources]
    found = []
    for target in targets if any(rows is not None for _, rows in trained) else ():
        tested = _read(target, "validation", root)
        for source, rows in trained:
            if source.name == target.name or rows is None or tested is None:
                continue
            same = None
            if rows.texts is not None and tested.texts is not None:
                same = int(np.isin(tested.texts, rows.texts).sum())
            if same != 0:
                found.append(SharedTexts(source.name, target.name, same, tested.size))
    return found


def refuse_tested_sources(sources: Iterable[Task], targets: Iterable[Task]) -> None:
    """Refuses a user's task whose training file holds the test rows of another one.

    Texts are compared as by `fingerprints`. Tasks of the registry are checked by their names
    (`registry.check_conflicts`).

    Raises:
      DataError: the training texts of a source are the test texts of a target.
    """
    own = [task for task in sources if "train" in dict(task.files)]
    trained = [(task, rows) for task in own if (rows := _read(task, "train")) is not None]
    for target in targets if trained else ():
        tested = _read(target, "validation") if target.files else None
        if tested is None or tested.texts is None or not tested.size:
            continue
        texts = np.unique(tested.texts)
        for source, rows in trained:
            if source.name == target.name or rows.texts is None:
                continue
            if np.array_equal(np.unique(rows.texts), texts):
                raise DataError(
                    f"the source '{source.name}' trains on the {len(texts):,} test texts of the"
                    f" target '{target.name}'. Leave that source out, or test on other rows."
                )


class _Texts(NamedTuple):
    size: int
    texts: np.ndarray | None  # fingerprints; None: too many rows


def _read(task: Task, split: str, root: str | Path | None = None) -> _Texts | None:
    """The fingerprints of a split; None where it is not here, or the task has none."""
    if split == "train" and task.split_protocol == "evaluation":
        return None
    try:
        rows = open_split(task, split, root)
    except MissingDataError:
        return None
    return _Texts(len(rows), fingerprints(task, rows) if len(rows) <= CHECKED_ROWS else None)


def _fingerprint(task: Task, row: Mapping[str, object]) -> int:
    texts = " ".join(_words(row.get(field)) for field in task.fields)
    return int.from_bytes(hashlib.blake2b(texts.encode("utf-8", "replace"), digest_size=8).digest())


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return comparable(as_text(value) or "")


def _rendered(task: Task, rows: Source) -> list[Example] | None:
    # Folders of published data are right as a rule, and a plan may name many of them.
    limit = CHECKED_ROWS if task.files else CHECKED_ROWS // 10
    return render_rows(task, rows) if _in_file(rows) and len(rows) <= limit else None


def _in_file(rows: Source) -> bool:
    return bool(_file(rows))


def _file(rows: Source) -> str:
    """The name of the file that rows are from; "" of other rows."""
    while isinstance(rows, Subset | Renamed):
        rows = rows.source
    return rows.name if isinstance(rows, MemoryRows | ArrowRows) else ""


def _input(example: Example) -> object:
    return example.input, example.candidates


def _answer(example: Example) -> object:
    return example.target, example.references


def _row(example: Example) -> object:
    return _input(example), _answer(example)
