"""Checkpoints: whole or not there, every damage noticed, the one before taken instead."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import distributed
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.training import checkpoints as module
from prompt_jax.training import manifest
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import array_hash

MARK = {"budget": {"steps": 6, "rate": 0.1}, "run": {"0 (a)": {"seed": 0}}}


def tree(seed: int = 0):
    """All sorts of leaves: scalars, empty ones, several types, nested containers."""
    rng = np.random.default_rng(seed)
    return {
        "params": {"a/b": rng.normal(size=(3, 5)).astype(np.float32), "empty": np.zeros((0, 2))},
        "opt": (jnp.asarray(rng.integers(0, 9, (2,)), jnp.int32), jnp.asarray(seed % 2 == 0)),
        "half": jnp.asarray(rng.normal(size=(4,)), jnp.bfloat16),
        "nothing": (),
        "values": np.asarray([np.nan, -np.inf, -0.0], np.float32),
    }


def filled(folder, steps=(2, 4), **options):
    """A directory with a checkpoint after each of the steps."""
    made = Checkpoints(folder, **options)
    for step in steps:
        made.save(step, tree(step), {"position": step, "value": 0.1 + step}, MARK)
    made.close()
    return made


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
def test_restore_returns_what_was_saved(tmp_path):
    made = filled(tmp_path / "deep" / "er")
    saved = Checkpoints(made.directory).restore(tree(9), MARK)
    assert (saved.step, saved.host) == (4, {"position": 4, "value": 4.1})
    assert jax.tree.structure(saved.arrays) == jax.tree.structure(tree())
    assert array_hash(saved.arrays) == array_hash(tree(4))
    assert [str(x.dtype) for x in jax.tree.leaves(saved.arrays)] == [
        str(x.dtype) for x in jax.tree.leaves(tree())
    ]


def test_save_into_a_relative_directory(tmp_path, monkeypatch):
    """As `runs/NAME` is, where nobody names another one."""
    monkeypatch.chdir(tmp_path)
    made = filled(Path("runs/c"))
    assert made.restore(tree(), MARK).step == 4
    assert (tmp_path / "runs" / "c").is_dir()
    made.close()


def test_save_copies_arrays_at_once(tmp_path):
    """What the caller does to its buffers after `save` is not in the file."""
    made, mine = Checkpoints(tmp_path / "c"), tree(1)
    made.save(1, mine, {}, MARK)
    mine["params"]["a/b"][:] = 7
    made.close()
    assert array_hash(made.restore(tree(), MARK).arrays) == array_hash(tree(1))


def test_restore_from_an_empty_directory_is_none(tmp_path):
    made = Checkpoints(tmp_path / "c")
    assert made.restore(tree(), MARK) is None
    made.delete()
    made.wait()
    assert not list(tmp_path.iterdir())


def test_save_without_arrays_writes_the_record_alone(tmp_path):
    made = Checkpoints(tmp_path / "c")
    made.save(0, None, {"position": 0}, MARK, wait=True)
    assert not list(made.directory.rglob("arrays"))
    saved = made.restore(tree(), MARK)
    assert (saved.step, saved.arrays, saved.host) == (0, None, {"position": 0})
    made.save(1, {"empty": np.zeros((0, 3), np.float32)}, {}, MARK, wait=True)
    again = made.restore({"empty": np.ones((0, 3), np.float32)}, MARK)
    assert again.arrays["empty"].shape == (0, 3)
    made.close()


@pytest.mark.parametrize("keep", [1, 3])
def test_save_keeps_the_newest(tmp_path, keep):
    made = filled(tmp_path / "c", (1, 2, 3, 10), keep=keep)
    left = sorted(int(p.name) for p in made.directory.iterdir())
    assert left == [1, 2, 3, 10][-keep:]


def test_saving_a_step_again_replaces_it(tmp_path):
    made = filled(tmp_path / "c", (5,))
    made.save(5, tree(77), {"position": 1}, MARK, wait=True)
    saved = made.restore(tree(), MARK)
    assert array_hash(saved.arrays) == array_hash(tree(77))
    made.close()


def test_delete_removes_the_directory(tmp_path):
    made = filled(tmp_path / "c")
    made.delete()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "left", ["c/00000006.orbax-checkpoint-tmp", "c/.00000002.old.tmp", ".c.old.tmp"]
)
def test_restore_removes_unfinished_folders(tmp_path, left):
    made = filled(tmp_path / "c")
    half = tmp_path / left / "arrays"
    half.mkdir(parents=True)
    (half / "x").write_bytes(b"half")
    assert made.restore(tree(), MARK).step == 4
    assert not half.exists()


def test_restore_removes_unfinished_files(tmp_path):
    """Who the members are is written beside the checkpoints, through a draft that is a file."""
    made = filled(tmp_path / "c")
    half = tmp_path / "c" / ".members.json.c06d5003.tmp"
    half.write_bytes(b"half")
    assert made.restore(tree(), MARK).step == 4
    assert not half.exists()


@pytest.mark.slow
def test_save_killed_at_any_moment_leaves_an_intact_checkpoint(tmp_path):
    """Whatever file operation of Python is the last one that happens."""
    made = filled(tmp_path / "c", (2,), keep=1)
    copies, state = [], threading.local()
    names = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")

    def watch(event, arguments):
        if not watching or event not in names or getattr(state, "copying", False):
            return
        if str(made.directory) not in str(arguments[0]):
            return
        state.copying = True
        copies.append(tmp_path / f"copy{len(copies)}")
        shutil.copytree(made.directory, copies[-1], copy_function=copy_if_there)
        state.copying = False

    watching = True
    sys.addaudithook(watch)  # it cannot be removed
    made.save(4, tree(4), {"position": 4}, MARK)
    made.close()
    watching = False
    assert len(copies) > 10
    said: list[str] = []
    steps = [Checkpoints(copy, say=said.append).restore(tree(), MARK).step for copy in copies]
    assert said == []
    assert steps == sorted(steps)
    assert set(steps) == {2, 4}


def copy_if_there(source, target):
    """The background threads of orbax work on while a file is copied."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(source, target)


# Damage


def spoil(path, kind):
    content = path.read_bytes()
    if kind == "flip":
        at = len(content) // 2
        content = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    elif kind == "cut":
        content = content[:-1]
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if kind == "empty" else content)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip", "cut", "empty", "gone"])
def test_restore_skips_a_damaged_checkpoint(tmp_path, kind):
    whole = filled(tmp_path / "whole").directory
    names = [p.relative_to(whole) for p in files(whole) if p.parent.parts[-1] != "00000002"]
    names = [name for name in names if name.parts[0] == "00000004"]
    assert len(names) > 5
    unread = {"_CHECKPOINT_METADATA", "commit_success.txt"}  # orbax's own, outside of the manifest
    for name in names:
        if kind != "gone" and not (whole / name).stat().st_size:
            continue  # an empty file holds nothing to damage
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        spoil(copy / name, kind)
        said: list[str] = []
        made = Checkpoints(copy, say=said.append)
        saved = made.restore(tree(), MARK)
        if name.relative_to("00000004").as_posix() in unread:
            assert (saved.step, said) == (4, [])
            assert array_hash(saved.arrays) == array_hash(tree(4))
            shutil.rmtree(copy)
            continue
        assert saved.step == 2
        assert array_hash(saved.arrays) == array_hash(tree(2))
        (line,) = said
        inside = str(name.relative_to("00000004"))
        assert inside in line
        assert "step 2" in line
        assert "\n" not in line
        said.clear()
        assert made.restore(tree(), MARK).step == 2  # the damaged one is gone
        assert not said
        shutil.rmtree(copy)


@pytest.mark.parametrize("restart", [False, True])
def test_restore_with_every_checkpoint_damaged(tmp_path, restart):
    made = filled(tmp_path / "c")
    said: list[str] = []
    made = Checkpoints(tmp_path / "c", restart=restart, say=said.append)
    for step in (2, 4):
        spoil(made.directory / f"0000000{step}" / manifest.NAME, "flip")
    if restart:
        assert made.restore(tree(), MARK) is None
        assert len(said) == 2
        assert all("starting from the first step" in line for line in said)
        assert not list(made.directory.iterdir())
    else:
        with pytest.raises(TrainingError, match=r"(?s)00000004.*00000002.*Remove .*c to start"):
            made.restore(tree(), MARK)
        assert len(list(made.directory.iterdir())) == 2  # nothing is thrown away unasked


def forge(path, change):
    """A manifest with a right checksum that says something else."""
    record = json.loads(path.read_bytes().partition(b"\n")[2])
    body = json.dumps(change(record)).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_manifest_of_other_content_is_damage(tmp_path):
    made = filled(tmp_path / "c", (2,), restart=True, say=lambda line: None)
    for change in (lambda r: 5, lambda r: {"format": 2}, lambda r: {**r, "files": 3}):
        filled(tmp_path / "c", (2,))
        forge(made.directory / "00000002" / manifest.NAME, change)
        assert made.restore(tree(), MARK) is None


def test_manifest_names_outside_are_never_read(tmp_path):
    made = filled(tmp_path / "c", (2,), restart=True, say=lambda line: None)
    (tmp_path / "secret").write_bytes(b"x")
    forge(
        made.directory / "00000002" / manifest.NAME,
        lambda r: {
            **r,
            "files": {**r["files"], "../../secret": manifest._sha256(tmp_path / "secret")},
        },
    )
    assert made.restore(tree(), MARK) is None


def test_restore_of_arrays_that_orbax_cannot_read_is_damage(tmp_path):
    """Should the checksums hold and the format be foreign: the one before, without a traceback."""
    said: list[str] = []
    made = filled(tmp_path / "c", say=said.append)
    folder = made.directory / "00000004"
    shutil.rmtree(folder / "arrays")
    forge(folder / manifest.NAME, lambda r: {**r, "files": {}})
    assert made.restore(tree(), MARK).step == 2
    assert "arrays cannot be read" in said[0]


# What does not belong together


def test_restore_for_another_fingerprint_shows_the_difference(tmp_path):
    made = filled(tmp_path / "c")
    other = {"budget": {"steps": 9, "rate": 0.1}, "run": {"0 (b)": {"seed": 0}}}
    with pytest.raises(ConfigError) as caught:
        made.restore(tree(), other)
    lines = str(caught.value).splitlines()
    assert str(made.directory) in lines[0]
    assert lines[1:] == [
        "  budget.steps: 6 -> 9",
        "  run.0 (a).seed: 0 -> (absent)",
        "  run.0 (b).seed: (absent) -> 0",
    ]
    assert made.restore(tree(), MARK).step == 4


def test_restore_of_other_arrays_or_formats_is_refused(tmp_path):
    made = filled(tmp_path / "c")
    with pytest.raises(ConfigError, match="holds other arrays"):
        made.restore({"a": np.ones(3)}, MARK)
    forge(made.directory / "00000004" / manifest.NAME, lambda r: {**r, "format": 99})
    with pytest.raises(ConfigError, match="format 99, not 2"):
        made.restore(tree(), MARK)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every_steps": -1}, {"every_seconds": -0.5}])
def test_options_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Checkpoints(tmp_path, **wrong)


@pytest.mark.parametrize("url", ["gs://bucket/c", "memory://c"])
def test_directory_at_a_url_is_refused_with_what_to_do_instead(url):
    with pytest.raises(ConfigError, match=rf"mounted directory, not {url}: .*Run with out=URL"):
        Checkpoints(url)


# When, and what fails


def test_due_by_steps_seconds_and_evaluations(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    at_evaluations = Checkpoints(tmp_path)
    assert at_evaluations.due(3, True)
    assert not at_evaluations.due(3, False)
    steps = Checkpoints(tmp_path, every_steps=4)
    assert [s for s in range(1, 9) if steps.due(s, True)] == [4, 8]
    seconds = Checkpoints(tmp_path / "c", every_seconds=10)
    assert not seconds.due(1, True)
    now[0] = 10.0
    assert seconds.due(2, False)
    seconds.save(2, None, {}, MARK, wait=True)
    assert not seconds.due(3, False)
    seconds.close()


def test_save_on_a_full_disk_is_one_message(tmp_path, capfd):
    """A real one, in the threads of orbax: the system refuses files beyond a size."""
    made = filled(tmp_path / "c", (2,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"a": np.random.default_rng(0).normal(size=100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"File too large.*intact.*same command") as caught:
            made.save(4, large, {}, MARK, wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(caught.value).splitlines()) == 1
    assert "Traceback" not in "".join(capfd.readouterr())
    assert [p.name for p in made.directory.iterdir()] == ["00000002"]
    assert made.restore(tree(), MARK).step == 2


def test_error_in_the_background_is_one_message(tmp_path, monkeypatch, capfd):
    made = filled(tmp_path / "c", (2,))

    def full(folder, ignored):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        made.save(4, tree(4), {}, MARK)
        with pytest.raises(TrainingError, match=r"No space left.*intact.*same command") as caught:
            made.wait()
    assert len(str(caught.value).splitlines()) == 1
    assert "Traceback" not in "".join(capfd.readouterr())
    assert [p.name for p in made.directory.iterdir()] == ["00000002"]
    made.save(6, tree(6), {}, MARK)
    made.close()
    assert made.restore(tree(), MARK).step == 6


def test_save_into_an_unwritable_place_is_one_message(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    made = Checkpoints(tmp_path / "file" / "c")
    with pytest.raises(TrainingError, match="Not a directory"):
        made.save(1, tree(), {}, MARK, wait=True)
    made.close()


def test_restore_from_an_unreadable_place_is_one_message(tmp_path, monkeypatch):
    made = filled(tmp_path / "c")

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(manifest, "_sha256", refused)
    with pytest.raises(TrainingError, match="Permission denied"):
        made.restore(tree(), MARK)
    assert len(list(made.directory.iterdir())) == 2


def as_process(monkeypatch, number, sent):
    """Makes this process one of two, with directories of their own; what is sent stays here."""
    monkeypatch.setattr(distributed, "is_multiprocess", lambda: True)
    monkeypatch.setattr(distributed, "process_index", lambda: number)
    monkeypatch.setattr(distributed, "barrier", lambda name: None)
    monkeypatch.setattr(distributed, "share_directory", lambda directory: False)
    if number == 0:
        monkeypatch.setattr(distributed, "broadcast_bytes", lambda raw: sent.append(raw) or raw)
    else:
        received = iter(sent)
        monkeypatch.setattr(distributed, "broadcast_bytes", lambda raw: next(received))


def test_save_without_a_shared_directory_is_by_process_0(tmp_path, monkeypatch):
    """That two real processes resume is tested in test_distributed.py."""
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0,), np.int32)}
    arrays["c"] = jnp.asarray([1.5, -0.0], jnp.bfloat16)
    sent = []
    as_process(monkeypatch, 1, sent)
    Checkpoints(tmp_path / "c").save(3, arrays, {}, MARK, wait=True)
    assert not (tmp_path / "c").exists()
    as_process(monkeypatch, 0, sent)
    Checkpoints(tmp_path / "c").save(3, arrays, {"x": 1}, MARK, wait=True)
    first = Checkpoints(tmp_path / "c").restore(arrays, MARK)
    assert len(sent) == 2
    as_process(monkeypatch, 1, sent)
    second = Checkpoints(tmp_path / "nowhere").restore(arrays, MARK)
    monkeypatch.undo()
    alone = Checkpoints(tmp_path / "c").restore(arrays, MARK)
    for saved in (first, second, alone):
        assert (saved.step, saved.host) == (3, {"x": 1})
        assert array_hash(saved.arrays) == array_hash(arrays)
        assert jax.tree.structure(saved.arrays) == jax.tree.structure(arrays)


def test_an_error_of_process_0_is_raised_in_all(tmp_path, monkeypatch):
    filled(tmp_path / "c")
    sent = []
    as_process(monkeypatch, 0, sent)
    with pytest.raises(ConfigError, match="holds checkpoints of other training") as first:
        Checkpoints(tmp_path / "c").restore(tree(), {"other": 1})
    as_process(monkeypatch, 1, sent)
    with pytest.raises(ConfigError) as second:
        Checkpoints(tmp_path / "nowhere").restore(tree(), {"other": 1})
    assert str(second.value) == str(first.value)
    assert distributed.is_reported(first.value)
    assert distributed.is_reported(second.value)


def test_close_ends_all_threads(tmp_path):
    def threads() -> set[threading.Thread]:
        """All but the pool of the event loop that orbax keeps for the process."""
        return {t for t in threading.enumerate() if not t.name.startswith("asyncio_")}

    before = threads()
    made = filled(tmp_path / "c")
    assert threads() <= before
    made.close()
