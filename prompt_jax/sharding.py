"""Meshes, the regex -> PartitionSpec table, and placement of host arrays.

Rows are split over the axis 'data', the model's weights over 'model'. Every process has the whole
(small) plan of a step and places only its own shards, so nothing here depends on the number of
processes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from prompt_jax import distributed
from prompt_jax.errors import ConfigError

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]  # hashable: part of a cache key


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes ('data', 'model').

    Args:
      data: devices over which rows are split.
      model: devices over which the model's weights are split.
      devices: defaults to the first data * model devices.

    Raises:
      ConfigError: when there are not enough devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if data < 1 or model < 1 or data * model > len(devices):
        raise ConfigError(
            f"a mesh of data={data}, model={model} needs {data * model} devices, but there are"
            f" {len(devices)}."
        )
    grid = np.asarray(devices[: data * model]).reshape(data, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def parse_mesh(text: str) -> dict[str, int]:
    """Parses `data=4,model=2`.

    >>> parse_mesh("data=4,model=2")
    {'data': 4, 'model': 2}
    """
    sizes = {"data": 1, "model": 1}
    for part in filter(None, text.split(",")):
        axis, _, number = part.partition("=")
        if axis.strip() not in sizes or not number.strip().isdecimal() or int(number) < 1:
            raise ConfigError(f"mesh '{text}' is not of the form data=4,model=2.")
        sizes[axis.strip()] = int(number)
    return sizes


def bytes_per_device(tree: Any, rules: Rules, data: int, model: int) -> int:
    """Bytes of a parameter tree on one device of a mesh, which need not exist.

    Args:
      tree: arrays or their shapes.
      rules: as for `shardings`.
      data: size of the mesh axis 'data'.
      model: size of the mesh axis 'model'.
    """
    mesh = AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def one(leaf: Any, sharding: NamedSharding) -> int:
        return math.prod(sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, shardings(tree, rules, mesh))))


def spec_for(
    path: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """The PartitionSpec of a parameter: that of the first rule whose regex matches its path.

    An axis that does not divide its dimension is not split, so one table works for every size.
    """
    for pattern, axes in rules:
        if re.search(pattern, path):
            if len(axes) != len(shape):
                raise ConfigError(f"sharding rule '{pattern}' has {len(axes)} axes for {shape}.")
            return PartitionSpec(
                *(
                    axis if axis and size % mesh.shape[axis] == 0 else None
                    for axis, size in zip(axes, shape, strict=True)
                )
            )
    return PartitionSpec()


def shardings(tree: Any, rules: Rules, mesh: Mesh | AbstractMesh) -> Any:
    """NamedShardings for every leaf of a parameter tree."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_for(name, tuple(leaf.shape), rules, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def state_shardings(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """NamedShardings of a training state, whose leaves have an axis R in front.

    The rules apply to trained weights and to arrays of the same path and shape (gradients,
    moments); all others (counts, Adafactor's rows and columns) are replicated.
    """

    def one(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = tuple(np.shape(leaf))[1:]
        of_this_rank = tuple(rule for rule in rules if len(rule[1]) == len(shape))
        spec = spec_for(name, shape, of_this_rank, mesh)
        return NamedSharding(mesh, PartitionSpec(None, *spec) if spec else PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


def shard_tree(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """Places a parameter tree on the mesh by the rule table; every process has the whole tree."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        # `device_put` would send the whole array between processes to compare it.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, rules, mesh))


def put(tree: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """Places host arrays, split along their leading axes; replicated without axes.

    Args:
      tree: numpy arrays that are whole on every process, or global device arrays.
      mesh: None leaves placement to JAX.
      *axes: mesh axis of each leading dimension.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda array: _place(array, sharding), tree)


def put_state(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """Places host arrays [R, ...] of a training state, by `state_shardings`."""
    return jax.tree.map(_place, tree, state_shardings(tree, rules, mesh))


def explicit_mesh(tree: Any) -> Mesh | AbstractMesh | None:
    """The mesh with Explicit axes on which an array of a tree lies; None where there is none.

    `jax.make_mesh` gives such axes: every operation then has to say how its result is split.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer):
            mesh = jax.typeof(leaf).sharding.mesh
        elif isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
            mesh = leaf.sharding.mesh
        else:
            continue
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


@overload
def auto_mesh(mesh: Mesh) -> Mesh: ...
@overload
def auto_mesh(mesh: None) -> None: ...
def auto_mesh(mesh: Mesh | None) -> Mesh | None:
    """The mesh with Auto axes: the compiler, not every operation, decides how arrays are split."""
    if mesh is None or AxisType.Explicit not in mesh.axis_types:
        return mesh
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def row_mesh(mesh: Mesh | None) -> Mesh | None:
    """A caller's mesh as this library uses it: Auto axes 'data' and 'model'.

    An axis 'model' of one device is added where there is none.

    Raises:
      ConfigError: it has no axis 'data', or others besides these two.
    """
    if mesh is None:
        return None
    names = mesh.axis_names
    if "data" not in names or not {"data", "model"}.issuperset(names):
        raise ConfigError(
            f"a mesh has an axis 'data' (for rows) and perhaps 'model' (for weights), not"
            f" {', '.join(map(str, names))}: prompt_jax.sharding.make_mesh(data=.., model=..)."
        )
    if "model" in names:
        return auto_mesh(mesh)
    grid = np.asarray(mesh.devices)[:, None]
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def on_auto_axes(tree: Any) -> Any:
    """A tree of arrays, those on a mesh with Explicit axes placed likewise on its `auto_mesh`."""

    def one(leaf: Any) -> Any:
        if explicit_mesh(leaf) is None:
            return leaf
        return jax.device_put(
            leaf, NamedSharding(auto_mesh(leaf.sharding.mesh), leaf.sharding.spec)
        )

    return jax.tree.map(one, tree)


def call_with_auto_axes(function: Callable[..., Any], *args: Any, split: Any = ()) -> Any:
    """Calls a function of arrays so that the compiler decides how they are split.

    Args:
      function: its results have the leading axes of `split`, or none.
      *args: trees of arrays. Without one on a mesh with Explicit axes this is a plain call.
      split: arrays whose leading axis the results share; a mesh axis over which one of them is
        split there, the results are split over as well. None is skipped.
    """
    mesh = explicit_mesh((args, split))
    if mesh is None:
        return function(*args)
    specs = [jax.typeof(x).sharding.spec for x in jax.tree.leaves(split)]
    axis = next((spec[0] for spec in specs if spec and spec[0] is not None), None)
    result = NamedSharding(mesh, PartitionSpec(axis))
    return jax.sharding.auto_axes(function, out_sharding=result)(*args)


def vary_alike(tree: Any) -> Any:
    """Inside `jax.shard_map`: the arrays of a tree, all varying over the same mesh axes.

    A replicated array that meets a varying one (weights and rows, the first state of a loop) is
    cast, so that types match, and its gradient is summed over the axis. Elsewhere nothing changes.

    Args:
      tree: arrays; other leaves are passed on.
    """
    axes = frozenset().union(*map(_varying, jax.tree.leaves(tree)))
    if not axes:
        return tree

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(axes - _varying(leaf)))
        if not missing or not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        return jax.lax.pcast(jnp.asarray(leaf), missing, to="varying")

    return jax.tree.map(cast, tree)


def _varying(leaf: Any) -> frozenset[str]:
    """Manual mesh axes over which an array varies."""
    if not isinstance(leaf, jax.core.Tracer):
        return frozenset()
    kind = jax.typeof(leaf)
    axes = getattr(kind, "manual_axis_type", None)
    # Versions of jax differ in the name.
    return frozenset(getattr(kind, "vma", ()) if axes is None else axes.varying)


def _place(array: Any, sharding: NamedSharding) -> jax.Array:
    array = distributed.to_host(array) if isinstance(array, jax.Array) else np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
