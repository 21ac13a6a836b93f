"""Atomic writing of files, and the cache folder."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def user_cache() -> Path:
    """The user's cache folder for this library (XDG_CACHE_HOME, or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "prompt_jax"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an fsspec URL such as gs://bucket/file.

    >>> is_url("gs://bucket/prompt.safetensors"), is_url("prompts/rte.safetensors")
    (True, False)
    """
    return "://" in os.fspath(path)


def write_atomically(path: str | os.PathLike[str], raw: bytes) -> None:
    """Writes a file atomically: a reader sees the old content or all of the new content.

    A local file is also flushed to disk first. For an fsspec URL, atomicity depends on the store:
    object stores show an object only once it is complete.

    Args:
      path: local path (its folders are created) or fsspec URL.
      raw: the whole content.

    Raises:
      OSError: the file cannot be written; no partial file remains.
    """
    if is_url(path):
        import fsspec

        system, inner = fsspec.core.url_to_fs(os.fspath(path))
        system.pipe_file(inner, raw)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
