"""Checkpoints: whole or not there, every damage noticed, the one before taken instead."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import distributed
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.training import checkpoints as module
from prompt_jax.training.checkpoints import MANIFEST, Checkpoints
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


def test_what_was_saved_comes_back(tmp_path):
    made = filled(tmp_path / "deep" / "er")
    saved = Checkpoints(made.directory).restore(tree(9), MARK)
    assert (saved.step, saved.host) == (4, {"position": 4, "value": 4.1})
    assert jax.tree.structure(saved.arrays) == jax.tree.structure(tree())
    assert array_hash(saved.arrays) == array_hash(tree(4))
    assert [str(x.dtype) for x in jax.tree.leaves(saved.arrays)] == [
        str(x.dtype) for x in jax.tree.leaves(tree())
    ]


def test_a_relative_directory(tmp_path, monkeypatch):
    """As `runs/NAME` is, where nobody names another one."""
    monkeypatch.chdir(tmp_path)
    made = filled(Path("runs/c"))
    assert made.restore(tree(), MARK).step == 4
    assert (tmp_path / "runs" / "c").is_dir()
    made.close()


def test_arrays_are_copied_at_once(tmp_path):
    """What the caller does to its buffers after `save` is not in the file."""
    made, mine = Checkpoints(tmp_path / "c"), tree(1)
    made.save(1, mine, {}, MARK)
    mine["params"]["a/b"][:] = 7
    made.close()
    assert array_hash(made.restore(tree(), MARK).arrays) == array_hash(tree(1))


def test_nothing_there(tmp_path):
    made = Checkpoints(tmp_path / "c")
    assert made.restore(tree(), MARK) is None
    made.delete()
    made.wait()
    assert not list(tmp_path.iterdir())


def test_without_arrays_nothing_of_orbax_is_written(tmp_path):
    made = Checkpoints(tmp_path / "c")
    made.save(0, None, {"position": 0}, MARK, wait=True)
    assert [p.name for p in files(made.directory)] == [MANIFEST]
    saved = made.restore(tree(), MARK)
    assert (saved.step, saved.arrays, saved.host) == (0, None, {"position": 0})
    made.save(1, {"empty": np.zeros((0, 3), np.float32)}, {}, MARK, wait=True)
    again = made.restore({"empty": np.ones((0, 3), np.float32)}, MARK)
    assert again.arrays["empty"].shape == (0, 3)
    made.close()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_are_kept(tmp_path, keep):
    made = filled(tmp_path / "c", (1, 2, 3, 10), keep=keep)
    left = sorted(int(p.name) for p in made.directory.iterdir())
    assert left == [1, 2, 3, 10][-keep:]


def test_saving_a_step_again_replaces_it(tmp_path):
    made = filled(tmp_path / "c", (5,))
    made.save(5, tree(77), {"position": 1}, MARK, wait=True)
    saved = made.restore(tree(), MARK)
    assert array_hash(saved.arrays) == array_hash(tree(77))
    made.close()


def test_deleting(tmp_path):
    made = filled(tmp_path / "c")
    made.delete()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", ["c/.00000006.tmp", "c/.00000002.old.tmp", ".c.old.tmp"])
def test_what_a_kill_left_is_cleared_away(tmp_path, left):
    made = filled(tmp_path / "c")
    half = tmp_path / left / "arrays"
    half.mkdir(parents=True)
    (half / "x").write_bytes(b"half")
    assert made.restore(tree(), MARK).step == 4
    assert not half.exists()


def test_a_kill_may_leave_half_of_a_small_file(tmp_path):
    """Who the members are is written beside the checkpoints, through a draft that is a file."""
    made = filled(tmp_path / "c")
    half = tmp_path / "c" / ".members.json.c06d5003.tmp"
    half.write_bytes(b"half")
    assert made.restore(tree(), MARK).step == 4
    assert not half.exists()


def test_a_kill_before_the_end_leaves_the_earlier_ones(tmp_path, monkeypatch):
    """Whatever step of writing is the last one that happens."""
    made = filled(tmp_path / "c", (2,))
    killed = 0
    for name in ("_fill", "_seal", "_flush"):
        for after in range(40):
            calls = []
            with monkeypatch.context() as patch:
                original = getattr(module, name)

                def cut(*args, original=original, calls=calls, after=after):
                    if len(calls) == after:
                        raise KeyboardInterrupt
                    calls.append(1)
                    return original(*args)

                patch.setattr(module, name, cut)
                # As a kill: nothing is tidied up.
                patch.setattr(module.shutil, "rmtree", lambda *args, **options: None)
                try:
                    made._write(4, {"a": np.ones(3, np.float32)}, json.dumps({"step": 4}))
                except KeyboardInterrupt:
                    killed += 1
            whole = len(calls) < after + 1 and (made.directory / "00000004").exists()
            shutil.rmtree(made.directory / ".00000004.tmp", ignore_errors=True)
            shutil.rmtree(made.directory / "00000004", ignore_errors=True)
            assert made.restore(tree(), MARK).step == 2
            if whole:
                break
    assert killed > 10


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


@pytest.mark.parametrize("kind", ["flip", "cut", "empty", "gone"])
def test_any_damage_is_noticed_and_the_one_before_taken(tmp_path, kind):
    whole = filled(tmp_path / "whole").directory
    names = [p.relative_to(whole) for p in files(whole) if p.parent.parts[-1] != "00000002"]
    names = [name for name in names if name.parts[0] == "00000004"]
    assert len(names) > 5
    for name in names:
        if kind != "gone" and not (whole / name).stat().st_size:
            continue  # an empty file holds nothing to damage
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        spoil(copy / name, kind)
        said: list[str] = []
        made = Checkpoints(copy, say=said.append)
        saved = made.restore(tree(), MARK)
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
def test_nothing_whole_is_left(tmp_path, restart):
    made = filled(tmp_path / "c")
    said: list[str] = []
    made = Checkpoints(tmp_path / "c", restart=restart, say=said.append)
    for step in (2, 4):
        spoil(made.directory / f"0000000{step}" / MANIFEST, "flip")
    if restart:
        assert made.restore(tree(), MARK) is None
        assert len(said) == 2
        assert all("beginning again from the first step" in line for line in said)
        assert not list(made.directory.iterdir())
    else:
        with pytest.raises(TrainingError, match=r"(?s)00000004.*00000002.*Remove .*c to begin"):
            made.restore(tree(), MARK)
        assert len(list(made.directory.iterdir())) == 2  # nothing is thrown away unasked


def forge(path, change):
    """A manifest with a right checksum that says something else."""
    record = json.loads(path.read_bytes().partition(b"\n")[2])
    body = json.dumps(change(record)).encode()
    path.write_bytes(module.hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_a_manifest_that_is_none(tmp_path):
    made = filled(tmp_path / "c", (2,), restart=True, say=lambda line: None)
    for change in (lambda r: 5, lambda r: {"format": 1}, lambda r: {**r, "files": 3}):
        filled(tmp_path / "c", (2,))
        forge(made.directory / "00000002" / MANIFEST, change)
        assert made.restore(tree(), MARK) is None


def test_files_outside_are_never_read(tmp_path):
    made = filled(tmp_path / "c", (2,), restart=True, say=lambda line: None)
    (tmp_path / "secret").write_bytes(b"x")
    forge(
        made.directory / "00000002" / MANIFEST,
        lambda r: {
            **r,
            "files": {**r["files"], "../../secret": module._sha256(tmp_path / "secret")},
        },
    )
    assert made.restore(tree(), MARK) is None


def test_arrays_that_orbax_cannot_read(tmp_path):
    """Should the checksums hold and the format be foreign: the one before, without a traceback."""
    said: list[str] = []
    made = filled(tmp_path / "c", say=said.append)
    folder = made.directory / "00000004"
    shutil.rmtree(folder / "arrays")
    forge(folder / MANIFEST, lambda r: {**r, "files": {}})
    assert made.restore(tree(), MARK).step == 2
    assert "arrays cannot be read" in said[0]


# What does not belong together


def test_another_fingerprint_is_refused_with_the_difference(tmp_path):
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


def test_other_arrays_and_formats_are_refused(tmp_path):
    made = filled(tmp_path / "c")
    with pytest.raises(ConfigError, match="holds other arrays"):
        made.restore({"a": np.ones(3)}, MARK)
    forge(made.directory / "00000004" / MANIFEST, lambda r: {**r, "format": 99})
    with pytest.raises(ConfigError, match="format 99, not 1"):
        made.restore(tree(), MARK)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every_steps": -1}, {"every_seconds": -0.5}])
def test_impossible_options(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Checkpoints(tmp_path, **wrong)
    with pytest.raises(ConfigError, match="local directory"):
        Checkpoints("gs://bucket/c")


# When, and what fails


def test_when_they_are_due(tmp_path, monkeypatch):
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


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    made = filled(tmp_path / "c", (2,))
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(TrainingError, match=r"No space left.*intact.*same command"):
            made.save(4, tree(4), {}, MARK, wait=True)
        made.save(4, tree(4), {}, MARK)
        with pytest.raises(TrainingError, match="No space left"):
            made.save(6, tree(6), {}, MARK)
    made.close()
    assert [p.name for p in made.directory.iterdir()] == ["00000002"]
    assert made.restore(tree(), MARK).step == 2


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    made = Checkpoints(tmp_path / "file" / "c")
    with pytest.raises(TrainingError, match="Not a directory"):
        made.save(1, tree(), {}, MARK, wait=True)
    made.close()


def test_a_place_that_cannot_be_read(tmp_path, monkeypatch):
    made = filled(tmp_path / "c")

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(module, "_sha256", refused)
    with pytest.raises(TrainingError, match="Permission denied"):
        made.restore(tree(), MARK)
    assert len(list(made.directory.iterdir())) == 2


def as_process(monkeypatch, number):
    """Makes this process one of two; what is told stays here."""
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "number", lambda: number)
    monkeypatch.setattr(distributed, "barrier", lambda name: None)


def test_of_several_processes_the_first_writes_bytes(tmp_path, monkeypatch):
    """That two real ones go on from them is in test_distributed.py."""
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0,), np.int32)}
    arrays["c"] = jnp.asarray([1.5, -2.0], jnp.bfloat16)
    as_process(monkeypatch, 1)
    Checkpoints(tmp_path / "c").save(3, arrays, {}, MARK, wait=True)
    assert not (tmp_path / "c").exists()
    as_process(monkeypatch, 0)
    Checkpoints(tmp_path / "c").save(3, arrays, {"x": 1}, MARK, wait=True)
    assert (tmp_path / "c" / "00000003" / module.RAW).stat().st_size == 6 * 4 + 2 * 2
    told = []
    monkeypatch.setattr(distributed, "tell", lambda raw: told.append(raw) or raw)
    first = Checkpoints(tmp_path / "c").restore(arrays, MARK)
    # The other process has another disk, and what the first one told.
    as_process(monkeypatch, 1)
    monkeypatch.setattr(distributed, "tell", lambda raw: told[0])
    second = Checkpoints(tmp_path / "nowhere").restore(arrays, MARK)
    monkeypatch.undo()
    alone = Checkpoints(tmp_path / "c").restore(arrays, MARK)
    for found in (first, second, alone):
        assert (found.step, found.host) == (3, {"x": 1})
        assert jax.tree.structure(found.arrays) == jax.tree.structure(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
            assert found.arrays[name].dtype == array.dtype


def test_what_the_first_process_refuses_all_refuse(tmp_path, monkeypatch):
    made = filled(tmp_path / "c")
    made.close()
    as_process(monkeypatch, 0)
    told = []
    monkeypatch.setattr(distributed, "tell", told.append)
    with pytest.raises(ConfigError, match="holds checkpoints of other training") as first:
        Checkpoints(tmp_path / "c").restore(tree(), {"other": 1})
    as_process(monkeypatch, 1)
    monkeypatch.setattr(distributed, "tell", lambda raw: told[0])
    with pytest.raises(ConfigError) as second:
        Checkpoints(tmp_path / "nowhere").restore(tree(), {"other": 1})
    assert str(second.value) == str(first.value)
    assert distributed.is_reported(first.value)
    assert distributed.is_reported(second.value)


def test_no_thread_stays_behind(tmp_path):
    made = filled(tmp_path / "c")
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoints")]
    made.close()
