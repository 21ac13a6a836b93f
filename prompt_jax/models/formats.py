"""One lazy reader per checkpoint format, all with Hugging Face names and PyTorch's orientation."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import ModelError


class Tensors(Mapping[str, np.ndarray]):
    """Names to arrays, each read on access."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, with an error that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read {path}: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object.")
    return content


def inside(root: Path, name: str) -> Path:
    """`root / name`, refusing names that come from a file and leave the directory."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ModelError(f"{root}: the index names '{name}', which lies outside the directory.")
    return path


def safetensors_file(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of one memory-mapped safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again."
        ) from error

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: handle.get_tensor(name)

    return {name: reader(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)


def safetensors_directory(root: Path) -> Tensors | None:
    """`model.safetensors`, or the shards of `model.safetensors.index.json`; None without either."""
    index = root / "model.safetensors.index.json"
    if (root / "model.safetensors").is_file():
        return Tensors(safetensors_file(root / "model.safetensors"))
    if not index.is_file():
        return None
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict):
        raise ModelError(f"{index} has no 'weight_map'.")
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for name in sorted(set(table.values())):
        path = inside(root, name)
        if not path.is_file():
            raise ModelError(f"{index} names the shard '{name}', which is not in the directory.")
        readers.update(safetensors_file(path))
    if missing := sorted(set(table) - set(readers)):
        raise ModelError(f"{index} lists tensor '{missing[0]}', but no shard holds it.")
    return Tensors(readers)


def msgpack_file(path: Path) -> dict[str, Any]:
    """The nested dict of arrays of a flax msgpack file; holds no code."""
    from flax import serialization

    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack, numpy and flax each raise their own
        raise ModelError(
            f"{path} is not a whole flax msgpack file ({type(error).__name__}: {error}): copy or "
            "download it again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no tree of parameters.")
    return content


def flax_directory(root: Path) -> Tensors | None:
    """`flax_model.msgpack` (or its shards) as transformers 4 wrote it; None without either."""
    index = root / "flax_model.msgpack.index.json"
    if (root / "flax_model.msgpack").is_file():
        files = [root / "flax_model.msgpack"]
    elif index.is_file():
        table = read_json(index).get("weight_map", {})
        files = [inside(root, name) for name in sorted(set(table.values()))]
    else:
        return None
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for file in files:
        for path, leaf in walk(msgpack_file(file)):
            *parents, last = path
            array = np.asarray(leaf)
            # Linear layers are [in, out] and called kernel there.
            array = array.T if last == "kernel" else array
            readers[".".join([*parents, "weight"])] = functools.partial(np.asarray, array)
    return Tensors(readers)


def walk(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    """Paths and leaves of a nested dict; a TensorStore specification counts as a leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and "driver" not in value:
            yield from walk(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key)), value


def torch_directory(root: Path) -> Tensors | None:
    """`pytorch_model.bin` (or its shards), weights only; None without either.

    Raises:
      ModelError: torch is not installed, or the file is damaged or holds more than weights.
    """
    index = root / "pytorch_model.bin.index.json"
    if (root / "pytorch_model.bin").is_file():
        files = [root / "pytorch_model.bin"]
    elif index.is_file():
        table = read_json(index).get("weight_map", {})
        files = [inside(root, name) for name in sorted(set(table.values()))]
    else:
        return None
    try:
        import torch
    except ImportError as error:
        raise ModelError(
            f"{root} holds PyTorch pickles (.bin) only: install torch to read them (weights only), "
            "or save the model as safetensors."
        ) from error
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for file in files:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises a different class for each kind of damage
            raise ModelError(f"{file} cannot be read as weights: {error}.") from error
        for name, tensor in state.items():
            readers[name] = functools.partial(lambda t: t.detach().float().numpy(), tensor)
    return Tensors(readers)
