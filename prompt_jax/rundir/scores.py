"""Scores by cell: the primary metric of a method on a target at one k, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.evaluation import Comparison, bounded, bounds, paired_bootstrap, sign_flip
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.results import ResultRow


class Cell(NamedTuple):
    """A place in the table of results."""

    method: str  # spec
    target: str  # as the config names it
    k: int  # shots, as `data.shots_count` counts them; 0: all rows


@dataclass(frozen=True, eq=False)
class Scores:
    """Values of one metric per target on one split.

    Attributes:
      values: of each cell by seed; NaN for a diverged replica.
      items: likewise the test items [n] where the metric is their mean.
      ranges: the smallest and largest value of each target's metric; [-1, 1] where it is missing.
    """

    values: dict[Cell, dict[int, float]]
    items: dict[Cell, dict[int, np.ndarray]]
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    __repr__ = fields_repr

    def range(self, targets: Sequence[str]) -> tuple[float, float]:
        """The smallest and largest mean over targets."""
        every = np.asarray([self.ranges.get(target, (-1.0, 1.0)) for target in targets])
        low, high = every.mean(0).tolist()
        return low, high

    def macro(self, method: str, targets: Sequence[str], k: int) -> dict[int, float]:
        """The mean over targets by seed; NaN for a seed that some target lacks.

        Empty where some target has no result at all.
        """
        cells = [self.values.get(Cell(method, target, k), {}) for target in targets]
        if not all(cells):
            return {}
        seeds = sorted(set().union(*cells))
        return {s: float(np.mean([by_seed.get(s, math.nan) for by_seed in cells])) for s in seeds}

    def compare(self, a: Sequence[Cell], b: Sequence[Cell]) -> Comparison | None:
        """The mean over cells of a - b, paired over seeds and items.

        Every cell counts alike, however many items it has. Without items of some cell the signs of
        the seeds' differences are flipped.

        Args:
          a: cells of a method.
          b: those of another one on the same targets.

        Returns:
          None where no seed has finite values in all cells.
        """
        seeds = self.healthy([*a, *b])
        if not seeds:
            return None
        if any(s not in self.items.get(cell, {}) for cell in (*a, *b) for s in seeds):
            means = [
                np.mean([[self.values[cell][s] for s in seeds] for cell in cells], 0)
                for cells in (a, b)
            ]
            low, high = self.range([cell.target for cell in a])
            return bounded(sign_flip(*means), low - high, high - low)
        sides = [[self._stacked(cell, seeds) for cell in cells] for cells in (a, b)]
        return compare_items(*sides)

    def healthy(self, cells: Sequence[Cell]) -> list[int]:
        """The seeds whose values are finite in all cells."""
        every = [self.values.get(cell, {}) for cell in cells]
        return [
            s for s in sorted(every[0]) if all(math.isfinite(v.get(s, math.nan)) for v in every)
        ]

    def _stacked(self, cell: Cell, seeds: Sequence[int]) -> np.ndarray:
        return np.stack([self.items[cell][s] for s in seeds]).astype(np.float64)


def compare_items(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Comparison:
    """Paired bootstrap of the mean over targets.

    Args:
      a: [seeds, items] of every target, the first method.
      b: likewise, the second one.
    """
    if len(a) == 1:
        return bounded(paired_bootstrap(a[0], b[0]), -1.0, 1.0)  # items are in [0, 1]
    sizes = [table.shape[1] for table in a]
    # Weighted, so that every target counts alike however many test items it has.
    weights = [sum(sizes) / (len(sizes) * size) for size in sizes]
    left, right = (
        np.concatenate([w * table for w, table in zip(weights, side, strict=True)], 1)
        for side in (a, b)
    )
    return bounded(paired_bootstrap(left, right), -1.0, 1.0)


def primary_metrics(rows: Iterable[ResultRow]) -> dict[str, str]:
    """The primary metric of each target: the one that chose on the development set."""
    return {row.target: row.metric for row in rows if row.split == "dev"}


def scores(
    rows: Iterable[ResultRow],
    metrics: Mapping[str, str],
    items: Mapping[RunKey, np.ndarray] | None = None,
    split: str = "test",
) -> Scores:
    """Collects the values of one metric per target.

    Args:
      rows: result rows.
      metrics: the metric of each target.
      items: per-item scores of that metric.
      split: which split to read.
    """
    made = Scores({}, {}, {target: bounds(metric) for target, metric in metrics.items()})
    for row in rows:
        if row.split == split and row.metric == metrics.get(row.target):
            cell = Cell(row.method, row.target, row.k)
            made.values.setdefault(cell, {})[row.seed] = row.value
            if items and row.key in items:
                made.items.setdefault(cell, {})[row.seed] = items[row.key]
    return made
