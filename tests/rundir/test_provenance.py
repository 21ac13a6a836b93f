"""What is recorded of the command, the time, the source tree, the versions and the model."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from prompt_jax.rundir import provenance

LM: Any = SimpleNamespace(name="tiny", weights_hash="ab", model_config={}, dtype="float32")


def test_the_first_start_and_all_seconds_are_kept(tmp_path, monkeypatch):
    times = iter(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"] + 2 * ["2026-01-03T00:00:00Z"])
    monkeypatch.setattr(provenance, "_now", lambda: next(times))
    for seconds in (10.04, 2.0):
        provenance.write(tmp_path, LM)
        provenance.finish(tmp_path, seconds)
    known = json.loads((tmp_path / "provenance.json").read_text())
    assert (known["started"], known["finished"]) == ("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")
    assert known["seconds"] == 12.0
    assert known["model"]["weights_sha256"] == "ab"
    assert known["versions"]["jax"]


@pytest.mark.parametrize("damage", ["", "[1]", '{"seconds": "x", "started": 3}'])
def test_a_damaged_file_is_written_anew(tmp_path, damage):
    (tmp_path / "provenance.json").write_text(damage)
    provenance.write(tmp_path, LM)
    provenance.finish(tmp_path, 1.0)
    assert json.loads((tmp_path / "provenance.json").read_text())["seconds"] == 1.0


@pytest.mark.parametrize(
    ("called", "found"),
    [
        ("/x/bin/prompt-jax", "prompt-jax run 'a b' seeds=2"),
        ("/x/prompt_jax/__main__.py", "prompt-jax run 'a b' seeds=2"),
        ("/x/train.py", ""),
        ("", ""),
    ],
)
def test_the_command(monkeypatch, called, found):
    monkeypatch.setattr(sys, "argv", [called, "run", "a b", "seeds=2"])
    assert provenance.command() == found


def test_an_installed_package_has_no_commit_of_its_own(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "site-packages" / "prompt_jax")
    assert provenance.commit() == ""


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "prompt_jax")

    def missing(*args: Any, **options: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", missing)
    assert provenance.commit() == ""
    done = SimpleNamespace(returncode=0, stdout="d628fad0\n")
    monkeypatch.setattr(provenance.subprocess, "run", lambda *args, **options: done)
    assert provenance.commit() == "d628fad0"
