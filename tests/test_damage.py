"""A small sample of tests/damage.py: no damage is silent, none ends in a traceback."""

from __future__ import annotations

import gc

import damage
import numpy as np
import pytest

from prompt_jax.training import checkpoints


@pytest.mark.slow
def test_no_damage_is_silent(tmp_path, capsys):
    counts = damage.damage(60, tmp_path)
    assert not capsys.readouterr().out
    assert {outcome for _, outcome in counts} <= {"noticed", "changes nothing"}
    assert sum(counts.values()) == 60
    for kind in damage.CASES:
        assert counts[kind, "noticed"] > 10


# Orbax leaves its reading tasks behind when it meets a damaged array, which nothing but this test
# lets it do; they are collected here, so that no other test is blamed.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_silence_would_be_noticed(tmp_path, monkeypatch):
    """Without our own checksums a flipped bit goes through orbax, and the measure shows it."""
    case = damage.CheckpointCase(tmp_path)

    def flip(path, rng):
        files = (p for p in (case.copy / "00000004/arrays").rglob("*") if p.is_file())
        data = max(files, key=lambda p: p.stat().st_size)
        content = bytearray(data.read_bytes())
        content[int(rng.integers(0, len(content)))] ^= 1 << int(rng.integers(0, 8))
        data.write_bytes(content)
        return data.name

    monkeypatch.setattr(damage, "hurt", flip)
    rng = np.random.default_rng(0)
    assert {case.hit(rng)[1] for _ in range(5)} == {"noticed"}
    monkeypatch.setattr(checkpoints.manifest, "verify", lambda path: None)
    assert "SILENT" in {case.hit(rng)[1] for _ in range(20)}
    gc.collect()
