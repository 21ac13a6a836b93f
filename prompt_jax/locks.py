"""A lock file that ends with the process that holds it.

The operating system drops the lock (`flock`) when its process ends, however it ends, so a file that
was left behind locks nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from prompt_jax.errors import ConfigError

NAME = ".lock"
"""Name of the file in a directory that one process at a time may write to."""

# What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class FileLock:
    """A lock on a file; at most one process, and one holder within it, has it.

    Args:
      path: the lock file; its folder exists. It is removed on release.
      what: what is locked, for messages.
    """

    def __init__(self, path: Path, what: str | os.PathLike[str]) -> None:
        self.path, self.what = path, os.fspath(what)
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock, unless it is held here already.

        Where the file system has no locks, a warning says so, and nothing is locked.

        Raises:
          ConfigError: another process holds it.
          OSError: the file cannot be made.
        """
        while self._file is None:
            file = self.path.open("a+", encoding="utf-8")
            try:
                _lock(file, self.what)
                if not _is_same(file, self.path):  # its holder has removed it in between
                    continue
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()} since {_now()}")
                file.flush()
                self._file, file = file, None  # type: ignore[assignment]
            finally:
                if file is not None:
                    file.close()

    def release(self) -> None:
        """Gives the lock back and removes the file."""
        file, self._file = self._file, None
        if file is not None:
            with file:  # removed while it is locked: nobody locks a file that is gone
                self.path.unlink(missing_ok=True)


def check_free(path: Path, what: str | os.PathLike[str]) -> None:
    """Checks that no process holds a lock file; makes none.

    Args:
      path: the lock file.
      what: what is locked, for messages.

    Raises:
      ConfigError: a process holds it.
    """
    try:
        with path.open("r+", encoding="utf-8") as file:
            _lock(file, os.fspath(what), warn=False)
    except OSError:  # there is none, or it is not ours to open
        return


def _lock(file: IO[str], what: str, warn: bool = True) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        raise ConfigError(
            f"{what} is being written by {holder}. Wait for it, stop it, or write to"
            " another directory."
        ) from None
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        if warn:
            logging.getLogger("prompt_jax").warning(
                f"{what}: this file system has no locks. Do not start the same command twice."
            )


def _is_same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
