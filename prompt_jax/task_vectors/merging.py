"""Merging of task vectors that were trained apart: what they share, and where they agree.

- `disentangle`: Adaptive Weight Disentanglement (Xiong et al. 2024, arXiv 2411.18729) finds one
  vector that all contain, without which they are closest to orthogonal.
- `tall_masks`, `consensus`: TALL-masks and Consensus Merging (Wang et al. 2024, arXiv 2405.07813)
  find which numbers of the sum belong to which task, and keep those that several tasks use.
- `ties`: TIES-Merging (Yadav et al. 2023, arXiv 2306.01708) trims, elects a sign and averages.

Arrays in, arrays out. A merged prompt is P_init + c * (what these functions leave).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.errors import ConfigError, PromptError
from prompt_jax.task_vectors.arrays import common, matrices


class Disentangled(NamedTuple):
    """What `disentangle` returns."""

    vectors: jax.Array  # [K, L, D], without what they share
    shared: jax.Array  # [L, D], d


@functools.partial(jax.jit, static_argnames=("steps", "relative"))
def disentangle(
    vectors: Any,
    *,
    penalty: float = 0.1,
    rate: float = 0.01,
    steps: int = 300,
    relative: bool = True,
) -> Disentangled:
    """Removes from task vectors the one vector d without which they are nearly orthogonal.

        min_d  mean over i < j of |cos(T_i - d, T_j - d)| + penalty ||d||

    By gradient descent from d = 0, as a public script has it that quotes the paper's equations 9 to
    11; the norm is not squared. Merge what is left by any rule, such as their sum.

    Args:
      vectors: [K, L, D], or a list of K task vectors.
      penalty: alpha.
      rate: beta, of plain gradient descent.
      steps: its steps.
      relative: measure vectors in units of their mean norm, so that `penalty` and `rate` mean the
        same whatever the scale of prompts is (ours); False: as they are, as published.

    Returns:
      The vectors without d [K, L, D], and d [L, D]; float32. With one vector, or vectors that are
      all zero, d is zero.

    Raises:
      ConfigError: fewer than 0 steps.
      PromptError: for other shapes.
    """
    if steps < 0:
        raise ConfigError(f"steps must not be negative, but is {steps}.")
    vectors = _several(vectors)
    count = vectors.shape[0]
    flat = vectors.reshape(count, -1)
    mean_norm = jnp.sqrt((flat**2).sum(1)).mean()
    unit = jnp.where(mean_norm > 0, mean_norm, 1.0) if relative else jnp.ones_like(mean_norm)
    flat = flat / unit
    pairs = max(1, count * (count - 1))

    def loss(shared: jax.Array) -> jax.Array:
        left = flat - shared[None]
        unit_left = left * _safe_reciprocal((left**2).sum(1, keepdims=True))
        cosines = jnp.matmul(unit_left, unit_left.T, precision="highest")
        apart = jnp.where(jnp.eye(count, dtype=bool), 0.0, jnp.abs(cosines))
        square = (shared**2).sum()
        # The norm has no gradient at 0, where descent starts: none is taken.
        norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        return apart.sum() / pairs + penalty * norm

    def step(_: Any, shared: jax.Array) -> jax.Array:
        return shared - rate * jax.grad(loss)(shared)

    shared = jnp.zeros_like(flat[0])
    if count > 1:
        shared = jax.lax.fori_loop(0, steps, step, shared)
    found = (shared * unit).reshape(vectors.shape[1:])
    return Disentangled(vectors - found[None], found)


@functools.partial(jax.jit, static_argnames=("per_token",))
def tall_masks(vectors: Any, threshold: Any = 0.4, *, per_token: bool = False) -> jax.Array:
    """Which numbers of the sum of task vectors belong to each task.

    m_t = |T_t| > threshold |sum of all - T_t|, strictly. `P_init + m_t * sum` is nearly the prompt
    of task t, for one bit a number: a compressed library of prompts.

    Args:
      vectors: [K, L, D], or a list of K task vectors.
      threshold: lambda, one number or one of each task, [K]. The paper chooses it on development
        rows from 0.2, 0.3, ... 0.6.
      per_token: compare the norms of tokens in place of single numbers (ours).

    Returns:
      bool [K, L, D], or [K, L] per token.

    Raises:
      PromptError: for other shapes.
    """
    vectors = _several(vectors)
    count = vectors.shape[0]
    threshold, vectors = common(threshold, vectors)
    if threshold.shape not in ((), (count,)):
        raise PromptError(
            f"threshold must be one number or one of each of {count} vectors, not"
            f" {list(threshold.shape)}."
        )
    others = vectors.sum(0, keepdims=True) - vectors
    own, rest = (_size(x, per_token) for x in (vectors, others))
    return own > jnp.reshape(threshold, (-1,) + (1,) * (own.ndim - 1)) * rest


@functools.partial(jax.jit, static_argnames=("agree",))
def consensus(masks: Any, agree: int = 2) -> jax.Array:
    """Which numbers enough tasks use: those that fewer use are catastrophic or selfish.

    Args:
      masks: bool [K, ...], as from `tall_masks`.
      agree: how many tasks; 1 leaves out only what none uses, 0 nothing.

    Returns:
      bool [...].

    Raises:
      ConfigError: `agree` is negative, or more than there are tasks.
      PromptError: the masks are not booleans.
    """
    masks = jnp.asarray(masks)
    if masks.dtype != bool or masks.ndim < 1:
        raise PromptError(f"masks are bool [K, ...], not {masks.dtype} {list(masks.shape)}.")
    if not 0 <= agree <= masks.shape[0]:
        raise ConfigError(f"agree must lie in 0 ... {masks.shape[0]} (masks), not be {agree}.")
    return masks.sum(0) >= agree


@functools.partial(jax.jit, static_argnames=("keep",))
def ties(vectors: Any, keep: float = 0.2) -> jax.Array:
    """Trimmed task vectors, averaged where they have the sign of their sum.

    Args:
      vectors: [K, L, D], or a list of K task vectors.
      keep: the share of each vector's numbers, those of largest size, that is not set to 0.

    Returns:
      [L, D] float32.

    Raises:
      ConfigError: `keep` is outside (0, 1].
      PromptError: for other shapes.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep must lie in (0, 1], not be {keep}.")
    vectors = _several(vectors)
    flat = jnp.abs(vectors.reshape(vectors.shape[0], -1))
    kept = max(1, round(keep * flat.shape[1]))
    smallest = jax.lax.top_k(flat, kept)[0][:, -1]
    trimmed = jnp.where(jnp.abs(vectors) >= smallest[:, None, None], vectors, 0.0)
    sign = jnp.sign(trimmed.sum(0))
    agrees = (jnp.sign(trimmed) == sign[None]) & (trimmed != 0)
    count = agrees.sum(0).astype(vectors.dtype)
    return jnp.where(agrees, trimmed, 0.0).sum(0) / jnp.maximum(count, 1.0)


def _several(vectors: Any) -> jax.Array:
    """Task vectors [K, L, D]."""
    vectors = matrices(vectors, "vectors")
    if vectors.ndim != 3 or not vectors.shape[0]:
        raise PromptError(f"vectors must have shape [K, L, D], not {list(vectors.shape)}.")
    return vectors


def _size(x: jax.Array, per_token: bool) -> jax.Array:
    return jnp.sqrt((x**2).sum(-1)) if per_token else jnp.abs(x)


def _safe_reciprocal(squares: jax.Array) -> jax.Array:
    """1 / sqrt, and 0 with no gradient where the square is 0."""
    positive = squares > 0
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, squares, 1.0)), 0.0)
