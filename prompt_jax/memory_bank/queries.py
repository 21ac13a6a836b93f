"""Queries from the embedded discrete prompt."""

from __future__ import annotations

from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp

from prompt_jax.errors import ConfigError

Array = Any
Pooling = Literal["mean", "max", "last"]


def pool(embeddings: Array, mask: Array, how: Pooling = "mean") -> jax.Array:
    """One vector for each row of embedded tokens.

    Args:
      embeddings: [B, S, D].
      mask: [B, S], nonzero for real tokens; padding is on the right.
      how: `mean` or `max` over the real tokens, or the `last` one.

    Returns:
      [B, D] float32; zeros for a row without tokens.
    """
    x, real = jnp.asarray(embeddings, jnp.float32), jnp.asarray(mask).astype(bool)
    chex.assert_rank([x, real], [3, 2])
    chex.assert_equal_shape_prefix([x, real], 2)
    count = real.sum(axis=1)
    not_empty = (count > 0)[:, None]
    if how == "mean":
        total = jnp.where(real[..., None], x, 0.0).sum(axis=1)
        return total / jnp.maximum(count, 1).astype(jnp.float32)[:, None]
    if how == "max":
        return jnp.where(not_empty, jnp.where(real[..., None], x, -jnp.inf).max(axis=1), 0.0)
    if how == "last":
        last = jnp.maximum(count - 1, 0)[:, None, None]
        return jnp.where(not_empty, jnp.take_along_axis(x, last, axis=1)[:, 0], 0.0)
    raise ConfigError(f"pooling is mean, max or last, not '{how}'.")


def make_query(pooled: Array, centre: Array, projection: Array | None = None) -> jax.Array:
    """The query q = LayerNorm(W (pooled - centre)), without affine parameters.

    Mean-pooled T5 embeddings share a large common component; without centring all queries retrieve
    the same slots.

    Args:
      pooled: [B, D].
      centre: [D], the mean over the training templates.
      projection: W [D, D], or None.

    Returns:
      [B, D] float32, each of norm sqrt(D), or 0 if the centred vector is 0.
    """
    chex.assert_rank(pooled, 2)
    width = jnp.shape(pooled)[1]
    chex.assert_shape(centre, (width,))
    x = jnp.asarray(pooled, jnp.float32) - jnp.asarray(centre, jnp.float32)[None]
    if projection is not None:
        chex.assert_shape(projection, (width, width))
        x = jnp.matmul(x, projection.T, precision="highest")
    x = x - x.mean(axis=1, keepdims=True)
    variance = (x**2).mean(axis=1, keepdims=True)
    # A small epsilon: embeddings of published T5s are large, those of small models are not.
    return x * jax.lax.rsqrt(variance + 1e-12)
