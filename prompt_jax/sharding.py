"""Meshes, the regex -> PartitionSpec table, and placing host arrays on them.

Rows lie on 'data', the model's weights on 'model'. Every process holds the whole (small) plan of a
step and places only the shards it owns, so nothing here depends on the number of processes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from prompt_jax import distributed
from prompt_jax.errors import ConfigError

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]  # hashable: part of a cache's key


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
    """Bytes of a parameter tree on one device of a mesh, which need not be there.

    Args:
      tree: arrays or their shapes.
      rules: as for `shardings`.
      data: size of the mesh axis.
      model: likewise.
    """
    mesh = AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def one(leaf: Any, sharding: NamedSharding) -> int:
        return math.prod(sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, shardings(tree, rules, mesh))))


def spec_for(
    path: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """The PartitionSpec of a parameter: the first rule whose regex is found in its path.

    An axis that does not divide its dimension is left unsplit, so that one table serves every size.
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

    Trained weights, and what has their path and shape (gradients, moments), lie as the rules say;
    the rest (counts, Adafactor's rows and columns) is whole.
    """

    def one(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = tuple(np.shape(leaf))[1:]
        mine = tuple(rule for rule in rules if len(rule[1]) == len(shape))
        spec = spec_for(name, shape, mine, mesh)
        return NamedSharding(mesh, PartitionSpec(None, *spec) if spec else PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


def shard_tree(tree: Any, rules: Rules, mesh: Mesh) -> Any:
    """Places a parameter tree that every process holds whole on the mesh by the rule table."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        # `device_put` would send the whole array around to compare it.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, rules, mesh))


def put(tree: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """Places host arrays, split along their leading axes; replicated without axes.

    Args:
      tree: numpy arrays that every process holds whole, or arrays of all processes on devices.
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


def _place(array: Any, sharding: NamedSharding) -> jax.Array:
    array = distributed.to_host(array) if isinstance(array, jax.Array) else np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
