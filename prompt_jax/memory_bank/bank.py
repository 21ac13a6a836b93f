"""Memory banks, their initialisation, and memory tokens of retrieved slots."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import sharding, streams
from prompt_jax.errors import ConfigError
from prompt_jax.sharding import Rules

Array = Any
Gradient = Literal["hard", "soft", "straight_through"]

BANK_RULES: Rules = ((r"keys$", ("data", None)), (r"values$", ("data", None, None)))
"""Slots over the mesh axis 'data', for `sharding.shard_tree`."""


class MemoryBank(NamedTuple):
    """N slots, as a pytree."""

    keys: Array  # [N, D]
    values: Array  # [N, m, D]


def tied(rows: Array) -> MemoryBank:
    """A bank with one token per slot, where key and value are the same vector.

    Args:
      rows: [N, D], for instance rows of the embedding table. They get the gradients of both keys
        and values.
    """
    return MemoryBank(rows, rows[:, None, :])


def draw_values(table: Array, slots: int, tokens: int, seed: int) -> np.ndarray:
    """Initial values: rows of an embedding table, drawn without replacement while there are enough.

    Args:
      table: [n, D], for instance the first 5,000 rows of the model's embeddings.
      slots: N.
      tokens: m.
      seed: of the stream "init".

    Returns:
      [N, m, D] float32.
    """
    table = np.asarray(table, np.float32)
    generator, count = streams.rng(seed, "init", 1), slots * tokens
    rounds = [generator.permutation(len(table)) for _ in range(-(-count // len(table)))]
    ids = np.concatenate(rounds)[:count]
    return table[ids].reshape(slots, tokens, table.shape[1])


def place_keys(queries: Array, slots: int, seed: int, spread: float = 0.5) -> np.ndarray:
    """Initial keys near the queries, so that few slots start dead: centroids of k-means.

    If there are fewer distinct queries than slots, the slots are assigned to the queries in
    round-robin order, with noise. All keys get the norm sqrt(D): with inner products a longer key
    would always win.

    Args:
      queries: [n, D], of the training templates.
      slots: N.
      seed: of the stream "init".
      spread: standard deviation of the noise, relative to the query's root mean square.

    Returns:
      [N, D] float32.
    """
    points = np.unique(np.asarray(queries, np.float32), axis=0)
    generator = streams.rng(seed, "init", 2)
    if len(points) > slots:
        from sklearn.cluster import KMeans

        state = int(generator.integers(2**31))
        keys = KMeans(slots, n_init=1, random_state=state).fit(points).cluster_centers_
    else:
        turns = np.arange(slots) % len(points)
        sizes = np.sqrt(np.mean(points**2, axis=1, keepdims=True))
        noise = generator.normal(size=(slots, points.shape[1])) * spread
        # The first round stays on the queries themselves, where they have a direction.
        empty = sizes[turns] == 0
        first = (np.arange(slots) < len(points))[:, None] & ~empty
        keys = points[turns] + np.where(first, 0.0, noise * np.where(empty, 1.0, sizes[turns]))
    norm = np.linalg.norm(keys, axis=1, keepdims=True)
    return (keys / np.maximum(norm, 1e-12) * math.sqrt(keys.shape[1])).astype(np.float32)


def gather(bank: MemoryBank, indices: Array, weights: Array | None = None) -> jax.Array:
    """The memory tokens of retrieved slots, in the order of the indices.

    Args:
      bank: N slots of m tokens.
      indices: int [B, k].
      weights: [B, k], multiplies the tokens of a slot.

    Returns:
      [B, k * m, D] in the dtype of the values; NaN where an index is out of range.
    """
    values, indices = jnp.asarray(bank.values), jnp.asarray(indices)
    chex.assert_rank([values, indices], [3, 2])
    chex.assert_type(indices, int)
    # [B, k, m, D]
    tokens = sharding.call_with_auto_axes(_slots, values, indices, split=indices)
    if weights is not None:
        chex.assert_equal_shape([weights, indices])
        tokens = tokens * jnp.asarray(weights, tokens.dtype)[..., None, None]
    return tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])


def _slots(values: jax.Array, indices: jax.Array) -> jax.Array:
    indices = jnp.where(indices < 0, len(values), indices)  # negative indices are out of range
    return values.at[indices].get(mode="fill", fill_value=jnp.nan)


def attend(bank: MemoryBank, query: Array, temperature: float = 1.0) -> jax.Array:
    """Soft attention over all slots, without retrieval: sum_n softmax(<q, k> / sqrt(D))_n V_n.

    Returns:
      [B, m, D] float32.
    """
    chex.assert_rank(bank.values, 3)
    chex.assert_equal_shape_prefix([bank.keys, bank.values], 1)
    weights = probabilities(bank, query, temperature)
    values = jnp.asarray(bank.values, jnp.float32)
    mean = functools.partial(jnp.einsum, "bn,nmd->bmd")
    return sharding.call_with_auto_axes(mean, weights, values, split=query)


def probabilities(bank: MemoryBank, query: Array, temperature: float = 1.0) -> jax.Array:
    """softmax(<q, k_n> / (sqrt(D) temperature)) over all slots, [B, N] float32, for small banks."""
    keys, query = jnp.asarray(bank.keys, jnp.float32), jnp.asarray(query, jnp.float32)
    chex.assert_rank([keys, query], 2)
    chex.assert_equal_shape_suffix([keys, query], 1)
    shares = functools.partial(_softmax, math.sqrt(keys.shape[1]) * temperature)
    return sharding.call_with_auto_axes(shares, keys, query, split=query)


def _softmax(scale: float, keys: jax.Array, query: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.matmul(query, keys.T, precision="highest") / scale)


def slot_weights(
    scores: Array, width: int, gradient: Gradient, temperature: float = 1.0
) -> jax.Array | None:
    """Weights of the retrieved slots, through which keys and queries get a gradient.

    - `hard`: no weights; only the retrieved values are trained.
    - `soft`: k softmax(s / sqrt(D)) over the retrieved slots; uniform weights are 1.
    - `straight_through`: 1, with the derivative of `soft`.

    Args:
      scores: [B, k], from `retrieve`.
      width: D.
      gradient: see above.
      temperature: divides the scores.

    Returns:
      [B, k] float32, or None for `hard`.
    """
    if gradient == "hard":
        return None
    scores = jnp.asarray(scores, jnp.float32)
    chex.assert_rank(scores, 2)
    weights = scores.shape[1] * jax.nn.softmax(scores / (math.sqrt(width) * temperature))
    if gradient == "soft":
        return weights
    if gradient == "straight_through":
        return 1.0 + weights - jax.lax.stop_gradient(weights)
    raise ConfigError(f"gradient is hard, soft or straight_through, not '{gradient}'.")
