"""Checkpoints of training in progress: written as a whole, checked by their own checksums.

A checkpoint is a directory named after its step: arrays in orbax's format under `arrays/`, and
`manifest.json` with everything else and the SHA-256 of every file. Orbax accepts an array file with
a flipped bit, so nothing is loaded before its checksum was compared. A checkpoint is written beside
its place and moved there when all of it is on the disk: a kill at any moment leaves the earlier
ones.

In a job of several processes all of them save and restore together: process 0 writes (plain bytes
instead of orbax's format), reads, and tells the others what it read: they need not see its disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.errors import ConfigError, PromptJaxError, TrainingError
from prompt_jax.paths import is_url

FORMAT = 1
MANIFEST = "manifest.json"
RAW = "arrays.bin"  # of a job of several processes: the bytes of the arrays, one after the other
_SPARE = 1 << 20  # bytes beyond the arrays: indices of the format, manifest

_SHOWN = 12  # lines of a difference


class Saved(NamedTuple):
    """What a checkpoint held."""

    step: int
    arrays: Any  # tree of numpy arrays; None where none were saved
    host: dict[str, Any]


class _Damage(Exception):
    """A checkpoint that cannot be used, and why: names the file."""


class Checkpoints:
    """The checkpoints of one training job in one directory.

    Args:
      directory: a local directory of their own.
      keep: how many of the newest are kept.
      every_steps: steps between checkpoints; 0: see below.
      every_seconds: seconds between checkpoints; 0: see below. Without either, a checkpoint is due
        after every development evaluation.
      restart: begin again from the first step when every checkpoint is damaged; otherwise that is
        an error.
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
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def due(self, step: int, evaluated: bool) -> bool:
        """Whether a checkpoint is due after `step` steps.

        Args:
          step: steps done.
          evaluated: whether the development sets were just read.
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
          fingerprint: JSON-able description of what the arrays belong to.
          wait: return only when it is on the disk.

        Raises:
          TrainingError: this or the checkpoint before cannot be written.
          PromptJaxError: what `on_written` raised.
        """
        self.wait()
        leaves = None
        if arrays is not None:
            # Copies: the programs of the next step write into the buffers they are given.
            leaves = {
                jax.tree_util.keystr(path): distributed.to_host(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
            }
        record = {"format": FORMAT, "step": step, "host": host, "fingerprint": fingerprint}
        if distributed.is_main():
            self._worker = self._worker or ThreadPoolExecutor(1, "checkpoints")
            self._pending = self._worker.submit(self._write, step, leaves, json.dumps(record))
        self._last = time.monotonic()
        if arrays is None:
            self.wait()  # where the log stands has to be known before it grows
        if wait:
            self.wait()
            distributed.barrier("checkpoint")

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
          TrainingError: the last checkpoint could not be written.
          PromptJaxError: what `on_written` raised.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except PromptJaxError:
            raise
        except Exception as error:  # orbax reports a failing disk by many types
            why = error.strerror if isinstance(error, OSError) else None
            raise TrainingError(
                f"a checkpoint cannot be written to {self.directory}"
                f" ({why or _first_line(error)}). Those that were written before are intact: make"
                " room, and run the same command again to go on from them."
            ) from error

    def close(self) -> None:
        """Waits for what is being written and ends the thread; a later save starts another."""
        try:
            self.wait()
        finally:
            if self._worker is not None:
                self._worker.shutdown()
                self._worker = None

    def delete(self) -> None:
        """Removes the directory, in one step as far as a later start can see."""
        self.close()
        if distributed.is_main() and self.directory.is_dir():
            _remove(self.directory)

    def restore(self, template: Any, fingerprint: Mapping[str, Any]) -> Saved | None:
        """The newest checkpoint that is whole; None where there is none.

        Damaged ones are reported and removed when there is an older one to go on from.

        Args:
          template: tree of arrays, or of their shapes and types, like the one that was saved.
          fingerprint: what the checkpoint has to belong to.

        Raises:
          ConfigError: the checkpoint belongs to something else; the message shows the difference.
          TrainingError: every checkpoint is damaged and `restart` is False, or the directory
            cannot be read.
        """
        self.wait()
        if not distributed.is_multiprocess():
            return self._restore(template, fingerprint)
        found: list[Saved | None] = []

        def read() -> bytes | None:
            found.append(self._restore(template, fingerprint))
            return None if found[0] is None else _packed(found[0])

        raw = distributed.on_main(read)
        if found or raw is None:
            return found[0] if found else None
        return _unpacked(raw, template)

    def _restore(self, template: Any, fingerprint: Mapping[str, Any]) -> Saved | None:
        damaged: list[tuple[Path, str]] = []
        try:
            for path in self._found():
                try:
                    record = _verified(path)
                    self._check(record["fingerprint"], fingerprint)
                    arrays = _load(path, record, template)
                except _Damage as damage:
                    damaged.append((path, f"{path} is damaged: {damage}"))
                    continue
                step = int(record["step"])
                for bad, line in damaged:
                    self.say(f"{line}. Going on from the checkpoint before, of step {step}.")
                    _remove(bad)
                return Saved(step, arrays, record["host"])
            if damaged and not self.restart:
                raise TrainingError(
                    "\n".join(line for _, line in damaged)
                    + f"\nNo checkpoint is left to go on from. Remove {self.directory} to begin"
                    " again from the first step."
                )
            for bad, line in damaged:
                self.say(f"{line}. No other is left: beginning again from the first step.")
                _remove(bad)
        except OSError as error:
            raise TrainingError(
                f"the checkpoints in {self.directory} cannot be used ({error.strerror}:"
                f" {error.filename})."
            ) from error
        return None

    def _found(self) -> list[Path]:
        """Paths of the checkpoints, newest first; removes what a kill left half done."""
        shutil.rmtree(_doomed(self.directory), ignore_errors=True)
        if not self.directory.is_dir():
            return []
        for path in self.directory.glob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            else:  # of a small file that is written here, too, such as who the members are
                path.unlink()
        found = [p for p in self.directory.iterdir() if p.name.isdigit() and p.is_dir()]
        return sorted(found, key=lambda p: int(p.name), reverse=True)

    def _check(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        a, b = _flat(old), _flat(json.loads(json.dumps(new)))
        changed = [
            f"  {key}: {a.get(key, '(absent)')} -> {b.get(key, '(absent)')}"
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        ]
        if changed:
            if len(changed) > _SHOWN:
                changed[_SHOWN:] = [f"  and {len(changed) - _SHOWN} more"]
            raise ConfigError(
                f"{self.directory} holds checkpoints of other training. Undo the change, or remove"
                " the directory to begin again.\n" + "\n".join(changed)
            )

    def _write(self, step: int, leaves: dict[str, np.ndarray] | None, record: str) -> None:
        final = self.directory / f"{step:08d}"
        draft = self.directory / f".{final.name}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            _fill(draft, leaves, json.loads(record))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        if final.exists():
            _remove(final)
        draft.rename(final)
        _flush(self.directory)
        for old in self._found()[self.keep :]:
            _remove(old)
        if self.on_written is not None:
            self.on_written()


def _fill(folder: Path, leaves: dict[str, np.ndarray] | None, record: dict[str, Any]) -> None:
    """Writes arrays and manifest, and sees them onto the disk."""
    record["leaves"] = leaves and [
        [name, list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves.items()
    ]
    # Orbax saves no array without elements, and its names are parts of paths.
    numbered = {f"{i:05d}": leaf for i, leaf in enumerate((leaves or {}).values()) if leaf.size}
    if numbered and distributed.is_multiprocess():
        # Orbax would have all processes take part, from a thread, amid the programs of the step.
        with (folder / RAW).open("wb") as file:
            for leaf in numbered.values():
                file.write(np.ascontiguousarray(leaf).tobytes())
    elif numbered:
        from orbax.checkpoint import v1 as ocp

        needed = sum(leaf.nbytes for leaf in numbered.values()) + _SPARE
        if shutil.disk_usage(folder).free < needed:  # orbax's own threads would hang on
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        ocp.save(folder / "arrays", numbered)
    record["files"] = {path.relative_to(folder).as_posix(): _seal(path) for path in _files(folder)}
    body = json.dumps(record).encode()
    manifest = folder / MANIFEST
    manifest.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    _seal(manifest)
    for inside in (p for p in folder.rglob("*") if p.is_dir()):
        _flush(inside)
    _flush(folder)


def _verified(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as they were written."""
    try:
        line, _, body = (path / MANIFEST).read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise _Damage(f"{MANIFEST} is missing") from None
    if hashlib.sha256(body).hexdigest().encode() != line:
        raise _Damage(f"{MANIFEST} does not match its checksum")
    try:
        record = json.loads(body)
        if record["format"] != FORMAT:
            raise ConfigError(
                f"{path} was written by another version of prompt_jax (format"
                f" {record['format']}, not {FORMAT}). Remove it to begin again."
            )
        listed = dict(record["files"])
        record = {key: record[key] for key in ("step", "host", "fingerprint", "leaves")}
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _Damage(f"{MANIFEST} is no manifest") from None
    there = {file.relative_to(path).as_posix(): file for file in _files(path)}
    for name in sorted(listed):
        if name not in there:
            raise _Damage(f"{name} is missing")
        if _sha256(there[name]) != listed[name]:
            raise _Damage(f"{name} does not match its checksum")
    return record


def _load(path: Path, record: dict[str, Any], template: Any) -> Any:
    """The arrays of a checkpoint that was found intact, as a tree like `template`."""
    described = record["leaves"]
    if described is None:
        return None
    keyed, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = [[jax.tree_util.keystr(k), list(np.shape(x)), str(x.dtype)] for k, x in keyed]
    if described != expected:
        raise ConfigError(
            f"{path} holds other arrays than this version of prompt_jax saves. Remove it to begin"
            " again."
        )
    if (path / RAW).is_file():
        return _from_bytes((path / RAW).read_bytes(), template)
    arrays: Mapping[str, Any] = {}
    if any(np.prod(shape) for _, shape, _ in described):
        if distributed.is_multiprocess():
            raise ConfigError(
                f"{path} was written by one process: go on with one, or remove {path.parent}."
            )
        from orbax.checkpoint import v1 as ocp

        try:
            arrays = ocp.load(path / "arrays")
        except Exception as error:  # orbax raises anything, bare Exception included
            raise _Damage(f"arrays cannot be read ({_first_line(error)})") from error
    leaves = [
        arrays.get(f"{i:05d}", np.zeros(shape, np.dtype(leaf.dtype)))
        for i, ((_, shape, _), (_, leaf)) in enumerate(zip(described, keyed, strict=True))
    ]
    return jax.tree.unflatten(structure, leaves)


def _packed(saved: Saved) -> bytes:
    """A checkpoint as one piece, to be sent."""
    leaves = None if saved.arrays is None else jax.tree.leaves(saved.arrays)
    head = json.dumps({"step": saved.step, "host": saved.host, "arrays": leaves is not None})
    return head.encode() + b"\n" + b"".join(np.ascontiguousarray(x).tobytes() for x in leaves or ())


def _unpacked(raw: bytes, template: Any) -> Saved:
    """What was packed, for arrays of the shapes and types of a template."""
    head, _, rest = raw.partition(b"\n")
    record = json.loads(head)
    if not record["arrays"]:
        return Saved(record["step"], None, record["host"])
    return Saved(record["step"], _from_bytes(rest, template), record["host"])


def _from_bytes(raw: bytes, template: Any) -> Any:
    """A tree of arrays like a template from their bytes, one after the other."""
    leaves, at = [], 0
    flat, structure = jax.tree.flatten(template)
    for leaf in flat:
        kind, count = np.dtype(leaf.dtype), int(np.prod(leaf.shape))
        leaves.append(np.frombuffer(raw, kind, count, at).reshape(leaf.shape))
        at += count * kind.itemsize
    return jax.tree.unflatten(structure, leaves)


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(path: Path) -> str:
    """The checksum of a file that is now on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    """Sees the entries of a directory onto the disk, where the system lets us."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:
        pass
    finally:
        os.close(number)


def _remove(folder: Path) -> None:
    """Removes a directory; a kill half way leaves only what the next start clears away."""
    gone = _doomed(folder)
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _doomed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old.tmp")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for key in tree for k, v in _flat(tree[key], f"{prefix}{key}.").items()}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
