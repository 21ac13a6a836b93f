"""A real SIGKILL, a new process, the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from prompt_jax.methods import PromptTuning
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.loop import train

pytestmark = pytest.mark.process

TESTS = Path(__file__).resolve().parents[1]
BUDGET = {"eval_every": 4, "learning_rate": 0.3, "unit": "absolute", "schedule": "linear"}
WORKER = """
import json, os, signal, sys
import conftest, toy
from prompt_jax.methods import PromptTuning
from prompt_jax.training import loop
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.tracking import RunTracker
from pathlib import Path

folder, dies = Path(sys.argv[1]), int(sys.argv[2])
original = loop.Population.step

def step(self, at):
    if at == dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, at)

loop.Population.step = step
with RunTracker(folder / "metrics.jsonl", show=False) as tracker:
    trained = loop.train(
        toy.tiny_t5(), PromptTuning(), [toy.make_run(s, dev=True) for s in range(2)],
        toy.budget(6, **json.loads(sys.argv[3])), tracker=tracker,
        checkpoints=Checkpoints(folder / "kept", every_steps=1),
    )
print(json.dumps([[array_hash(t.params), t.best_step, t.history, t.steps] for t in trained]))
"""


def test_killed_and_started_again(tmp_path):
    def start(dies):
        return subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path), str(dies), json.dumps(BUDGET)],
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert start(5).returncode == -signal.SIGKILL
    assert list((tmp_path / "kept").iterdir())
    second = start(-1)
    assert second.returncode == 0, second.stderr
    assert "resumed at step" in second.stderr
    runs = [toy.make_run(s, dev=True) for s in range(2)]
    recorder = toy.Recorder()
    whole = train(toy.tiny_t5(), PromptTuning(), runs, toy.budget(6, **BUDGET), tracker=recorder)
    expected = [[array_hash(t.params), t.best_step, t.history, t.steps] for t in whole]
    assert json.loads(second.stdout) == json.loads(json.dumps(expected))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [{k: v for k, v in x.items() if k != "seconds"} for x in lines]
    assert logged == recorder.records
