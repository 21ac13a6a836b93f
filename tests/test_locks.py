"""Lock files: one holder at a time, nothing stale, and file systems without locks."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from prompt_jax import locks, store
from prompt_jax.errors import ConfigError
from prompt_jax.locks import FileLock, check_free

fcntl = pytest.importorskip("fcntl")


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / ".lock"
    first, second = FileLock(path, "runs/toy"), FileLock(path, "runs/toy")
    first.acquire()
    first.acquire()  # it is held
    message = rf"runs/toy is being written by process {os.getpid()} on .* since .*another directory"
    for ask in (second.acquire, lambda: check_free(path, "runs/toy")):
        with pytest.raises(ConfigError, match=message):
            ask()
    first.release()
    assert not path.exists()
    check_free(path, "runs/toy")
    assert not path.exists()  # asking leaves nothing
    second.acquire()
    second.release()
    second.release()


def test_a_file_that_was_left_behind_locks_nothing(tmp_path):
    """As of a process that was killed: the system has dropped its lock."""
    path = tmp_path / ".lock"
    path.write_text("process 1 on another machine since long ago, with a longer line than the next")
    check_free(path, "x")
    lock = FileLock(path, "x")
    lock.acquire()
    assert path.read_text().startswith(f"process {os.getpid()} ")
    assert "long ago" not in path.read_text()
    lock.release()


def test_a_lock_that_is_removed_while_another_process_opens_it(tmp_path, monkeypatch):
    """A lock on a file that is gone would be one of two."""
    path = tmp_path / ".lock"
    lock = FileLock(path, "x")
    take, times = fcntl.flock, []

    def late(file, operation):
        take(file, operation)
        times.append(1)
        if len(times) == 1:
            path.unlink()  # its holder released it in between

    monkeypatch.setattr(fcntl, "flock", late)
    lock.acquire()
    assert len(times) == 2
    monkeypatch.undo()
    with pytest.raises(ConfigError):
        FileLock(path, "x").acquire()
    lock.release()


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = FileLock(tmp_path / ".lock", "runs/toy")
    lock.acquire()
    check_free(lock.path, "runs/toy")
    assert caplog.messages == [
        "runs/toy: this file system has no locks. Do not start the same command twice."
    ]
    lock.release()
    assert not lock.path.exists()


def test_another_failure_of_the_disk_is_no_missing_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        FileLock(tmp_path / ".lock", "x").acquire()


def test_writers_of_one_shared_file_both_end_well(tmp_path):
    """Stored runs, token caches and archives: whoever is last wins, a reader sees one of them."""
    path, failed = tmp_path / "entry.safetensors", []

    def write(number):
        try:
            for _ in range(20):
                store.write(path, {"number": number}, {})
                assert store.read(path).facts["number"] in (1, 2)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert locks.NAME == ".lock"
