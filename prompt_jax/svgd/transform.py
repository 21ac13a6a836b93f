"""SVGD as an optax gradient transformation (Liu and Wang 2016, arXiv 1608.04471, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from prompt_jax.errors import ConfigError
from prompt_jax.svgd.kernels import Interaction, Kernel, Shapes, rbf

Schedule = float | Callable[[jax.Array], jax.Array]


class SvgdState(NamedTuple):
    """Numbers of the last update, for the log; each of shape []."""

    step: jax.Array  # int32, updates so far
    temperature: jax.Array  # float32
    ratio: jax.Array  # float32, |temperature * repulsion| / |attraction| over all particles
    discrepancy: jax.Array  # float32, see `stein_norm`


def svgd(
    kernel: Kernel | None = None,
    temperature: Schedule = 1.0,
    *,
    ratio: Schedule | None = None,
    seed: int = 0,
    mesh: jax.sharding.Mesh | None = None,
) -> optax.GradientTransformation:
    """Stein variational gradient descent, to be followed by an optimizer.

    With x_i the flattened particles and g_i the gradients of the *full-data* negative log
    posterior,

        updates_i = (1/M) sum_j [ k(x_j, x_i) g_j - temperature * dk(x_j, x_i) / dx_j ].

    The particles then settle at the posterior to the power 1 / temperature. One that trains on the
    mean over N rows passes temperature 1 / N. With temperature 0 this is the kernel-averaged
    gradient, with M = 1 exactly the gradient, whatever the kernel.

    >>> import optax
    >>> optimizer = optax.chain(svgd(rbf(bandwidth="median"), temperature=1.0), optax.adam(0.3))
    >>> annealed = svgd(rbf(), optax.linear_schedule(10.0, 1.0, transition_steps=500))

    Args:
      kernel: None: `rbf()`.
      temperature: a number or a schedule (step -> number), as for annealed repulsion.
      ratio: where given, the temperature of each step is chosen so that
        |temperature * repulsion| = ratio * |attraction|, norms taken over all particles: in the
        76,800 dimensions of a prompt a fixed temperature says little.
      seed: of kernels that draw (`sliced`).
      mesh: of devices over which the axis M is split. Particles and gradients are then gathered
        together, in one collective per step; without it the compiler decides, and gathers thrice.

    Returns:
      A transformation whose `update(grads, state, particles)` takes and gives trees with leaves
      [M, ...]. It reads the particles, which `optax.chain` passes on.

    Raises:
      ConfigError: a negative temperature or ratio; in `init` and `update`, leaves that do not share
        the axis M, or no particles.
    """
    kernel = rbf() if kernel is None else kernel
    everywhere = None
    if mesh is not None:
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for name, value in (("temperature", temperature), ("ratio", ratio)):
        if value is None or callable(value):
            continue
        if not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a number of at least 0, not {value}.")

    def init(particles: optax.Params) -> SvgdState:
        _count(particles)
        zero = jnp.zeros((), jnp.float32)
        return SvgdState(jnp.zeros((), jnp.int32), zero, zero, zero)

    def update(
        grads: optax.Updates, state: SvgdState, particles: optax.Params | None = None
    ) -> tuple[optax.Updates, SvgdState]:
        if particles is None:
            raise ConfigError("svgd reads the particles: call update(grads, state, particles).")
        x, shapes, _ = flatten(particles)
        g, _, unflatten = flatten(grads)
        if x.shape != g.shape:
            raise ConfigError(f"gradients are of shape {g.shape}, but particles of {x.shape}.")
        if everywhere is not None:
            both = jax.lax.with_sharding_constraint(jnp.concatenate([x, g], 1), everywhere)
            x, g = both[:, : x.shape[1]], both[:, x.shape[1] :]
        at = _value(temperature, state.step, g.dtype)
        made = interaction(
            kernel, x, g, shapes, jax.random.fold_in(jax.random.key(seed), state.step)
        )
        forward, away = jnp.linalg.norm(made.attraction), jnp.linalg.norm(made.repulsion)
        if ratio is not None:
            wanted = _value(ratio, state.step, g.dtype) * forward
            at = jnp.where(away > 0, wanted / jnp.where(away > 0, away, 1), 0)
        measured = jnp.where(forward > 0, at * away / jnp.where(forward > 0, forward, 1), 0)
        new = SvgdState(
            state.step + 1,
            at.astype(jnp.float32),
            measured.astype(jnp.float32),
            stein_norm(made, g).astype(jnp.float32),
        )
        updates = made.attraction - at * made.repulsion
        if everywhere is not None:
            # Cut only here: otherwise the split of the result would reach back into the kernel.
            updates = jax.lax.with_sharding_constraint(updates, everywhere)
        return unflatten(updates), new

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def interaction(
    kernel: Kernel, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array
) -> Interaction:
    """`kernel.interact`, with k = 1 and no repulsion for a single particle."""
    chex.assert_rank([x, g], 2)
    chex.assert_equal_shape([x, g])
    if len(x) == 1:
        return Interaction(g, jnp.zeros_like(g), jnp.zeros((), g.dtype))
    made = kernel.interact(x, g, shapes, key)
    chex.assert_shape([made.attraction, made.repulsion], x.shape)
    chex.assert_rank(made.trace, 0)
    return made


def stein_norm(made: Interaction, g: jax.Array) -> jax.Array:
    """The norm of the update at temperature 1 in the kernel's space of functions, a scalar.

    It is the kernelised Stein discrepancy between the particles and the density whose negative log
    has the gradients g (V-statistic, Liu et al. 2016); it needs no normaliser and tends to 0 as the
    particles settle.
    """

    def mean(force: jax.Array) -> jax.Array:
        return jnp.sum(g * force) / len(g)

    squared = mean(made.attraction) - 2 * mean(made.repulsion) + made.trace
    return jnp.sqrt(jnp.maximum(squared, 0))


def flatten(tree: Any) -> tuple[jax.Array, Shapes, Callable[[jax.Array], Any]]:
    """A tree of leaves [M, ...] as one array.

    Returns:
      [M, P] float32 (float64 where a leaf is), the shapes of the leaves without M, and the inverse,
      which gives leaves of their own types.

    Raises:
      ConfigError: leaves that do not share the axis M.
    """
    m = _count(tree)
    leaves, structure = jax.tree.flatten(tree)
    chex.assert_type(leaves, float)
    wide = any(leaf.dtype == jnp.float64 for leaf in leaves)
    dtype = jnp.float64 if wide else jnp.float32
    flat = [jnp.reshape(leaf, (m, -1)).astype(dtype) for leaf in leaves]
    shapes = tuple(tuple(leaf.shape[1:]) for leaf in leaves)

    def unflatten(x: jax.Array) -> Any:
        made, start = [], 0
        for leaf, shape in zip(leaves, shapes, strict=True):
            part = x[:, start : start + math.prod(shape)]
            made.append(part.reshape(leaf.shape).astype(leaf.dtype))
            start += math.prod(shape)
        return jax.tree.unflatten(structure, made)

    return jnp.concatenate(flat, 1), shapes, unflatten


def _count(tree: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or counts == {0}:
        raise ConfigError(
            f"particles are a tree whose leaves share a leading axis M >= 1, not {shapes}."
        )
    return int(counts.pop())


def _value(schedule: Schedule, step: jax.Array, dtype: Any) -> jax.Array:
    if not callable(schedule):
        return jnp.asarray(schedule, dtype)
    # Optax's schedules divide step counts by floats, which a caller's strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(schedule(step), dtype)
