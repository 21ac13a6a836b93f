"""The local launcher: one experiment in two processes is the experiment of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prompt_jax import distributed
from prompt_jax.evaluation import Calibration
from prompt_jax.prompts import SoftPrompt
from tests.cli.conftest import Invoke, World

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("methods=prompt_tuning", "shots=0", "sources=", "checkpoint_seconds=0.001")


def launch(devices: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in two processes, as somebody would.

    It is started again where the processes lost each other, as the message says. Gloo connects them
    when a program first needs it, and gives up after 30 s. On a loaded machine one of them may
    start, compile or read for longer than that.
    """
    program = str(ROOT / "experiments" / "launch" / "local.py")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    # The devices of a process wait 40 s for each other; that can be too short, too.
    patient = "--xla_cpu_collective_call_terminate_timeout_seconds=300"
    kept["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {patient}"
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, program, "--processes", "2", "--devices", devices, *command],
            env={**kept, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if distributed.PEER_LOST not in ended.stderr:
            break
    return ended


def results(folder: Path) -> tuple[list[dict[str, object]], list[float]]:
    """The rows of a run, without what a clock says; and apart the values that are no shares of
    rows, which the order of a sum changes in the last digits."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(x).items() if k != "wall_s"} for x in lines]
    apart = [row.pop("value") for row in rows if row["metric"] in Calibration._fields]
    return rows, apart


def test_two_processes_do_what_one_does(invoke: Invoke, files: World, tmp_path: Path) -> None:
    """Two hosts of two devices each: rows over the hosts, weights over the devices of a host."""

    def command(name: str) -> list[str]:
        folders = (f"out={tmp_path / name}", f"data.cache={tmp_path / name}-cache")
        return ["run", files.config, *SMALL, *folders]

    ended = launch("2", *command("two"), "--mesh", "data=2,model=2", "--json")
    assert ended.returncode == 0, ended.stderr
    alone = invoke(*command("one"))
    assert alone.code == 0, alone.err
    # Process 0 alone prints: one JSON document; the libraries below write to stderr.
    assert json.loads(ended.stdout)["folder"] == str(tmp_path / "two")
    assert "  prompt_tuning: " in ended.stderr
    assert "Traceback" not in ended.stderr
    (two, about), (one, expected) = (results(tmp_path / name) for name in ("two", "one"))
    assert two == one
    np.testing.assert_allclose(about, expected, rtol=1e-5)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    for mine in sorted((tmp_path / "one" / "prompts").rglob("*.safetensors")):
        theirs = tmp_path / "two" / mine.relative_to(tmp_path / "one")
        a, b = (np.asarray(SoftPrompt.load(path).embeddings) for path in (mine, theirs))
        assert np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-5


def test_what_is_wrong_is_said_and_ends_all(files: World, tmp_path: Path) -> None:
    ended = launch("1", "run", files.config, *SMALL, f"out={tmp_path / 'x'}", "--mesh", "data=3")
    assert ended.returncode == 2
    assert "mesh 'data=3' has to use all 2 devices of the 2 processes" in ended.stderr
    assert "Traceback" not in ended.stderr
