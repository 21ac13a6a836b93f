"""Checkpoints of a training job: when one is due, which one is resumed from, what is damaged.

Orbax writes and commits them (commits.py). It reads an array file with a flipped bit without an
error, so nothing is loaded before the manifest of its checksums was verified.

In a job of several processes all of them save and restore together. Where all see one directory,
each writes and reads its shards. Otherwise process 0 writes, reads, and broadcasts what it read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.config import differences
from prompt_jax.errors import ConfigError, PromptJaxError, TrainingError
from prompt_jax.paths import is_url
from prompt_jax.training import manifest
from prompt_jax.training.commits import Commits, read_record, reason_of
from prompt_jax.training.manifest import Damage

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
            raise ConfigError(
                f"checkpoints need a local or mounted directory, not {os.fspath(directory)}: an"
                " object store cannot move a checkpoint into place in one step. Run with out=URL,"
                " which copies each one there when it is whole."
            )
        if keep < 1 or every_steps < 0 or every_seconds < 0:
            raise ConfigError(
                f"checkpoints: keep={keep} must be at least 1, every_steps={every_steps} and"
                f" every_seconds={every_seconds} must not be negative."
            )
        self.directory = Path(directory).absolute()  # orbax takes no relative path
        self.keep, self.every_steps, self.every_seconds = keep, every_steps, every_seconds
        self.restart = restart
        self.say = say or logging.getLogger("prompt_jax").warning
        self._last = time.monotonic()
        self._commits = Commits(self.directory, keep, on_written)

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
        leaves = self._commits.copy(arrays)
        described = None if arrays is None else _described(arrays)
        record = {"step": step, "host": host, "fingerprint": fingerprint, "leaves": described}
        try:
            self._commits.start(step, leaves, record)
        except Exception as error:  # orbax reports a failing disk by many types
            raise self._failed(error) from error
        self._last = time.monotonic()
        if wait or arrays is None:
            self.wait()
        if wait:
            distributed.barrier("checkpoint")

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
          TrainingError: the last checkpoint could not be written.
          PromptJaxError: what `on_written` raised.
        """
        try:
            self._commits.wait()
        except PromptJaxError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        self._commits.give_up()
        if distributed.is_peer_failure(error):
            return error
        return TrainingError(
            f"a checkpoint cannot be written to {self.directory} ({reason_of(error)}). Earlier"
            " checkpoints are intact: make room, and run the same command again to resume from"
            " them."
        )

    def close(self) -> None:
        """Waits for what is being written and ends all threads; a later save starts others."""
        try:
            self.wait()
        finally:
            self._commits.close()

    def delete(self) -> None:
        """Removes the directory, in one step as far as a later start can see."""
        self.close()
        if distributed.is_main() and self.directory.is_dir():
            self._commits.delete()

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
        shared, own = self._commits.shared, Saved(0, None, {})

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
        path = self._commits.path(step)
        try:
            return Saved(step, self._commits.load(path, template, sharded=True), host)
        except Damage as damage:
            raise TrainingError(f"{path} is damaged: {damage}") from damage

    def _newest(
        self, template: Any, fingerprint: Mapping[str, Any], load: bool = True
    ) -> Saved | None:
        damaged: dict[Path, str] = {}
        newest = None
        try:
            for path in self._commits.clean():
                try:
                    manifest.verify(path)
                    record = self._record(path, template, fingerprint)
                    arrays: Any = None
                    if record["leaves"] is not None:
                        arrays = self._commits.load(path, template) if load else template
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
        record = read_record(path)
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


def _described(arrays: Any) -> list[list[Any]]:
    keyed = jax.tree_util.tree_leaves_with_path(arrays)
    return [[jax.tree_util.keystr(key), list(np.shape(x)), str(x.dtype)] for key, x in keyed]
