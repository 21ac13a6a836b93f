"""Maximum inner product search that never materialises a matrix [B, N]."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from prompt_jax import sharding
from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank.bank import Array, MemoryBank

# Scores in memory at once: 16 MiB of float32, a chunk of 16,384 keys for 256 queries.
_CHUNK_SCORES = 1 << 22
# Minimum number of blocks of the approximate search: up to it, the final top-k costs little.
_MIN_BLOCKS = 512


class _Options(NamedTuple):
    """Static options of a search."""

    k: int
    approximate: bool
    recall: float
    mesh: Mesh | None
    axis: str


def retrieve(
    bank: MemoryBank,
    query: Array,
    k: int,
    *,
    approximate: bool = False,
    recall: float = 0.95,
    mesh: Mesh | None = None,
    axis: str = "data",
) -> tuple[jax.Array, jax.Array]:
    """The k slots of the largest inner product with each query.

    The exact search is a running top-k over chunks of keys. The approximate one keeps the best of
    each of L blocks (slot n is in block n mod L) and takes the top-k of these. A slot is missed if
    a better one is in its block, so the expected recall in random order is at least
    (1 - 1 / L)^(k - 1), which determines L. L is prime, so that slots in any other periodic order,
    like the round-robin order of `place_keys`, are in different blocks. On TPU the approximate
    search is `jax.lax.approx_max_k`.

    Derivatives: the indices have none; the scores have those of <q, k_n> with n held fixed.

    Args:
      bank: N slots.
      query: [B, D].
      k: at most N.
      approximate: see above.
      recall: expected recall of the approximate search, in (0, 1).
      mesh: keys are split over its axis: each device searches its slice, and the top-k of all
        top-k is taken. N must be a multiple of the number of devices.
      axis: of the mesh.

    Returns:
      indices int32 [B, k] and scores float32 [B, k], in descending order; in the exact search, ties
      are broken by the lower index. Scores are raw inner products. Keys that are not finite rank
      last; all scores of a query that is not finite are NaN.

    Raises:
      ConfigError: keys and values differ in N, k is not in 1 .. N, widths differ, or N cannot be
        split.
    """
    keys, query = jnp.asarray(bank.keys), jnp.asarray(query, jnp.float32)
    if keys.ndim != 2 or query.ndim != 2 or keys.shape[1] != query.shape[1]:
        raise ConfigError(
            f"keys [N, D] and queries [B, D] do not match: they are {keys.shape} and {query.shape}."
        )
    if len(keys) != len(bank.values):
        raise ConfigError(f"{len(keys)} keys do not match {len(bank.values)} values.")
    if not 1 <= k <= len(keys):
        raise ConfigError(f"k must lie in 1 .. {len(keys)}, the number of slots, but is {k}.")
    if not 0.0 < recall < 1.0:
        raise ConfigError(f"recall must lie between 0 and 1, but is {recall}.")
    if mesh is not None and len(keys) % mesh.shape[axis]:
        raise ConfigError(
            f"{len(keys)} slots cannot be split over {mesh.shape[axis]} devices: use a multiple."
        )
    options = _Options(k, approximate, recall, sharding.auto_mesh(mesh), axis)
    search = functools.partial(_search, options)
    return sharding.call_with_auto_axes(search, keys, query, split=query)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _search(options: _Options, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    indices, scores = _top_k(options, keys, query)
    chex.assert_shape([indices, scores], (len(query), options.k))
    chex.assert_type([indices, scores], [jnp.int32, jnp.float32])
    finite = jnp.isfinite(query).all(1, keepdims=True)
    return indices, jnp.where(finite, scores, jnp.nan)


def _top_k(options: _Options, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    if options.mesh is None:
        return _local(options, keys, query)

    def one(keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        local = options._replace(k=min(options.k, len(keys)))
        indices, scores = _local(local, keys, query)
        indices += jax.lax.axis_index(options.axis) * len(keys)
        # In the order of devices, so that ties are broken by the lower index.
        gathered = [
            jax.lax.all_gather(x, options.axis, axis=1, tiled=True) for x in (indices, scores)
        ]
        return _merge(options.k, gathered[0], gathered[1])

    spec = PartitionSpec(options.axis, None)
    whole = PartitionSpec()
    return jax.shard_map(
        one, mesh=options.mesh, in_specs=(spec, whole), out_specs=(whole, whole), check_vma=False
    )(keys, query)


@_search.defjvp
def _search_jvp(options: _Options, primals: Any, tangents: Any) -> Any:
    keys, query = primals
    dkeys, dquery = tangents
    indices, scores = _search(options, keys, query)
    tangent = _products(keys[indices], dquery) + _products(dkeys[indices], query)
    return (indices, scores), (np.zeros(indices.shape, jax.dtypes.float0), tangent)


def _products(slots: jax.Array, query: jax.Array) -> jax.Array:
    """[B, k, D] and [B, D] -> [B, k] float32."""
    slots, query = slots.astype(jnp.float32), query.astype(jnp.float32)
    return jnp.einsum("bkd,bd->bk", slots, query, precision="highest")


def _merge(k: int, indices: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The k best candidates; ties are broken by position."""
    best, positions = jax.lax.top_k(scores, k)
    return jnp.take_along_axis(indices, positions, axis=1), best


def _local(options: _Options, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The search of one device."""
    if not options.approximate:
        return _exact(options.k, keys, query)
    return jax.lax.platform_dependent(
        keys,
        query,
        tpu=functools.partial(_approx_max_k, options),
        default=functools.partial(_block_wise, options),
    )


def _scan(keys: jax.Array, query: jax.Array, chunk: int, start: Any, take: Any) -> Any:
    """Folds `take(state, first index, fresh [chunk] bool, scores [B, chunk])` over chunks."""
    slots = len(keys)

    def step(number: jax.Array, state: Any) -> Any:
        # The last chunk overlaps the one before; slots of both must not count twice.
        nominal = number * chunk
        first = jnp.minimum(nominal, slots - chunk)
        # A bank may be bfloat16; only one chunk at a time is converted to float32.
        chunk_keys = jax.lax.dynamic_slice_in_dim(keys, first, chunk).astype(jnp.float32)
        scores = jnp.matmul(query, chunk_keys.T, precision="highest")
        scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
        fresh = first + jnp.arange(chunk, dtype=jnp.int32) >= nominal
        return take(state, first, fresh, scores)

    chunks = -(-slots // chunk)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(chunks), step, start)


def _chunk(slots: int, queries: int, multiple: int) -> int:
    """Number of keys in a chunk: all, or a multiple of `multiple`."""
    largest = max(_CHUNK_SCORES // max(queries, 1), multiple)
    return min(slots, largest // multiple * multiple)


def _empty_top_k(k: int, queries: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((queries, k), jnp.int32), jnp.full((queries, k), -jnp.inf, jnp.float32)


def _exact(k: int, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    chunk = _chunk(len(keys), len(query), 128)

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        indices = jnp.broadcast_to((first + jnp.arange(chunk, dtype=jnp.int32))[None], scores.shape)
        scores = jnp.where(fresh[None], scores, -jnp.inf)
        # The running top-k comes first, because its indices are lower.
        return _merge(
            k, jnp.concatenate([state[0], indices], 1), jnp.concatenate([state[1], scores], 1)
        )

    return _scan(keys, query, chunk, _empty_top_k(k, len(query)), take)


def num_blocks(k: int, recall: float) -> int:
    """L of the block-wise search: the smallest prime >= max(k, 512) with the expected recall.

    >>> num_blocks(20, 0.95), num_blocks(50, 0.99)
    (521, 4877)
    """
    smallest = 1.0 if k == 1 else 1.0 / -math.expm1(math.log(recall) / (k - 1))
    count = max(math.ceil(smallest), k, _MIN_BLOCKS)
    while any(count % divisor == 0 for divisor in range(2, math.isqrt(count) + 1)):
        count += 1
    return count


def _block_wise(
    options: _Options, keys: jax.Array, query: jax.Array
) -> tuple[jax.Array, jax.Array]:
    blocks = num_blocks(options.k, options.recall)
    if len(keys) <= 2 * blocks:
        return _exact(options.k, keys, query)
    chunk = _chunk(len(keys) // blocks * blocks, len(query), blocks)
    rows = chunk // blocks

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        # Blocks are relative to the chunk. Only the last chunk does not start at a multiple of L:
        # its slots are compared with the best of another block; the expected recall is the same.
        scores = jnp.where(fresh[None], scores, -jnp.inf).reshape(-1, rows, blocks)
        row = jnp.argmax(scores, axis=1).astype(jnp.int32)  # [B, L]
        best = jnp.max(scores, axis=1)
        indices = first + row * blocks + jnp.arange(blocks, dtype=jnp.int32)[None]
        better = best > state[1]
        return jnp.where(better, indices, state[0]), jnp.where(better, best, state[1])

    indices, scores = _scan(keys, query, chunk, _empty_top_k(blocks, len(query)), take)
    return _merge(options.k, indices, scores)


def _approx_max_k(
    options: _Options, keys: jax.Array, query: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`approx_max_k` of each chunk, which is approximate only on TPU."""
    chunk = _chunk(len(keys), len(query), 128)
    per_chunk = min(options.k, chunk)

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        scores = jnp.where(fresh[None], scores, -jnp.inf)
        best, positions = jax.lax.approx_max_k(
            scores, per_chunk, recall_target=options.recall, reduction_input_size_override=len(keys)
        )
        return _merge(
            options.k,
            jnp.concatenate([state[0], first + positions], 1),
            jnp.concatenate([state[1], best], 1),
        )

    return _scan(keys, query, chunk, _empty_top_k(options.k, len(query)), take)
