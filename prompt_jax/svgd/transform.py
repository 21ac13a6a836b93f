"""SVGD as an optax gradient transformation (Liu and Wang 2016, arXiv 1608.04471, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from prompt_jax import sharding
from prompt_jax.arrays import unwrap
from prompt_jax.errors import ConfigError
from prompt_jax.svgd.kernels import Interaction, Kernel, Shapes, check_kernel, rbf

Schedule = float | Callable[[jax.Array], jax.Array]


class SvgdState(NamedTuple):
    """Diagnostics of the last update, for logging; each of shape []."""

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
    """Stein variational gradient descent, to be chained with an optimizer.

    With x_i the flattened particles and g_i the gradients of the *full-data* negative log
    posterior,

        updates_i = (1/M) sum_j [ k(x_j, x_i) g_j - temperature * dk(x_j, x_i) / dx_j ].

    The particles then converge to the posterior to the power 1 / temperature. For gradients of the
    mean over N rows, pass temperature 1 / N. With temperature 0 the update is the kernel-averaged
    gradient; with M = 1 it is exactly the gradient, for any kernel.

    >>> import optax
    >>> optimizer = optax.chain(svgd(rbf(bandwidth="median"), temperature=1.0), optax.adam(0.3))
    >>> annealed = svgd(rbf(), optax.linear_schedule(10.0, 1.0, transition_steps=500))

    Args:
      kernel: None: `rbf()`.
      temperature: a number or a schedule (step -> number), as for annealed repulsion.
      ratio: if given, the temperature of each step is set so that
        |temperature * repulsion| = ratio * |attraction|, with norms over all particles: in the
        76,800 dimensions of a prompt a fixed temperature is hard to choose.
      seed: of stochastic kernels (`sliced`).
      mesh: of devices over which the axis M is split. Particles and gradients are then gathered
        together, in one collective per step; without it the compiler uses three.

    Returns:
      A transformation whose `update(grads, state, particles)` takes and returns trees with leaves
      [M, ...]. It requires the particles, which `optax.chain` passes on.

    Raises:
      ConfigError: a negative temperature or ratio; in `init` and `update`, leaves that do not share
        the axis M, or no particles.
    """
    kernel = rbf() if kernel is None else check_kernel(kernel)
    replicated = None
    if mesh is not None:
        replicated = jax.sharding.NamedSharding(
            sharding.auto_mesh(mesh), jax.sharding.PartitionSpec()
        )
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
            raise ConfigError("svgd needs the particles: call update(grads, state, particles).")
        explicit = sharding.explicit_mesh((grads, particles))
        if explicit is None:
            return on_auto_axes(grads, state, particles)
        # Updates are split as their gradients are.
        whole = jax.sharding.NamedSharding(explicit, jax.sharding.PartitionSpec())
        like = jax.tree.map(
            lambda leaf: whole.update(spec=jax.typeof(leaf).sharding.spec),
            grads,
        )
        call = jax.sharding.auto_axes(on_auto_axes, out_sharding=(like, whole))
        return call(grads, state, particles)

    def on_auto_axes(
        grads: optax.Updates, state: SvgdState, particles: optax.Params
    ) -> tuple[optax.Updates, SvgdState]:
        x, shapes, _ = flatten(particles)
        g, _, unflatten = flatten(grads)
        if x.shape != g.shape:
            raise ConfigError(f"gradients are of shape {g.shape}, but particles of {x.shape}.")
        if replicated is not None:
            both = jax.lax.with_sharding_constraint(jnp.concatenate([x, g], 1), replicated)
            x, g = both[:, : x.shape[1]], both[:, x.shape[1] :]
        tau = _value(temperature, state.step, g.dtype)
        forces = interaction(
            kernel, x, g, shapes, jax.random.fold_in(jax.random.key(seed), state.step)
        )
        attraction = jnp.linalg.norm(forces.attraction)
        repulsion = jnp.linalg.norm(forces.repulsion)
        if ratio is not None:
            scaled = _value(ratio, state.step, g.dtype) * attraction
            tau = jnp.where(repulsion > 0, scaled / jnp.where(repulsion > 0, repulsion, 1), 0)
        actual = jnp.where(
            attraction > 0, tau * repulsion / jnp.where(attraction > 0, attraction, 1), 0
        )
        new_state = SvgdState(
            state.step + 1,
            tau.astype(jnp.float32),
            actual.astype(jnp.float32),
            stein_norm(forces, g).astype(jnp.float32),
        )
        updates = forces.attraction - tau * forces.repulsion
        if replicated is not None:
            # Keeps the sharding of the result from propagating into the kernel.
            updates = jax.lax.with_sharding_constraint(updates, replicated)
        return unflatten(updates), new_state

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def interaction(
    kernel: Kernel, x: jax.Array, g: jax.Array, shapes: Shapes, key: jax.Array
) -> Interaction:
    """`kernel.interact`, with k = 1 and no repulsion for a single particle."""
    chex.assert_rank([x, g], 2)
    chex.assert_equal_shape([x, g])
    if len(x) == 1:
        return Interaction(g, jnp.zeros_like(g), jnp.zeros((), g.dtype))
    forces = kernel.interact(x, g, shapes, key)
    chex.assert_shape([forces.attraction, forces.repulsion], x.shape)
    chex.assert_rank(forces.trace, 0)
    return forces


def stein_norm(forces: Interaction, g: jax.Array) -> jax.Array:
    """The norm of the update at temperature 1 in the kernel's RKHS, a scalar.

    It is the kernelised Stein discrepancy between the particles and the density whose negative log
    has the gradients g (V-statistic, Liu et al. 2016). It requires no normalising constant and
    tends to 0 as the particles converge.
    """

    def mean(force: jax.Array) -> jax.Array:
        return jnp.sum(g * force) / len(g)

    squared = mean(forces.attraction) - 2 * mean(forces.repulsion) + forces.trace
    return jnp.sqrt(jnp.maximum(squared, 0))


def flatten(tree: Any) -> tuple[jax.Array, Shapes, Callable[[jax.Array], Any]]:
    """Flattens a tree of leaves [M, ...] to one array.

    Returns:
      [M, P] float32 (float64 if a leaf is), the shapes of the leaves without M, and the inverse
      function, which restores the dtypes of the leaves.

    Raises:
      ConfigError: leaves that do not share the axis M.
    """
    m = _count(tree)
    leaves, structure = jax.tree.flatten(tree)
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ConfigError(
                f"particles are floating-point arrays, but a leaf is {jnp.result_type(leaf)}."
            )
    wide = any(leaf.dtype == jnp.float64 for leaf in leaves)
    dtype = jnp.float64 if wide else jnp.float32
    flat = [jnp.reshape(leaf, (m, -1)).astype(dtype) for leaf in leaves]
    shapes = tuple(tuple(leaf.shape[1:]) for leaf in leaves)

    def unflatten(x: jax.Array) -> Any:
        parts, start = [], 0
        for leaf, shape in zip(leaves, shapes, strict=True):
            part = x[:, start : start + math.prod(shape)]
            parts.append(part.reshape(leaf.shape).astype(leaf.dtype))
            start += math.prod(shape)
        return jax.tree.unflatten(structure, parts)

    return jnp.concatenate(flat, 1), shapes, unflatten


def _count(tree: Any) -> int:
    if _is_list_of_particles(tree):
        raise ConfigError(
            f"particles are one array [M, ...], not a list of {len(tree)} vectors: stack them,"
            " jnp.stack(vectors) or, of prompts, np.stack(prompts). (Parameters of one shape that"
            " each have the axis M: put them in a dict.)"
        )
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or counts == {0}:
        raise ConfigError(
            f"particles are a tree whose leaves share a leading axis M >= 1, not {shapes}."
        )
    return int(counts.pop())


def _is_list_of_particles(tree: Any) -> bool:
    """Whether the first axis of the leaves would be taken for M where the list is it."""
    if not isinstance(tree, list) or len(tree) < 2:
        return False
    shapes = {jnp.shape(unwrap(item)) if hasattr(unwrap(item), "shape") else None for item in tree}
    (shape, *others) = shapes
    return not others and shape is not None and len(shape) <= 2


def _value(schedule: Schedule, step: jax.Array, dtype: Any) -> jax.Array:
    if not callable(schedule):
        return jnp.asarray(schedule, dtype)
    # Optax's schedules divide step counts by floats, an error under strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(schedule(step), dtype)
