"""Token ids on disk: one .npz per hash of texts, vocabulary and lengths, with a checksum."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically

Arrays = dict[str, np.ndarray]

# Raise when the arrays or the way they are cut change.
_VERSION = 1
_CHECKSUM = "sha256"


def cached(
    cache_dir: str | Path | None,
    *,
    name: str,
    key: tuple[str | int, ...],
    texts: Sequence[Sequence[str]],
    make: Callable[..., Arrays],
) -> tuple[Arrays, str]:
    """Returns `make(*texts)`, from the cache if it is there.

    Args:
      cache_dir: folder of the cache; None: always make.
      name: leading part of the file name, for people.
      key: everything besides the texts that the arrays depend on.
      texts: the lists of texts that are tokenised.
      make: gives the arrays.

    Returns:
      The arrays, and a note if a damaged file was replaced (else "").

    Raises:
      DataError: if the cache folder cannot be written.
    """
    if cache_dir is None:
        return make(*texts), ""
    label = re.sub(r"[^A-Za-z0-9_\-]+", "_", name)
    path = Path(cache_dir) / f"{label}-{_digest(key, texts)}.npz"
    note = ""
    if path.exists():
        arrays = _read(path)
        if arrays is not None:
            return arrays, ""
        note = f"the damaged cache file {path.name} was rebuilt"
    arrays = make(*texts)
    try:
        _write(path, arrays)
    except OSError as error:
        raise DataError(
            f"the cache folder '{cache_dir}' cannot be written ({error.strerror}). Choose another "
            "with data.cache=DIR, or data.cache= for none."
        ) from None
    return arrays, note


def _digest(key: tuple[str | int, ...], texts: Sequence[Sequence[str]]) -> str:
    state = hashlib.sha256(repr((_VERSION, *key)).encode())
    for part in texts:
        state.update(f"|{len(part)}|".encode())
        for text in part:
            raw = text.encode("utf-8", errors="surrogatepass")
            state.update(f"{len(raw)}:".encode() + raw)
    return state.hexdigest()[:32]


def _checksum(arrays: Arrays) -> np.ndarray:
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return np.frombuffer(state.digest(), np.uint8)


def _read(path: Path) -> Arrays | None:
    try:
        # Opened here: numpy leaves its own handle open when the zip is damaged.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception:  # zip, zlib and header parsing raise a dozen kinds; all mean: make it again
        return None
    stored = arrays.pop(_CHECKSUM, None)
    if stored is None or not np.array_equal(stored, _checksum(arrays)):
        return None
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    contents: dict[str, Any] = {**arrays, _CHECKSUM: _checksum(arrays)}
    buffer = io.BytesIO()
    np.savez(buffer, **contents)
    write_atomically(path, buffer.getvalue())
