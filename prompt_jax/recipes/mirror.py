"""A copy of a run directory at a URL, which fsspec writes.

Object stores can neither append to a log nor rename a directory, so a run works in a local folder,
and `push` copies what changed. A checkpoint's manifest is sent after its files and the logs, and
deletions come last: a kill in the middle of an upload leaves an older state that is intact.

`.owner` at the URL names the local folder that wrote there last. `fetch` keeps a local folder with
the same mark and replaces another one; `push` refuses to write over the mark of another process.
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
from prompt_jax.training import manifest

TRAINED = "trained"  # finished stages of a run without a cache of its own
_CHECKPOINTS = "checkpoints/"
_FIXED = (
    _CHECKPOINTS,
    f"{TRAINED}/",
)  # files below never change; others may grow while they are read


class Mirror:
    """Copies a local folder to a URL; for one process.

    Args:
      url: any fsspec URL.

    Attributes:
      url: where the copy is.
      folder: the local folder.
    """

    def __init__(self, url: str) -> None:
        self.url, self.folder = url, staging(url)
        self._system: Any = None
        self._root = self._mark = self._last_mark = ""
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of the copied file, by name
        self._remote: set[str] = set()

    def fetch(self) -> None:
        """Copies the URL to the local folder, unless this folder was the last to write there.

        Raises:
          ConfigError: no file system of fsspec knows the URL, or it is no run directory's.
          TrainingError: it cannot be read.
        """
        with self._one_message("read"):
            self._system, self._root = _connect(self.url)
            self._system.invalidate_cache()
            self._remote, self._last_mark = self._names(), self._owner()
            with suppress(FileNotFoundError):
                self._mark = (self.folder / OWNER).read_text("utf-8")
            if self._mark and self._mark == self._last_mark:
                return
            if self._remote:
                if CONFIG not in self._remote:
                    raise ConfigError(
                        f"{self.url} is not empty and is no run directory. Choose another out="
                    )
                shutil.rmtree(self.folder, ignore_errors=True)
                names = sorted(self._remote)
                self._system.get(self._paths(names), [str(self.folder / name) for name in names])
                self._sent, self._mark = dict(_files(self.folder)), ""
            if not self._mark:
                # Only now: a folder without a mark, such as a half fetched one, is replaced.
                self._mark = uuid.uuid4().hex
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / OWNER).write_text(self._mark, "utf-8")

    def push(self) -> None:
        """Copies the files that changed since the last call; removes deleted checkpoints.

        Raises:
          TrainingError: the URL cannot be written, or another process has written there.
        """
        local = dict(_files(self.folder))
        with self._one_message("written"):
            self._claim()
            changed = [name for name, stamp in local.items() if self._sent.get(name) != stamp]
            for phase in (0, 1, 2):
                self._send([name for name in sorted(changed) if _phase(name) == phase])
            self._sent |= {name: local[name] for name in changed}
            self._remote |= set(changed)
            # Nothing else is removed: a file of the user may lie beside them. A population's list
            # of members goes first: without it its checkpoints are not used.
            gone = {n for n in self._remote if n.startswith(_CHECKPOINTS)} - local.keys()
            for name in sorted(gone, key=lambda n: (n.count("/"), -_phase(n))):
                with suppress(FileNotFoundError):
                    self._system.rm_file(*self._paths([name]))
                self._remote.discard(name)
                self._sent.pop(name, None)

    def _claim(self) -> None:
        owner = self._owner()
        if owner not in ("", self._mark, self._last_mark):
            raise TrainingError(
                f"{self.url} was written by another process since this one started, so this one"
                f" stops. Its local copy is {self.folder}."
            )
        if not owner and self._last_mark:  # somebody has emptied it
            self._sent.clear()
            self._remote.clear()
        if owner != self._mark:
            self._system.pipe(*self._paths([OWNER]), self._mark.encode())
        self._last_mark = self._mark

    def _owner(self) -> str:
        try:
            return bytes(self._system.cat_file(*self._paths([OWNER]))).decode("ascii", "replace")
        except FileNotFoundError:
            return ""

    def _send(self, names: list[str]) -> None:
        fixed = [name for name in names if name.startswith(_FIXED)]
        for name in names:
            if name not in fixed:
                with suppress(FileNotFoundError):
                    self._system.pipe(*self._paths([name]), (self.folder / name).read_bytes())
        if fixed:
            self._system.put([str(self.folder / name) for name in fixed], self._paths(fixed))

    def _names(self) -> set[str]:
        """Names of the files at the URL.

        Raises:
          ConfigError: a name would leave the run directory.
        """
        from fsspec.implementations.local import LocalFileSystem

        root = self._root.rstrip("/") + "/"
        names = set()
        with suppress(FileNotFoundError):
            for path in map(str, self._system.find(self._root)):
                name = path.removeprefix(root)
                inside = path.startswith(root) and (_stays(name) or path.endswith("/"))
                if inside and isinstance(self._system, LocalFileSystem):  # links
                    inside = Path(path).resolve().is_relative_to(Path(root).resolve())
                if not inside:
                    raise ConfigError(
                        f"{self.url} holds '{path}', which leaves the run directory. Remove it, or"
                        " choose another out="
                    )
                names.add(name)
        return {name for name in names if not name.endswith("/")} - {OWNER}

    def _paths(self, names: list[str]) -> list[str]:
        return [f"{self._root.rstrip('/')}/{name}" for name in names]

    @contextmanager
    def _one_message(self, what: str) -> Iterator[None]:
        try:
            yield
        except PromptJaxError:
            raise
        except Exception as error:  # every store has types of its own
            raise TrainingError(
                f"{self.url} cannot be {what} ({_reason(error)}). Nothing is lost: this machine's"
                f" copy is {self.folder}. Put that right, and run the same command again to resume."
            ) from error


def _connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
      ConfigError: no file system has this protocol, or its package is not installed.
    """
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"out={url} cannot be used: {_reason(error)}. Install the package of its store (gcsfs"
            " for gs://, s3fs for s3://, adlfs for abfs://), or choose a directory."
        ) from error
    return LocalFileSystem(auto_mkdir=True) if isinstance(system, LocalFileSystem) else system, root


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names below a folder with size and time; neither links nor unfinished files."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_draft(name)]
        for name in files:
            path = Path(place, name)
            if name != OWNER and not _is_draft(name) and not path.is_symlink():
                with suppress(FileNotFoundError):
                    seen = path.stat()
                    yield path.relative_to(folder).as_posix(), (seen.st_size, seen.st_mtime_ns)


def _is_draft(name: str) -> bool:
    return "orbax-checkpoint-tmp" in name or (name.startswith(".") and name.endswith(".tmp"))


def _stays(name: str) -> bool:
    r"""Whether a name means a file below its folder, on every system.

    >>> [_stays(name) for name in ("a/b", "../a", "/a", "a//b", "c:a", "a\\..\\b")]
    [True, False, False, False, False, False]
    """
    parts = name.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in name or PureWindowsPath(name).drive)


def _phase(name: str) -> int:
    """The config, which makes a folder a run directory, first; manifests of checkpoints last."""
    return 0 if name == CONFIG else 2 if name.endswith(f"/{manifest.NAME}") else 1


def _reason(error: Exception) -> str:
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0].rstrip(".")
    return why if isinstance(error, OSError) and why else f"{type(error).__name__}: {why}"
