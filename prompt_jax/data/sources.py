"""Sources of rows: a folder of files, TensorFlow Datasets or the Hugging Face cache.

A source is any object with `__len__` and `__getitem__(index) -> dict`. Opening one never uses the
network; `fetch` is the only function that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prompt_jax.data import holdout, remote
from prompt_jax.data.files import SUFFIXES, read_rows
from prompt_jax.data.render import label_of
from prompt_jax.data.tasks import HubSource, Task, TfdsSource
from prompt_jax.data.values import is_missing, plain, whole_number
from prompt_jax.errors import DataError, MissingDataError, did_you_mean
from prompt_jax.streams import rng

SPLIT_FILES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev"),
    "test": ("test",),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
}
"""Name of a split here -> names of its files, without suffix.

Only the first two are needed; `data.protocol=attempt` reads the others (PAWS, MNLI).
"""


_HOLDOUT = 7  # second word of the "few_shot" stream; `splits` has the others


class Source(Protocol):
    """Random access to rows.

    Two methods are optional: `describe(index) -> str` returns the name of a row for error messages,
    and `column(name) -> list | None` returns one field of all rows quickly.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Subset:
    """Some rows of a source, in the given order.

    Args:
      source: any source.
      indices: row numbers into it, int [n].
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.source[int(self.indices[index])]

    def describe(self, index: int) -> str:
        """The name of the row in error messages: that of the underlying source."""
        return row_name(self.source, int(self.indices[index]))

    def column(self, name: str) -> list[Any] | None:
        """One field of all rows, or None if the underlying source has no fast access to it."""
        whole = column(self.source, name)
        return None if whole is None else [whole[i] for i in self.indices]


class Mapped:
    """Rows of an external data set, converted to the field names and label numbers of a task.

    Bytes become text, and numpy values become Python values. An external field may be a path
    ("answers/text"). See `TfdsSource` for `label_map`; `dropped` counts the rows that it drops.

    Args:
      source: the unconverted rows.
      fields: (task field, external field) pairs.
      label_map: external label -> task label or None.
    """

    def __init__(
        self,
        source: Source,
        fields: tuple[tuple[str, str], ...] = (),
        label_map: tuple[int | None, ...] = (),
    ) -> None:
        self._source = source
        self._fields = fields
        self._label_map = label_map
        self._kept = np.arange(len(source))
        if label_map:
            label_field = dict(fields).get("label", "label")
            raw = column(source, label_field)
            if raw is None:
                raw = [_value_at(source[i], label_field) for i in range(len(source))]
            numbers = [self._label(value, i) for i, value in enumerate(raw)]
            self._kept = np.flatnonzero([number is not None for number in numbers])
        self.dropped = len(source) - len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        raw = self._source[int(self._kept[index])]
        row = {str(name): plain(value) for name, value in raw.items()}
        for field, external in self._fields:
            row[field] = plain(_value_at(raw, external))
        if self._label_map:
            row["label"] = self._label(row["label"], int(self._kept[index]))
        return row

    def describe(self, index: int) -> str:
        """The name of the row in error messages: that of the underlying source."""
        return row_name(self._source, int(self._kept[index]))

    def _label(self, value: Any, index: int) -> int | None:
        value = plain(value)
        if is_missing(value):
            return None
        number = None if isinstance(value, bool) else whole_number(value)
        if number is None:
            raise DataError(
                f"{row_name(self._source, index)} has label {value!r}, which is not a label number."
            )
        return self._label_map[number] if 0 <= number < len(self._label_map) else None


class Renamed:
    """Rows of a file, with columns under the names that a task has for them.

    Args:
      task: with `columns`.
      source: the rows as they are in the file.
    """

    def __init__(self, task: Task, source: Source) -> None:
        self._task, self.source = task, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._task.renamed(self.source[index])

    def describe(self, index: int) -> str:
        """The name of the row in error messages: that of the underlying source."""
        return row_name(self.source, index)

    def column(self, name: str) -> list[Any] | None:
        """One field of all rows, or None if the underlying source has no fast access to it."""
        return column(self.source, dict(self._task.columns).get(name, name))


class HeldOut(Subset):
    """The train or test rows of one file that holds both.

    Args:
      source: all rows.
      indices: row numbers into it, int [n].
      groups: int64 [n], equal for rows of equal texts.
      classes: int64 [n], label numbers; 0 where the task has no labels.
      notes: what was found, for the report.
    """

    def __init__(
        self,
        source: Source,
        indices: np.ndarray,
        groups: np.ndarray,
        classes: np.ndarray,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(source, indices)
        self.groups, self.classes, self.notes = groups, classes, notes


def row_name(source: Source, index: int) -> str:
    """The name of a row in error messages, like "row 812 of train.jsonl"."""
    describe = getattr(source, "describe", None)
    return describe(index) if describe else f"row {index + 1}"


def column(source: Source, name: str) -> list[Any] | None:
    """One field of all rows, or None if the source has no fast access to it."""
    read_column = getattr(source, "column", None)
    return read_column(name) if read_column else None


def labels(task: Task, source: Source) -> np.ndarray:
    """Label numbers of all rows, int64 [n].

    Raises:
      DataError: for a label that is not one of the task's.
    """
    values = None if task.answers else column(source, "label")
    rows = ({"label": v} for v in values) if values is not None else iter_rows(source)
    numbers = [label_of(task, row, row_name(source, i)) for i, row in enumerate(rows)]
    return np.asarray(numbers, np.int64)


def iter_rows(source: Source) -> Any:
    """Iterates over the rows of a source in order."""
    return (source[i] for i in range(len(source)))


def open_split(task: Task, split: str, root: str | Path | None = None) -> Source:
    """Opens the rows of a split.

    The rows of a sandbox task are generated, and a user's task lists its files. Otherwise the first
    of these that has the task is used: the folder `root/<task.folder>`, TensorFlow Datasets on
    disk, the Hugging Face cache. Nothing is downloaded.

    Args:
      task: the task.
      split: one of `SPLIT_FILES`, as published (the published validation split is our test set).
      root: folder with one folder per task, which contains `train` and `validation` as .jsonl,
        .tsv, .csv or .parquet, each plain or .gz.

    Raises:
      MissingDataError: if no source has the split.
      DataError: if a file is damaged.
      MissingExtraError: if the data is there but its reader is not installed.
    """
    if split not in SPLIT_FILES:
        raise DataError(
            f"unknown split '{split}'.{did_you_mean(split, SPLIT_FILES)}"
            f" Known: {', '.join(SPLIT_FILES)}."
        )
    if task.make_rows is not None:
        if split == "test":
            raise DataError(f"unknown split 'test': '{task.name}' is tested on 'validation'.")
        return task.make_rows(split)
    if task.files:
        files = dict(task.files)
        name = "train" if task.holdout else split
        if name not in files:
            raise DataError(f"the task file of '{task.name}' lists no {split} file.")
        rows: Source = read_rows(files[name])
        rows = Renamed(task, rows) if task.columns else rows
        return _hold_out(task, rows, split) if task.holdout else rows
    if root is not None:
        local = _open_folder(task, split, Path(root))
        if local is not None:
            return Renamed(task, local) if task.columns else local
    for spec in (task.tfds, task.hf):
        if spec is not None:
            raw = _open_remote(spec, split)
            if raw is not None:
                return Mapped(raw, spec.fields, spec.label_map)
    raise missing_data([task], root)


def fetch(task: Task) -> Path:
    """Downloads a task's data (the only function here that uses the network).

    Returns:
      The folder of the data.

    Raises:
      DataError: without network, or if no public source of the task is known.
      MissingExtraError: if the needed package is not installed.
    """
    if task.tfds is not None:
        return remote.fetch_tfds(task.tfds)
    if task.hf is not None:
        return remote.fetch_hub(task.hf)
    raise DataError(
        f"task '{task.name}' has no public source to fetch; put train.jsonl and validation.jsonl "
        f"under DIR/{task.folder} and pass data.root=DIR."
    )


def _hold_out(task: Task, rows: Source, split: str) -> HeldOut:
    """The train or test rows of a task's one file: the same ones whenever it is opened."""
    groups = holdout.text_groups(iter_rows(rows), task.fields)
    ranked = task.kind == "classification"
    classes = labels(task, rows) if ranked else np.zeros(len(rows), np.int64)
    generator = rng(task.holdout_seed, "few_shot", _HOLDOUT)
    test = holdout.draw_groups(groups, classes, task.holdout, generator)
    if not test.any() or test.all():
        raise DataError(
            f"task '{task.name}': {len(rows)} rows with {len(np.unique(groups))} different texts"
            f" are too few to hold {task.holdout:.0%} out."
        )
    notes: tuple[str, ...] = ()
    if split == "train":
        notes = holdout.notes_on(groups, classes if ranked else None, lambda i: row_name(rows, i))
    chosen = np.flatnonzero(test if split == "validation" else ~test)
    return HeldOut(rows, chosen, groups[chosen], classes[chosen], notes)


def _open_folder(task: Task, split: str, root: Path) -> Source | None:
    if not root.is_dir():
        raise DataError(f"data.root '{root}' is not a folder.")
    folder = root / task.folder
    if not folder.is_dir():
        return None
    names = [stem + suffix for stem in SPLIT_FILES[split] for suffix in SUFFIXES]
    files = [folder / name for name in names if (folder / name).is_file()]
    if len(files) > 1:
        raise DataError(
            f"{folder} has {' and '.join(path.name for path in files)}: keep one file of the "
            f"{split} split."
        )
    if not files:
        raise DataError(
            f"{folder} has no {split} split for task '{task.name}': put {split}.jsonl there "
            f"(or one of {', '.join(SUFFIXES[1:])})."
        )
    return read_rows(files[0])


def _open_remote(spec: TfdsSource | HubSource, split: str) -> Source | None:
    external = dict(spec.splits).get(split)
    if external is None:
        return None
    if isinstance(spec, TfdsSource):
        return remote.open_tfds(spec, external)
    return remote.open_hub(spec, external)


def missing_data(tasks: Sequence[Task], root: str | Path | None = None) -> MissingDataError:
    """The error about tasks whose rows are not on this machine.

    Args:
      tasks: at least one.
      root: as in `open_split`.
    """
    if len(tasks) == 1:
        return _missing_task(tasks[0], root)
    folders = ", ".join(task.folder for task in tasks)
    lines = [
        f"{len(tasks)} tasks need data that is not on this machine:"
        f" {', '.join(task.name for task in tasks)}."
    ]
    public = [task.name for task in tasks if task.tfds or task.hf]
    if public:
        lines.append(f"Run once with network: prompt-jax tasks fetch {' '.join(public)}")
    lines.append(
        f"{'Or put' if public else 'Put'} JSONL files (train.jsonl, validation.jsonl) of each under"
        f" {'DIR' if root is None else root}, in the folders {folders}"
        + (", and pass data.root=DIR." if root is None else ".")
    )
    return MissingDataError("\n  ".join(lines))


def is_here(task: Task, root: str | Path | None = None) -> bool:
    """Whether a source of the task's rows is on this machine; opens no file of rows.

    Args:
      task: the task.
      root: as in `open_split`.
    """
    if task.make_rows is not None or task.files:
        return True
    if root is not None and (not Path(root).is_dir() or (Path(root) / task.folder).is_dir()):
        return True  # opening it reports what is wrong
    splits = ("validation",) if task.split_protocol == "evaluation" else ("train", "validation")
    return all(
        any(
            remote.is_here(spec, dict(spec.splits)[split])
            for spec in (task.tfds, task.hf)
            if spec is not None and split in dict(spec.splits)
        )
        for split in splits
    )


def _missing_task(task: Task, root: str | Path | None) -> MissingDataError:
    folder = f"{root}/{task.folder}" if root is not None else f"DIR/{task.folder}"
    advice = f"Put JSONL files (train.jsonl, validation.jsonl) under {folder}"
    if root is None:
        advice += " and pass data.root=DIR"
    kind = "TensorFlow Datasets" if task.tfds else "Hugging Face" if task.hf else ""
    if not kind:
        return MissingDataError(
            f"task '{task.name}' needs data that is not on this machine.\n  {advice}."
        )
    return MissingDataError(
        f"task '{task.name}' needs {kind} data that is not on this machine.\n  {advice}, or run "
        f"once with network: prompt-jax tasks fetch {task.name}"
    )


def _value_at(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(f"the data set has no field '{path}'; it has {', '.join(row)}.")
        value = value[part]
    return value
