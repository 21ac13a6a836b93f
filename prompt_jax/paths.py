"""Atomic writing of files, and the folders of caches."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import uuid
from pathlib import Path


def home() -> Path | None:
    """The user's home folder; None where there is none, as for a user id without an entry."""
    if (named := os.environ.get("HOME", "")) and os.path.isabs(named):
        return Path(named)
    try:
        import pwd

        found = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):  # ImportError: not a POSIX system
        found = os.path.expanduser("~")
    return Path(found) if os.path.isabs(found) else None


def user_cache() -> Path:
    """The user's cache folder for this library: XDG_CACHE_HOME, or ~/.cache.

    A folder of the temporary directory where neither can be written; a line in the log says so. As
    the XDG specification asks, a relative XDG_CACHE_HOME is ignored.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    known = home()
    base = Path(named) if os.path.isabs(named) else None if known is None else known / ".cache"
    if base is not None and _is_writable(base / "prompt_jax"):
        return base / "prompt_jax"
    user = os.getuid() if hasattr(os, "getuid") else ""
    made = Path(tempfile.gettempdir()) / f"prompt_jax-{user}"
    _warn_of_cache("there is no home folder" if base is None else f"{base} cannot be written", made)
    return made


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, StopIteration):  # a folder that nobody may enter
        return False
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


@functools.cache
def _warn_of_cache(why: str, made: Path) -> None:
    logging.getLogger("prompt_jax").warning(
        f"{why}: the cache is {made}. Set HOME or XDG_CACHE_HOME to a folder of yours to keep it."
    )


def hub_cache() -> Path:
    """The cache of the Hugging Face hub; inside this library's where that cannot be made."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if not HF_HUB_CACHE.startswith("~"):  # the hub's own rule without a home folder
        folder = Path(HF_HUB_CACHE)
        if os.path.isdir(folder) or _is_writable(folder):
            return folder
    return user_cache() / "hub"


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
    except OSError as error:
        if error.errno is not None:  # with it the message names the file
            error.filename = os.fspath(path)  # the temporary name tells nobody anything
        raise
    finally:
        temporary.unlink(missing_ok=True)
