"""Diagnostics of particles, above all of their collapse in many dimensions."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.svgd.kernels import Kernel, check_kernel, imq, rbf
from prompt_jax.svgd.transform import flatten, interaction, stein_norm


class Diagnostics(NamedTuple):
    """Diagnostics of one set of particles with their gradients."""

    discrepancy: jax.Array  # [], kernelised Stein discrepancy, see `stein_discrepancy`
    distances: jax.Array  # [M (M - 1) / 2], see `pairwise_distances`
    effective_rank: jax.Array  # [], see `effective_rank`
    attraction: jax.Array  # [], norm over all particles
    repulsion: jax.Array  # [], norm over all particles, times the temperature
    ratio: jax.Array  # [], repulsion / attraction; 0 without an attraction


def pairwise_distances(particles: Any) -> jax.Array:
    """Distances of all pairs i < j.

    Args:
      particles: leaves [M, ...].

    Returns:
      [M (M - 1) / 2], in the order (0, 1), (0, 2), ...; empty for one particle.
    """
    inner = _inner(particles)
    norms = jnp.diagonal(inner)
    squared = jnp.maximum(norms[:, None] + norms[None, :] - 2 * inner, 0)
    return jnp.sqrt(squared[np.triu_indices(len(inner), 1)])


def effective_rank(particles: Any) -> jax.Array:
    """Effective number of dimensions of the particles, from 0 (all coincide) to M - 1.

    The participation ratio (sum_i l_i)^2 / sum_i l_i^2 of the eigenvalues l of the particles'
    covariance.

    Args:
      particles: leaves [M, ...].
    """
    inner = _inner(particles)
    # Relative to the largest, so that the squares of small values do not underflow.
    inner = inner / jnp.maximum(jnp.max(jnp.abs(inner)), jnp.finfo(inner.dtype).tiny)
    squares = jnp.sum(inner * inner)
    return jnp.where(squares > 0, jnp.trace(inner) ** 2 / jnp.where(squares > 0, squares, 1), 0)


def stein_discrepancy(
    particles: Any, grads: Any, kernel: Kernel | None = None, *, seed: int = 0
) -> jax.Array:
    """The kernelised Stein discrepancy between particles and the density of the gradients.

    Args:
      particles: leaves [M, ...].
      grads: gradients of the negative log density at the particles, leaves [M, ...].
      kernel: None: `imq()`.
      seed: of stochastic kernels.

    Returns:
      A scalar, the square root of the V-statistic: 0 for no discrepancy. It decreases with M, and
      with a median bandwidth it is comparable only between particles of equal spread.
    """
    chex.assert_trees_all_equal_shapes(particles, grads)
    (x, shapes, _), (g, _, _) = flatten(particles), flatten(grads)
    forces = interaction(
        imq() if kernel is None else check_kernel(kernel), x, g, shapes, jax.random.key(seed)
    )
    return stein_norm(forces, g)


def diagnose(
    particles: Any,
    grads: Any,
    kernel: Kernel | None = None,
    temperature: float = 1.0,
    *,
    seed: int = 0,
) -> Diagnostics:
    """All diagnostics of one step.

    Args:
      particles: leaves [M, ...].
      grads: gradients of the negative log density at the particles, leaves [M, ...].
      kernel: for attraction and repulsion; None: `rbf()`. The discrepancy is that of `imq()`, which
        detects failures that other kernels do not.
      temperature: of the repulsion.
      seed: of stochastic kernels.
    """
    chex.assert_trees_all_equal_shapes(particles, grads)
    (x, shapes, _), (g, _, _) = flatten(particles), flatten(grads)
    forces = interaction(
        rbf() if kernel is None else check_kernel(kernel), x, g, shapes, jax.random.key(seed)
    )
    attraction = jnp.linalg.norm(forces.attraction)
    repulsion = temperature * jnp.linalg.norm(forces.repulsion)
    ratio = jnp.where(attraction > 0, repulsion / jnp.where(attraction > 0, attraction, 1), 0)
    return Diagnostics(
        stein_discrepancy(particles, grads),
        pairwise_distances(particles),
        effective_rank(particles),
        attraction,
        repulsion,
        ratio,
    )


def _inner(particles: Any) -> jax.Array:
    """Inner products of the centred particles, [M, M]."""
    x, _, _ = flatten(particles)
    x = x - x[:1]
    x = x - x.mean(0, keepdims=True)
    return jnp.einsum("ip,jp->ij", x, x, precision=jax.lax.Precision.HIGHEST)
