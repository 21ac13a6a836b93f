"""Grouped-query attention: over one sequence, and of a continuation of a shared beginning.

Query heads that share a key-value head are read as more queries of it, so keys and values are
never repeated. Queries are already scaled. Softmax is in float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prompt_jax.models import ops
from prompt_jax.models.dropout import drop_attention

_F32 = jnp.float32


def _masked(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores `[B, KV, G x Q, K]`; those of keys that a query must not see are `MASKED`."""
    rows, heads, _, keys = scores.shape
    grouped = scores.reshape(rows, heads, -1, mask.shape[1], keys)
    seen = jnp.broadcast_to(mask[:, None, None], grouped.shape)
    return jnp.where(seen, grouped, ops.MASKED).reshape(scores.shape)


def _probabilities(q: jax.Array, kt: jax.Array, mask: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhqd,bhdk->bhqk", q, kt, preferred_element_type=_F32)
    # Tied to the scores, or a scan over layers would keep the mask of every head in memory.
    scores, mask = jax.lax.optimization_barrier((scores, mask))
    return jax.nn.softmax(_masked(scores, mask), axis=-1)


@ops.custom_vjp()
def attend(q: jax.Array, kt: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention within one sequence.

    The derivative keeps the probabilities in the compute dtype, and of the scores nothing.

    Args:
      q: `[B, KV, G x Q, d]`, the G query heads of a key-value head one after another.
      kt: `[B, KV, d, K]`, keys transposed.
      v: `[B, KV, K, d]`.
      mask: `[B, Q, K]` bool, whether the query sees the key.

    Returns:
      `[B, KV, G x Q, d]` in the dtype of `v`.
    """
    return _forward(q, kt, v, mask)[0]


def _forward(q, kt, v, mask):  # type: ignore[no-untyped-def]
    p = _probabilities(q, kt, mask).astype(v.dtype)
    out = jnp.einsum("bhqk,bhkd->bhqd", p, v)
    return out, (q, kt, v, p, out)


def _backward(residuals, g):  # type: ignore[no-untyped-def]
    q, kt, v, p, out = residuals
    dv = jnp.einsum("bhqk,bhqd->bhkd", p, g)
    dp = jnp.einsum("bhqd,bhkd->bhqk", g, v, preferred_element_type=_F32)
    inner = jnp.sum(g.astype(_F32) * out.astype(_F32), axis=-1, keepdims=True)
    ds = (p.astype(_F32) * (dp - inner)).astype(v.dtype)
    dq = jnp.einsum("bhqk,bhdk->bhqd", ds, kt)
    dkt = jnp.einsum("bhqd,bhqk->bhdk", q, ds)
    return dq, dkt, dv, None


attend.defvjp(_forward, _backward)


def attend_dropped(
    q: jax.Array,
    kt: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    rate: float,
    positions: jax.Array,
) -> jax.Array:
    """As `attend`, with dropout of the probabilities.

    Args:
      q: see `attend`; B is 1.
      kt: see `attend`.
      v: see `attend`.
      mask: see `attend`.
      key: of the row.
      rate: the share that is dropped.
      positions: `[Q]` int32, of the tokens, padding not counted.
    """
    p = _probabilities(q, kt, mask)
    split = p.reshape(*p.shape[:2], -1, len(positions), p.shape[-1])  # [1, KV, G, Q, K]
    p = drop_attention(key, split, rate, positions).reshape(p.shape).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", p, v)


def attend_further(
    q: jax.Array,
    kt: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    own_kt: jax.Array,
    own_v: jax.Array,
    own_mask: jax.Array,
) -> jax.Array:
    """Attention of N = B x C continuations: to the beginning that C of them share, and their own.

    The beginning's keys and values are read, not copied, for each continuation.

    Args:
      q: `[N, KV, G x Q, d]`.
      kt: `[B, KV, d, P]`, of the beginning.
      v: `[B, KV, P, d]`.
      mask: `[B, P]` bool, real positions of the beginning.
      own_kt: `[N, KV, d, W]`, of the continuation.
      own_v: `[N, KV, W, d]`.
      own_mask: `[N, Q, W]` bool.

    Returns:
      `[N, KV, G x Q, d]` in the dtype of `v`.
    """
    rows, heads, _, beginning = kt.shape
    queries = q.shape[2]

    def fold(x: jax.Array) -> jax.Array:  # [N, KV, GQ, x] -> [B, KV, C x GQ, x]
        split = x.reshape(rows, -1, heads, queries, x.shape[-1])
        return split.transpose(0, 2, 1, 3, 4).reshape(rows, heads, -1, x.shape[-1])

    def unfold(x: jax.Array) -> jax.Array:
        split = x.reshape(rows, heads, -1, queries, x.shape[-1])
        return split.transpose(0, 2, 1, 3, 4).reshape(-1, heads, queries, x.shape[-1])

    shared = jnp.einsum("bhqd,bhdk->bhqk", fold(q), kt, preferred_element_type=_F32)
    seen = jnp.broadcast_to(mask[:, None, None], shared.shape)
    shared = unfold(jnp.where(seen, shared, ops.MASKED))
    own = jnp.einsum("nhqd,nhdk->nhqk", q, own_kt, preferred_element_type=_F32)
    p = jax.nn.softmax(jnp.concatenate([shared, _masked(own, own_mask)], axis=-1), axis=-1)
    p = p.astype(v.dtype)
    out = unfold(jnp.einsum("bhqk,bhkd->bhqd", fold(p[..., :beginning]), v))
    return out + jnp.einsum("nhqk,nhkd->nhqd", p[..., beginning:], own_v)
