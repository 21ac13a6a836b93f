"""Reads a run directory as it is: what is missing or damaged is noted, not fatal.

Only plain files inside the directory are read; links are not followed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.errors import DataError, PromptError
from prompt_jax.prompts import PromptRecord, files
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import answers, reference, results
from prompt_jax.rundir.results import ResultRow

_LARGEST = 1 << 30  # bytes of a file that is read into memory
_HUGE = 1e30  # numbers beyond it are damage, and would overflow in a figure
_SHOWN = 6  # damaged things that are named one by one


@dataclass(frozen=True, eq=False)
class PromptFile:
    """A prompt of the run directory, or a trained row-wise method.

    Attributes:
      path: below the run directory, with slashes.
      array: [L, D] float32; None of a method, which has a prompt for every row.
      record: what the file says about it.
      root: the run directory.
    """

    path: str
    array: np.ndarray | None
    record: PromptRecord
    root: Path = Path()

    __repr__ = fields_repr

    @property
    def file(self) -> Path:
        """Where the file is."""
        return self.root / self.path

    @property
    def width(self) -> int:
        """D; 0 of a method."""
        return 0 if self.array is None else int(self.array.shape[1])

    @property
    def is_source(self) -> bool:
        """A source's prompt has no number of shots."""
        return "k" not in self.record.config

    @property
    def k(self) -> int:
        """Shots, as `data.shots_count` counts them; 0: all rows."""
        return whole(self.record.config.get("k")) or 0

    @property
    def dev(self) -> float:
        """The development value that chose it; NaN where there was none."""
        return number(self.record.config.get("dev"))


class LogLine(NamedTuple):
    """A line of `metrics.jsonl`."""

    key: RunKey  # of the replica
    step: int
    numbers: dict[str, Any]  # all that the line holds


@dataclass(eq=False)
class RunDirectory:
    """The content of a run directory.

    Attributes:
      path: the directory.
      config: `config.json`.
      provenance: `provenance.json`.
      rows: `results.jsonl`.
      items: `items.npz`.
      metrics: the lines of `metrics.jsonl` that name a run and a step.
      data: `data.json`, entries of every task.
      answers: `answers.json`; runs of earlier versions have none.
      reference: `reference.json`; likewise.
      prompts: the prompts below `prompts/`.
      hashes: (file, bytes, sha256) of what was read, prompts left out.
      problems: what is missing or damaged, in sentences.
      methods: the baseline first.
      targets: as the config names them.
      sources: likewise.
      shots: numbers of shots, as `data.shots_count` counts them; 0: all rows.
      seeds: that have results.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    rows: list[ResultRow] = field(default_factory=list)
    items: dict[RunKey, np.ndarray] = field(default_factory=dict)
    metrics: list[LogLine] = field(default_factory=list)
    data: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: list[answers.Entry] = field(default_factory=list)
    reference: reference.Reference = field(default_factory=reference.Reference)
    prompts: list[PromptFile] = field(default_factory=list)
    hashes: list[tuple[str, int, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    methods: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    shots: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"RunDirectory({self.size})"

    @property
    def size(self) -> str:
        """Its path, and how many methods, targets and seeds it has."""
        return (
            f"{str(self.path)!r}, {len(self.methods)} methods, {len(self.targets)} targets,"
            f" {len(self.seeds)} seeds"
        )

    def name(self, task: str) -> str:
        """What a task is called: its own name, where the config names its file.

        >>> RunDirectory(Path("run")).name("tasks/tickets.toml")
        'tickets'
        """
        for entry in self.data.get(task, ()):
            if isinstance(entry.get("task"), str):
                return str(entry["task"])
        return Path(task).stem if task.endswith(".toml") else task

    @functools.cached_property
    def prefix(self) -> str:
        """What the names of all tasks begin with, up to a slash; "" where they share nothing.

        >>> RunDirectory(Path("run"), targets=("glue/rte", "glue/cola")).prefix
        'glue/'
        """
        names = [self.name(task) for task in (*self.sources, *self.targets)]
        heads = {name.rpartition("/")[0] for name in names}
        return f"{heads.pop()}/" if len(names) > 1 and len(heads) == 1 and heads != {""} else ""

    def short(self, task: str) -> str:
        """The name of a task without what all of them begin with."""
        return self.name(task).removeprefix(self.prefix)

    @property
    def weights(self) -> str:
        """Hash of the model's weights; "" where it is not known."""
        return str(get(self.provenance, "model", "weights_sha256") or "")

    @property
    def model_config(self) -> dict[str, Any]:
        """Configuration of the model; empty where it is not known."""
        found = get(self.provenance, "model", "config")
        return found if isinstance(found, dict) else {}

    @property
    def suites(self) -> set[str]:
        """Hashes of the generated suites that targets are from."""
        return {row.suite for row in self.rows if row.suite}


def number(value: Any) -> float:
    """A finite number as float; anything else is NaN.

    >>> number(3), number("3"), number(None)
    (3.0, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HUGE:
        return math.nan
    return float(value)


def whole(value: Any) -> int | None:
    """A whole number from 0 up, else None."""
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def read(folder: str | os.PathLike[str]) -> RunDirectory:
    """Reads a run directory.

    Raises:
      DataError: there is no such directory, it cannot be read, or it holds neither a config nor
        results.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"there is no run directory {path}.")
    made = RunDirectory(path)
    try:
        if not any(os.path.lexists(path / name) for name in ("config.json", "results.jsonl")):
            raise DataError(
                f"{path} is no run directory: it holds neither config.json nor results.jsonl."
            )
        made.config = _json(made, "config.json", "what was asked is taken from the results")
        made.provenance = _json(made, "provenance.json", "versions and weights are not known")
        _results(made)
        _metrics(made)
        _data(made)
        _answers(made)
        _reference(made)
        _prompts(made)
    except OSError as error:
        raise DataError(f"the run directory {path} cannot be read: {error.strerror}.") from None
    _axes(made)
    return made


def _bytes(made: RunDirectory, name: str, lost: str) -> bytes | None:
    """A plain file inside the directory; a problem is noted where there is none."""
    path = made.path / name
    if not os.path.lexists(path):
        made.problems.append(f"{name} is missing: {lost}.")
        return None
    inside = path.resolve().is_relative_to(made.path.resolve())
    if path.is_symlink() or not inside or not path.is_file():
        made.problems.append(f"{name} is no plain file of this directory and was not read: {lost}.")
        return None
    if path.stat().st_size > _LARGEST:
        made.problems.append(f"{name} is larger than 1 GiB and was not read: {lost}.")
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        made.problems.append(f"{name} cannot be read ({error.strerror}): {lost}.")
        return None
    made.hashes.append((name, len(raw), hashlib.sha256(raw).hexdigest()))
    return raw


def _text(made: RunDirectory, name: str, lost: str) -> str | None:
    raw = _bytes(made, name, lost)
    return None if raw is None else raw.decode("utf-8", "replace")


def _json(made: RunDirectory, name: str, lost: str) -> dict[str, Any]:
    text = _text(made, name, lost)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        made.problems.append(f"{name} is damaged: {lost}.")
        return {}
    return found


def _lines(made: RunDirectory, name: str, bad: Sequence[int]) -> None:
    if bad:
        which = ", ".join(map(str, bad[:_SHOWN])) + (", ..." if len(bad) > _SHOWN else "")
        noun, verb = ("line", "was") if len(bad) == 1 else ("lines", "were")
        made.problems.append(f"{name}: {len(bad)} damaged {noun} {verb} left out ({noun} {which}).")


def _results(made: RunDirectory) -> None:
    text = _text(made, "results.jsonl", "there are no numbers to show")
    if text is not None:
        made.rows, bad = results.parse_rows(text)
        _lines(made, "results.jsonl", bad)
        if not made.rows:
            made.problems.append("results.jsonl holds no result yet.")
    lost = "differences are tested over seeds alone"
    if _bytes(made, "items.npz", lost) is not None:
        try:
            made.items = results.read_items(made.path / "items.npz")
        except DataError:
            made.problems.append(f"items.npz is damaged: {lost}.")


def _metrics(made: RunDirectory) -> None:
    text = _text(made, "metrics.jsonl", "there are no learning curves")
    bad = []
    for count, line in enumerate((text or "").splitlines(), 1):
        try:
            numbers = json.loads(line)
            key, step = RunKey.of({"task": numbers["task"], **numbers}), whole(numbers["step"])
        except (ValueError, TypeError, KeyError, RecursionError):
            step = None
        if step is None:
            bad.append(count)
        else:
            made.metrics.append(LogLine(key, step, numbers))
    _lines(made, "metrics.jsonl", bad)


def _has_key(line: dict[str, Any]) -> bool:
    try:
        return bool(RunKey.of(line).stage)
    except TypeError:
        return False


def _data(made: RunDirectory) -> None:
    found = _json(made, "data.json", "what was truncated is not known")
    bad = False
    for task, entries in found.items():
        good = [entry for entry in entries if _entry(entry)] if isinstance(entries, list) else []
        bad |= not good or len(good) < len(entries)
        if good:
            made.data[task] = good
    if bad:
        made.problems.append("data.json is damaged: some of its entries were left out.")


def _answers(made: RunDirectory) -> None:
    if not os.path.lexists(made.path / answers.NAME):
        return
    made.answers, bad = answers.parse(_json(made, answers.NAME, "no answers are shown"))
    if bad and f"{answers.NAME} is" not in " ".join(made.problems):
        made.problems.append(f"{answers.NAME} is damaged: some of its entries were left out.")


def _reference(made: RunDirectory) -> None:
    if not os.path.lexists(made.path / reference.NAME):
        return
    before = len(made.problems)
    made.reference, bad = reference.parse(_json(made, reference.NAME, "no reference is shown"))
    if bad and len(made.problems) == before:
        made.problems.append(f"{reference.NAME} is damaged: some of its entries were left out.")


def _entry(entry: Any) -> bool:
    try:
        counts = [entry["seed"], entry["k"]]
        for part in ("train", "dev", "test"):
            counts += [entry["rows"][part], *(entry["cut"][part][w] for w in ("inputs", "targets"))]
        counts += entry.get("cut_answers", {}).values()
        for part, shared in entry.get("overlap", {}).items():
            counts += [shared["same"], shared["other"], shared["rows"], {"dev": 0, "test": 0}[part]]
        for parts in entry.get("sources", {}).values():
            for part, shared in parts.items():
                counts += [shared["same"], shared["rows"], {"dev": 0, "test": 0}[part]]
        notes = entry["notes"]
    except (TypeError, KeyError, IndexError, AttributeError):
        return False
    plain = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    return plain and isinstance(entry.get("task", ""), str) and None not in map(whole, counts)


def _prompts(made: RunDirectory) -> None:
    root = made.path / "prompts"
    if root.is_symlink() or not root.is_dir():
        made.problems.append("prompts/ is missing: there are no prompts to compare.")
        return
    bad = []
    for path in _walk(root):
        name = path.relative_to(made.path).as_posix()
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            bad.append(f"{name} is no plain file")
            continue
        stored = _stored(path)
        if stored is None:
            bad.append(f"{name} is damaged")
        elif isinstance(stored, PromptRecord):
            made.prompts.append(PromptFile(name, None, stored, made.path))
        elif stored.kind == "prompt":
            made.prompts.append(PromptFile(name, stored.array, stored.record, made.path))
    made.problems += [f"{text} and was left out." for text in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        made.problems.append(f"{len(bad) - _SHOWN} more prompt files were left out.")


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".safetensors") and not name.startswith("."):
                yield Path(folder) / name


def _stored(path: Path) -> files.Stored | PromptRecord | None:
    """Content of a prompt file of any kind, or record of a trained method; None: damaged."""
    from prompt_jax.methods import trained

    for kind in files.RANKS:
        try:
            return files.read(path, kind)
        except PromptError:
            continue
    return trained.read_record(path)


def _axes(made: RunDirectory) -> None:
    """Methods, targets, sources, shots and seeds: the config's, and what only the results name."""

    def axis(name: str, good: Callable[[Any], bool], seen: Sequence[Any]) -> tuple[Any, ...]:
        asked = made.config.get(name)
        listed = [x for x in asked if good(x)] if isinstance(asked, list) else []
        return tuple(dict.fromkeys([*listed, *seen]))

    def text(value: Any) -> bool:
        return isinstance(value, str)

    made.methods = axis("methods", text, [row.method for row in made.rows])
    made.targets = axis("targets", text, [row.target for row in made.rows])
    made.sources = axis("sources", text, ())
    made.shots = axis("shots", lambda k: whole(k) is not None, [row.k for row in made.rows])
    made.seeds = tuple(sorted({row.seed for row in made.rows}))


def get(tree: Mapping[str, Any], *keys: str) -> Any:
    """A value inside nested objects; None where it is not there."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)  # type: ignore[assignment]
    return tree
