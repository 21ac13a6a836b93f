"""One lazy reader per checkpoint format, all with Hugging Face names and PyTorch's orientation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import ModelError


class Tensors(Mapping[str, np.ndarray]):
    """Names to arrays, each read when it is asked for."""

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
