"""Banks of slots and the prompts that their values make."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import streams
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
    """A bank whose slots are one token each, and that token its own key (variant A of the notes).

    Args:
      rows: [N, D], for instance rows of the embedding table. Gradients of keys and values both
        arrive here.
    """
    return MemoryBank(rows, rows[:, None, :])


def draw_values(table: Array, slots: int, tokens: int, seed: int) -> np.ndarray:
    """Initial values: rows of an embedding table, each at most once while there are enough.

    Args:
      table: [n, D], for instance the first 5,000 rows of the model's embeddings.
      slots: N.
      tokens: m.
      seed: of the stream "init".

    Returns:
      [N, m, D] float32.
    """
    table = np.asarray(table, np.float32)
    generator, wanted = streams.rng(seed, "init", 1), slots * tokens
    rounds = [generator.permutation(len(table)) for _ in range(-(-wanted // len(table)))]
    ids = np.concatenate(rounds)[:wanted]
    return table[ids].reshape(slots, tokens, table.shape[1])


def place_keys(queries: Array, slots: int, seed: int, spread: float = 0.5) -> np.ndarray:
    """Initial keys where the queries are, so that few slots start dead: centroids of k-means.

    Where there are fewer different queries than slots, slots are dealt to the queries in turn and
    lie beside them at random. All keys get the norm sqrt(D): under an inner product a longer key
    would win everywhere.

    Args:
      queries: [n, D], of the training templates.
      slots: N.
      seed: of the stream "init".
      spread: of slots around a query, relative to the query's size.

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
      [B, k * m, D] in the values' type; NaN where an index is no slot.
    """
    values, indices = jnp.asarray(bank.values), jnp.asarray(indices)
    chex.assert_rank([values, indices], [3, 2])
    chex.assert_type(indices, int)
    indices = jnp.where(indices < 0, len(values), indices)  # no counting from the end
    found = values.at[indices].get(mode="fill", fill_value=jnp.nan)  # [B, k, m, D]
    if weights is not None:
        chex.assert_equal_shape([weights, indices])
        found = found * jnp.asarray(weights, found.dtype)[..., None, None]
    return found.reshape(found.shape[0], -1, found.shape[-1])


def attend(bank: MemoryBank, query: Array, temperature: float = 1.0) -> jax.Array:
    """Soft attention over all slots, no retrieval: sum_n softmax(<q, k> / sqrt(D))_n V_n.

    Returns:
      [B, m, D] float32.
    """
    chex.assert_rank(bank.values, 3)
    chex.assert_equal_shape_prefix([bank.keys, bank.values], 1)
    weights = probabilities(bank, query, temperature)
    return jnp.einsum("bn,nmd->bmd", weights, jnp.asarray(bank.values, jnp.float32))


def probabilities(bank: MemoryBank, query: Array, temperature: float = 1.0) -> jax.Array:
    """softmax(<q, k_n> / (sqrt(D) temperature)) over all slots, [B, N] float32: small banks."""
    keys, query = jnp.asarray(bank.keys, jnp.float32), jnp.asarray(query, jnp.float32)
    chex.assert_rank([keys, query], 2)
    chex.assert_equal_shape_suffix([keys, query], 1)
    scores = jnp.matmul(query, keys.T, precision="highest")
    return jax.nn.softmax(scores / (math.sqrt(keys.shape[1]) * temperature))


def slot_weights(
    scores: Array, width: int, gradient: Gradient, temperature: float = 1.0
) -> jax.Array | None:
    """What multiplies the retrieved slots, which is how keys and queries get a gradient.

    - `hard`: nothing; only the retrieved values learn.
    - `soft`: k softmax(s / sqrt(D)) over the retrieved; the factor k keeps 1 at uniform weights.
    - `straight_through`: 1, with the derivative of `soft`.

    Args:
      scores: [B, k], as `retrieve` gives them.
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
