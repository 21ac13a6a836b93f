"""What the log of a run directory says over the steps, grouped for figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.methods import create
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.folder import RunDirectory, number
from prompt_jax.rundir.results import heading


class Group(NamedTuple):
    """Runs that differ in seed and trial alone."""

    method: str
    stage: str
    task: str  # "": the mixture of all sources
    k: int | None  # 0: all rows; None: a source

    @property
    def label(self) -> str:
        """Method and stage, for people."""
        return f"{self.method}: {self.stage}" + ("" if self.k is None else f", {heading(self.k)}")


Lines = dict[tuple[int, int], dict[int, Any]]  # (seed, trial) -> step -> what was logged


def collect(run: RunDirectory, key: str) -> dict[Group, Lines]:
    """Everything that was logged under a key.

    A stage that was broken off and begun again has steps twice: the later ones count.
    """
    found: dict[Group, Lines] = {}
    for line in run.metrics:
        if line.get(key) is None:
            continue
        run_key = RunKey.of(line)
        group = Group(run_key.method, run_key.stage, run_key.task, run_key.k)
        member = run_key.seed, run_key.trial
        found.setdefault(group, {}).setdefault(member, {})[line["step"]] = line[key]
    return found


def of_target(found: Mapping[Group, Lines], method: str, target: str, k: int) -> Lines:
    """The lines of a method's last stage on a target."""
    try:
        last = create(method).stages()[-1].title
    except ConfigError:  # of a plug-in that is not registered here
        last = "target"
    return found.get(Group(method, last, target, k), {})


def numbers(lines: Lines, scale: float = 1.0) -> list[tuple[list[int], list[float]]]:
    """The finite numbers of every run, in order of the steps."""
    made = []
    for member in sorted(lines):
        pairs = [(step, scale * number(value)) for step, value in sorted(lines[member].items())]
        pairs = [(step, value) for step, value in pairs if np.isfinite(value)]
        if pairs:
            made.append(([step for step, _ in pairs], [value for _, value in pairs]))
    return made


def arrays(lines: Lines, rank: int) -> tuple[list[int], np.ndarray] | None:
    """What was logged as lists, averaged over the runs.

    Args:
      lines: of runs that differ in seed and trial alone.
      rank: of the array of one step: 0, 1 or 2.

    Returns:
      The n steps that all runs have, and [n, ...] float64; None where shapes differ or nothing
      is finite. NaN where no run has a finite number.
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
