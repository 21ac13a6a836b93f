"""GGUF files, read and dequantised by the `gguf` package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.errors import MissingExtraError, ModelError
from prompt_jax.models.formats import Tensors

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
_MAGIC = b"GGUF"


class GGUF(NamedTuple):
    """An opened file: tensors are read and dequantised on access."""

    metadata: Mapping[str, Any]  # read on access
    tensors: Tensors  # PyTorch's orientation, float32
    where: str

    def value(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """A value of the metadata.

        Raises:
          ModelError: it is missing and there is no default, or it has another type.
        """
        found = self.metadata.get(key)
        if found is None:
            if default is None:
                raise ModelError(f"{self.where} lacks '{key}' in its metadata.")
            return default
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise ModelError(f"{self.where}: '{key}' has the value {found!r} of another type.")
        return found


class _Metadata(Mapping[str, Any]):
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, key: str) -> Any:
        return self._fields[key].contents()

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def is_gguf(path: Path) -> bool:
    """Whether a file starts as a GGUF file does, or is named as one."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return path.suffix == ".gguf" or file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def open_gguf(path: Path) -> GGUF:
    """Opens a file; the last one is kept open.

    Raises:
      MissingExtraError: the package `gguf` is not installed.
      ModelError: the file is damaged, or a tensor is quantised in a way that is not read.
    """
    stat = path.stat()
    return _open(str(path.resolve()), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)
def _open(where: str, modified: int, size: int) -> GGUF:
    del modified, size  # part of the key: another file of the same name is read anew
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("gguf", "gguf", f"Reading {where}") from error
    try:
        reader = gguf.GGUFReader(where)
    except Exception as error:  # the package raises whatever numpy does on damaged files
        raise ModelError(
            f"{where} is not a whole GGUF file ({error}): copy or download it again."
        ) from error

    def read(tensor: Any) -> np.ndarray:
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)

    readers: dict[str, Callable[[], np.ndarray]] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        if kind not in TYPES:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' is stored as {kind}, which is not read: only "
                f"{', '.join(TYPES)} are."
            )
        readers[tensor.name] = functools.partial(read, tensor)
    return GGUF(_Metadata(reader.fields), Tensors(readers), where)


def architecture(path: Path) -> str:
    """The architecture that a GGUF file names, like "llama".

    Raises:
      MissingExtraError, ModelError: see `open_gguf`.
    """
    kind: str = open_gguf(path).value("general.architecture", str)
    return kind
