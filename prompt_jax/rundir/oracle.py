"""Results of the oracle of grouping: tables for people, and all numbers as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.evaluation import Verdict, statistics
from prompt_jax.evaluation.subsets import HALVES_SEED, CrossFitEstimate, SubsetScores
from prompt_jax.rundir.recipe_report import RecipeReport, points, stem_of
from prompt_jax.rundir.tables import Table, heading, interval_text, markdown, p_text
from prompt_jax.rundir.views import effect, threshold
from prompt_jax.training.tracking import finite

_BESTS = (
    "Both bests are chosen on one half of the items and measured on the other (cross-fitting);"
    ' their difference is paired, p after Holm over all rows. "Same items" is the best of all'
    " subsets on the items that chose it: too good by the winner's curse."
)


@dataclass(frozen=True)
class Choice:
    """The rank of the sources that a method chose among all subsets, by the test items.

    Attributes:
      method: its spec.
      seed: of the replica.
      subset: number of the subset.
      test: of that subset, merged as the oracle merges it.
      rank: 1 is the best; equal subsets share the mean of their ranks.
      percentile: 100 is the best, 0 the worst, 50 what a blind choice gets on average.
      deployed: what the method's own trained prompt achieved.
    """

    method: str
    seed: int
    subset: int
    test: float
    rank: float
    percentile: float
    deployed: float


@dataclass(frozen=True, eq=False)
class OracleCell:
    """One target at one k, over the seeds.

    Attributes:
      target: name.
      k: shots.
      metric: the primary one.
      minimum: smallest difference that counts as an effect.
      landscapes: by seed.
      any: the best of all subsets, by seed.
      simple: the best of none, every single source and all, by seed.
      verdict: `any` against `simple`, Holm-corrected over all cells.
      choices: of the methods.
    """

    target: str
    k: int
    metric: str
    minimum: float
    landscapes: tuple[SubsetScores, ...]
    any: tuple[CrossFitEstimate, ...]
    simple: tuple[CrossFitEstimate, ...]
    verdict: Verdict
    choices: tuple[Choice, ...]

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class OracleReport(RecipeReport):
    """Results of the oracle.

    Attributes:
      base: the method whose first stage was merged.
      tuned: whether every merged prompt was tuned before it was evaluated.
      sources: names.
      groups: bool [N, K], the subsets.
      cells: every target and k.
    """

    base: str
    tuned: bool
    sources: tuple[str, ...]
    groups: np.ndarray
    cells: tuple[OracleCell, ...]

    __repr__ = fields_repr

    @property
    def stem(self) -> str:
        """The name of the two files without their suffix."""
        return stem_of("oracle", self.tuned)

    def names(self, subset: int) -> list[str]:
        """The sources of a subset."""
        return [self.sources[i] for i in np.flatnonzero(self.groups[subset])]

    def to_dict(self) -> dict[str, Any]:
        """Everything, per subset and seed; JSON-able."""
        return {
            "experiment": self.name,
            "base": self.base,
            "tuned": self.tuned,
            "sources": list(self.sources),
            "halves_seed": HALVES_SEED,
            "cells": [self._cell(cell) for cell in self.cells],
        }

    def _cell(self, cell: OracleCell) -> dict[str, Any]:
        def by_seed(values: Sequence[Any], n: int) -> list[Any]:
            return [finite(np.asarray(value)[..., n].tolist()) for value in values]

        lands = cell.landscapes
        return {
            "target": cell.target,
            "k": cell.k,
            "metric": cell.metric,
            "seeds": [land.seed for land in lands],
            "subsets": [
                {
                    "sources": self.names(n),
                    "coefficient": by_seed([x.coefficients for x in lands], n),
                    "dev": by_seed([x.dev for x in lands], n),
                    "test": by_seed([x.test for x in lands], n),
                    "halves": by_seed([x.halves for x in lands], n),
                }
                for n in range(len(self.groups))
            ],
            "best_of_all": self._held(cell.any),
            "best_of_simple": self._held(cell.simple),
            "optimistic": [finite(float(np.fmax.reduce(land.test))) for land in lands],
            "contrast": {
                **{key: finite(value) for key, value in cell.verdict.comparison._asdict().items()},
                "p_holm": finite(cell.verdict.p_holm),
                "significant": bool(cell.verdict.p_holm < statistics.ALPHA),
                "effect": bool(cell.verdict.effect),
            },
            "choices": [
                {
                    "method": c.method,
                    "seed": c.seed,
                    "sources": self.names(c.subset),
                    "test": finite(c.test),
                    "rank": c.rank,
                    "percentile": c.percentile,
                    "deployed": finite(c.deployed),
                }
                for c in cell.choices
            ],
        }

    def _held(self, found: Sequence[CrossFitEstimate]) -> list[dict[str, Any]]:
        return [
            {"value": finite(held.value), "chosen": [self.names(n) for n in held.chosen]}
            for held in found
        ]

    def table(self) -> Table:
        """What choosing among subsets gains, in points."""
        rows = []
        for cell in self.cells:
            test = np.stack([land.test for land in cell.landscapes])
            values: list[Sequence[float] | np.ndarray] = [
                test[:, 0],
                test[:, -1],
                [estimate.value for estimate in cell.simple],
                [estimate.value for estimate in cell.any],
            ]
            rows.append(
                (
                    heading(cell.k),
                    cell.target,
                    cell.metric,
                    *(points(v) for v in values),
                    interval_text(cell.verdict.comparison),
                    p_text(cell.verdict.p_holm),
                    effect(cell.verdict),
                    points(np.fmax.reduce(test, axis=1)),
                )
            )
        titles = ("", "target", "metric", "none", "all", "best of none, one, all")
        more = ("best of all subsets", "difference [95 %]", "p", "effect", "same items")
        how = "tuned with the target's budget" if self.tuned else "evaluated without a step"
        thresholds = " ".join(sorted({threshold(cell.minimum) for cell in self.cells}))
        return Table(
            "oracle",
            f"Test items, in points, means over seeds; prompts are merged and {how}",
            titles + more,
            tuple(rows),
            3,
            note=f"{_BESTS} {thresholds}".strip(),
        )

    def choice_table(self) -> Table:
        """Where methods' choices rank, means over the seeds; without rows where none chose."""
        rows = []
        for cell in self.cells:
            for method in dict.fromkeys(choice.method for choice in cell.choices):
                mine = [choice for choice in cell.choices if choice.method == method]
                subset, times = Counter(choice.subset for choice in mine).most_common(1)[0]
                rows.append(
                    (
                        heading(cell.k),
                        cell.target,
                        method,
                        f"{' + '.join(self.names(subset)) or 'none'} ({times} of {len(mine)})",
                        points([choice.test for choice in mine]),
                        f"{np.mean([choice.rank for choice in mine]):.1f} of {len(self.groups)}",
                        f"{np.mean([choice.percentile for choice in mine]):.0f}",
                    )
                )
        return Table(
            "choices",
            "The choices of methods",
            ("", "target", "method", "most often", "its subset", "rank", "percentile"),
            tuple(rows),
            4,
            note="The rank of the sources that a method chose among all subsets (percentile: 100"
            " the best, 50 a random choice).",
        )

    def markdown(self) -> str:
        """Both tables, and how to read them."""
        parts = [f"# {self.name}: all subsets of {len(self.sources)} sources\n"]
        for table in (self.table(), self.choice_table()):
            if table.rows:
                parts += [f"{table.title}. {table.note}\n", markdown(table)]
        return "\n".join(parts)
