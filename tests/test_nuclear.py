"""The Frank-Wolfe step over a nuclear-norm ball, against numpy's SVD in float64."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_jax import task_vectors as tv
from prompt_jax.errors import PromptError

K, L, D = 3, 4, 5


def vectors(seed=0, rank=K, scale=1.0):
    """K task vectors whose matrix [K, L D] has the given rank."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(K, rank)) @ rng.normal(size=(rank, L * D))
    return (scale * made.reshape(K, L, D)).astype(np.float32)


def nuclear(x):
    return np.linalg.svd(np.float64(x).reshape(K, -1), compute_uv=False).sum()


def step(w, y, radius):
    """One step in float64, by the singular value decomposition."""
    w, y = (np.float64(x).reshape(K, -1) for x in (w, y))
    left, _, right = np.linalg.svd(y - w, full_matrices=False)
    direction = radius * np.outer(left[:, 0], right[0]) - w
    gap = ((y - w) * direction).sum()
    rate = np.clip(gap / (direction**2).sum(), 0, 1)
    return (w + rate * direction).reshape(K, L, D), rate, gap


def projection(y, radius):
    """The nearest matrix of the ball: all singular values are lowered by the same amount."""
    left, values, right = np.linalg.svd(np.float64(y).reshape(K, -1), full_matrices=False)
    low, high = 0.0, values.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if np.maximum(values - middle, 0).sum() > radius else (low, middle)
        )
    return ((left * np.maximum(values - high, 0)) @ right).reshape(K, L, D)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_leading_pair_is_that_of_the_svd(scale):
    given = vectors(scale=scale)
    left, value, right = (np.float64(x) for x in tv.leading_pair(given))
    u, s, v = np.linalg.svd(np.float64(given).reshape(K, -1), full_matrices=False)
    assert value == pytest.approx(s[0], rel=1e-5)
    np.testing.assert_allclose(
        np.outer(left, right.reshape(-1)), np.outer(u[:, 0], v[0]), rtol=1e-4, atol=1e-5
    )
    assert float(tv.nuclear_norm(given)) == pytest.approx(s.sum(), rel=1e-5)


def test_nuclear_steps_are_those_of_the_svd():
    y, w = vectors(), np.zeros((K, L, D), np.float32)
    radius = 0.6 * nuclear(y)
    for _ in range(6):
        made = tv.nuclear_step(w, y, radius)
        reached, rate, gap = step(w, y, radius)
        w = np.asarray(made.low_rank)
        np.testing.assert_allclose(w, reached, rtol=1e-3, atol=1e-4)
        assert float(made.rate) == pytest.approx(rate, rel=1e-3)
        assert float(made.gap) == pytest.approx(gap, rel=1e-3)
        assert nuclear(w) <= radius * (1 + 1e-5)


def test_nuclear_steps_reach_the_projection_onto_the_ball():
    y, w = vectors(), np.zeros((K, L, D), np.float32)
    radius = 0.6 * nuclear(y)
    nearest = projection(y, radius)
    assert np.linalg.norm(nearest - y) > 1
    bound = 0.5 * ((nearest - y) ** 2).sum()
    for _ in range(400):
        made = tv.nuclear_step(w, y, radius)
        # The gap bounds what is left, up to rounding.
        assert 0.5 * ((np.float64(w) - y) ** 2).sum() - bound <= float(made.gap) + 1e-3
        w = np.asarray(made.low_rank)
    assert np.linalg.norm(w - nearest) < 0.02 * np.linalg.norm(nearest)


def test_one_step_finds_what_related_tasks_share():
    y = vectors(rank=1)
    radius = 1.01 * nuclear(y)
    made = tv.nuclear_step(np.zeros_like(y), y, radius)
    np.testing.assert_allclose(made.low_rank, y, rtol=1e-4, atol=1e-5)


def test_nothing_moves_without_a_residual_and_lost_rows_stay_zero():
    y = vectors()
    zero = np.zeros_like(y)
    made = tv.nuclear_step(zero, zero, 1.0)
    assert not np.asarray(made.low_rank).any()
    assert float(made.rate) == 0
    # A site that was never heard has a row of zeros: it gets nothing of the others' direction.
    heard = y * np.asarray([1, 0, 1], np.float32)[:, None, None]
    shared = np.asarray(tv.nuclear_step(zero, heard, nuclear(heard)).low_rank)
    assert np.abs(shared[1]).max() < 1e-6 * np.abs(shared).max()


def test_wrong_shapes_are_refused():
    with pytest.raises(PromptError, match=r"vectors must have shape \[K, L, D\], not \[4, 5\]"):
        tv.leading_pair(vectors()[0])
    with pytest.raises(PromptError, match=r"one shape, not \[3, 4, 5\] and \[2, 4, 5\]"):
        tv.nuclear_step(vectors(), vectors()[:2], 1.0)
