"""The numbers logged in a run directory, over the steps and grouped for figures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prompt_jax.rundir.folder import RunDirectory, number
from prompt_jax.rundir.tables import heading


class Group(NamedTuple):
    """Replicas that differ in seed and trial alone."""

    method: str
    stage: str
    task: str  # "": a mixture of tasks
    k: int | None  # 0: all rows; None: the stage does not depend on it

    @property
    def label(self) -> str:
        """The stage in words."""
        parts = [f"{self.method}: {self.stage}" if self.method else self.stage]
        return ", ".join(parts if self.k is None else [*parts, heading(self.k)])


Lines = dict[tuple[int, int], dict[int, Any]]  # (seed, trial) -> step -> what was logged


def collect(run: RunDirectory, name: str) -> dict[Group, Lines]:
    """Everything that was logged under a name.

    A stage that was interrupted and begun again has steps twice: the later ones count.
    """
    groups: dict[Group, Lines] = {}
    for key, step, numbers in run.metrics:
        if numbers.get(name) is not None:
            group = Group(key.method, key.stage, key.task, key.k)
            lines = groups.setdefault(group, {})
            lines.setdefault((key.seed, key.trial), {})[step] = numbers[name]
    return groups


def numbers(lines: Lines, scale: float = 1.0) -> list[tuple[list[int], list[float]]]:
    """The finite numbers of every replica, in order of the steps."""
    made = []
    for member in sorted(lines):
        pairs = [(step, scale * number(value)) for step, value in sorted(lines[member].items())]
        pairs = [(step, value) for step, value in pairs if np.isfinite(value)]
        if pairs:
            made.append(([step for step, _ in pairs], [value for _, value in pairs]))
    return made


def arrays(lines: Lines, rank: int) -> tuple[list[int], np.ndarray] | None:
    """What was logged as lists, averaged over the replicas.

    Args:
      lines: of replicas that differ in seed and trial alone.
      rank: of the array of one step: 0, 1 or 2.

    Returns:
      The n steps that all replicas have, and [n, ...] float64; None where shapes differ or nothing
      is finite. NaN where no replica has a finite number.
    """
    tables = []
    for logged in lines.values():
        table = {}
        for step, value in logged.items():
            try:
                array = np.asarray(value, np.float64)
            except (ValueError, TypeError, OverflowError):
                continue
            if array.ndim == rank and array.size:
                table[step] = np.where(np.abs(array) < 1e30, array, np.nan)
        if table:
            tables.append(table)
    shapes = {array.shape for table in tables for array in table.values()}
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    if len(shapes) != 1 or not shared:
        return None
    stacked = np.stack([[table[step] for step in shared] for table in tables])
    known = np.isfinite(stacked)
    counts = known.sum(0)
    total = np.where(known, stacked, 0.0).sum(0)
    mean = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return (shared, mean) if counts.any() else None
