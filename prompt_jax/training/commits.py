"""One checkpoint on the disk: what orbax commits, and how it is read and cleared away.

Orbax does the atomic commit, the background write, retention and, where the processes of a job
share a directory, sharded saving. A manifest of checksums becomes a part of every commit.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.training import manifest
from prompt_jax.training.manifest import Damage

RECORD = "record"
_ARRAYS, _DRAFT = "arrays", ".orbax-checkpoint-tmp"
# Orbax changes these after the manifest is written; nothing here reads them.
_IGNORED = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Commits:
    """The commits of one directory; one is written at a time.

    Args:
      directory: absolute.
      keep: how many of the newest are kept.
      on_written: called in process 0, in the background, after every commit.
    """

    def __init__(
        self, directory: Path, keep: int, on_written: Callable[[], None] | None = None
    ) -> None:
        self.directory, self.keep, self.on_written = directory, keep, on_written
        self._manager: Any = None
        self._worker = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None

    @cached_property
    def shared(self) -> bool:
        """Whether the processes of the job see one directory; all have to ask."""
        return distributed.share_directory(self.directory)

    def copy(self, arrays: Any) -> list[Any]:
        """Copies of arrays, whole or split over devices and processes; all have to call it."""
        return [_copied(leaf, self.shared) for leaf in jax.tree.leaves(arrays)]

    def start(self, step: int, leaves: list[Any], record: dict[str, Any]) -> None:
        """Begins to write, in the processes that do.

        Args:
          step: number of the commit; one of this number is replaced.
          leaves: what `copy` returned.
          record: JSON-able.

        Raises:
          Exception: what orbax raises where the disk fails; of many types.
        """
        import orbax.checkpoint as ocp

        if not self.shared and not distributed.is_main():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = self._manager or ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self.keep,
                step_format_fixed_length=8,
                create=False,
                save_root_metadata=False,
                lightweight_initialize=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._before_commit),
                multiprocessing_options=self._processes(),
            ),
        )
        if step in self._manager.all_steps():
            self._manager.delete(step)
        items = {RECORD: ocp.args.JsonSave(json.loads(json.dumps(record)))}
        if numbered := _numbered(leaves):
            items[_ARRAYS] = ocp.args.StandardSave(numbered)
        # Its errors reach the user as one message (`wait`) instead of two tracebacks in the log.
        logging.getLogger("absl").addFilter(_without_orbax)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._pending = self._worker.submit(self._finish, self._manager)

    def _processes(self) -> Any:
        import orbax.checkpoint as ocp

        # Orbax synchronises named processes through the coordinator. It would use collectives for
        # all of them, which come between the programs of the training step.
        active = set(range(jax.process_count())) if self.shared else {0}
        return ocp.options.MultiprocessingOptions(primary_host=0, active_processes=active)

    def _before_commit(self) -> None:
        for draft in self.directory.glob(f"*{_DRAFT}*"):
            manifest.write(draft, _IGNORED)

    def _finish(self, manager: Any) -> None:
        try:
            manager.wait_until_finished()
        finally:
            logging.getLogger("absl").removeFilter(_without_orbax)
        if self.on_written is not None and distributed.is_main():
            self.on_written()

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
          Exception: what orbax or `on_written` raised.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def give_up(self) -> None:
        """After an error: ends what was being written and removes what is unfinished."""
        manager, self._manager = self._manager, None
        with contextlib.suppress(Exception):
            manager.wait_until_finished()  # raises the error in this thread, too; once
        with contextlib.suppress(Exception):
            manager.close()
        with contextlib.suppress(OSError):
            self.clean()

    def close(self) -> None:
        """Ends all threads; a later `start` makes others."""
        self._worker.shutdown()
        self._worker = ThreadPoolExecutor(1, "checkpoints")
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()

    def delete(self) -> None:
        """Removes the directory, in one step as far as a later start can see."""
        self.clean()
        self.directory.rename(self._doomed())
        self.clean()

    def clean(self) -> list[Path]:
        """Removes what a killed process left unfinished; the commits, newest first."""
        unfinished = [
            self._doomed(),
            *self.directory.glob(".*.tmp"),
            *self.directory.glob(f"*{_DRAFT}*"),
        ]
        for path in unfinished:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        steps = [path for path in self.directory.glob("*") if path.name.isdigit() and path.is_dir()]
        return sorted(steps, key=lambda path: int(path.name), reverse=True)

    def _doomed(self) -> Path:
        return self.directory.with_name(f".{self.directory.name}.old.tmp")

    def path(self, step: int) -> Path:
        """The folder of a commit."""
        return self.directory / f"{step:08d}"

    def load(self, path: Path, template: Any, sharded: bool = False) -> Any:
        """Reads the arrays of a commit.

        Args:
          path: of the commit.
          template: tree of arrays like the one that was saved.
          sharded: read only the shards of this process; all of them have to call it.

        Raises:
          Damage: they cannot be read.
        """
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(template)
        wanted = [
            leaf if sharded and not _is_local(leaf) else np.zeros(leaf.shape, leaf.dtype)
            for leaf in leaves
        ]
        numbered = _numbered(wanted)
        try:
            with ocp.StandardCheckpointer(multiprocessing_options=self._processes()) as reader:
                stored = reader.restore(path / _ARRAYS, numbered) if numbered else {}
        except Exception as error:  # orbax raises anything, bare Exception included
            raise Damage(f"arrays cannot be read ({first_line(error)})") from error
        return jax.tree.unflatten(
            structure, [stored.get(f"{i:05d}", x) for i, x in enumerate(wanted)]
        )


def read_record(path: Path) -> dict[str, Any]:
    """The record of a commit.

    Raises:
      Damage: it cannot be read.
    """
    import orbax.checkpoint as ocp

    try:
        return dict(ocp.JsonCheckpointHandler().restore(path / RECORD))
    except (OSError, ValueError) as error:
        raise Damage(f"{RECORD} cannot be read ({first_line(error)})") from error


def reason_of(error: Exception) -> str:
    """Why a disk failed, in one line; orbax hides the system's code in a long text."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None)
    return reason or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of a message, or the type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _without_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _is_local(leaf: Any) -> bool:
    """Whether every process has an array of its own."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _copied(leaf: Any, sharded: bool) -> Any:
    """A copy: the programs of the next step write into the buffers they are given."""
    return leaf.copy() if sharded and not _is_local(leaf) else distributed.to_host(leaf)


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    """Leaves by number: orbax saves no array without elements, and its names are paths."""
    return {f"{i:05d}": leaf for i, leaf in enumerate(leaves) if leaf.size}
