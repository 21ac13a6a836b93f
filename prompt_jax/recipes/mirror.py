"""A run directory at a URL: it grows in a local folder, and a mirror copies what changed.

Object stores can neither append to a log nor move a checkpoint into place, so the run works in a
staging folder of this machine. What counts for a later start is sent after what it vouches for: a
checkpoint's manifest after all of its files and the log that it points into, deletions after all
that replaces them. A kill in the middle of an upload therefore leaves an older state that is whole,
and what a store cuts off is found by the checksums that the files carry.

The URL belongs to the machine that wrote to it last, whose mark lies in `.owner`: a staging folder
with another mark is out of date and is replaced, and whoever finds another mark while it trains
stops.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from prompt_jax.errors import ConfigError, PromptJaxError, TrainingError
from prompt_jax.rundir.paths import CONFIG, OWNER, staging
from prompt_jax.training.manifest import NAME as MANIFEST

TRAINED = "trained"  # finished stages of a run without a cache of its own
_WHOLE = ("checkpoints/", f"{TRAINED}/")  # files below never change; others may grow


class Mirror:
    """Keeps a URL like a local folder; for one process alone.

    Args:
      url: any fsspec URL.

    Attributes:
      url: where the copy is.
      folder: the staging folder.
    """

    def __init__(self, url: str) -> None:
        self.url, self.folder = url, staging(url)
        self._system: Any = None
        self._root = ""
        self._id = ""
        self._claimed = False
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of what was copied, by name
        self._there: set[str] = set()

    def fetch(self) -> None:
        """Brings back what is at the URL, unless the staging folder is the one it came from.

        Raises:
          ConfigError: no file system of fsspec knows the URL, or it is no run directory's.
          TrainingError: it cannot be read.
        """
        with self._remote("read"):
            self._system, self._root = _connect(self.url)
            self._system.invalidate_cache()
            owner, self._there = self._owner(), self._names()
            with suppress(FileNotFoundError):
                self._id = (self.folder / OWNER).read_text("utf-8")
            self._claimed = bool(self._id) and owner == self._id
            if self._claimed:
                return
            if self._there:
                if CONFIG not in self._there:
                    raise ConfigError(
                        f"{self.url} is not empty and is no run directory. Choose another out="
                    )
                self._bring()
                self._id = ""
            if not self._id:
                # Only now: what was brought back by half is brought back again.
                self._id = uuid.uuid4().hex
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / OWNER).write_text(self._id, "utf-8")

    def push(self) -> None:
        """Copies what changed since the last call, and removes checkpoints that are gone.

        Raises:
          TrainingError: the URL cannot be written, or another machine has taken the run over.
        """
        local = dict(_files(self.folder))
        with self._remote("written"):
            self._claim()
            changed = [name for name, stamp in local.items() if self._sent.get(name) != stamp]
            for name in sorted(changed, key=_turn):
                if self._send(name):
                    self._sent[name] = local[name]
                    self._there.add(name)
            # Nothing else is removed: a file of the user may lie beside them.
            gone = {n for n in self._there if n.startswith("checkpoints/")} - local.keys()
            # A population's list of members first: without it its checkpoints mean nothing.
            for name in sorted(gone, key=lambda n: (n.count("/"), -_turn(n))):
                with suppress(FileNotFoundError):
                    self._system.rm_file(self._path(name))
                self._there.discard(name)
                self._sent.pop(name, None)

    def _claim(self) -> None:
        owner = self._owner() if self._claimed else None
        if owner == self._id:
            return
        if owner:
            raise TrainingError(
                f"another process goes on with {self.url}, so this one stops. What it had is in"
                f" {self.folder}."
            )
        if self._claimed:  # somebody has emptied it
            self._sent.clear()
            self._there.clear()
        self._write(OWNER, self._id.encode())
        self._claimed = True

    def _owner(self) -> str:
        try:
            return bytes(self._system.cat_file(self._path(OWNER))).decode("ascii", "replace")
        except FileNotFoundError:
            return ""

    def _names(self) -> set[str]:
        """What is at the URL, relative to it.

        Raises:
          ConfigError: a name would leave the run directory.
        """
        try:
            found = [str(path) for path in self._system.find(self._root)]
        except FileNotFoundError:
            return set()
        inside = self._root.rstrip("/") + "/"
        names = {path: path.removeprefix(inside) for path in found if not path.endswith("/")}
        for path, name in names.items():
            if not path.startswith(inside) or not _stays(name) or self._is_led_out(path):
                raise ConfigError(
                    f"{self.url} holds '{path}', which leaves the run directory. Remove it, or"
                    " choose another out="
                )
        return set(names.values()) - {OWNER}

    def _is_led_out(self, path: str) -> bool:
        """Whether links on a real disk lead elsewhere."""
        from fsspec.implementations.local import LocalFileSystem

        if not isinstance(self._system, LocalFileSystem):
            return False
        return not Path(path).resolve().is_relative_to(Path(self._root).resolve())

    def _bring(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in sorted(self._there):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._path(name), str(target))
        self._sent = dict(_files(self.folder))

    def _send(self, name: str) -> bool:
        """Whether the file was still there."""
        if not name.startswith(_WHOLE):
            try:
                raw = (self.folder / name).read_bytes()  # in one piece: it may grow meanwhile
            except FileNotFoundError:
                return False
            self._write(name, raw)
            return True
        self._make_room(name)
        self._system.put_file(str(self.folder / name), self._path(name))
        return True

    def _write(self, name: str, raw: bytes) -> None:
        self._make_room(name)
        self._system.pipe_file(self._path(name), raw)

    def _make_room(self, name: str) -> None:
        # Object stores, which are asynchronous in fsspec, have no folders; some make a bucket.
        if not self._system.async_impl:
            self._system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _remote(self, what: str) -> Iterator[None]:
        """Whatever a store raises becomes one message."""
        try:
            yield
        except PromptJaxError:
            raise
        except Exception as error:  # every store has types of its own
            raise TrainingError(
                f"{self.url} cannot be {what} ({_reason(error)}). Nothing is lost: what this"
                f" machine has is in {self.folder}. Put that right, and run the same command again"
                " to go on."
            ) from error


def _connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
      ConfigError: nobody knows the protocol, or its package is not installed.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"out={url} cannot be used: {_reason(error)}. Install the package of its store (gcsfs"
            " for gs://, s3fs for s3://, adlfs for abfs://), or choose a directory."
        ) from error
    return system, str(root)


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names below a folder with size and time; neither links nor drafts."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_draft(name)]
        for name in files:
            path = Path(place, name)
            if name == OWNER or _is_draft(name) or path.is_symlink():
                continue
            with suppress(FileNotFoundError):
                seen = path.stat()
                yield path.relative_to(folder).as_posix(), (seen.st_size, seen.st_mtime_ns)


def _is_draft(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _stays(name: str) -> bool:
    r"""Whether a name means a file below its folder, on every system.

    >>> [_stays(name) for name in ("a/b", "../a", "/a", "a//b", "c:a", "a\\..\\b")]
    [True, False, False, False, False, False]
    """
    parts = name.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in name or PureWindowsPath(name).drive)


def _turn(name: str) -> int:
    """What makes a folder a run directory comes first, what makes a checkpoint count last."""
    return 0 if name == CONFIG else 2 if name.endswith(f"/{MANIFEST}") else 1


def _reason(error: Exception) -> str:
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0].rstrip(".")
    return why if isinstance(error, OSError) and why else f"{type(error).__name__}: {why}"
