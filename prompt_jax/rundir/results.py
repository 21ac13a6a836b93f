"""Result rows and the scores of single test items: `results.jsonl` and `items.npz`."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import earlier
from prompt_jax.training.tracking import finite

# What a value may be where it is no fraction: -log of the smallest float64 is 745.
_LARGEST = {"nll": 1e3, "brier": 2.0}
_KEYS = "keys"  # name of the array of `items.npz` that holds the keys of all others, as JSON


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One measured number, with what it cost. One line of `results.jsonl`.

    Attributes:
      key: of the replica that was tested; its fields are in the line by name.
      metric: name of one of the task's metrics, or on the test rows of `Calibration`'s fields.
      split: `dev` or `test`.
      value: in [0, 1], or [-1, 1] for correlations, [0, 2] for `brier`, nats for `nll`; NaN for a
        diverged replica.
      source_steps: optimizer steps of all source replicas of this seed that the method uses, those
        from the cache included.
      target_steps: steps on the target, probes and all trials included.
      rows_seen: training rows of all of these, repetitions counted.
      flops: counted by hand for these rows at their mean length, evaluation not included.
      wall_s: seconds of training, shared equally among the replicas of a population; cached stages
        count what they took when they were trained.
      trained_parameters: numbers changed by the last stage.
      stored_parameters: numbers that must be kept to use the result, beside the frozen model.
      trials: learning-rate or start trials from which the development set chose.
      suite: content hash of the generated suite that the target is from; "" for other tasks.
      chosen: names of the sources that the method has chosen; None where it makes no choice.
      rate: factor of the budget's learning rate that the development set chose; None where there
        was one rate alone.
      learning_rate: peak rate of the last stage, in its optimizer's `unit`; None where it takes no
        step.
    """

    key: RunKey
    metric: str
    split: str
    value: float
    source_steps: int
    target_steps: int
    rows_seen: int
    flops: float
    wall_s: float
    trained_parameters: int
    stored_parameters: int
    trials: int = 1
    suite: str = ""
    chosen: tuple[str, ...] | None = None
    rate: float | None = None
    learning_rate: float | None = None

    def record(self) -> dict[str, Any]:
        """The line of `results.jsonl`, JSON-able: the fields of the key, then the others."""
        others = {f.name: finite(getattr(self, f.name)) for f in fields(self) if f.name != "key"}
        return {**self.key.fields(), **others}

    @property
    def method(self) -> str:
        """Spec of the method."""
        return self.key.method

    @property
    def target(self) -> str:
        """The task, as the config names it."""
        return self.key.task

    @property
    def k(self) -> int:
        """Shots, as `data.shots_count` counts them; 0: all rows."""
        return self.key.k or 0

    @property
    def seed(self) -> int:
        """Of the replica."""
        return self.key.seed


def write_rows(path: Path, rows: Iterable[ResultRow]) -> None:
    """Writes rows as JSON lines (NaN as null), atomically."""
    lines = (json.dumps(row.record()) + "\n" for row in rows)
    write_atomically(path, "".join(lines).encode())


def read_rows(path: Path) -> list[ResultRow]:
    """Reads rows back.

    Raises:
      DataError: for a line that is no result row.
    """
    rows, bad = parse_rows(path.read_text(encoding="utf-8"))
    if bad:
        raise DataError(f"{path}: line {bad[0]} is no result row.")
    return rows


def parse_rows(text: str) -> tuple[list[ResultRow], list[int]]:
    """The rows of a results file, and the numbers (from 1) of the lines that are none."""
    rows, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, KeyError, RecursionError):
            bad.append(number)
    return rows, bad


def _row(facts: dict[str, Any]) -> ResultRow:
    """Raises ValueError, TypeError or KeyError for anything that `write_rows` does not write."""
    facts = earlier.result_row(facts)
    key = RunKey.of({name: facts[name] for name in ("method", "task", "k", "seed")} | facts)
    if key.k is None or min(key.k, key.seed, key.trial) < 0:
        raise TypeError("the key of a result")
    values: dict[str, Any] = {"key": key}
    for field in fields(ResultRow)[1:]:
        # Fields with a default came later: older files do without.
        value = facts[field.name] if field.default is MISSING else facts.get(field.name)
        if value is not None or field.default is MISSING:
            values[field.name] = _CHECKS[field.name](value)
    limit = _LARGEST.get(values["metric"], 1.0)
    if abs(values["value"]) > limit:
        raise ValueError(values["value"])
    return ResultRow(**values)


def _value(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value


def _amount(value: Any) -> float:
    if not 0 <= float(value) < math.inf:
        raise ValueError(value)
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(_text(name) for name in value)


_CHECKS = {
    "metric": _text,
    "split": _text,
    "value": _value,
    "source_steps": _count,
    "target_steps": _count,
    "rows_seen": _count,
    "flops": _amount,
    "wall_s": _amount,
    "trained_parameters": _count,
    "stored_parameters": _count,
    "trials": _count,
    "suite": _text,
    "chosen": _names,
    "rate": _amount,
    "learning_rate": _amount,
}


def write_items(path: Path, items: Mapping[RunKey, np.ndarray]) -> None:
    """Writes per-item test scores, atomically.

    The arrays are named by number, and one holds the keys as JSON.
    """
    arrays: dict[str, Any] = {
        str(i): np.asarray(scores, np.float32) for i, scores in enumerate(items.values())
    }
    keys = json.dumps([key.fields() for key in items]).encode()
    arrays[_KEYS] = np.frombuffer(keys, np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_atomically(path, file.getvalue())


def read_items(path: Path) -> dict[RunKey, np.ndarray]:
    """Reads per-item test scores back: float32 [n] each.

    Raises:
      DataError: the file is damaged, or is something else.
    """
    items: dict[RunKey, np.ndarray] = {}
    lengths: dict[str, int] = {}
    try:
        # An open file: numpy forgets to close one that turns out to be damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            for name, key in _item_keys(file).items():
                scores = np.asarray(file[name], np.float32)
                if scores.shape != (lengths.setdefault(key.task, scores.size),):
                    raise ValueError("the rows of a target differ")
                if not np.isfinite(scores).all():
                    raise ValueError("a score is not finite")
                items[key] = scores
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        EOFError,
        RuntimeError,
        RecursionError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} holds no per-item scores, or is damaged ({error}).") from None
    return items


def _item_keys(file: Any) -> dict[str, RunKey]:
    """The key of every array, by the array's name."""
    if _KEYS not in file.files:
        return {name: earlier.item_key(name) for name in file.files}
    records = json.loads(file[_KEYS].tobytes())
    return {str(i): RunKey.of(record) for i, record in enumerate(records)}
