"""One prompt, one safetensors file.

A file holds one float32 tensor (`prompt` [L, D], `particles` [M, L, D] or `vector` [L, D]) and the
record as metadata, sealed with a sha256 over both: safetensors itself does not notice a flipped
bit. Writing is atomic and deterministic: equal prompts with equal records are equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.errors import PromptError, did_you_mean
from prompt_jax.paths import is_url, write_atomically
from prompt_jax.prompts.record import METADATA_KEY, PromptRecord

RANKS: dict[str, int] = {"prompt": 2, "particles": 3, "vector": 2}
"""Tensor names that a file may hold, with the rank of each."""

_READERS = {
    "prompt": "SoftPrompt.load",
    "particles": "prompts.load_particles",
    "vector": "TaskVector.load",
}
_SEAL = re.compile(r', "sha256": "([0-9a-f]{64})"\}')
_SEAL_LENGTH = len(', "sha256": "') + 64 + len('"}')


class Stored(NamedTuple):
    """Content of a prompt file.

    Attributes:
      kind: a key of `RANKS`.
      array: float32, [L, D] or [M, L, D].
      record: what the file says about it.
    """

    kind: str
    array: np.ndarray
    record: PromptRecord


def check_array(array: Any, *, rank: int = 2, what: str = "a prompt") -> np.ndarray:
    """Returns `array` as a C-contiguous float32 array of the host.

    Args:
      array: anything numpy can read; its dtype must be floating.
      rank: 2 for [L, D], 3 for [M, L, D].
      what: subject of the error messages.

    Raises:
      PromptError: for another rank, an empty axis, another kind of number, NaN or infinity.
    """
    result = np.asarray(array)
    letters = "[L, D]" if rank == 2 else "[M, L, D]"
    if result.ndim != rank or 0 in result.shape:
        raise PromptError(f"{what} must have shape {letters}, not {list(result.shape)}.")
    # bfloat16 is registered by ml_dtypes with kind 'V', which plain records share.
    if result.dtype.kind != "f" and result.dtype.name != "bfloat16":
        raise PromptError(f"{what} must hold floating-point numbers, not {result.dtype}.")
    result = np.ascontiguousarray(result, dtype=np.float32)
    bad = int(np.size(result) - np.count_nonzero(np.isfinite(result)))
    if bad:
        raise PromptError(
            f"{what} holds {bad} values of {result.size} that are NaN or infinite in float32."
            " The run that made it diverged; take an earlier state or a smaller learning rate."
        )
    return result


def write(path: str | os.PathLike[str], kind: str, array: Any, record: PromptRecord) -> None:
    """Writes a prompt file atomically; L and D of the record are filled in.

    Args:
      path: local path (missing folders are made) or fsspec URL such as `gs://bucket/x`.
      kind: a key of `RANKS`.
      array: [L, D] or [M, L, D], any floating dtype, stored as float32.
      record: stored beside it.

    Raises:
      PromptError: for an unusable array, or a record that speaks of another shape.
    """
    values = check_array(array, rank=RANKS[kind], what=f"the {kind} for {path}")
    tokens, width = values.shape[-2:]
    for name, told, is_ in (
        ("tokens", record.tokens, tokens),
        ("d_model", record.d_model, width),
    ):
        if told not in (None, is_):
            raise PromptError(
                f"the record for {path} says {name} = {told}, but the {kind} has {is_}."
            )
    record = record.replace(tokens=tokens, d_model=width)
    body = record.to_metadata()[METADATA_KEY]
    sealed = body[:-1] + f', "sha256": "{_digest(body, kind, values)}"}}'
    write_bytes(path, _serialise(kind, values, sealed))


def read(path: str | os.PathLike[str], kind: str) -> Stored:
    """Reads a prompt file and checks its seal.

    Args:
      path: local path or fsspec URL.
      kind: what the caller expects to find, a key of `RANKS`.

    Raises:
      PromptError: for a missing, truncated, damaged or foreign file, or one of another kind.
    """
    raw = read_bytes(path)
    tensors, metadata = parse_safetensors(raw, path)
    if METADATA_KEY not in metadata:
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise PromptError(
            f"{path} is a safetensors file, but not a prompt of prompt_jax (it holds {names})."
            " For a PEFT adapter use from_peft on its folder."
        )
    text = metadata[METADATA_KEY]
    seal = _SEAL.fullmatch(text[-_SEAL_LENGTH:])
    if seal is None or len(tensors) != 1:
        raise PromptError(f"{path} is damaged: its seal or its tensor is missing.")
    body = text[:-_SEAL_LENGTH] + "}"
    found, array = next(iter(tensors.items()))
    if _digest(body, found, array) != seal[1]:
        raise PromptError(
            f"{path} is damaged: its content does not match its sha256. Copy or make it again."
        )
    try:
        record = PromptRecord.from_metadata({METADATA_KEY: body})
    except PromptError as error:
        raise PromptError(f"{path} cannot be read: {error}") from None
    if found != kind:
        reader = _READERS.get(found, "a newer version of prompt_jax")
        raise PromptError(f"{path} holds '{found}', not '{kind}'; read it with {reader}.")
    values = check_array(array, rank=RANKS[kind], what=f"the {kind} in {path}")
    return Stored(found, values, record)


def save_particles(
    path: str | os.PathLike[str], particles: Any, record: PromptRecord | None = None
) -> None:
    """Writes particles [M, L, D] of one run to one file; see `write`."""
    write(path, "particles", particles, record or PromptRecord())


def load_particles(path: str | os.PathLike[str]) -> tuple[np.ndarray, PromptRecord]:
    """Reads what `save_particles` wrote: float32 [M, L, D] and the record; see `read`."""
    stored = read(path, "particles")
    return stored.array, stored.record


def parse_safetensors(
    raw: bytes, path: str | os.PathLike[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns tensors (also bfloat16) and metadata of a safetensors file in memory.

    Args:
      raw: the whole file.
      path: its name, for messages only.

    Raises:
      PromptError: where the bytes are no complete safetensors file.
    """
    import ml_dtypes
    import safetensors

    dtypes: Mapping[str, Any] = {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
    }
    try:
        tensors = {}
        for name, info in safetensors.deserialize(raw):
            if info["dtype"] not in dtypes:
                raise PromptError(f"{path}: tensor '{name}' has dtype {info['dtype']}, not floats.")
            flat = np.frombuffer(bytes(info["data"]), dtype=dtypes[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (safetensors.SafetensorError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(
            f"{path} is truncated, damaged or not a safetensors file ({error})."
        ) from None
    return tensors, header.get("__metadata__") or {}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a local path or fsspec URL.

    Raises:
      PromptError: where there is no such file or it cannot be read.
    """
    try:
        if is_url(path):
            import fsspec

            with fsspec.open(os.fspath(path), "rb") as file:
                return bytes(file.read())
        return Path(path).read_bytes()
    except FileNotFoundError:
        hint = "" if is_url(path) else _neighbours(Path(path))
        raise PromptError(f"there is no file {path}.{hint}") from None
    except IsADirectoryError:
        hint = " It holds a PEFT adapter: use from_peft." if _is_adapter(Path(path)) else ""
        raise PromptError(f"{path} is a folder, not a file.{hint}") from None
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error}.") from None


def write_bytes(path: str | os.PathLike[str], raw: bytes) -> None:
    """Writes a file as a whole or not at all, and durably where the path is local.

    Raises:
      PromptError: where it cannot be written.
    """
    try:
        write_atomically(path, raw)
    except OSError as error:
        raise PromptError(f"{path} cannot be written: {error.strerror or error}.") from None


def _serialise(kind: str, values: np.ndarray, sealed: str) -> bytes:
    from safetensors.numpy import save

    return bytes(save({kind: values}, metadata={METADATA_KEY: sealed}))


def _digest(body: str, kind: str, array: np.ndarray) -> str:
    """Hash of everything a reader would use: record, tensor name, dtype, shape and numbers."""
    head = json.dumps([body, kind, array.dtype.name, list(array.shape)])
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(head.encode() + little.tobytes()).hexdigest()


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" The folder {folder} does not exist either."
    return did_you_mean(path.name, sorted(entry.name for entry in folder.iterdir()))
