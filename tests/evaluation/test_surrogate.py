"""Surrogate models: what is drawn, the fit against the normal equations, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation.subsets import subsets
from prompt_jax.evaluation.surrogate import fit, random_subsets, rank_correlation


def test_subsets_are_different_of_one_size_and_follow_the_empty_one():
    groups = random_subsets(8, 3, 20)
    assert groups.shape == (21, 8)
    assert not groups[0].any()
    np.testing.assert_array_equal(groups[1:].sum(1), 3)
    assert len({tuple(group) for group in groups.tolist()}) == 21
    np.testing.assert_array_equal(groups, random_subsets(8, 3, 20))
    assert not np.array_equal(groups, random_subsets(8, 3, 20, seed=1))


def test_all_subsets_are_taken_where_there_are_few():
    groups = random_subsets(4, 2, 100)
    assert len(groups) == 1 + math.comb(4, 2)
    every = subsets(4)
    np.testing.assert_array_equal(
        sorted(groups[1:].tolist()), sorted(every[every.sum(1) == 2].tolist())
    )
    np.testing.assert_array_equal(random_subsets(1, 1, 4), [[False], [True]])


@pytest.mark.parametrize(
    ("count", "size", "number", "message"),
    [
        (4, 4, 9, "from 1 to 3 of 4 sources, not 4"),
        (4, 0, 9, "from 1 to 3 of 4 sources, not 0"),
        (2, 2, 9, "from 1 to 1 of 2 sources, not 2"),
        (4, 2, 3, "3 subsets cannot tell 4 sources apart: score at least 4"),
        (4, 2, -1, "-1 subsets cannot tell"),
    ],
)
def test_subsets_that_cannot_tell_sources_apart_are_refused(count, size, number, message):
    with pytest.raises(ConfigError, match=message):
        random_subsets(count, size, number)


def test_a_draw_that_leaves_sources_apart_is_refused():
    """Some draw of four pairs of four sources has rank 3; it is refused, whatever its seed."""

    def drawn(seed):
        try:
            return np.linalg.matrix_rank(random_subsets(4, 2, 4, seed).astype(float))
        except ConfigError as error:
            return str(error).split(":")[0]

    refusal = "the 4 random subsets of 2 sources cannot tell 4 sources apart"
    assert {drawn(seed) for seed in range(40)} == {4, refusal}


def test_a_linear_score_is_found_exactly():
    effects = np.array([0.05, -0.02, 0.0, 0.1, -0.3, 0.01])
    groups = random_subsets(6, 3, 12)
    model = fit(groups, 0.4 + groups @ effects)
    assert model.intercept == pytest.approx(0.4)
    np.testing.assert_allclose(model.effects, effects, atol=1e-12)
    assert model.explained == pytest.approx(1)
    every = subsets(6)
    np.testing.assert_allclose(model.predict(every), 0.4 + every @ effects)
    assert every[model.predict(every).argmax()][[0, 3, 5]].all()


def test_the_fit_is_that_of_the_normal_equations_and_its_intercept_the_score_of_none():
    groups = random_subsets(5, 2, 9)
    scores = np.random.default_rng(0).uniform(size=10)
    design = np.column_stack([np.ones(10), groups])
    expected = np.linalg.solve(design.T @ design, design.T @ scores)
    model = fit(groups, scores)
    np.testing.assert_allclose([model.intercept, *model.effects], expected, rtol=1e-9)
    assert model.intercept == pytest.approx(scores[0])  # subsets of one size leave it open
    rest = scores[1:] - design[1:] @ expected
    spread = scores[1:] - scores[1:].mean()
    assert model.explained == pytest.approx(1 - (rest @ rest) / (spread @ spread))
    np.testing.assert_array_equal(model.chosen, expected[1:] > 0)


def test_scores_that_are_not_finite_are_left_out():
    effects = np.array([0.1, -0.1, 0.2, 0.0])
    groups = random_subsets(4, 2, 6)
    scores = 0.5 + groups @ effects
    scores[2] = np.nan
    model = fit(groups, scores)
    np.testing.assert_allclose(model.effects, effects, atol=1e-12)
    assert model.left_out == 1
    scores[0] = np.nan  # without the empty subset the intercept is open
    with pytest.raises(ConfigError, match="5 of 7 subsets have a finite score: too few"):
        fit(groups, scores)


def test_equal_scores_explain_nothing():
    groups = random_subsets(3, 1, 3)
    model = fit(groups, np.full(4, 0.25))
    assert math.isnan(model.explained)
    assert not model.chosen.any()


def test_rank_correlation():
    assert rank_correlation(np.arange(5), np.arange(5) ** 3) == pytest.approx(1)
    assert rank_correlation(np.arange(3), np.array([2.0, 1.0, -np.inf])) == pytest.approx(-1)
    assert math.isnan(rank_correlation(np.arange(3), np.ones(3)))
