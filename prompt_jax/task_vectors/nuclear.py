"""Low-rank approximation of task vectors that live apart, without a singular value decomposition.

The K task vectors are the rows of a matrix [K, L D]. That tasks are related means that this matrix
is nearly of low rank, which the nuclear norm (sum of singular values) measures. The Frank-Wolfe
method over the ball ||W||_* <= radius moves W by one singular pair a step:

    S = radius u v^T,   (u, v) the leading singular pair of Y - W,   W <- W + rate (S - W),

for the objective 1/2 ||Y - W||_F^2, whose negative gradient is Y - W. The pair comes from the
K x K Gram matrix of the rows, so whoever holds the matrix needs O(K^2 L D) operations, and whoever
holds one row receives one row. After the primal-dual method of Yang and Li 2020, arXiv 2004.01305,
which is projection-free in this way; that soft prompts are its rows, and the objective above, are
ours.

Arrays in, arrays out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.errors import PromptError
from prompt_jax.task_vectors.arrays import common, matrices


class LeadingPair(NamedTuple):
    """The largest singular value of a matrix [K, L D] and its vectors; u v^T has one sign."""

    left: jax.Array  # [K], u
    value: jax.Array  # scalar
    right: jax.Array  # [L, D], v; zero where the matrix is


class NuclearStep(NamedTuple):
    """What `nuclear_step` returns."""

    low_rank: jax.Array  # [K, L, D], the new W
    rate: jax.Array  # scalar in [0, 1], found by exact line search
    gap: jax.Array  # scalar >= 0, an upper bound of the old objective's distance from its minimum


@jax.jit
def leading_pair(vectors: Any) -> LeadingPair:
    """The leading singular pair of task vectors, by the K x K Gram matrix of its rows.

    Args:
      vectors: [K, L, D], or a list of K task vectors.

    Raises:
      PromptError: for other shapes.
    """
    vectors = _rows(vectors, "vectors")
    flat = vectors.reshape(vectors.shape[0], -1)
    squares, columns = jnp.linalg.eigh(jnp.matmul(flat, flat.T, precision="highest"))
    left, value = columns[:, -1], jnp.sqrt(jnp.maximum(squares[-1], 0.0))
    right = jnp.matmul(left, flat, precision="highest")
    # By its own length: the Gram matrix has squared what was lost to rounding.
    length = jnp.sqrt((right**2).sum())
    right = jnp.where(length > 0, right / jnp.where(length > 0, length, 1.0), 0.0)
    return LeadingPair(left, value, right.reshape(vectors.shape[1:]))


@jax.jit
def nuclear_norm(vectors: Any) -> jax.Array:
    """The sum of the singular values of task vectors [K, L, D] as rows of a matrix, a scalar.

    Values below 0.0003 of the largest are lost to the rounding of the Gram matrix in float32.

    Raises:
      PromptError: for other shapes.
    """
    vectors = _rows(vectors, "vectors")
    flat = vectors.reshape(vectors.shape[0], -1)
    squares = jnp.linalg.eigvalsh(jnp.matmul(flat, flat.T, precision="highest"))
    return jnp.sqrt(jnp.maximum(squares, 0.0)).sum()


@jax.jit
def nuclear_step(low_rank: Any, wanted: Any, radius: Any) -> NuclearStep:
    """One Frank-Wolfe step of W towards Y within the nuclear-norm ball.

    Args:
      low_rank: W [K, L, D], inside the ball; zeros at the start.
      wanted: Y [K, L, D], the task vectors as they are.
      radius: of the ball, a positive number.

    Returns:
      The new W, which is inside the ball too, the rate, and the duality gap before the step.

    Raises:
      PromptError: the two have other or different shapes.
    """
    low_rank, wanted = _rows(low_rank, "low_rank"), _rows(wanted, "wanted")
    if low_rank.shape != wanted.shape:
        raise PromptError(
            f"low_rank and wanted must have one shape, not {list(low_rank.shape)} and"
            f" {list(wanted.shape)}."
        )
    low_rank, wanted, radius = common(low_rank, wanted, radius)
    residual = wanted - low_rank
    pair = leading_pair(residual)
    direction = radius * pair.left[:, None, None] * pair.right[None] - low_rank
    gap = jnp.maximum((residual * direction).sum(), 0.0)
    square = (direction**2).sum()
    rate = jnp.where(square > 0, gap / jnp.where(square > 0, square, 1.0), 0.0)
    rate = jnp.clip(rate, 0.0, 1.0)
    return NuclearStep(low_rank + rate * direction, rate, gap)


def _rows(vectors: Any, what: str) -> jax.Array:
    """Task vectors [K, L, D]."""
    vectors = matrices(vectors, what)
    if vectors.ndim != 3 or not vectors.shape[0]:
        raise PromptError(f"{what} must have shape [K, L, D], not {list(vectors.shape)}.")
    return vectors
