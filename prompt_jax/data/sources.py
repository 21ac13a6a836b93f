"""Where rows come from: a folder of files, TensorFlow Datasets or the Hugging Face cache.

A source is anything with `__len__` and `__getitem__(index) -> dict`. Opening one never touches the
network; `fetch` is the only function that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prompt_jax.data import remote
from prompt_jax.data.files import SUFFIXES, read_rows
from prompt_jax.data.render import label_of
from prompt_jax.data.tasks import HubSource, Task, TfdsSource
from prompt_jax.errors import DataError, did_you_mean

SPLIT_FILES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev"),
}
"""Our split -> file names (without suffix) that hold it."""


class Source(Protocol):
    """Random access to rows.

    Two optional methods make errors clearer and scans faster: `describe(index) -> str` names a row
    and `column(name) -> list | None` returns one field of all rows.
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
        """What the row is called in errors: its name in the underlying source."""
        return row_name(self.source, int(self.indices[index]))

    def column(self, name: str) -> list[Any] | None:
        """One field of all rows, if the underlying source offers that."""
        whole = column(self.source, name)
        return None if whole is None else [whole[i] for i in self.indices]


class Mapped:
    """Rows of somebody else's data set with our field names and label numbers.

    Bytes become text, numpy values plain ones. Their field may be a path ("answers/text"). See
    `TfdsSource` for `label_map`; rows that it drops are counted in `dropped`.

    Args:
      source: the rows as they come.
      fields: (our field, their field) pairs.
      label_map: their label -> our label or None.
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
            theirs = dict(fields).get("label", "label")
            raw = column(source, theirs)
            if raw is None:
                raw = [_follow(source[i], theirs) for i in range(len(source))]
            self._kept = np.flatnonzero([self._label(value) is not None for value in raw])
        self.dropped = len(source) - len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        raw = self._source[int(self._kept[index])]
        row = {str(name): plain(value) for name, value in raw.items()}
        for ours, theirs in self._fields:
            row[ours] = plain(_follow(raw, theirs))
        if self._label_map:
            row["label"] = self._label(row["label"])
        return row

    def describe(self, index: int) -> str:
        """What the row is called in errors: its name in the underlying source."""
        return row_name(self._source, int(self._kept[index]))

    def _label(self, value: Any) -> int | None:
        number = int(value)
        return self._label_map[number] if 0 <= number < len(self._label_map) else None


def row_name(source: Source, index: int) -> str:
    """What a row is called in errors, like "row 812 of train.jsonl"."""
    describe = getattr(source, "describe", None)
    return describe(index) if describe else f"row {index + 1}"


def column(source: Source, name: str) -> list[Any] | None:
    """One field of all rows where the source can give it cheaply, else None."""
    read = getattr(source, "column", None)
    return read(name) if read else None


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

    A sandbox task makes its own rows, a user's task names its own files. Otherwise the first that
    has the task wins: the folder `root/<task.folder>`, TensorFlow Datasets on disk, the Hugging
    Face cache. Nothing is downloaded.

    Args:
      task: what to open.
      split: "train" or "validation" (as published: their validation is our test).
      root: folder with one folder per task, holding `train` and `validation` as .jsonl, .tsv,
        .csv or .parquet, each plain or .gz.

    Raises:
      DataError: if no source has it, or a file is damaged.
      MissingExtraError: if the data is there but its reader is not installed.
    """
    if split not in SPLIT_FILES:
        raise DataError(
            f"unknown split '{split}'.{did_you_mean(split, SPLIT_FILES)}"
            f" Known: {', '.join(SPLIT_FILES)}."
        )
    if task.make_rows is not None:
        return task.make_rows(split)
    if task.files:
        named = dict(task.files)
        if split not in named:
            raise DataError(f"the file of task '{task.name}' names no {split} file.")
        return read_rows(named[split])
    if root is not None:
        found = _open_folder(task, split, Path(root))
        if found is not None:
            return found
    for spec in (task.tfds, task.hf):
        if spec is not None:
            raw = _open_remote(spec, split)
            if raw is not None:
                return Mapped(raw, spec.fields, spec.label_map)
    raise _not_here(task, root)


def fetch(task: Task) -> Path:
    """Downloads a task's data (the only function here that uses the network).

    Returns:
      The folder that holds it.

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


def plain(value: Any) -> Any:
    """Bytes to text, numpy scalars and arrays to Python values, through lists and dicts."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return value


def _open_folder(task: Task, split: str, root: Path) -> Source | None:
    if not root.is_dir():
        raise DataError(f"data.root '{root}' is not a folder.")
    folder = root / task.folder
    if not folder.is_dir():
        return None
    names = [stem + suffix for stem in SPLIT_FILES[split] for suffix in SUFFIXES]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} has {' and '.join(path.name for path in found)}: keep one file of the "
            f"{split} split."
        )
    if not found:
        raise DataError(
            f"{folder} has no {split} split for task '{task.name}': put {split}.jsonl there "
            f"(or one of {', '.join(SUFFIXES[1:])})."
        )
    return read_rows(found[0])


def _open_remote(spec: TfdsSource | HubSource, split: str) -> Source | None:
    theirs = dict(spec.splits).get(split)
    if theirs is None:
        return None
    if isinstance(spec, TfdsSource):
        return remote.open_tfds(spec, theirs)
    return remote.open_hub(spec, theirs)


def _not_here(task: Task, root: str | Path | None) -> DataError:
    place = f"{root}/{task.folder}" if root is not None else f"DIR/{task.folder}"
    advice = f"Put JSONL files (train.jsonl, validation.jsonl) under {place}"
    if root is None:
        advice += " and pass data.root=DIR"
    kind = "TensorFlow Datasets" if task.tfds else "Hugging Face" if task.hf else ""
    if not kind:
        return DataError(f"task '{task.name}' needs data that is not here.\n  {advice}.")
    return DataError(
        f"task '{task.name}' needs {kind} data that is not on this machine.\n  {advice}, or run "
        f"once with network: prompt-jax tasks fetch {task.name}"
    )


def _follow(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(f"the data set has no field '{path}'; it has {', '.join(row)}.")
        value = value[part]
    return value
