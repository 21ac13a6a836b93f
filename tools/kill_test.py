#!/usr/bin/env python3
"""Kills an experiment at random times, resumes it until it is finished, and compares its outputs.

    python tools/kill_test.py [--kills 30] [--seed 0]

The experiment (source and target stages of prompt tuning and SPoT on a T5 of toy size) runs once
without interruption. Then it is started, killed with SIGKILL at a random time and started again,
in as many fresh directories as required for the number of kills. Every finished run must have
bit-identical prompts, and the same metrics.jsonl and results.jsonl except for times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
READY = "ready"


def work(folder: Path) -> None:
    """Runs the experiment in its own process; prints READY just before it can be killed."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import toy
    from world import make_world

    from prompt_jax.recipes import outputs, run

    outputs.write_page = lambda *args: None  # the report takes seconds and comes last
    world = make_world(folder.parent / "world")  # the same files every time
    options = {"eval_every": 10, "learning_rate": 0.5, "unit": "absolute", "schedule": "linear"}
    config = world.experiment(
        folder,
        shots=(0,),
        seeds=2,
        checkpoint_seconds=0.05,
        source=toy.budget(60, **options),
        probe=toy.budget(20, **options),
        target=toy.budget(60, **options),
    )
    print(READY, flush=True)
    run(config, world.lm, show=False, say=lambda line: None)


def start(folder: Path) -> subprocess.Popen[str]:
    """Starts the experiment and waits until it prints READY."""
    cache = folder.parent / "compiled"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != READY:
        sys.exit(f"the experiment failed to start:\n{process.communicate()[1]}")
    return process


def outcome(folder: Path) -> dict[str, Any]:
    """The outputs of an experiment, without times."""

    def lines(name: str, times: str) -> list[dict[str, Any]]:
        records = map(json.loads, (folder / "run" / name).read_text("utf-8").splitlines())
        return [{k: v for k, v in record.items() if k != times} for record in records]

    return {
        "prompts": {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted((folder / "run" / "prompts").rglob("*.safetensors"))
        },
        "metrics.jsonl": lines("metrics.jsonl", "seconds"),
        "results.jsonl": lines("results.jsonl", "wall_s"),
        "checkpoints": sorted(p.name for p in (folder / "run").glob("checkpoints*")),
    }


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for the process, which must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"the experiment exited with {process.returncode}:\n{errors}")


def main() -> None:
    """Prints one line per finished experiment; exits with 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        for name in ("warm-up", "uninterrupted"):  # the first one compiles
            process = start(base / name)
            began = time.monotonic()
            finish(process)
        span = time.monotonic() - began
        expected = outcome(base / "uninterrupted")
        print(f"uninterrupted: {span:.1f} s, {len(expected['prompts'])} prompts", flush=True)
        kills = rounds = resumed = 0
        while kills < arguments.kills:
            rounds, round_kills = rounds + 1, 0
            folder = base / f"round{rounds}"
            while True:
                process = start(folder)
                if kills < arguments.kills:
                    try:
                        process.wait(rng.uniform(0, span / 2))
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                        process.communicate()
                        kills, round_kills = kills + 1, round_kills + 1
                        resumed += any((folder / "run" / "checkpoints").glob("*/0*"))
                        continue
                finish(process)
                break
            actual = outcome(folder)
            different = [name for name in expected if actual[name] != expected[name]]
            print(f"run {rounds}: {round_kills} kills, {different or 'identical'}", flush=True)
            if different:
                sys.exit(1)
        print(f"{kills} kills, {resumed} of them with a checkpoint to resume from: all identical")
    return None


if __name__ == "__main__":
    main()
