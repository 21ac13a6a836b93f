"""Prompts of retrieved slots, gradients of every variant against finite differences, and starts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank import (
    MemoryBank,
    attend,
    draw_values,
    gather,
    key_pull,
    load_balance,
    make_query,
    place_keys,
    probabilities,
    retrieve,
    slot_weights,
    tied,
)

N, M, D, B, K = 12, 2, 6, 3, 4
RNG = np.random.default_rng(5)
KEYS = RNG.normal(size=(N, D)).astype(np.float32)
VALUES = RNG.normal(size=(N, M, D)).astype(np.float32)
POOLED = RNG.normal(size=(B, D)).astype(np.float32)
PROBE = RNG.normal(size=(B, K * M, D)).astype(np.float32)
EYE = np.eye(D, dtype=np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_gather_out_of_range_is_nan():
    made = gather(MemoryBank(KEYS, VALUES), np.asarray([[0, len(KEYS)], [-1, 1]]))
    tokens = VALUES.shape[1]
    assert np.isnan(made[0, tokens:]).all()
    assert np.isnan(made[1, :tokens]).all()
    np.testing.assert_array_equal(made[0, :tokens], VALUES[0])
    np.testing.assert_array_equal(made[1, tokens:], VALUES[1])


def test_gather_concatenates_slots_in_order():
    indices = np.array([[3, 0, 3], [11, 2, 1]])
    weights = np.array([[1, 2, -1], [0, 0.5, 1]], np.float32)
    plain = gather(MemoryBank(KEYS, VALUES), indices)
    assert plain.shape == (2, 3 * M, D)
    weighted = gather(MemoryBank(KEYS, VALUES), indices, weights)
    for b in range(2):
        for j in range(3):
            tokens = VALUES[indices[b, j]]
            np.testing.assert_array_equal(plain[b, M * j : M * j + M], tokens)
            np.testing.assert_allclose(weighted[b, M * j : M * j + M], weights[b, j] * tokens)


def test_bank_is_a_pytree():
    bank = jax.tree.map(lambda x: 2 * x, MemoryBank(KEYS, VALUES))
    np.testing.assert_array_equal(bank.keys, 2 * KEYS)
    low = MemoryBank(KEYS, jnp.asarray(VALUES, jnp.bfloat16))
    made = gather(low, np.zeros((1, 2), np.int32), np.ones((1, 2), np.float32))
    assert made.dtype == jnp.bfloat16


def test_slot_weights():
    scores = np.array([[4.0, 1.0, 0.0]], np.float32)
    assert slot_weights(scores, 16, "hard") is None
    soft = np.asarray(slot_weights(scores, 16, "soft", 0.5))
    np.testing.assert_allclose(soft, 3 * softmax(scores / 4 / 0.5), rtol=1e-6)
    np.testing.assert_allclose(slot_weights(scores, 16, "straight_through"), 1.0)
    np.testing.assert_allclose(slot_weights(np.zeros((1, 5), np.float32), 9, "soft"), 1.0)
    with pytest.raises(ConfigError, match="hard, soft or straight_through"):
        slot_weights(scores, 16, "softer")


def test_attend_by_hand():
    query = POOLED.astype(np.float64)
    weights = softmax(query @ KEYS.T.astype(np.float64) / np.sqrt(D) / 0.7)
    np.testing.assert_allclose(
        probabilities(MemoryBank(KEYS, VALUES), POOLED, 0.7), weights, rtol=1e-5, atol=1e-6
    )
    expected = np.einsum("bn,nmd->bmd", weights, VALUES)
    made = attend(MemoryBank(KEYS, VALUES), POOLED, 0.7)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


# Gradients


def objective(gradient):
    """A loss that is linear in the prompt, as the trainer's pull-back is; indices held fixed."""
    fixed = retrieve(MemoryBank(KEYS, VALUES), make_query(POOLED, np.zeros(D, np.float32)), K)[0]

    def loss(params):
        bank = MemoryBank(params["keys"], params["values"])
        query = make_query(POOLED, np.zeros(D, np.float32), params["projection"])
        indices, scores = retrieve(bank, query, K)
        prompts = gather(bank, indices, slot_weights(scores, D, gradient))
        return jnp.vdot(prompts, PROBE)

    def smooth(params):
        """The same in float64 with the indices of the start: what the derivative should be of."""
        x = POOLED.astype(np.float64) @ params["projection"].T
        x = x - x.mean(1, keepdims=True)
        query = x / np.sqrt((x**2).mean(1, keepdims=True))
        scores = np.einsum("bkd,bd->bk", params["keys"][fixed], query)
        soft = K * softmax(scores / np.sqrt(D))
        weights = np.ones_like(soft) if gradient == "hard" else soft
        tokens = params["values"][fixed] * weights[..., None, None]
        return (tokens.reshape(B, -1, D) * PROBE).sum()

    return loss, smooth


def differences(function, params, name, step=1e-5):
    """Central differences in float64, one number after the other."""
    gradient = np.zeros(params[name].shape)
    for at in np.ndindex(*gradient.shape):
        ends = []
        for sign in (1, -1):
            moved = {k: np.array(v, np.float64) for k, v in params.items()}
            moved[name][at] += sign * step
            ends.append(function(moved))
        gradient[at] = (ends[0] - ends[1]) / (2 * step)
    return gradient


PARAMS = {"keys": KEYS, "values": VALUES, "projection": EYE}


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["hard", "soft"])
def test_gradients_match_finite_differences(gradient):
    loss, smooth = objective(gradient)
    value, found = jax.jit(jax.value_and_grad(loss))(PARAMS)
    np.testing.assert_allclose(value, smooth(PARAMS), rtol=1e-4)
    for name in PARAMS:
        expected = differences(smooth, PARAMS, name)
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=2e-5)
    touched = np.abs(found["keys"]).sum(1) > 0
    assert not touched.any() if gradient == "hard" else 0 < touched.sum() < N


@pytest.mark.slow
def test_straight_through_has_the_forward_of_hard_and_the_key_gradient_of_soft():
    values, found = {}, {}
    for g in ("hard", "soft", "straight_through"):
        values[g], found[g] = jax.jit(jax.value_and_grad(objective(g)[0]))(PARAMS)
    np.testing.assert_allclose(values["straight_through"], values["hard"], 1e-5)
    for name in ("keys", "projection"):
        assert np.abs(found["soft"][name]).max() > 1e-3
        np.testing.assert_allclose(
            found["straight_through"][name], found["soft"][name], rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(
        found["straight_through"]["values"], found["hard"]["values"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_unretrieved_values_get_no_gradient():
    found = jax.jit(jax.grad(objective("soft")[0]))(PARAMS)
    query = make_query(POOLED, np.zeros(D, np.float32))
    used = np.unique(retrieve(MemoryBank(KEYS, VALUES), query, K)[0])
    assert 0 < len(used) < N
    np.testing.assert_array_equal(np.flatnonzero(np.abs(found["values"]).sum((1, 2))), used)


def test_key_pull_has_gradients_for_keys_only():
    indices = np.array([[0, 3], [5, 3], [2, 1]])

    def pull(params):
        return key_pull(MemoryBank(params["keys"], VALUES), params["query"], indices)

    def smooth(params):
        keys, q = params["keys"][indices], POOLED.astype(np.float64)[:, None]
        norms = np.linalg.norm(keys, axis=-1) * np.linalg.norm(q, axis=-1)
        return (1 - (keys * q).sum(-1) / norms).mean()

    params = {"keys": KEYS, "query": POOLED}
    of = jax.jit(jax.value_and_grad(pull))
    value, found = of(params)
    np.testing.assert_allclose(value, smooth(params), rtol=1e-5)
    np.testing.assert_allclose(
        found["keys"], differences(smooth, {"keys": KEYS}, "keys"), rtol=1e-3, atol=1e-5
    )
    assert not np.abs(found["query"]).any()
    towards = KEYS - 0.5 * np.asarray(found["keys"])
    assert of({"keys": towards, "query": POOLED})[0] < value


@pytest.mark.slow
def test_load_balance_gradient_matches_finite_differences():
    """f is counted and has no derivative; p is what moves."""
    indices = np.array([[0, 3], [0, 1], [0, 2]])
    f = np.bincount(indices.reshape(-1), minlength=N) / indices.size

    def balance(params):
        return load_balance(probabilities(MemoryBank(params["keys"], VALUES), POOLED), indices)

    def smooth(params):
        p = softmax(POOLED.astype(np.float64) @ params["keys"].T / np.sqrt(D)).mean(0)
        return N * f @ p

    params = {"keys": KEYS}
    value, found = jax.jit(jax.value_and_grad(balance))(params)
    np.testing.assert_allclose(value, smooth(params), rtol=1e-5)
    np.testing.assert_allclose(
        found["keys"], differences(smooth, params, "keys"), rtol=1e-3, atol=1e-5
    )


def test_tied_bank_gets_gradients_of_keys_and_values():
    bank = tied(jnp.asarray(KEYS))
    assert bank.values.shape == (N, 1, D)
    np.testing.assert_array_equal(bank.values[:, 0], KEYS)

    def loss(rows, soft):
        bank = tied(rows)
        indices, scores = retrieve(bank, POOLED, K)
        weights = slot_weights(scores, D, "soft" if soft else "hard")
        return jnp.vdot(gather(bank, indices, weights), PROBE[:, :K])

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    both, values = (slope(KEYS, soft) for soft in (True, False))
    assert np.abs(np.asarray(both) - np.asarray(values)).max() > 1e-2
    fixed = retrieve(bank, POOLED, K)[0]

    def smooth(params, soft):
        rows = params["rows"][fixed]
        scores = np.einsum("bkd,bd->bk", rows, POOLED.astype(np.float64))
        weights = K * softmax(scores / np.sqrt(D)) if soft else np.ones_like(scores)
        return (rows * weights[..., None] * PROBE[:, :K]).sum()

    for found, soft in ((both, True), (values, False)):
        expected = differences(lambda p, soft=soft: smooth(p, soft), {"rows": KEYS}, "rows")
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)


def test_attend_gradient_matches_finite_differences():
    """Of all keys, values and queries: no slot is left out."""

    def loss(params):
        bank = MemoryBank(params["keys"], params["values"])
        return jnp.vdot(attend(bank, params["query"], 0.7), PROBE[:, :M])

    def smooth(params):
        scores = np.asarray(params["query"], np.float64) @ params["keys"].T
        weights = softmax(scores / np.sqrt(D) / 0.7)
        return (np.einsum("bn,nmd->bmd", weights, params["values"]) * PROBE[:, :M]).sum()

    params = {"keys": KEYS, "values": VALUES, "query": POOLED}
    found = jax.jit(jax.grad(loss))(params)
    for name in params:
        expected = differences(smooth, params, name)
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=2e-5)
        assert (np.abs(found[name]).max(tuple(range(1, found[name].ndim))) > 0).all()


# Starts


def test_draw_values_are_rows_of_the_table():
    table = np.arange(40, dtype=np.float32).reshape(20, 2)
    made = draw_values(table, 5, 4, seed=1)
    assert made.shape == (5, 4, 2)
    rows = sorted(map(tuple, made.reshape(-1, 2).tolist()))
    assert rows == sorted(map(tuple, table.tolist()))  # twenty of twenty: each once
    more = draw_values(table, 15, 4, seed=1).reshape(-1, 2)
    assert set(np.unique(more[:, 0], return_counts=True)[1].tolist()) == {3}
    np.testing.assert_array_equal(made, draw_values(table, 5, 4, seed=1))
    assert not np.array_equal(made, draw_values(table, 5, 4, seed=2))


def test_place_keys_near_the_queries():
    """Fewer queries than slots: each has slots of its own, the first one exactly on it."""
    queries = np.asarray(
        make_query(RNG.normal(size=(4, 32)).astype(np.float32), np.zeros(32, np.float32))
    )
    keys = place_keys(np.concatenate([queries, queries[:1]]), 12, seed=0)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), np.sqrt(32), rtol=1e-5)
    indices, scores = retrieve(MemoryBank(keys, keys[:, None]), queries, 3)
    assert len(np.unique(indices)) == 12
    np.testing.assert_allclose(scores[:, 0], 32.0, rtol=1e-4)
    np.testing.assert_array_equal(keys, place_keys(queries, 12, seed=0))
    assert not np.array_equal(keys, place_keys(queries, 12, seed=1))
    # Where all queries are their own centre, nothing is left of them: keys of any direction.
    scattered = place_keys(np.zeros((3, 32)), 5, seed=0)
    np.testing.assert_allclose(np.linalg.norm(scattered, axis=1), np.sqrt(32), rtol=1e-5)


def test_place_keys_at_centroids():
    """More queries than slots: well separated clusters get a key each."""
    centres = 5 * np.eye(6, 16)
    points = np.repeat(centres, 10, axis=0) + 0.05 * RNG.normal(size=(60, 16))
    keys = place_keys(points, 6, seed=3)
    cosine = keys @ centres.T / 5 / 4
    assert keys.dtype == np.float32
    assert sorted(cosine.argmax(1).tolist()) == list(range(6))
    assert (cosine.max(1) > 0.99).all()
