"""Warnings about results: training too short, answers of one class, no better than no training.

Each is a sentence among the warnings of `Findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.reference import LINES, TestedRun
from prompt_jax.rundir.tables import heading

_SHOWN = 4  # targets of one sentence
_WITHOUT_READING = ("majority", "chance")  # lines that nothing should be below


class Level(NamedTuple):
    """What a method reaches on a target, and what can be reached without it."""

    method: str
    k: int
    target: str  # its name
    mean: float
    reference: Mapping[str, float]  # of the target, by kind of line


def find(run: RunDirectory, levels: Iterable[Level]) -> list[str]:
    """The warnings about a run's results, in sentences; none without a `reference.json`.

    Args:
      run: the directory.
      levels: of every method, target and k with results.
    """
    levels, made = list(levels), []
    for k in run.shots:
        for method in run.methods:
            where = f"{method}, {heading(k)}"
            runs = [r for r in run.reference.runs if (r.key.method, r.key.k or 0) == (method, k)]
            if rising := _targets(run, runs, lambda run: run.still_rising, most=True):
                made.append(
                    f"{where}: the development metric was still rising at the last evaluation on"
                    f" {_listed(rising)}: train longer."
                )
            if one := _targets(run, runs, lambda run: run.one_class):
                made.append(f"{where}: nearly all answers are one class only on {_listed(one)}.")
            own = [level for level in levels if (level.method, level.k) == (method, k)]
            for kind in _WITHOUT_READING:
                if below := [text for level in own if (text := _below(level, kind))]:
                    article = "the" if kind == "majority" else "a"
                    made.append(f"{where}: below {article} {LINES[kind]} on {_listed(below)}.")
    return made


def _below(level: Level, kind: str) -> str:
    """The target and both numbers, where a method does not reach a line; else ""."""
    line = level.reference.get(kind)
    if line is None or not level.mean < line - 1e-9:
        return ""
    return f"{level.target} ({100 * level.mean:.1f} < {100 * line:.1f})"


def _targets(
    run: RunDirectory,
    runs: Sequence[TestedRun],
    doubtful: Callable[[TestedRun], bool],
    *,
    most: bool = False,
) -> list[str]:
    """The targets on which some seed of a method is doubtful, or most are."""
    found = []
    for target in run.targets:
        mine = [doubtful(r) for r in runs if r.key.task == target]
        if sum(mine) > (len(mine) / 2 if most else 0):
            seeds = f" ({sum(mine)} of {len(mine)} seeds)" if len(mine) > 1 else ""
            found.append(run.name(target) + seeds)
    return found


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
