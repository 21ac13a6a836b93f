"""Maximum inner product search that never holds a matrix [B, N]."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank.bank import Array, MemoryBank

# Scores that are held at once: 16 MiB of float32, a chunk of 16,384 keys for 256 queries.
_CHUNK_SCORES = 1 << 22
# Blocks of the approximate search, at least: below it the final top-k costs next to nothing.
_FEWEST_BLOCKS = 512


class _How(NamedTuple):
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
    each of L blocks (slot n lies in block n mod L) and takes the top-k of these: a slot is missed
    where a better one shares its block, so that the expected recall in random order is at least
    (1 - 1 / L)^(k - 1), from which L is chosen. L is prime: slots that follow each other with any
    other period, as where slots go round the queries (`place_keys`), lie in different blocks. On
    TPU it is `jax.lax.approx_max_k`.

    Derivatives: none of the indices; of the scores those of <q, k_n> with n held fixed.

    Args:
      bank: N slots.
      query: [B, D].
      k: at most N.
      approximate: see above.
      recall: expected share of the true top-k that the approximate search finds, in (0, 1).
      mesh: keys are split over its axis: each device searches its slice, and the top-k of all
        top-k is taken. N must be a multiple of the number of devices.
      axis: of the mesh.

    Returns:
      indices int32 [B, k] and scores float32 [B, k], descending; the lower index first among
      equal scores (exact search). Scores are raw inner products. A key that is not finite is
      never found before one that is; of a query that is not finite all scores are NaN.

    Raises:
      ConfigError: keys and values differ in N, k is not in 1 .. N, widths differ, or N cannot be
        split.
    """
    keys, query = jnp.asarray(bank.keys), jnp.asarray(query, jnp.float32)
    if keys.ndim != 2 or query.ndim != 2 or keys.shape[1] != query.shape[1]:
        raise ConfigError(
            f"keys [N, D] and queries [B, D] do not fit: they are {keys.shape} and {query.shape}."
        )
    if len(keys) != len(bank.values):
        raise ConfigError(f"{len(keys)} keys do not fit to {len(bank.values)} values.")
    if not 1 <= k <= len(keys):
        raise ConfigError(f"k must lie in 1 .. {len(keys)}, the number of slots, but is {k}.")
    if not 0.0 < recall < 1.0:
        raise ConfigError(f"recall must lie between 0 and 1, but is {recall}.")
    if mesh is not None and len(keys) % mesh.shape[axis]:
        raise ConfigError(
            f"{len(keys)} slots cannot be split over {mesh.shape[axis]} devices: use a multiple."
        )
    return _search(_How(k, approximate, recall, mesh, axis), keys, query)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _search(how: _How, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    indices, scores = _found(how, keys, query)
    chex.assert_shape([indices, scores], (len(query), how.k))
    chex.assert_type([indices, scores], [jnp.int32, jnp.float32])
    sound = jnp.isfinite(query).all(1, keepdims=True)
    return indices, jnp.where(sound, scores, jnp.nan)


def _found(how: _How, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    if how.mesh is None:
        return _local(how, keys, query)

    def one(keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        few = how._replace(k=min(how.k, len(keys)))
        indices, scores = _local(few, keys, query)
        indices += jax.lax.axis_index(how.axis) * len(keys)
        # Devices in order: lower indices stay in front of equal scores.
        everyone = [jax.lax.all_gather(x, how.axis, axis=1, tiled=True) for x in (indices, scores)]
        return _merge(how.k, everyone[0], everyone[1])

    spec = PartitionSpec(how.axis, None)
    whole = PartitionSpec()
    return jax.shard_map(
        one, mesh=how.mesh, in_specs=(spec, whole), out_specs=(whole, whole), check_vma=False
    )(keys, query)


@_search.defjvp
def _search_jvp(how: _How, primals: Any, tangents: Any) -> Any:
    keys, query = primals
    dkeys, dquery = tangents
    indices, scores = _search(how, keys, query)
    tangent = _products(keys[indices], dquery) + _products(dkeys[indices], query)
    return (indices, scores), (np.zeros(indices.shape, jax.dtypes.float0), tangent)


def _products(slots: jax.Array, query: jax.Array) -> jax.Array:
    """[B, k, D] and [B, D] -> [B, k] float32."""
    slots, query = slots.astype(jnp.float32), query.astype(jnp.float32)
    return jnp.einsum("bkd,bd->bk", slots, query, precision="highest")


def _merge(k: int, indices: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The k best candidates; earlier ones first among equals."""
    best, at = jax.lax.top_k(scores, k)
    return jnp.take_along_axis(indices, at, axis=1), best


def _local(how: _How, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The search of one device."""
    if not how.approximate:
        return _exact(how.k, keys, query)
    return jax.lax.platform_dependent(
        keys,
        query,
        tpu=functools.partial(_hardware, how),
        default=functools.partial(_block_wise, how),
    )


def _scan(keys: jax.Array, query: jax.Array, chunk: int, start: Any, take: Any) -> Any:
    """Folds `take(state, first index, fresh [chunk] bool, scores [B, chunk])` over chunks."""
    slots = len(keys)

    def step(number: jax.Array, state: Any) -> Any:
        # The last chunk overlaps the one before, whose slots must not count twice.
        due = number * chunk
        first = jnp.minimum(due, slots - chunk)
        # A bank may be bfloat16; only a chunk of it is ever float32.
        some = jax.lax.dynamic_slice_in_dim(keys, first, chunk).astype(jnp.float32)
        scores = jnp.matmul(query, some.T, precision="highest")
        scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
        fresh = first + jnp.arange(chunk, dtype=jnp.int32) >= due
        return take(state, first, fresh, scores)

    chunks = -(-slots // chunk)
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(chunks), step, start)


def _chunk(slots: int, queries: int, multiple: int) -> int:
    """Keys of a chunk: a multiple of `multiple` where the slots are many."""
    most = max(_CHUNK_SCORES // max(queries, 1), multiple)
    return min(slots, most // multiple * multiple)


def _running(k: int, queries: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((queries, k), jnp.int32), jnp.full((queries, k), -jnp.inf, jnp.float32)


def _exact(k: int, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    chunk = _chunk(len(keys), len(query), 128)

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        indices = jnp.broadcast_to((first + jnp.arange(chunk, dtype=jnp.int32))[None], scores.shape)
        scores = jnp.where(fresh[None], scores, -jnp.inf)
        # What was found before has lower indices and stands in front.
        return _merge(
            k, jnp.concatenate([state[0], indices], 1), jnp.concatenate([state[1], scores], 1)
        )

    return _scan(keys, query, chunk, _running(k, len(query)), take)


def num_blocks(k: int, recall: float) -> int:
    """L of the block-wise search: the smallest prime, at least k and 512, that promises the recall.

    >>> num_blocks(20, 0.95), num_blocks(50, 0.99)
    (521, 4877)
    """
    wanted = 1.0 if k == 1 else 1.0 / -math.expm1(math.log(recall) / (k - 1))
    many = max(math.ceil(wanted), k, _FEWEST_BLOCKS)
    while any(many % divisor == 0 for divisor in range(2, math.isqrt(many) + 1)):
        many += 1
    return many


def _block_wise(how: _How, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    many = num_blocks(how.k, how.recall)
    if len(keys) <= 2 * many:
        return _exact(how.k, keys, query)
    chunk = _chunk(len(keys) // many * many, len(query), many)
    rows = chunk // many

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        # Blocks are relative to the chunk. Only the last chunk does not begin at a multiple of L:
        # there a slot meets the best of another block, which keeps the expected recall.
        scores = jnp.where(fresh[None], scores, -jnp.inf).reshape(-1, rows, many)
        row = jnp.argmax(scores, axis=1).astype(jnp.int32)  # [B, L]
        best = jnp.max(scores, axis=1)
        indices = first + row * many + jnp.arange(many, dtype=jnp.int32)[None]
        better = best > state[1]
        return jnp.where(better, indices, state[0]), jnp.where(better, best, state[1])

    indices, scores = _scan(keys, query, chunk, _running(many, len(query)), take)
    return _merge(how.k, indices, scores)


def _hardware(how: _How, keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`approx_max_k` of each chunk, which only TPU answers approximately."""
    chunk = _chunk(len(keys), len(query), 128)
    few = min(how.k, chunk)

    def take(state: Any, first: jax.Array, fresh: jax.Array, scores: jax.Array) -> Any:
        scores = jnp.where(fresh[None], scores, -jnp.inf)
        best, at = jax.lax.approx_max_k(
            scores, few, recall_target=how.recall, reduction_input_size_override=len(keys)
        )
        return _merge(
            how.k,
            jnp.concatenate([state[0], first + at], 1),
            jnp.concatenate([state[1], best], 1),
        )

    return _scan(keys, query, chunk, _running(how.k, len(query)), take)
