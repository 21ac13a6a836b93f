"""Arrays and facts in one file that is checked before it is used.

A sealed file is a safetensors file with one entry of metadata: the facts as JSON, closed by a
SHA-256 over them and all tensors (safetensors itself does not notice a flipped bit). Prompt files,
tokenised rows, trained replicas and test results are such files. Writing is atomic and
deterministic: equal content gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from prompt_jax import distributed
from prompt_jax.paths import write_atomically

KEY = "prompt_jax"
"""Name of the metadata entry that holds the facts."""

_SEAL = re.compile(r'(?:, )?"sha256": "([0-9a-f]{64})"\}\Z')
_DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}


class DamagedError(ValueError):
    """The bytes are no complete sealed file; the message is the end of a sentence about it."""


class UnsealedError(DamagedError):
    """A whole safetensors file that this module has not written.

    Attributes:
      names: of its first tensors, for messages.
    """

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.names = ", ".join(sorted(tensors)[:4]) or "nothing"
        super().__init__(f"is a safetensors file without a seal (it holds {self.names})")


class Entry(NamedTuple):
    """Content of a sealed file."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(facts: Mapping[str, Any] | str, arrays: Mapping[str, Any]) -> bytes:
    """The bytes of a sealed file.

    Args:
      facts: what JSON can hold, without a key `sha256`; or the text of such a JSON object.
      arrays: numbers or truth values, by name.

    Raises:
      TypeError: facts that JSON cannot hold.
    """
    from safetensors.numpy import save

    text = facts if isinstance(facts, str) else json.dumps(dict(facts))
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    comma = "" if text == "{}" else ", "
    sealed = f'{text[:-1]}{comma}"sha256": "{_digest(text, whole)}"}}'
    return bytes(save(whole, metadata={KEY: sealed}))


def unpack(raw: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """The text of the facts and the arrays of a sealed file.

    Raises:
      DamagedError: the bytes are truncated, damaged or not from `pack`.
    """
    arrays, metadata = parse_safetensors(raw)
    if KEY not in metadata:
        raise UnsealedError(arrays)
    text = metadata[KEY]
    seal = _SEAL.search(text)
    if seal is None:
        raise DamagedError("is damaged: its seal is missing")
    text = text[: seal.start()] + "}"
    if _digest(text, arrays) != seal[1]:
        raise DamagedError("is damaged: its content does not match its sha256")
    return text, arrays


def parse_safetensors(raw: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of any safetensors file in memory.

    Raises:
      DamagedError: the bytes are no complete safetensors file, or hold an unknown dtype.
    """
    import safetensors

    try:
        tensors = {}
        for name, info in safetensors.deserialize(raw):
            if info["dtype"] not in _DTYPES:
                raise DamagedError(f"holds a tensor '{name}' of dtype {info['dtype']}")
            flat = np.frombuffer(bytes(info["data"]), dtype=_DTYPES[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except DamagedError:
        raise
    except (safetensors.SafetensorError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedError(f"is truncated, damaged or not a safetensors file ({error})") from None
    return tensors, header.get("__metadata__") or {}


def write(path: str | os.PathLike[str], facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> int:
    """Writes a sealed file as a whole or not at all; returns its size in bytes.

    Raises:
      OSError: it cannot be written.
    """
    raw = pack(facts, arrays)
    write_atomically(path, raw)
    return len(raw)


def read(path: str | os.PathLike[str]) -> Entry | None:
    """What `write` wrote; None where there is no file, or a damaged one, which is reported.

    The caller makes the content again.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError:
        return None
    return load(raw, path)


def load(raw: bytes, path: str | os.PathLike[str]) -> Entry | None:
    """The entry in the bytes of a file; None, and a warning that names it, where they are damaged.

    Args:
      raw: the whole file.
      path: its name, for the warning.
    """
    try:
        text, arrays = unpack(raw)
        return Entry(json.loads(text), arrays)
    except ValueError as error:
        why = str(error) if isinstance(error, DamagedError) else "is damaged"
        if distributed.is_main():
            logging.getLogger("prompt_jax").warning(f"{path} {why}: it is not used and made again.")
        return None


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of everything a reader would use: facts, and each tensor's name, dtype and numbers."""
    state = hashlib.sha256()
    for number, (name, array) in enumerate(sorted(arrays.items())):
        said = [text] if number == 0 else []
        head = json.dumps([*said, name, array.dtype.name, list(array.shape)])
        state.update(head.encode())
        state.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    if not arrays:
        state.update(json.dumps([text]).encode())
    return state.hexdigest()
