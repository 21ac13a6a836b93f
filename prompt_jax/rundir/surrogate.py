"""Results of source selection by surrogate models: a table for people, and all numbers as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.evaluation.subsets import nan_to_neg_inf, rank_percentile
from prompt_jax.evaluation.surrogate import DRAW_SEED, Surrogate, rank_correlation
from prompt_jax.rundir.recipe_report import RecipeReport, points, stem_of
from prompt_jax.rundir.tables import Table, heading, markdown
from prompt_jax.training.tracking import finite

_NOTE = (
    "Sources whose effect on the development score is positive are chosen. Explained: share of the"
    " variance of the subsets' development scores. Rank (1 is the best) and percentile (50: a"
    " random choice) among all subsets, and the rank correlation of predicted with measured test"
    " scores of all subsets, by the oracle of the same run directory."
)


@dataclass(frozen=True)
class Judgement:
    """What the oracle says of a choice.

    Attributes:
      rank: of the chosen subset among all, by the test items; 1 is the best.
      percentile: 100 is the best, 50 what a random choice gets on average.
      correlation: Spearman's, of the model's prediction with the test score, over all subsets.
    """

    rank: float
    percentile: float
    correlation: float


@dataclass(frozen=True, eq=False)
class Selection:
    """The choice for one target, k and seed.

    Attributes:
      seed: of the prompts.
      dev: [n + 1], the development score of the random subsets, after that of none.
      model: fitted to them.
      test: the test score of no source, of the chosen ones, and of all.
      judgement: None without the oracle's numbers.
    """

    seed: int
    dev: np.ndarray
    model: Surrogate
    test: tuple[float, float, float]
    judgement: Judgement | None

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class SurrogateCell:
    """One target at one k, over the seeds."""

    target: str
    k: int
    metric: str
    selections: tuple[Selection, ...]

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class SurrogateReport(RecipeReport):
    """Results of source selection by surrogate models.

    Attributes:
      base: the method whose first stage was merged.
      tuned: whether every merged prompt was tuned before it was scored.
      sources: names.
      groups: bool [n + 1, K]: the empty subset and the random ones.
      cells: every target and k.
    """

    base: str
    tuned: bool
    sources: tuple[str, ...]
    groups: np.ndarray
    cells: tuple[SurrogateCell, ...]

    __repr__ = fields_repr

    @property
    def stem(self) -> str:
        """The name of the two files without their suffix."""
        return stem_of("surrogate", self.tuned)

    def names(self, group: np.ndarray) -> list[str]:
        """The sources of a subset, bool [K]."""
        return [self.sources[i] for i in np.flatnonzero(group)]

    def to_dict(self) -> dict[str, Any]:
        """Everything; JSON-able."""
        return {
            "experiment": self.name,
            "base": self.base,
            "tuned": self.tuned,
            "sources": list(self.sources),
            "draw_seed": DRAW_SEED,
            "subsets": [self.names(group) for group in self.groups],
            "cells": [
                {
                    "target": cell.target,
                    "k": cell.k,
                    "metric": cell.metric,
                    "selections": [self._selection(one) for one in cell.selections],
                }
                for cell in self.cells
            ],
        }

    def _selection(self, one: Selection) -> dict[str, Any]:
        judged = one.judgement
        return {
            "seed": one.seed,
            "dev": finite(one.dev.tolist()),
            "left_out": one.model.left_out,
            "intercept": one.model.intercept,
            "effects": dict(zip(self.sources, one.model.effects.tolist(), strict=True)),
            "explained": finite(one.model.explained),
            "chosen": self.names(one.model.chosen),
            "test": dict(zip(("none", "chosen", "all"), finite(list(one.test)), strict=True)),
            "oracle": None
            if judged is None
            else {
                "rank": judged.rank,
                "percentile": judged.percentile,
                "correlation": finite(judged.correlation),
            },
        }

    def table(self) -> Table:
        """What was chosen and what it is worth, means over the seeds."""
        rows = []
        for cell in self.cells:
            ones = cell.selections
            chosen = Counter(tuple(self.names(one.model.chosen)) for one in ones)
            names, times = chosen.most_common(1)[0]
            judged = [one.judgement for one in ones if one.judgement is not None]
            rows.append(
                (
                    heading(cell.k),
                    cell.target,
                    cell.metric,
                    f"{' + '.join(names) or 'none'} ({times} of {len(ones)})",
                    points([x for one in ones if np.isfinite(x := one.model.explained)]),
                    *(points([one.test[i] for one in ones]) for i in range(3)),
                    f"{np.mean([j.rank for j in judged]):.1f}" if judged else "",
                    f"{np.mean([j.percentile for j in judged]):.0f}" if judged else "",
                    f"{np.nanmean([j.correlation for j in judged]):.2f}"
                    if any(np.isfinite(j.correlation) for j in judged)
                    else "",
                )
            )
        how = "tuned with the target's budget" if self.tuned else "evaluated without a step"
        return Table(
            "surrogate",
            f"Sources chosen by {len(self.groups) - 1} random subsets of"
            f" {int(self.groups[-1].sum())}; test items, in points; prompts are merged and {how}",
            (
                *("", "target", "metric", "chosen most often", "explained"),
                *("none", "chosen", "all", "rank", "percentile", "correlation"),
            ),
            tuple(rows),
            4,
            note=_NOTE,
        )

    def markdown(self) -> str:
        """The table, and how to read it."""
        table = self.table()
        return (
            f"# {self.name}: sources chosen by a surrogate model\n\n"
            f"{table.title}. {table.note}\n\n{markdown(table)}"
        )


def judge(
    model: Surrogate, sources: Sequence[str], cell: Mapping[str, Any], seed: int
) -> Judgement | None:
    """Ranks a choice among all subsets.

    Args:
      model: what chose.
      sources: names, in the model's order.
      cell: of `OracleReport.to_dict`.
      seed: of the prompts.

    Returns:
      None where the oracle has not evaluated this seed.
    """
    if seed not in cell["seeds"]:
        return None
    place = cell["seeds"].index(seed)
    groups = np.asarray([[s in subset["sources"] for s in sources] for subset in cell["subsets"]])
    test = np.asarray([subset["test"][place] for subset in cell["subsets"]], np.float64)
    number = int(np.flatnonzero((groups == model.chosen).all(1))[0])
    agreement = rank_correlation(model.predict(groups), nan_to_neg_inf(test))
    return Judgement(*rank_percentile(test, number), agreement)


def read_oracle(
    folder: Path, base: str, tuned: bool, sources: Sequence[str]
) -> tuple[dict[tuple[str, int], Mapping[str, Any]], str]:
    """The oracle's cells of a run directory by target and k, and why there are none, or "".

    Args:
      folder: the run directory.
      base: the method whose first stage is merged.
      tuned: whether the merged prompts were tuned.
      sources: names.
    """
    path = folder / f"{stem_of('oracle', tuned)}.json"
    if not path.exists():
        return {}, f"{path.name} is not there: prompt-jax oracle{' --tuned' * tuned} makes it"
    try:
        found = json.loads(path.read_text())
        cells = {(cell["target"], cell["k"]): cell for cell in found["cells"]}
        of = found["base"], tuple(found["sources"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}, f"{path.name} cannot be read"
    if of != (base, tuple(sources)):
        return {}, f"{path.name} is of {of[0]} and the sources {', '.join(of[1])}"
    return cells, ""
