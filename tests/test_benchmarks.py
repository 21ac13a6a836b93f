"""The benchmarks run; what they measure at toy sizes says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]


def lines(*command: str) -> list[str]:
    """What a benchmark prints, run as its page says."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / command[0]), *command[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_particles():
    (line,) = lines(
        "svgd.py",
        "--shape",
        "toy",
        "--prompt",
        "4",
        "--tokens",
        "12",
        "--batch",
        "2",
        "--rounds",
        "2",
    )
    found = json.loads(line)
    assert found["ratio_range"][0] <= found["ratio"] <= found["ratio_range"][1]
    assert (
        0
        < found["svgd_share_of_step"]
        == pytest.approx(found["seconds_svgd"] / found["seconds_together"], rel=0.1)
    )


def test_retrieval():
    command = (
        "retrieval.py",
        "--slots",
        "2000",
        "--width",
        "32",
        "--queries",
        "8",
        "--rounds",
        "1",
    )
    found = [json.loads(line) for line in lines(*command, "--json")[1:]]
    assert [row["search"] for row in found[:2]] == ["exact", "recall 0.95"]
    assert {row["keys"] for row in found} == {"random", "clusters", "by turns"}
    assert all(row["recall"] > 0.7 and row["ms"] > 0 for row in found)
