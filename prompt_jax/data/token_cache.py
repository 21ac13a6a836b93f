"""Token ids on disk: one sealed file per hash of texts, vocabulary and lengths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from prompt_jax import store
from prompt_jax.errors import DataError

Arrays = dict[str, np.ndarray]

# Raise when the arrays or the way they are truncated change.
_VERSION = 1
_LONGEST = 100  # characters of the name that is for people; a file name has at most 255


def cached(
    cache_dir: str | Path | None,
    *,
    name: str,
    key: tuple[str | int, ...],
    texts: Sequence[Sequence[str]],
    make: Callable[..., Arrays],
) -> Arrays:
    """Returns `make(*texts)`, from the cache if it is there and whole.

    Args:
      cache_dir: folder of the cache; None: always make.
      name: leading part of the file name, for people.
      key: everything besides the texts that the arrays depend on.
      texts: the lists of texts that are tokenised.
      make: gives the arrays.

    Raises:
      DataError: if the cache folder cannot be written.
    """
    if cache_dir is None:
        return make(*texts)
    label = re.sub(r"[^A-Za-z0-9_\-]+", "_", name)[:_LONGEST]
    path = Path(cache_dir) / f"{label}-{_digest(key, texts)}.safetensors"
    entry = store.read(path)
    if entry is not None:
        return entry.arrays
    arrays = make(*texts)
    try:
        store.write(path, {}, arrays)
    except OSError as error:
        raise DataError(
            f"the cache folder '{cache_dir}' cannot be written ({error.strerror}). Choose another "
            "with data.cache=DIR, or data.cache= for none."
        ) from None
    return arrays


def _digest(key: tuple[str | int, ...], texts: Sequence[Sequence[str]]) -> str:
    state = hashlib.sha256(repr((_VERSION, *key)).encode())
    for part in texts:
        state.update(f"|{len(part)}|".encode())
        for text in part:
            raw = text.encode("utf-8", errors="surrogatepass")
            state.update(f"{len(raw)}:".encode() + raw)
    return state.hexdigest()[:32]
