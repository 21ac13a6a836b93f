"""Dropout while a stage trains: every row has a key of its own.

A mask is a function of the row's key and of the position alone, so that neither the micro-batch
that a row shares, nor its padding, nor the number of devices decides what is dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """What `LanguageModel.score` drops.

    Attributes:
      keys: `[B]` PRNG keys, one per row; rows of equal keys have equal masks.
      rate: within (0, 1), the share of values that become 0.
    """

    keys: jax.Array
    rate: float


def by_row(dropout: Dropout, number: int, module: nn.Module, params: Any, method: str) -> Any:
    """A method of a module with the key of each row.

    Args:
      dropout: of the B rows.
      number: of this call among those of the same rows, for other masks.
      module: whose dropout is on where it gets a key.
      params: its parameters.
      method: `(*arrays [1, ...]) -> array [1, ...]`.

    Returns:
      The same with B rows.
    """

    def one(key: jax.Array, *row: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.fold_in(key, number)}
        arrays = (array[None] for array in row)
        return module.apply({"params": params}, *arrays, method=method, rngs=rngs)[0]

    return functools.partial(jax.vmap(one), dropout.keys)


def drop(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout of `x [1, P, F]`: the mask of a position does not depend on P."""
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def drop_attention(
    key: jax.Array, p: jax.Array, rate: float, positions: jax.Array | None = None
) -> jax.Array:
    """Inverted dropout of attention probabilities.

    Args:
      key: of the row.
      p: `[..., Q, K]`.
      rate: within (0, 1).
      positions: `[Q]` int32, of queries and keys (Q = K) where padding may stand before them; None:
        their places.
    """
    *leading, queries, keys = p.shape
    at = jnp.arange(queries) if positions is None else positions

    def of_query(position: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, position)
        return jax.random.bernoulli(own, 1.0 - rate, (keys, math.prod(leading)))

    keep = jax.vmap(of_query)(at)  # [Q, K, heads]
    if positions is not None:
        keep = jnp.take(keep, positions, axis=1, mode="clip")
    keep = keep.transpose(2, 0, 1).reshape(p.shape)
    return jnp.where(keep, p / (1.0 - rate), jnp.zeros_like(p))
