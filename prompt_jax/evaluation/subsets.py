"""Selection among all subsets of sources, with cross-fitting.

A subset is chosen on one half of the test items and measured on the other half. The maximum of 2^K
noisy values is biased upwards, and nearly all subsets are neither a single source nor all of them,
so without cross-fitting noise alone would favour grouping.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.errors import DataError
from prompt_jax.evaluation import statistics
from prompt_jax.evaluation.statistics import Comparison

HALVES_SEED = 0


@dataclass(frozen=True, eq=False)
class SubsetScores:
    """Scores of every subset on one target, k and seed; N = 2^K subsets in the order of `subsets`.

    Attributes:
      seed: of the prompts.
      coefficients: [N], 1 or 1 / |S|.
      dev: [N], the metric on the development set.
      test: [N], on all test items.
      halves: [2, N], on the items of the first and of the second half.
      first: bool [n], the items of the first half.
      items: [N, n], per-item values whose means are the metric; None if it is not a mean of items.
    """

    seed: int
    coefficients: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    halves: np.ndarray
    first: np.ndarray
    items: np.ndarray | None = None

    __repr__ = fields_repr


class CrossFitEstimate(NamedTuple):
    """Score of a selection among subsets, chosen on one half of the items, scored on the other."""

    chosen: tuple[int, int]  # on the first half, on the second
    value: float  # the mean over both directions
    items: np.ndarray | None  # [n]: of each item under the subset chosen on the other half


def subsets(count: int) -> np.ndarray:
    """All subsets in order of size: the empty one, single sources, ..., all; bool [2^K, K].

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
    """Splits the items into two random halves; items of one unit stay in one half.

    Args:
      units: n values, equal for items of one unit.
      seed: of the split.

    Returns:
      bool [n], True in the first half.

    Raises:
      DataError: for fewer than two units.
    """
    distinct = list(dict.fromkeys(units))
    if len(distinct) < 2:
        raise DataError("the oracle needs at least two test items: one to choose, one to measure.")
    order = np.random.default_rng(seed).permutation(len(distinct))
    first = {distinct[i] for i in order[: len(distinct) // 2].tolist()}
    return np.asarray([unit in first for unit in units])


def cross_fit(scores: SubsetScores, candidates: np.ndarray) -> CrossFitEstimate:
    """Chooses the best candidate on each half and measures it on the other one.

    Args:
      scores: of all subsets.
      candidates: int [m], numbers of subsets; ties are broken by the first.
    """
    by_first, by_second = (
        int(candidates[nan_to_neg_inf(half[candidates]).argmax()]) for half in scores.halves
    )
    if scores.items is None:
        value = (scores.halves[1, by_first] + scores.halves[0, by_second]) / 2
        return CrossFitEstimate((by_first, by_second), float(value), None)
    items = np.where(scores.first, scores.items[by_second], scores.items[by_first])
    return CrossFitEstimate((by_first, by_second), float(items.mean()), items)


def rank_percentile(values: np.ndarray, number: int) -> tuple[float, float]:
    """Rank (1 is the best) and percentile (100 is the best) of one of [N] values.

    Ties get the mean of their ranks, so that a random choice has an expected percentile of 50.

    >>> rank_percentile(np.array([0.5, 0.9, 0.5]), 0)
    (2.5, 25.0)
    """
    values = nan_to_neg_inf(values)
    better = int((values > values[number]).sum())
    equal = int((values == values[number]).sum()) - 1
    rank = 1 + better + equal / 2
    return rank, 100 * (len(values) - rank) / (len(values) - 1)


def compare(better: Sequence[CrossFitEstimate], other: Sequence[CrossFitEstimate]) -> Comparison:
    """Paired over seeds and items, or over seeds if the metric is not a mean of items."""
    a, b = ([estimate.items for estimate in estimates] for estimates in (better, other))
    if all(x is not None for x in (*a, *b)):
        return statistics.paired_bootstrap(np.stack(a), np.stack(b))  # type: ignore[arg-type]
    return statistics.sign_flip([e.value for e in better], [e.value for e in other])


def nan_to_neg_inf(values: np.ndarray) -> np.ndarray:
    """Replaces NaN, the score of a prompt that is not finite, by the worst possible score."""
    return np.where(np.isnan(values), -np.inf, values)
