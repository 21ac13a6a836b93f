"""Particles against NUTS, with arguments that only show that the study runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_svgd_nuts_prints_its_table() -> None:
    """In a process of its own: blackjax knows nothing of strict promotion."""
    pytest.importorskip("blackjax", reason="NUTS is blackjax's: make env-parity")
    small = "--rows 16 --draws 20 --warmup 20 --steps 20 --kernels rbf imq"
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.analysis.svgd_nuts", *small.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert "NUTS: 4 x 20 draws in 16 dimensions, largest R-hat" in ended.stdout
    assert "R-hat is not below 1.01: the chains have not converged to the posterior" in ended.stdout
    rows = [[cell.strip() for cell in line.split("|")] for line in ended.stdout.splitlines()[-2:]]
    assert [row[1:3] for row in rows] == [["rbf", "50"], ["imq", "50"]]
    off, ratio, discrepancy = (float(rows[0][i]) for i in (3, 4, 6))
    assert 0 < off < 2  # a random start is off by more than the chains are short
    assert 0 < ratio < 2
    assert 0 < discrepancy < 10
