"""Parameter trees of any family: nested dicts of arrays, their paths and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Params = dict[str, Any]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as `{"a/b/c": leaf}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flatten`."""
    tree: Params = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


class Hasher:
    """SHA-256 over canonical paths, shapes and little-endian float32 bytes, in order of path."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, path: str, array: np.ndarray) -> None:
        """Adds one parameter."""
        array = np.ascontiguousarray(array, dtype="<f4")
        self._hash.update(f"{path}:{array.shape};".encode())
        self._hash.update(array.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def weights_hash(params: Params) -> str:
    """The hash of a parameter tree as it is."""
    hasher = Hasher()
    for path, leaf in sorted(flatten(params).items()):
        hasher.add(path, np.asarray(leaf, dtype=np.float32))
    return hasher.hexdigest()
