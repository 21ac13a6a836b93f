"""Choosing among subsets: what is planted is found, and noise alone gains nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prompt_jax.errors import DataError
from prompt_jax.evaluation.subsets import (
    CrossFitEstimate,
    SubsetScores,
    compare,
    cross_fit,
    rank_percentile,
    split_items,
    subsets,
)


def landscape(items: np.ndarray, first: np.ndarray | None = None, seed: int = 0) -> SubsetScores:
    """Subsets with these items [N, n]."""
    first = split_items(range(items.shape[1])) if first is None else first
    halves = np.stack([items[:, first].mean(1), items[:, ~first].mean(1)])
    ones = np.ones(len(items))
    return SubsetScores(seed, ones, ones, items.mean(1), halves, first, items)


def drawn(chances: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.random((len(chances), n)) < chances[:, None]).astype(np.float64)


# Subsets and halves


@pytest.mark.parametrize("count", [1, 3, 6])
def test_subsets_are_complete_and_in_order_of_size(count):
    groups = subsets(count)
    assert groups.shape == (2**count, count)
    assert len({tuple(group) for group in groups.tolist()}) == 2**count
    assert (np.diff(groups.sum(1)) >= 0).all()
    np.testing.assert_array_equal(groups[1 : count + 1], np.eye(count, dtype=bool))


def test_split_items_is_fixed_balanced_and_keeps_units_together():
    units = [f"question {i // 3}" for i in range(60)]
    first = split_items(units)
    np.testing.assert_array_equal(first, split_items(units))
    assert (first != split_items(units, seed=1)).any()
    assert first.sum() == 30
    by_question = first.reshape(20, 3)
    assert (by_question == by_question[:, :1]).all()
    assert split_items(range(7)).sum() == 3


@pytest.mark.parametrize("units", [[], [0], ["q", "q", "q"]])
def test_split_items_of_fewer_than_two_units_raises(units):
    with pytest.raises(DataError, match="at least two test items"):
        split_items(units)


# The choice


def test_cross_fit_selects_the_planted_subset_and_measures_it_on_the_other_half():
    chances = np.full(16, 0.5)
    chances[9] = 0.9
    land = landscape(drawn(chances, 400, np.random.default_rng(0)))
    held = cross_fit(land, np.arange(16))
    assert held.chosen == (9, 9)
    np.testing.assert_array_equal(held.items, land.items[9])
    assert held.value == land.items[9].mean()
    singles = cross_fit(land, np.array([0, 1, 2, 3, 4, 15]))
    assert 9 not in singles.chosen
    assert compare([held], [singles]).p < 1e-6


def test_cross_fit_items_come_from_the_choice_of_the_other_half():
    # Subset 1 is perfect on the first half and fails on the second, subset 2 the other way round.
    first = np.array([True, False, True, False])
    items = np.stack([np.full(4, 0.5), first.astype(float), (~first).astype(float)])
    held = cross_fit(landscape(items, first), np.arange(3))
    assert held.chosen == (1, 2)
    assert held.value == 0.0
    assert items.mean(1).max() == 0.5  # while choosing on all items looks harmless


def test_cross_fit_is_unbiased_on_noise():
    rng = np.random.default_rng(1)
    simple = np.array([0, 1, 2, 3, 4, 5, 6, 63])
    gains, naive = [], []
    for _ in range(60):
        land = landscape(drawn(np.full(64, 0.5), 200, rng))
        gains.append(cross_fit(land, np.arange(64)).value - cross_fit(land, simple).value)
        naive.append(land.test.max() - land.test[simple].max())
    assert np.mean(naive) > 0.025
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(60)
    assert np.mean(gains) < 0.01


def test_cross_fit_breaks_ties_by_size_and_never_selects_nan():
    items = np.full((4, 6), 0.5)
    assert cross_fit(landscape(items), np.arange(4)).chosen == (0, 0)
    items[0] = np.nan
    assert cross_fit(landscape(items), np.arange(4)).chosen == (1, 1)
    assert cross_fit(landscape(items), np.array([3, 2])).chosen == (3, 3)


def test_cross_fit_without_items_uses_the_halves():
    halves = np.array([[0.2, 0.9, 0.4], [0.3, 0.1, 0.8]])
    land = SubsetScores(0, np.ones(3), np.ones(3), halves.mean(0), halves, np.ones(4, bool))
    held = cross_fit(land, np.arange(3))
    assert held == CrossFitEstimate((1, 2), (0.1 + 0.4) / 2, None)
    others = [CrossFitEstimate((0, 0), value, None) for value in (0.5, 0.4, 0.6)]
    comparison = compare([held] * 3, others)
    assert comparison.difference == pytest.approx(0.25 - 0.5)
    assert comparison.p == 2 / 2**3


# Standing


def test_rank_percentile_matches_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).integers(0, 6, 32) / 6
    ranks = stats.rankdata(-values)
    for number, rank in enumerate(ranks):
        assert rank_percentile(values, number) == (rank, pytest.approx(100 * (32 - rank) / 31))


def test_rank_percentile_of_a_random_choice_is_50_and_nan_is_worst():
    values = np.array([0.1, 0.1, 0.7, 0.3, np.nan, 0.7])
    assert np.mean([rank_percentile(values, n)[1] for n in range(6)]) == pytest.approx(50)
    assert rank_percentile(values, 4) == (6.0, 0.0)
    assert all(
        rank_percentile(values, a) == rank_percentile(values, b) for a, b in [(0, 1), (2, 5)]
    )
    assert not any(
        rank_percentile(values, a) == rank_percentile(values, b)
        for a, b in itertools.combinations((0, 2, 3, 4), 2)
    )
