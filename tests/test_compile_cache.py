"""Compiled programs are kept in a folder of the user's, one for each release and processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from prompt_jax import compile_cache

_JAX = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """No cache is named, the user's cache folder is `tmp_path`; what JAX is told is noted."""
    for name in (*_JAX, "JAX_ENABLE_COMPILATION_CACHE", compile_cache.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    return told


def test_the_default_is_a_folder_of_the_users(options: dict[str, object], tmp_path: Path) -> None:
    folder = compile_cache.enable()
    assert folder is not None
    assert folder.parent == tmp_path / "prompt_jax" / "compiled"
    assert options == {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }


@pytest.mark.parametrize("value", ["off", "0", "FALSE", " none "])
def test_the_variable_turns_it_off(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv(compile_cache.VARIABLE, value)
    assert compile_cache.enable() is None
    assert options == {"jax_enable_compilation_cache": False}
    assert not list(tmp_path.iterdir())


def test_the_variable_names_a_folder(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "here"))
    folder = compile_cache.enable()
    assert folder is not None
    assert folder.parent == tmp_path / "here"


def test_options_of_jax_hold(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert compile_cache.enable() == tmp_path / "own"
    assert options == {}


def test_releasesprocessors_and_cores_do_not_share_programs(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {compile_cache.enable()}
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    found.add(compile_cache.enable())
    monkeypatch.setattr(compile_cache, "processor", lambda: "another")
    found.add(compile_cache.enable())
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(64), raising=False)
    found.add(compile_cache.enable())
    assert len(found) == 4


def test_a_folder_that_others_can_write_to_is_not_used(
    options: dict[str, object], tmp_path: Path
) -> None:
    """A stored program is code: whoever can replace it can run theirs."""
    folder = compile_cache.enable()
    assert folder is not None
    folder.chmod(0o777)
    assert compile_cache.enable() is None
    assert compile_cache.find() == (None, f"other users can write to {folder}")
    assert options["jax_enable_compilation_cache"] is False


def test_a_folder_that_cannot_be_made_is_no_error(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "file"))
    assert compile_cache.enable() is None
    assert "Not a directory" in compile_cache.find()[1]


def test_the_programs_used_last_are_kept(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compile_cache.enable()
    assert folder is not None
    for age, name in enumerate(("new", "middle", "old")):
        path = folder / f"{name}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1e9 - age, 1e9 - age))
    mine = folder.parent / "mine"
    mine.write_bytes(b"x" * 1000)
    monkeypatch.setattr(compile_cache, "_LIMIT", 250)
    compile_cache.enable()
    assert len(compile_cache.sizes(folder)) == 3, "once a day"
    os.utime(folder.parent / ".tidied", (1e9, 1e9))
    compile_cache.enable()
    assert {path.name for path in folder.iterdir()} == {"new-cache", "middle-cache"}
    assert mine.exists(), "not a program"


@pytest.mark.process
def test_a_second_process_compiles_nothing_and_a_damaged_program_is_compiled_again(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for name in _JAX:
        environment.pop(name, None)
    program = (
        "from prompt_jax import compile_cache; folder = compile_cache.enable()\n"
        "import collections, jax\n"
        "seen = collections.Counter()\n"
        "jax.monitoring.register_event_listener(lambda name, **_: seen.update([name]))\n"
        "print(float(jax.jit(lambda x: x @ x)(jax.numpy.ones((4, 4)))[0, 0]))\n"
        "prefix = '/jax/compilation_cache/cache_'\n"
        "print(seen[prefix + 'misses'], seen[prefix + 'hits'], folder)\n"
    )

    def run() -> tuple[str, int, int, Path]:
        command = [sys.executable, "-W", "ignore", "-c", program]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        value, counts = done.stdout.splitlines()
        misses, hits, folder = counts.split(" ", 2)
        return value, int(misses), int(hits), Path(folder)

    value, misses, hits, folder = run()
    assert (value, hits) == ("4.0", 0)
    assert misses > 0
    assert run() == ("4.0", 0, misses, folder)
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:40])
    assert run()[0] == "4.0"
