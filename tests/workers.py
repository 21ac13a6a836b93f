"""Processes of a job over loopback, and what each of them trains."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
STEPS = 20
DEVICES = "--xla_force_host_platform_device_count"


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float  # since all were started


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    folder: Path,
    count: int = 2,
    devices: int = 1,
    *,
    numbers: Sequence[int] | None = None,
    port: int = 0,
    file: str = __file__,
    **options: Any,
) -> list[Ended]:
    """Runs a file in several processes and waits for all of them.

    Args:
      folder: for checkpoints and logs.
      count: processes of the job.
      devices: of each.
      numbers: of the processes that are started here; None: all.
      port: of process 0; 0: a free one.
      file: that is run.
      **options: of its `work`.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}={devices}",  # the last counts
        "JAX_PLATFORMS": "cpu",
    }
    began, port, running = time.monotonic(), port or free_port(), []
    numbers = range(count) if numbers is None else numbers
    for number in numbers:
        told = {"folder": str(folder), "port": port, "count": count, "number": number, **options}
        running.append(
            subprocess.Popen(
                [sys.executable, file, json.dumps(told)],
                cwd=TESTS,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def wait(child: subprocess.Popen[str]) -> Ended:
        out, err = child.communicate(timeout=600)
        return Ended(child.returncode, out, err, time.monotonic() - began)

    try:
        with ThreadPoolExecutor(len(running)) as pool:  # each one's own end is what is measured
            return list(pool.map(wait, running))
    finally:
        for child in running:
            child.kill()


def train(lm: Any, mesh: Any, tracker: Any, checkpoints: Any = None) -> list[Any]:
    """The training that is compared: two runs, 20 steps, rows of both lengths."""
    import toy

    from prompt_jax.methods import PromptTuning
    from prompt_jax.training import loop

    tokens = toy.MICRO_TOKENS * 2 // (1 if mesh is None else mesh.shape["data"])
    budget = toy.budget(
        STEPS,
        learning_rate=0.3,
        unit="absolute",
        eval_every=10,
        clip_norm=1.0,
        micro_batch_tokens=max(1, tokens),
    )
    runs = [toy.make_run(seed, dev=True) for seed in range(2)]
    return loop.train(
        lm, PromptTuning(), runs, budget, mesh=mesh, tracker=tracker, checkpoints=checkpoints
    )


def work(
    folder: str,
    port: int,
    count: int,
    number: int,
    hit: int = -1,
    at: int = 0,
    by: int = signal.SIGKILL,
    every: int = 0,
    shared: bool = False,
) -> None:
    """One process: joins, trains, prints what it found.

    Args:
      folder: of checkpoints.
      port: of process 0.
      count: processes.
      number: of this one.
      hit: the process that sends itself a signal.
      at: after so many steps.
      by: the signal.
      every: steps between checkpoints; 0 keeps none.
      shared: one directory of checkpoints for all processes, instead of one for each.
    """
    import jax
    import toy

    from prompt_jax import distributed, sharding
    from prompt_jax.cli.run import exit_with_one_message
    from prompt_jax.models.t5.partition import T5_RULES
    from prompt_jax.training import loop
    from prompt_jax.training.checkpoints import Checkpoints
    from prompt_jax.training.fingerprint import array_hash

    # The test is about the loss being noticed, not about how long the default waits.
    distributed.HEARTBEAT = 15
    assert distributed.initialize("on", f"127.0.0.1:{port}", count, number)
    original = loop.Population.step

    def step(self: Any, done: int) -> Any:
        if number == hit and done == at:
            os.kill(os.getpid(), by)
        return original(self, done)

    loop.Population.step = step  # type: ignore[method-assign]
    with exit_with_one_message():
        model = 2 if jax.device_count() % 4 == 0 else 1
        mesh = sharding.make_mesh(jax.device_count() // model, model)
        lm = sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)
        recorder = toy.Recorder()
        # Without a shared folder nothing but process 0 may need its disk.
        kept = f"{folder}/{'shared' if shared else number}"
        checkpoints = Checkpoints(kept, every_steps=every) if every else None
        trained = train(lm, mesh, recorder, checkpoints)
        found = {
            "losses": recorder.of("loss"),
            "history": [t.history for t in trained],
            "hashes": [array_hash(t.params) for t in trained],
            "steps": [t.steps for t in trained],
        }
        if shared:
            found["shards"] = save_and_restore_shards(f"{folder}/shards", mesh)
        print(json.dumps(found), flush=True)


def save_and_restore_shards(folder: str, mesh: Any) -> list[list[float]]:
    """The local rows of an array that is split over the processes, after a save and a restore."""
    import numpy as np

    from prompt_jax import sharding
    from prompt_jax.training.checkpoints import Checkpoints

    whole = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)
    split = sharding.put({"a": whole, "b": -whole}, mesh, "data")
    kept = Checkpoints(folder)
    kept.save(1, split, {}, {}, wait=True)
    kept.close()
    saved = kept.restore(sharding.put({"a": 0 * whole, "b": whole}, mesh, "data"), {})
    assert saved is not None
    assert saved.arrays["a"].sharding == split["a"].sharding
    for shard in saved.arrays["a"].addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])
    return [[shard.index[0].start or 0] for shard in saved.arrays["a"].addressable_shards]


if __name__ == "__main__":
    work(**json.loads(sys.argv[1]))
