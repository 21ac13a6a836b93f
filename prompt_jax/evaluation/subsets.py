"""Choosing among all subsets of sources, honestly: by half of the items, measured on the others.

The best of 2^K noisy numbers is too good, and nearly all subsets are neither one source nor all, so
that noise alone would show that grouping pays.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.errors import DataError
from prompt_jax.evaluation import statistics
from prompt_jax.evaluation.statistics import Comparison

HALVES_SEED = 0


@dataclass(frozen=True, eq=False)
class SubsetScores:
    """Every subset on one target, k and seed; N = 2^K subsets in the order of `subsets`.

    Attributes:
      seed: of the prompts.
      coefficients: [N], 1 or 1 / |S|.
      dev: [N], the metric on the development set.
      test: [N], on all test items.
      halves: [2, N], on the items of the first half and on the others.
      first: bool [n], the items of the first half.
      items: [N, n], whose means the metric is; None where it is no mean of items.
    """

    seed: int
    coefficients: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    halves: np.ndarray
    first: np.ndarray
    items: np.ndarray | None = None


class CrossFitEstimate(NamedTuple):
    """A choice among subsets by one half of the items, measured on the other, both ways."""

    chosen: tuple[int, int]  # by the first half, by the second
    value: float  # the mean of both ways
    items: np.ndarray | None  # [n]: of each item under the subset that the other half chose


def subsets(count: int) -> np.ndarray:
    """All subsets, small ones first: none, every single one, ..., all; bool [2^K, K].

    >>> subsets(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    members = itertools.chain.from_iterable(
        itertools.combinations(range(count), size) for size in range(count + 1)
    )
    groups = np.zeros((2**count, count), bool)
    for group, chosen in zip(groups, members, strict=True):
        group[list(chosen)] = True
    return groups


def split_items(units: Sequence[Any], seed: int = HALVES_SEED) -> np.ndarray:
    """Two halves of the items; those of one unit stay together.

    Args:
      units: n values, equal for items that belong together.
      seed: equal seeds draw equal halves.

    Returns:
      bool [n], True in the first half.

    Raises:
      DataError: for fewer than two units.
    """
    known = list(dict.fromkeys(units))
    if len(known) < 2:
        raise DataError("the oracle needs at least two test items: one to choose, one to measure.")
    drawn = np.random.default_rng(seed).permutation(len(known))
    first = {known[i] for i in drawn[: len(known) // 2].tolist()}
    return np.asarray([unit in first for unit in units])


def cross_fit(land: SubsetScores, candidates: np.ndarray) -> CrossFitEstimate:
    """Chooses the best candidate by each half and measures it on the other one.

    Args:
      land: the subsets.
      candidates: int [m], numbers of subsets; of equal ones the first is chosen.
    """
    by_first, by_second = (
        int(candidates[nan_to_neg_inf(half[candidates]).argmax()]) for half in land.halves
    )
    if land.items is None:
        value = (land.halves[1, by_first] + land.halves[0, by_second]) / 2
        return CrossFitEstimate((by_first, by_second), float(value), None)
    items = np.where(land.first, land.items[by_second], land.items[by_first])
    return CrossFitEstimate((by_first, by_second), float(items.mean()), items)


def rank_percentile(values: np.ndarray, number: int) -> tuple[float, float]:
    """Rank (1 is the best) and percentile (100 is the best) of one of [N] values.

    Equal values share the mean of their ranks, so that a blind choice gets the percentile 50.

    >>> rank_percentile(np.array([0.5, 0.9, 0.5]), 0)
    (2.5, 25.0)
    """
    values = nan_to_neg_inf(values)
    better = int((values > values[number]).sum())
    equal = int((values == values[number]).sum()) - 1
    rank = 1 + better + equal / 2
    return rank, 100 * (len(values) - rank) / (len(values) - 1)


def compare(better: Sequence[CrossFitEstimate], other: Sequence[CrossFitEstimate]) -> Comparison:
    """Paired over seeds and items, or over seeds where the metric is no mean of items."""
    a, b = ([held.items for held in found] for found in (better, other))
    if all(x is not None for x in (*a, *b)):
        return statistics.paired_bootstrap(np.stack(a), np.stack(b))  # type: ignore[arg-type]
    return statistics.sign_flip([held.value for held in better], [held.value for held in other])


def nan_to_neg_inf(values: np.ndarray) -> np.ndarray:
    """NaN is what a prompt that is not finite achieves: worse than anything."""
    return np.where(np.isnan(values), -np.inf, values)
