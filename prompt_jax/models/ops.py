"""The numerical pieces of the models whose derivative is written by hand.

Automatic differentiation of a mixed-precision product multiplies a float32 cotangent with bf16
weights, which accelerators do in slow full precision; and the derivative of a gathered logit is a
scatter into a tensor of the size of the logits. The rules below keep every matrix product in the
compute dtype and every reduction in float32, keep for the backward pass only what it needs, and
touch no row but their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax import sharding

IGNORE = -100  # labels at which nothing is predicted
MASKED = -1e9  # added to the scores of masked keys: exp() of it is exactly 0 in float32
CHUNK = 2**28  # logits that scoring without a gradient holds at once (1 GiB)

_F32 = jnp.float32


def custom_vjp(static: tuple[int, ...] = ()) -> Callable[[Callable[..., jax.Array]], Any]:
    """`jax.custom_vjp` for functions that `jax.shard_map` may call.

    There a derivative has to vary over the mesh axes of its argument, so that every rule would have
    to sum that of a replicated weight. Instead all arguments vary alike before they come here.

    Args:
      static: numbers of the arguments that are no arrays.
    """

    def decorate(function: Callable[..., jax.Array]) -> Any:
        inner = jax.custom_vjp(function, nondiff_argnums=static)

        @functools.wraps(function)
        def outer(*args: Any) -> jax.Array:
            return inner(*sharding.vary_alike(args))

        outer.defvjp = inner.defvjp  # type: ignore[attr-defined]
        return outer

    return decorate


@custom_vjp(static=(2,))
def rms_norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    """Root mean square norm: no mean, no bias, statistics in float32.

    Args:
      x: `[..., D]`.
      weight: `[D]` float32.
      epsilon: added to the mean square.

    Returns:
      `[..., D]` in the dtype of `x`.
    """
    return _rms_norm_forward(x, weight, epsilon)[0]


def _rms_norm_forward(x, weight, epsilon):  # type: ignore[no-untyped-def]
    wide = x.astype(_F32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + epsilon)
    out = wide * scale * _along_last(weight, wide)
    return out.astype(x.dtype), (x, weight, scale)


def _rms_norm_backward(epsilon, residuals, g):  # type: ignore[no-untyped-def]
    x, weight, scale = residuals
    wide, g = x.astype(_F32), g.astype(_F32)
    normed = wide * scale
    weighted = g * _along_last(weight, wide)
    mean = jnp.mean(weighted * normed, axis=-1, keepdims=True)
    dx = scale * (weighted - normed * mean)
    dweight = jnp.sum(g * normed, axis=tuple(range(x.ndim - 1)))
    return dx.astype(x.dtype), dweight.astype(weight.dtype)


def _along_last(weight: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(weight.astype(_F32), like.shape)


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


_FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
}


@custom_vjp(static=(0,))
def activate(name: str, x: jax.Array, gate: jax.Array | None) -> jax.Array:
    """`activation(x)`, or `activation(x) * gate`, computed in float32.

    For the backward pass only the arguments are kept, not the intermediate values (of which the
    tanh form of GELU has six).

    Args:
      name: one of `config.ACTIVATIONS`.
      x: `[..., F]`.
      gate: `[..., F]` or None.

    Returns:
      `[..., F]` in the dtype of `x`.
    """
    return _activate(name, x, gate)


def _activate(name: str, x: jax.Array, gate: jax.Array | None) -> jax.Array:
    out = _FUNCTIONS[name](x.astype(_F32))
    return (out if gate is None else out * gate.astype(_F32)).astype(x.dtype)


def _activate_forward(name, x, gate):  # type: ignore[no-untyped-def]
    # Of an ungated ReLU only the sign is needed again: a byte instead of a float.
    kept = x > 0 if name == "relu" and gate is None else x
    return _activate(name, x, gate), (kept, gate)


def _activate_backward(name, residuals, g):  # type: ignore[no-untyped-def]
    kept, gate = residuals
    if kept.dtype == jnp.bool_:
        return jnp.where(kept, g, jnp.zeros_like(g)), None
    _, pull = jax.vjp(functools.partial(_activate, name), kept, gate)
    return pull(g)


activate.defvjp(_activate_forward, _activate_backward)


def probabilities(
    q: jax.Array, kt: jax.Array, bias: jax.Array | None, mask: jax.Array | None
) -> jax.Array:
    """Attention weights `[B, H, Q, K]` float32; arguments as of `attend`."""
    scores = jnp.einsum("bhqd,bhdk->bhqk", q, kt, preferred_element_type=_F32)
    # Tied to the scores, or a scan over layers would take the broadcasts to [B, H, Q, K] out of its
    # loop and read them from memory in every layer.
    scores, bias, mask = jax.lax.optimization_barrier((scores, bias, mask))
    for extra in (bias, mask):
        if extra is not None:
            scores = scores + jnp.broadcast_to(extra, scores.shape)
    return jax.nn.softmax(scores, axis=-1)


@custom_vjp()
def attend(
    q: jax.Array,
    kt: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
) -> jax.Array:
    """Unscaled attention, as in T5: the scale is folded into the initialisation of q.

    Args:
      q: `[B, H, Q, d]`.
      kt: `[B, H, d, K]`, keys already transposed.
      v: `[B, H, K, d]`.
      bias: `[1, H, Q, K]` float32 or None, differentiable.
      mask: `[B, 1, 1, K]` float32 or None: 0 or `MASKED`. Not differentiable.

    Returns:
      `[B, H, Q, d]` in the dtype of `v`. The softmax is in float32.
    """
    p = probabilities(q, kt, bias, mask).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", p, v)


def _attend_forward(q, kt, v, bias, mask):  # type: ignore[no-untyped-def]
    p = probabilities(q, kt, bias, mask).astype(v.dtype)
    out = jnp.einsum("bhqk,bhkd->bhqd", p, v)
    # Of bias and mask only whether they were there: neither value is needed again.
    there = [None if extra is None else jnp.zeros((), _F32) for extra in (bias, mask)]
    return out, (q, kt, v, p, out, there)


def _attend_backward(residuals, g):  # type: ignore[no-untyped-def]
    q, kt, v, p, out, (biased, masked) = residuals
    dtype = v.dtype
    dv = jnp.einsum("bhqk,bhqd->bhkd", p, g)
    dp = jnp.einsum("bhqd,bhkd->bhqk", g, v, preferred_element_type=_F32)
    # sum_k p dp = g . out: one pass over [Q, d] instead of one over [Q, K].
    inner = jnp.sum(g.astype(_F32) * out.astype(_F32), axis=-1, keepdims=True)
    ds = p.astype(_F32) * (dp - inner)
    narrow = ds.astype(dtype)
    dq = jnp.einsum("bhqk,bhdk->bhqd", narrow, kt)
    dkt = jnp.einsum("bhqd,bhqk->bhdk", q, narrow)
    dbias = jnp.sum(ds, axis=0, keepdims=True) if biased is not None else None
    dmask = None if masked is None else jnp.zeros((ds.shape[0], 1, 1, ds.shape[3]), _F32)
    dmask, _ = sharding.vary_alike((dmask, ds))
    return dq, dkt, dv, dbias, dmask


attend.defvjp(_attend_forward, _attend_backward)


def logits_nll(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of each label, 0 where it is `IGNORE`.

    Args:
      logits: `[..., V]` float32.
      labels: `[...]` int32.

    Returns:
      `[...]` float32.
    """
    return _nll(logits, labels)[0]


def _nll(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    lse = jax.nn.logsumexp(logits, axis=-1)
    safe = jnp.maximum(labels, 0)
    picked = jnp.take_along_axis(logits, safe[..., None], axis=-1, mode="clip")[..., 0]
    return jnp.where(labels == IGNORE, 0.0, lse - picked), lse


def head_logits(hidden: jax.Array, head: jax.Array) -> jax.Array:
    """`hidden [B, T, D]` times `head [V, D]` transposed: `[B, T, V]`, accumulated in float32."""
    return jnp.einsum("btd,vd->btv", hidden, head, preferred_element_type=_F32)


@custom_vjp()
def head_nll(hidden: jax.Array, head: jax.Array, labels: jax.Array) -> jax.Array:
    """`logits_nll` of `hidden @ head.T`, the largest product of a small model.

    Args:
      hidden: `[B, T, D]` in the compute dtype.
      head: `[V, D]` in the compute dtype.
      labels: `[B, T]` int32.

    Returns:
      `[B, T]` float32.
    """
    rows, length, _ = hidden.shape
    chunk = max(1, CHUNK // (length * head.shape[0]))
    if rows <= chunk:
        return logits_nll(head_logits(hidden, head), labels)

    # Scoring alone (candidates by the hundred): not all logits need exist at once.
    def one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        return logits_nll(head_logits(row[0][None], head), row[1][None])[0]

    return jax.lax.map(one, (hidden, labels), batch_size=chunk)


def _head_nll_forward(hidden, head, labels):  # type: ignore[no-untyped-def]
    logits = head_logits(hidden, head)
    nll, lse = _nll(logits, labels)
    return nll, (hidden, head, labels, logits, lse)


def _head_nll_backward(residuals, g):  # type: ignore[no-untyped-def]
    hidden, head, labels, logits, lse = residuals
    # A select, not a product: a NaN in a row without targets must not survive as 0 * NaN.
    scale = jnp.where(labels == IGNORE, 0.0, g)[..., None]
    columns = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    hit = columns == labels[..., None]
    dlogits = scale * (jnp.exp(logits - lse[..., None]) - jnp.where(hit, 1.0, 0.0))
    dlogits = dlogits.astype(hidden.dtype)
    dhidden = jnp.einsum("btv,vd->btd", dlogits, head)
    dhead = jnp.einsum("btv,btd->vd", dlogits, hidden)
    return dhidden, dhead.astype(head.dtype), None


head_nll.defvjp(_head_nll_forward, _head_nll_backward)
