"""Results of ForkMerge: a table for people, and all numbers as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.rundir.recipe_report import RecipeReport, points
from prompt_jax.rundir.tables import Table, heading, markdown
from prompt_jax.training.tracking import finite

_NOTE = (
    "Branches that are named by their number of sources train on the target's rows and on those of"
    " its best sources. The round is the one that was best on the development rows: the test score"
    " and the weights, whose sum is 100, are those of its merged prompt. Steps are those of all"
    " branches and of the ranking of sources."
)


class Round(NamedTuple):
    """One merge."""

    values: list[float]  # [B], the best development value of each branch in the round
    weights: list[float]  # [B], their sum is not 1
    value: float  # the development value of the merged prompt


@dataclass(frozen=True, eq=False)
class Branching:
    """The rounds of one target, k and seed.

    Attributes:
      seed: of the replicas.
      ranked: names of the sources, the best first.
      rounds: all of them, in order.
      best: number of the round whose prompt is kept, from 1; 0: the initialisation.
      dev: its development value.
      test: its test score.
      steps: of all branches.
    """

    seed: int
    ranked: tuple[str, ...]
    rounds: tuple[Round, ...]
    best: int
    dev: float
    test: float
    steps: int

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class ForkMergeCell:
    """One target at one k, over the seeds."""

    target: str
    k: int
    metric: str
    branchings: tuple[Branching, ...]

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class ForkMergeReport(RecipeReport):
    """Results of ForkMerge.

    Attributes:
      sources: names.
      sizes: the number of sources of each branch.
      cells: every target and k.
    """

    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    cells: tuple[ForkMergeCell, ...]

    __repr__ = fields_repr

    @property
    def stem(self) -> str:
        """The name of the two files without their suffix."""
        return "forkmerge"

    def to_dict(self) -> dict[str, Any]:
        """Everything; JSON-able."""
        return {
            "experiment": self.name,
            "sources": list(self.sources),
            "branches": list(self.sizes),
            "cells": [
                {
                    "target": cell.target,
                    "k": cell.k,
                    "metric": cell.metric,
                    "branchings": [
                        {
                            "seed": one.seed,
                            "ranked": list(one.ranked),
                            "rounds": [
                                {
                                    "branches": finite(made.values),
                                    "weights": made.weights,
                                    "dev": finite(made.value),
                                }
                                for made in one.rounds
                            ],
                            "round": one.best,
                            "dev": finite(one.dev),
                            "test": finite(one.test),
                            "steps": one.steps,
                        }
                        for one in cell.branchings
                    ],
                }
                for cell in self.cells
            ],
        }

    def table(self) -> Table:
        """Scores and weights, means over the seeds."""
        rows = []
        for cell in self.cells:
            ones = cell.branchings
            first, times = Counter(one.ranked[0] for one in ones).most_common(1)[0]
            weights = np.asarray([one.rounds[max(one.best, 1) - 1].weights for one in ones])
            shares = (weights / weights.sum(1, keepdims=True)).mean(0)
            rows.append(
                (
                    heading(cell.k),
                    cell.target,
                    cell.metric,
                    f"{first} ({times} of {len(ones)})",
                    points([one.test for one in ones]),
                    points([one.dev for one in ones]),
                    *(f"{100 * share:.0f}" for share in shares),
                    f"{np.mean([one.best for one in ones]):.1f}",
                    f"{np.mean([one.steps for one in ones]):,.0f}",
                )
            )
        branches = (f"{n or 'no'} source{'' if n == 1 else 's'}" for n in self.sizes)
        return Table(
            "forkmerge",
            "Prompts merged from branches; test items, in points, means over seeds",
            (
                *("", "target", "metric", "best source", "test", "dev"),
                *branches,
                *("round", "steps"),
            ),
            tuple(rows),
            4,
            note=_NOTE,
        )

    def markdown(self) -> str:
        """The table, and how to read it."""
        table = self.table()
        return f"# {self.name}: ForkMerge\n\n{table.title}. {table.note}\n\n{markdown(table)}"
