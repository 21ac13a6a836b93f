"""Merging of task vectors against float64 numpy, written from the papers' formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prompt_jax import task_vectors as tv
from prompt_jax.errors import ConfigError, PromptError

K, L, D = 3, 4, 5


def vectors(seed=0, shared=1.0, scale=1.0):
    """Task vectors that have something in common."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(K, L, D)) + shared * rng.normal(size=(1, L, D))
    return (scale * made).astype(np.float32)


def disentangled(given, penalty, rate, steps):
    """d in float64, by the derivative worked out by hand."""
    flat = np.float64(given).reshape(len(given), -1)
    pairs = list(itertools.combinations(range(len(flat)), 2))
    d = np.zeros(flat.shape[1])
    for _ in range(steps):
        slope = np.zeros_like(d)
        for i, j in pairs:
            a, b = flat[i] - d, flat[j] - d
            m, n = np.linalg.norm(a), np.linalg.norm(b)
            cosine = a @ b / (m * n)
            of_a, of_b = b / (m * n) - cosine * a / m**2, a / (m * n) - cosine * b / n**2
            slope -= np.sign(cosine) * (of_a + of_b) / len(pairs)
        norm = np.linalg.norm(d)
        slope += penalty * d / norm if norm else 0.0
        d = d - rate * slope
    return d.reshape(given.shape[1:])


def cosines(given):
    flat = given.reshape(len(given), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return np.abs((unit @ unit.T)[np.triu_indices(len(flat), 1)])


def test_disentangle_follows_the_gradient():
    given = vectors()
    left, shared = tv.disentangle(given, penalty=0.01, rate=0.5, steps=25, relative=False)
    expected = disentangled(given, 0.01, 0.5, 25)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(shared, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(left, given - expected, rtol=1e-5, atol=1e-5)


def test_disentangled_vectors_are_nearer_to_orthogonal_at_any_scale():
    for scale in (1.0, 1e-3):
        given = vectors(scale=scale)
        found = tv.disentangle(given)
        assert cosines(np.asarray(found.vectors)).mean() < 0.1 * cosines(given).mean()
        np.testing.assert_allclose(found.vectors + found.shared[None], given, 1e-5, 1e-6 * scale)
    small, large = (tv.disentangle(vectors(scale=s)).shared / s for s in (1e-3, 1.0))
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-6)


def test_nothing_is_shared_by_one_vector_or_by_zeros():
    for given in (vectors()[:1], np.zeros((K, L, D), np.float32)):
        left, shared = tv.disentangle(given)
        np.testing.assert_array_equal(left, given)
        np.testing.assert_array_equal(shared, 0)


@pytest.mark.parametrize("threshold", [0.4, [0.2, 0.4, 0.6]])
def test_masks(threshold):
    given = vectors()
    masks = np.asarray(tv.tall_masks(given, np.asarray(threshold, np.float32)))
    tokens = np.asarray(tv.tall_masks(given, np.asarray(threshold, np.float32), per_token=True))
    assert (masks.shape, tokens.shape) == ((K, L, D), (K, L))
    exact, total = np.float64(given), np.float64(given).sum(0)
    for t, factor in enumerate(np.broadcast_to(threshold, K)):
        rest = total - exact[t]
        np.testing.assert_array_equal(masks[t], np.abs(exact[t]) > factor * np.abs(rest))
        norms = (np.linalg.norm(x, axis=1) for x in (exact[t], rest))
        own, other = norms
        np.testing.assert_array_equal(tokens[t], own > factor * other)
    assert 0 < masks.mean() < 1


def test_masks_are_strict():
    one = np.ones((2, 1, 1), np.float32)
    assert not np.asarray(tv.tall_masks(one, 1.0)).any()
    assert np.asarray(tv.tall_masks(one, 0.99)).all()
    assert not np.asarray(tv.tall_masks(0 * one, 0.0)).any()  # a number that is 0 is nobody's


def test_consensus():
    masks = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    expected = {0: [1, 1, 1, 1], 1: [1, 1, 1, 0], 2: [1, 1, 0, 0], 3: [1, 0, 0, 0]}
    for agree, kept in expected.items():
        np.testing.assert_array_equal(tv.consensus(masks, agree), np.array(kept, bool))


@pytest.mark.parametrize("keep", [0.2, 0.5, 1.0])
def test_ties(keep):
    given = vectors(1, shared=0.0)
    exact = np.float64(given).reshape(K, -1)
    trimmed = np.zeros_like(exact)
    for k, row in enumerate(exact):
        largest = np.argsort(-np.abs(row))[: round(keep * row.size)]
        trimmed[k, largest] = row[largest]
    sign = np.sign(trimmed.sum(0))
    expected = np.zeros(L * D)
    for i in range(L * D):
        agreeing = [x for x in trimmed[:, i] if x != 0 and np.sign(x) == sign[i]]
        expected[i] = np.mean(agreeing) if agreeing else 0.0
    np.testing.assert_allclose(tv.ties(given, keep), expected.reshape(L, D), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tv.disentangle(vectors(), steps=-1), ConfigError, "steps must not be negative"),
        (lambda: tv.disentangle(vectors()[0]), PromptError, r"shape \[K, L, D\], not \[4, 5\]"),
        (lambda: tv.tall_masks(vectors(), [0.1, 0.2]), PromptError, "one of each of 3 vectors"),
        (lambda: tv.consensus(vectors()), PromptError, r"masks are bool \[K, ...\], not float32"),
        (lambda: tv.consensus(vectors() > 0, 4), ConfigError, r"agree must lie in 0 ... 3"),
        (lambda: tv.ties(vectors(), 0.0), ConfigError, r"keep must lie in \(0, 1\]"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
