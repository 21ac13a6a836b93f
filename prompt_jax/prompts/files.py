"""One prompt, one safetensors file.

A file holds one float32 tensor (`prompt` [L, D], `particles` [M, L, D] or `vector` [L, D]) and the
record as facts, in the sealed container of `prompt_jax.store`. Writing is atomic and deterministic:
equal prompts with equal records are equal files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prompt_jax import store
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


class Stored(NamedTuple):
    """Content of a prompt file.

    Attributes:
      kind: a key of `RANKS`.
      array: float32, [L, D] or [M, L, D].
      record: of the prompt.
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
            " Its training diverged: use an earlier state or a smaller learning rate."
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
    write_bytes(path, store.pack(record.to_metadata()[METADATA_KEY], {kind: values}))


def read(path: str | os.PathLike[str], kind: str) -> Stored:
    """Reads a prompt file and checks its seal.

    Args:
      path: local path or fsspec URL.
      kind: what the caller expects to find, a key of `RANKS`.

    Raises:
      PromptError: for a missing, truncated, damaged or foreign file, or one of another kind.
    """
    raw = read_bytes(path)
    try:
        body, tensors = store.unpack(raw)
    except store.UnsealedError as error:
        parse_safetensors(raw, path)
        raise PromptError(
            f"{path} is a safetensors file, but not a prompt of prompt_jax (it holds"
            f" {error.names}). For a PEFT adapter use from_peft on its folder."
        ) from None
    except store.DamagedError as error:
        raise PromptError(f"{path} {error}. Copy or make it again.") from None
    if len(tensors) != 1:
        raise PromptError(
            f"{path} holds {len(tensors)} tensors, not one prompt. A trained row-wise method can be"
            " given to `prompt-jax predict` and `prompt-jax evaluate`, or to methods.trained.load."
            " A library is unpacked with `prompt-jax prompts unpack`."
        )
    kind_here, array = next(iter(tensors.items()))
    try:
        record = PromptRecord.from_metadata({METADATA_KEY: body})
    except PromptError as error:
        raise PromptError(f"{path} cannot be read: {error}") from None
    if kind_here != kind:
        reader = _READERS.get(kind_here, "a newer version of prompt_jax")
        raise PromptError(f"{path} holds '{kind_here}', not '{kind}'; read it with {reader}.")
    values = check_array(array, rank=RANKS[kind], what=f"the {kind} in {path}")
    return Stored(kind, values, record)


def save_particles(
    path: str | os.PathLike[str], particles: Any, record: PromptRecord | None = None
) -> None:
    """Writes particles [M, L, D] of one replica to one file; see `write`."""
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
    try:
        tensors, metadata = store.parse_safetensors(raw)
    except store.DamagedError as error:
        raise PromptError(f"{path} {error}.") from None
    for name, array in tensors.items():
        # bfloat16 is registered by ml_dtypes with kind 'V'.
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise PromptError(f"{path}: tensor '{name}' has dtype {array.dtype}, not floats.")
    return tensors, metadata


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


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" The folder {folder} does not exist either."
    return did_you_mean(path.name, sorted(entry.name for entry in folder.iterdir()))
