"""Pooling and normalising queries, row by row in plain numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank import MemoryBank, make_query, pool, retrieve

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 3)).astype(np.float32)
LENGTHS = [5, 2, 1, 0]
MASK = (np.arange(5)[None] < np.array(LENGTHS)[:, None]).astype(np.int32)


@pytest.mark.parametrize("how", ["mean", "max", "last"])
def test_pool_ignores_padding(how):
    made = pool(np.where(MASK[..., None] == 0, np.float32(np.nan), X), MASK, how)
    for row, length in enumerate(LENGTHS):
        some = X[row, :length]
        expected = np.zeros(3)
        if length:
            expected = {"mean": some.mean(0), "max": some.max(0), "last": some[-1]}[how]
        np.testing.assert_allclose(made[row], expected, rtol=1e-6)


def test_pool_is_float32():
    assert pool(jnp.asarray(X, jnp.bfloat16), MASK).dtype == jnp.float32
    np.testing.assert_array_equal(pool(X, MASK.astype(bool)), pool(X, MASK))
    with pytest.raises(ConfigError, match="mean, max or last"):
        pool(X, MASK, "median")


def test_make_query_centres_projects_and_normalises():
    pooled = RNG.normal(size=(4, 8)).astype(np.float32)
    centre = RNG.normal(size=8).astype(np.float32)
    projection = RNG.normal(size=(8, 8)).astype(np.float32)
    x = (pooled.astype(np.float64) - centre) @ projection.T.astype(np.float64)
    x = x - x.mean(1, keepdims=True)
    expected = x / x.std(1, keepdims=True)
    np.testing.assert_allclose(make_query(pooled, centre, projection), expected, 1e-4, 1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(make_query(pooled, centre), axis=1), np.sqrt(8), rtol=1e-5
    )
    assert np.isfinite(make_query(centre[None], centre)).all()


def test_make_query_without_centre_retrieves_the_same_slots():
    """The ruling: a large common component hides what differs between templates."""
    width, templates = 64, 6
    own = RNG.normal(size=(templates, width))
    pooled = (own + 20 * RNG.normal(size=width)).astype(np.float32)
    keys = RNG.normal(size=(200, width)).astype(np.float32)
    bank = MemoryBank(keys, keys[:, None])
    used = [
        len(np.unique(retrieve(bank, make_query(pooled, centre), 5)[0]))
        for centre in (np.zeros(width, np.float32), pooled.mean(0))
    ]
    assert used[0] <= 12
    assert used[1] >= 18
