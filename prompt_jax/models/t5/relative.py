"""T5's relative position buckets."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def buckets(
    distances: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each relative position.

    Half of the buckets hold one distance each, the others grow logarithmically up to
    `max_distance`; all larger distances share the last (Raffel et al. 2020, section 2.1). Computed
    on the host in float32, like the reference implementations, so that the edges fall alike.

    Args:
      distances: int array, position of the key minus position of the query.
      bidirectional: encoder (True: the sign halves the buckets) or decoder (False: keys after the
        query share bucket 0).
      num_buckets: rows of the bias table.
      max_distance: see above.

    Returns:
      int32 array of the same shape, in `[0, num_buckets)`.
    """
    offset = np.zeros_like(distances)
    if bidirectional:
        num_buckets //= 2
        offset = (distances > 0) * num_buckets
        distances = np.abs(distances)
    else:
        distances = -np.minimum(distances, 0)
    exact = num_buckets // 2
    ratio = np.maximum(distances, 1).astype(np.float32) / np.float32(exact)
    steps = np.log(ratio) / np.float32(math.log(max_distance / exact))
    large = exact + (steps * np.float32(num_buckets - exact)).astype(np.int32)
    large = np.minimum(large, num_buckets - 1)
    return (offset + np.where(distances < exact, distances, large)).astype(np.int32)


def position_bias(
    table: jax.Array,
    queries: int,
    keys: int,
    *,
    bidirectional: bool,
    max_distance: int,
    start: jax.Array | None = None,
) -> jax.Array:
    """Bias of every query-key pair.

    Only the different distances are looked up in the table; the pairs are then a gather from that
    line, so no constant of size `[Q, K]` enters the program.

    Args:
      table: `[buckets, H]`.
      queries: Q.
      keys: K.
      bidirectional: see `buckets`.
      max_distance: see `buckets`.
      start: `[]` int32, position of the first query (which lies among the keys); None: 0.

    Returns:
      `[1, H, Q, K]` float32.
    """
    last = queries - 1 if start is None else keys - 1
    line = buckets(
        np.arange(-last, keys),
        bidirectional=bidirectional,
        num_buckets=table.shape[0],
        max_distance=max_distance,
    )
    per_distance = table.astype(jnp.float32).T[:, line]  # [H, last + K]
    first = 0 if start is None else start
    index = jnp.arange(keys)[None, :] - (jnp.arange(queries)[:, None] + first) + last
    return per_distance[:, index][None]
