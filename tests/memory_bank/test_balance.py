"""Usage of slots and the reports about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy

from prompt_jax.memory_bank import describe_usage, load_balance, usage, usage_entropy


def test_usage_counts_every_retrieval():
    indices = np.array([[0, 3], [3, 4], [3, 0]])
    np.testing.assert_array_equal(usage(indices, 6), np.bincount(indices.reshape(-1), minlength=6))


def test_usage_entropy_matches_scipy():
    counts = np.array([[5, 1, 0, 2], [1, 1, 1, 1], [9, 0, 0, 0]], np.float32)
    expected = [entropy(row) / math.log(4) for row in counts]
    np.testing.assert_allclose(usage_entropy(counts), expected, atol=1e-6)
    assert float(usage_entropy(np.zeros(4, np.float32))) == 0.0


def test_load_balance_is_one_for_uniform_use_and_larger_otherwise():
    even = np.full((6, 3), 1 / 3, np.float32)
    one_each = np.array([[0], [1], [2]] * 2)
    assert float(load_balance(even, one_each)) == pytest.approx(1.0)
    collapsed = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (6, 1))
    assert float(load_balance(collapsed, np.zeros((6, 1), np.int32))) == pytest.approx(2.94)


def test_describe_usage():
    found = describe_usage(np.array([4, 0, 4, 0, 0], np.float32))
    assert found.dead == (1, 3, 4)
    assert found.effective == pytest.approx(2.0, rel=1e-5)
    assert found.summary == (
        "2 of 5 slots were retrieved, effective number 2.0; 3 are dead: use fewer slots or more"
        " load balance"
    )
    alive = describe_usage(np.ones(3))
    assert alive.dead == ()
    assert alive.entropy == pytest.approx(1.0)
    assert "dead" not in alive.summary
    assert describe_usage(np.zeros(3)).effective == 0.0
