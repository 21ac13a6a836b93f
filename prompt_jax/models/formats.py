"""One lazy reader per checkpoint format, all with Hugging Face names and PyTorch's orientation."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    def aliased(self, name: str, other: str) -> Tensors:
        """The same, and the tensor `other` also under `name`."""
        return Tensors({**self._readers, name: self._readers[other]})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      ModelError: missing, not JSON, no object, or a key stands in it twice; it names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"Cannot read {path}: it is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object.")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"'{next(key for key in keys if keys.count(key) > 1)}' stands in it twice")
    return made


def inside(root: Path, name: str) -> Path:
    """`root / name`, refusing names that come from a file and leave the directory.

    The file may be a link to elsewhere: in the hub's cache all files are links into `blobs/`.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"{root}: the index names '{name}', which lies outside the directory.")
    return root / path


def shards(index: Path) -> dict[str, list[str]]:
    """The shards of an index file: file name -> names of the tensors in it.

    Raises:
      ModelError: the index is damaged, or a shard is not in the directory.
    """
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} has no 'weight_map'.")
    found: dict[str, list[str]] = {}
    for name, file in table.items():
        if not isinstance(file, str):
            raise ModelError(f"{index}: 'weight_map' gives {file!r} as the file of '{name}'.")
        found.setdefault(file, []).append(name)
    for file in found:
        if not inside(index.parent, file).is_file():
            raise ModelError(f"{index} names the shard '{file}', which is not in the directory.")
    return found


def _check_shard(index: Path, file: str, listed: list[str], held: Iterable[str]) -> None:
    """Checks that a shard holds what the index says, and no more."""
    if missing := sorted(set(listed) - set(held)):
        raise ModelError(
            f"{index} lists tensor '{missing[0]}', but no shard holds it: '{file}' should."
        )
    if extra := sorted(set(held) - set(listed)):
        raise ModelError(
            f"{index} does not list tensor '{extra[0]}' under the shard '{file}', which holds it."
        )


# Integers are read too: whoever needs floats says that they are none.
_SAFETENSORS_TYPES = frozenset(
    ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"]
)


def _unreadable(path: Path, name: str, kind: str) -> str:
    return (
        f"{path}: tensor '{name}' is stored as {kind}, which is not read: save the model in "
        "float32, bfloat16 or float16."
    )


def safetensors_file(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of one memory-mapped safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again."
        ) from error

    def read(name: str) -> np.ndarray:
        kind = handle.get_slice(name).get_dtype()
        if kind not in _SAFETENSORS_TYPES:
            raise ModelError(_unreadable(path, name, kind))
        return handle.get_tensor(name)

    return {name: functools.partial(read, name) for name in handle.keys()}  # noqa: SIM118 (not a dict)


def safetensors_directory(root: Path) -> Tensors | None:
    """`model.safetensors`, or the shards of `model.safetensors.index.json`; None without either."""
    index = root / "model.safetensors.index.json"
    if (root / "model.safetensors").is_file():
        return Tensors(safetensors_file(root / "model.safetensors"))
    if not index.is_file():
        return None
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for file, listed in sorted(shards(index).items()):
        held = safetensors_file(inside(root, file))
        _check_shard(index, file, listed, held)
        readers.update(held)
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
        files = [inside(root, name) for name in sorted(shards(index))]
    else:
        return None
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for file in files:
        for path, leaf in walk(msgpack_file(file)):
            *parents, last = path
            array = np.asarray(leaf)
            # Linear layers are [in, out] and called kernel there.
            array = array.T if last == "kernel" else array
            name = ".".join([*parents, "weight"])
            if name in readers:
                raise ModelError(f"{file} holds '{name}' a second time ('{'/'.join(path)}').")
            readers[name] = functools.partial(np.asarray, array)
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
        files: dict[str, list[str] | None] = {"pytorch_model.bin": None}
    elif index.is_file():
        files = dict(sorted(shards(index).items()))
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
    for file, listed in files.items():
        path = inside(root, file)
        try:
            # The format before torch 1.6 is no zip archive and cannot be mapped into memory.
            mmap = zipfile.is_zipfile(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:  # torch raises a different class for each kind of damage
            raise ModelError(f"{path} cannot be read as weights: {error}.") from error
        if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
            raise ModelError(
                f"{path} cannot be read as weights: it is no table of tensors by name."
            )
        if listed is not None:
            _check_shard(index, file, listed, state)
        for name, tensor in state.items():
            readers[name] = functools.partial(_torch_array, path, name, tensor)
    return Tensors(readers)


def _torch_array(path: Path, name: str, tensor: Any) -> np.ndarray:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized or tensor.is_sparse or kind.startswith(("float8", "float4")):
        raise ModelError(_unreadable(path, name, kind))
    return (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()
