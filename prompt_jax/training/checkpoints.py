"""Checkpoints of a training job: written by orbax, protected by checksums.

Orbax does the atomic commit, the background write, retention and, where the processes of a job
share a directory, sharded saving. It reads an array file with a flipped bit without an error, so a
manifest of checksums is a part of every commit, and nothing is loaded before it was verified.

In a job of several processes all of them save and restore together. Where all see one directory,
each writes and reads its shards. Otherwise process 0 writes, reads, and broadcasts what it read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.config import differences
from prompt_jax.errors import ConfigError, PromptJaxError, TrainingError
from prompt_jax.paths import is_url
from prompt_jax.training import manifest
from prompt_jax.training.manifest import Damage

_ARRAYS, _RECORD, _DRAFT = "arrays", "record", ".orbax-checkpoint-tmp"
# Orbax changes these after the manifest is written; nothing here reads them.
_IGNORED = ("_CHECKPOINT_METADATA", "commit_success.txt")
_MAX_DIFFERENCES = 12  # lines


class Saved(NamedTuple):
    """The content of a checkpoint."""

    step: int
    arrays: Any  # tree of arrays; None where none were saved
    host: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training job in one directory.

    Args:
      directory: a local or mounted directory of their own. A job of several processes saves in
        shards where all of them pass the same path and see the same files there.
      keep: how many of the newest are kept.
      every_steps: steps between checkpoints; 0: see below.
      every_seconds: seconds between checkpoints; 0: see below. Without either, a checkpoint is due
        after every development evaluation.
      restart: start from the first step when every checkpoint is damaged; otherwise that is an
        error.
      say: receives one line on damage and on resuming; None logs it as a warning.
      on_written: called in process 0, in the background, after every checkpoint.

    Raises:
      ConfigError: for impossible numbers or a URL.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        every_steps: int = 0,
        every_seconds: float = 0.0,
        restart: bool = False,
        say: Callable[[str], None] | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        if is_url(directory):
            raise ConfigError(f"checkpoints need a local directory, not {os.fspath(directory)}.")
        if keep < 1 or every_steps < 0 or every_seconds < 0:
            raise ConfigError(
                f"checkpoints: keep={keep} must be at least 1, every_steps={every_steps} and"
                f" every_seconds={every_seconds} must not be negative."
            )
        self.directory = Path(directory).absolute()  # orbax takes no relative path
        self.keep, self.every_steps, self.every_seconds = keep, every_steps, every_seconds
        self.restart = restart
        self.say = say or logging.getLogger("prompt_jax").warning
        self.on_written = on_written
        self._last = time.monotonic()
        self._manager: Any = None
        self._worker = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None

    @cached_property
    def _shared(self) -> bool:
        return distributed.share_directory(self.directory)

    def due(self, step: int, evaluated: bool) -> bool:
        """Whether a checkpoint is due.

        Args:
          step: steps done.
          evaluated: whether the development sets were just evaluated.
        """
        if not self.every_steps and not self.every_seconds:
            return evaluated
        if self.every_steps and step % self.every_steps == 0:
            return True
        return bool(self.every_seconds) and time.monotonic() - self._last >= self.every_seconds

    def save(
        self,
        step: int,
        arrays: Any,
        host: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        *,
        wait: bool = False,
    ) -> None:
        """Writes a checkpoint; the arrays are copied at once and written in the background.

        Args:
          step: its number.
          arrays: tree of arrays, whole or split over devices and processes; None for none.
          host: small JSON-able state.
          fingerprint: JSON-able description of the training that it belongs to.
          wait: return only when it is committed. One without arrays is always waited for: the
            position of the log has to be stored before the log grows.

        Raises:
          TrainingError: this or the previous checkpoint cannot be written.
          PromptJaxError: what `on_written` raised.
        """
        self.wait()
        leaves = [_copied(leaf, self._shared) for leaf in jax.tree.leaves(arrays)]
        described = None if arrays is None else _described(arrays)
        record = {"step": step, "host": host, "fingerprint": fingerprint, "leaves": described}
        if self._shared or distributed.is_main():
            try:
                self._start(step, _numbered(leaves), record)
            except Exception as error:  # orbax reports a failing disk by many types
                raise self._failed(error) from error
        self._last = time.monotonic()
        if wait or arrays is None:
            self.wait()
        if wait:
            distributed.barrier("checkpoint")

    def _start(self, step: int, leaves: dict[str, Any], record: dict[str, Any]) -> None:
        import orbax.checkpoint as ocp

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
        items = {_RECORD: ocp.args.JsonSave(json.loads(json.dumps(record)))}
        if leaves:
            items[_ARRAYS] = ocp.args.StandardSave(leaves)
        # Its errors reach the user as one message (`wait`) instead of two tracebacks in the log.
        logging.getLogger("absl").addFilter(_without_orbax)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._pending = self._worker.submit(self._finish, self._manager)

    def _processes(self) -> Any:
        import orbax.checkpoint as ocp

        # Orbax synchronises named processes through the coordinator. It would use collectives for
        # all of them, which come between the programs of the training step.
        active = set(range(jax.process_count())) if self._shared else {0}
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
          TrainingError: the last checkpoint could not be written.
          PromptJaxError: what `on_written` raised.
        """
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except PromptJaxError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        manager, self._manager = self._manager, None
        with contextlib.suppress(Exception):
            manager.wait_until_finished()  # raises the error in this thread, too; once
        with contextlib.suppress(Exception):
            manager.close()
        with contextlib.suppress(OSError):
            self._clean()
        if distributed.is_peer_failure(error):
            return error
        code = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None)
        reason = reason or _first_line(error)
        return TrainingError(
            f"a checkpoint cannot be written to {self.directory} ({reason}). Earlier checkpoints"
            " are intact: make room, and run the same command again to resume from them."
        )

    def close(self) -> None:
        """Waits for what is being written and ends all threads; a later save starts others."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            self._worker = ThreadPoolExecutor(1, "checkpoints")
            manager, self._manager = self._manager, None
            if manager is not None:
                manager.close()

    def delete(self) -> None:
        """Removes the directory, in one step as far as a later start can see."""
        self.close()
        if distributed.is_main() and self.directory.is_dir():
            self._clean()
            self.directory.rename(self._doomed())
            self._clean()

    def restore(self, template: Any, fingerprint: Mapping[str, Any]) -> Saved | None:
        """The newest intact checkpoint; None where there is none.

        Damaged ones are reported, and removed where there is an older one to resume from.

        Args:
          template: tree of arrays like the one that was saved.
          fingerprint: what the checkpoint has to belong to.

        Raises:
          ConfigError: the checkpoint belongs to something else; the message shows the difference.
          TrainingError: every checkpoint is damaged and `restart` is False, or the directory
            cannot be read.
        """
        self.close()
        if not distributed.is_multiprocess():
            return self._newest(template, fingerprint)
        shared, own = self._shared, Saved(0, None, {})

        def read() -> bytes | None:
            nonlocal own
            newest = self._newest(template, fingerprint, load=not shared)
            own = newest or own
            return newest and json.dumps([own.step, own.arrays is not None, own.host]).encode()

        raw = distributed.on_main(read)
        if raw is None:
            return None
        step, has_arrays, host = json.loads(raw)
        if not has_arrays:
            return Saved(step, None, host)
        if not shared:
            return Saved(step, distributed.broadcast_arrays(own.arrays, template), host)
        path = self.directory / f"{step:08d}"
        try:
            return Saved(step, self._load(path, template, sharded=True), host)
        except Damage as damage:
            raise TrainingError(f"{path} is damaged: {damage}") from damage

    def _newest(
        self, template: Any, fingerprint: Mapping[str, Any], load: bool = True
    ) -> Saved | None:
        damaged: dict[Path, str] = {}
        newest = None
        try:
            for path in self._clean():
                try:
                    manifest.verify(path)
                    record = self._record(path, template, fingerprint)
                    arrays: Any = None
                    if record["leaves"] is not None:
                        arrays = self._load(path, template) if load else template
                    newest = Saved(int(record["step"]), arrays, record["host"])
                    break
                except Damage as damage:
                    damaged[path] = f"{path} is damaged: {damage}"
            if damaged and newest is None and not self.restart:
                raise TrainingError(
                    "\n".join(damaged.values())
                    + f"\nNo intact checkpoint is left. Remove {self.directory} to start from the"
                    " first step."
                )
            then = "No other is left: starting from the first step."
            if newest is not None:
                then = f"Resuming from the previous checkpoint, step {newest.step}."
            for path, line in damaged.items():
                self.say(f"{line}. {then}")
                shutil.rmtree(path)
        except OSError as error:
            raise TrainingError(
                f"the checkpoints in {self.directory} cannot be used ({error.strerror}:"
                f" {error.filename})."
            ) from error
        return newest

    def _record(self, path: Path, template: Any, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        try:
            record = dict(ocp.JsonCheckpointHandler().restore(path / _RECORD))
        except (OSError, ValueError) as error:
            raise Damage(f"{_RECORD} cannot be read ({_first_line(error)})") from error
        changed = [
            f"  {k}: {v}" for k, v in differences(record["fingerprint"], fingerprint).items()
        ]
        if changed:
            if len(changed) > _MAX_DIFFERENCES:
                changed[_MAX_DIFFERENCES:] = [f"  and {len(changed) - _MAX_DIFFERENCES} more"]
            raise ConfigError(
                f"{self.directory} holds checkpoints of other training. Undo the change, or remove"
                " the directory to start from the first step.\n" + "\n".join(changed)
            )
        if record["leaves"] not in (None, _described(template)):
            raise ConfigError(
                f"{path} holds other arrays than this version of prompt_jax saves. Remove it to"
                " start from the first step."
            )
        return record

    def _load(self, path: Path, template: Any, sharded: bool = False) -> Any:
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(template)
        wanted = [
            leaf if sharded and not _is_local(leaf) else np.zeros(leaf.shape, leaf.dtype)
            for leaf in leaves
        ]
        try:
            with ocp.StandardCheckpointer(multiprocessing_options=self._processes()) as reader:
                stored = (
                    reader.restore(path / _ARRAYS, _numbered(wanted)) if _numbered(wanted) else {}
                )
        except Exception as error:  # orbax raises anything, bare Exception included
            raise Damage(f"arrays cannot be read ({_first_line(error)})") from error
        return jax.tree.unflatten(
            structure, [stored.get(f"{i:05d}", x) for i, x in enumerate(wanted)]
        )

    def _clean(self) -> list[Path]:
        """Removes what a killed process left unfinished; the checkpoints, newest first."""
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


def _described(arrays: Any) -> list[list[Any]]:
    keyed = jax.tree_util.tree_leaves_with_path(arrays)
    return [[jax.tree_util.keystr(key), list(np.shape(x)), str(x.dtype)] for key, x in keyed]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
