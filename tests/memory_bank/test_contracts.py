"""Arrays of another shape or type are refused while tracing, before anything is broadcast."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from prompt_jax import memory_bank as mb

BANK = mb.MemoryBank(jnp.ones((6, 4)), jnp.ones((6, 2, 4)))
QUERY, INDICES = jnp.ones((3, 4)), jnp.zeros((3, 2), jnp.int32)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: mb.gather(BANK, INDICES[0]), id="gather: indices of one row"),
        pytest.param(lambda: mb.gather(BANK, INDICES.astype(float)), id="gather: no integers"),
        pytest.param(lambda: mb.gather(BANK, INDICES, QUERY[:, :1]), id="gather: weights"),
        pytest.param(lambda: mb.gather(mb.MemoryBank(BANK.keys, BANK.keys), INDICES), id="values"),
        pytest.param(lambda: mb.attend(BANK._replace(keys=jnp.ones((5, 4))), QUERY), id="slots"),
        pytest.param(lambda: mb.probabilities(BANK, QUERY[0]), id="probabilities: one query"),
        pytest.param(lambda: mb.probabilities(BANK, QUERY[:, :3]), id="probabilities: width"),
        pytest.param(lambda: mb.slot_weights(jnp.ones(3), 4, "soft"), id="slot_weights"),
        pytest.param(lambda: mb.pool(QUERY, QUERY[:, 0]), id="pool: rank"),
        pytest.param(lambda: mb.pool(jnp.ones((3, 5, 4)), jnp.ones((3, 4))), id="pool: mask"),
        pytest.param(lambda: mb.make_query(QUERY, jnp.ones(1)), id="make_query: centre"),
        pytest.param(
            lambda: mb.make_query(QUERY, jnp.ones(4), jnp.ones((1, 4))), id="make_query: projection"
        ),
        pytest.param(lambda: mb.key_pull(BANK, QUERY[:1], INDICES), id="key_pull: rows"),
        pytest.param(lambda: mb.load_balance(jnp.ones((2, 6)), INDICES), id="load_balance: rows"),
        pytest.param(lambda: mb.usage(jnp.ones((3, 2)), 6), id="usage: no integers"),
        pytest.param(lambda: mb.describe_usage(jnp.ones((2, 6))), id="describe_usage: two banks"),
    ],
)
def test_arrays_of_wrong_shape_raise(call) -> None:
    with pytest.raises(AssertionError, match=r"\[Chex\] Assertion"):
        call()


def test_checks_happen_while_tracing() -> None:
    compiled = jax.jit(functools.partial(mb.gather, BANK))
    with pytest.raises(AssertionError):
        compiled(INDICES[0])
    assert compiled(INDICES).shape == (3, 4, 4)
