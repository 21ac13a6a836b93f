"""Result rows, the table with spread, and the paired contrasts of a run directory.

The summary file, the command line and the report page all take their numbers from here.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import DataError
from prompt_jax.evaluation import statistics
from prompt_jax.evaluation.statistics import Comparison, Summary, Verdict
from prompt_jax.training.tracking import finite

# What a value may be where it is no fraction: -log of the smallest float64 is 745.
_LARGEST = {"nll": 1e3, "brier": 2.0}


@dataclass(frozen=True)
class ResultRow:
    """One measured number, with what it cost. One line of `results.jsonl`.

    Attributes:
      method: spec.
      target: task.
      k: training rows per class; 0: all.
      seed: of the run.
      metric: name of one of the task's metrics, or on the test rows of `Calibration`'s fields.
      split: `dev` or `test`.
      value: in [0, 1], or [-1, 1] for correlations, [0, 2] for `brier`, nats for `nll`; NaN for a
        run that died.
      source_steps: optimizer steps of all source runs of this seed that the method uses, cached
        ones included.
      target_steps: steps on the target, probes and all trials included.
      rows_seen: training rows of all of these, repetitions counted.
      flops: counted by hand for these rows at their mean length, evaluation not included.
      wall_s: seconds of training, shared equally among the runs of a population; cached stages
        count what they took when they were trained.
      trained_parameters: numbers changed by the last stage.
      stored_parameters: numbers that must be kept to use the result, beside the frozen T5.
      trials: learning-rate or start trials from which the development set chose.
      suite: content hash of the generated suite that the target is from (`registry.suite`).
      chosen: names of the sources that the method has chosen; None where it makes no choice.
    """

    method: str
    target: str
    k: int
    seed: int
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


def write_rows(path: Path, rows: Iterable[ResultRow]) -> None:
    """Writes rows as JSON lines (NaN as null)."""
    lines = [json.dumps({k: finite(v) for k, v in asdict(row).items()}) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


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
    values: dict[str, Any] = {}
    for field in fields(ResultRow):
        # Fields with a default came later: older files do without.
        value = (
            facts[field.name] if field.default is MISSING else facts.get(field.name, field.default)
        )
        if field.name == "value":
            value = math.nan if value is None else float(value)
            if abs(value) > _LARGEST.get(values["metric"], 1.0):
                raise ValueError(value)
        elif field.type == "float":
            value = float(value)
            if not 0 <= value < math.inf:
                raise ValueError(value)
        elif field.name == "chosen":
            value = None if value is None else _names(value)
        elif type(value).__name__ != field.type or (field.type == "int" and value < 0):
            raise TypeError(field.name)
        values[field.name] = value
    return ResultRow(**values)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise TypeError(value)
    return tuple(value)


Item = tuple[str, str, int, int]  # method, target, k, seed


def write_items(path: Path, items: Mapping[Item, np.ndarray]) -> None:
    """Writes per-item test scores, under "method TAB target TAB k TAB seed"."""
    arrays: dict[str, Any] = {
        "\t".join(map(str, key)): value.astype(np.float32) for key, value in items.items()
    }
    np.savez_compressed(path, **arrays)


def read_items(path: Path) -> dict[Item, np.ndarray]:
    """Reads per-item test scores back: float32 [n] each.

    Raises:
      DataError: the file is damaged, or is something else.
    """
    found: dict[Item, np.ndarray] = {}
    lengths: dict[str, int] = {}
    try:
        # An open file: numpy forgets to close one that turns out to be damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            for key in file.files:
                method, target, k, seed = key.split("\t")
                scores = np.asarray(file[key], np.float32)
                if scores.shape != (lengths.setdefault(target, scores.size),):
                    raise ValueError("the rows of a target differ")
                if not np.isfinite(scores).all():
                    raise ValueError("a score is not finite")
                found[method, target, int(k), int(seed)] = scores
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} holds no per-item scores, or is damaged ({error}).") from None
    return found


Cell = tuple[str, str, int]  # method, target, k


@dataclass(frozen=True)
class Contrast:
    """A method against the baseline on one target at one k."""

    method: str
    baseline: str
    target: str
    k: int
    verdict: Verdict


def primary_metrics(rows: Iterable[ResultRow]) -> dict[str, str]:
    """The primary metric of each target: the one that chose on the development set."""
    return {row.target: row.metric for row in rows if row.split == "dev"}


def cells(
    rows: Iterable[ResultRow], primary: Mapping[str, str], split: str = "test"
) -> dict[Cell, dict[int, float]]:
    """The primary metric of every cell, by seed.

    Args:
      rows: result rows.
      primary: the primary metric of each target.
      split: which split to read.
    """
    found: dict[Cell, dict[int, float]] = {}
    for row in rows:
        if row.split == split and row.metric == primary.get(row.target):
            found.setdefault((row.method, row.target, row.k), {})[row.seed] = row.value
    return found


def summaries(values: Mapping[Cell, Mapping[int, float]]) -> dict[Cell, Summary]:
    """Mean and spread of every cell over its seeds."""
    return {
        cell: statistics.summarise([by_seed[s] for s in sorted(by_seed)])
        for cell, by_seed in values.items()
    }


def minimum(targets: Iterable[str]) -> float:
    """Smallest difference that counts as an effect in a table: the sandbox asks for more."""
    sandbox = any(target.startswith("sandbox/") for target in targets)
    return statistics.MINIMUM_EFFECT["sandbox" if sandbox else "text"]


def contrasts(
    methods: Sequence[str],
    values: Mapping[Cell, Mapping[int, float]],
    items: Mapping[Item, np.ndarray],
) -> list[Contrast]:
    """Every method against the first one, Holm-corrected over the whole family.

    Where the primary metric is a mean of items, seeds and items are resampled in pairs; otherwise
    (F1, Matthews) the signs of the per-seed differences are flipped.

    Args:
      methods: the baseline first.
      values: as from `cells`.
      items: per (method, target, k, seed): float [n], the metric's items on the test rows.
    """
    baseline, family = methods[0], {}
    for method, target, k in values:
        if method == baseline or (baseline, target, k) not in values:
            continue
        compared = _compare(method, baseline, target, k, values, items)
        if compared is not None:
            family[f"{method}\t{target}\t{k}"] = compared
    judged = statistics.judge(family, minimum(target for _, target, _ in values))
    found = []
    for name, verdict in judged.items():
        method, target, shots = name.split("\t")
        found.append(Contrast(method, baseline, target, int(shots), verdict))
    return found


def _compare(
    method: str,
    baseline: str,
    target: str,
    k: int,
    values: Mapping[Cell, Mapping[int, float]],
    items: Mapping[Item, np.ndarray],
) -> Comparison | None:
    a, b = values[method, target, k], values[baseline, target, k]
    seeds = [s for s in sorted(set(a) & set(b)) if np.isfinite(a[s]) and np.isfinite(b[s])]
    if not seeds:
        return None
    pairs = [
        (items.get((method, target, k, s)), items.get((baseline, target, k, s))) for s in seeds
    ]
    if all(x is not None and y is not None for x, y in pairs):
        left = np.stack([x for x, _ in pairs if x is not None])
        right = np.stack([y for _, y in pairs if y is not None])
        return statistics.paired_bootstrap(left, right)
    return statistics.sign_flip([a[s] for s in seeds], [b[s] for s in seeds])


def heading(k: int) -> str:
    """How a number of shots is called in a table."""
    return "all rows" if k == 0 else f"k = {k}"


def cell_text(summary: Summary | None) -> str:
    """A cell in points: mean and standard deviation over seeds, and runs that died."""
    if summary is None or summary.n == 0:
        return "failed" if summary is not None else "-"
    text = f"{100 * summary.mean:.1f}"
    if summary.n > 1:
        text += f" ± {100 * summary.std:.1f}"
    return text + (f" ({summary.failed} failed)" if summary.failed else "")


def table_rows(
    methods: Sequence[str],
    targets: Sequence[str],
    shots: Sequence[int],
    table: Mapping[Cell, Summary],
) -> list[tuple[int, str, list[str]]]:
    """The table: k, method, and the cell of every target, row by row."""
    return [
        (k, method, [cell_text(table.get((method, target, k))) for target in targets])
        for k in shots
        for method in methods
    ]


def markdown_table(
    methods: Sequence[str],
    targets: Sequence[str],
    shots: Sequence[int],
    table: Mapping[Cell, Summary],
    primary: Mapping[str, str],
) -> str:
    """The table as Markdown: one row per k and method, one column per target."""
    head = "| | method | " + " | ".join(f"{t} ({primary[t]})" for t in targets) + " |"
    lines = [head, "|" + "-|" * (len(targets) + 2)]
    for k, method, row in table_rows(methods, targets, shots, table):
        lines.append(f"| {heading(k)} | {method} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def interval_text(comparison: Comparison) -> str:
    """A difference in points with its interval; the interval is left out where there is none.

    >>> interval_text(Comparison(0.1, 0.05, 0.15, 0.01, 5, 100))
    '+10.0 [+5.0, +15.0]'
    """
    text = _signed(comparison.difference)
    if math.isfinite(comparison.low) and math.isfinite(comparison.high):
        text += f" [{_signed(comparison.low)}, {_signed(comparison.high)}]"
    return text


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def contrast_lines(found: Iterable[Contrast]) -> list[str]:
    """One line per contrast, for the summary file."""
    return [
        f"| {heading(c.k)} | {c.target} | {c.method} - {c.baseline} |"
        f" {interval_text(c.verdict.comparison)} | {c.verdict.p_holm:.3f} |"
        f" {'yes' if c.verdict.effect else 'no'} |"
        for c in found
    ]
