"""What passes before the first step: import, loading, compiling, with a cold and a warm cache.

The time to the first step is that of a process of its own, from its start to the loss of the first
step; PEFT's is measured likewise. Cold: JAX's compilation cache is empty. Warm: the same program
ran before.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import first_step, import_time, inputs, peers
from benchmarks.harness import Piece, Record, Rounds, Scale, agree, compared, interleave
from benchmarks.suite import environment


def pieces(of: Scale) -> tuple[Piece, ...]:
    """First steps, loading, import."""
    steps, loaded = of.choose(
        cpu=(("mini", "smollm2-135m", "t5-base"), ("t5-base",)),
        accelerator=(("t5-base",), ("t5-base",)),
        small=(("toy-t5",), ("toy-t5",)),
    )
    first = [Piece(f"start/first-step/{m}", functools.partial(to_first_step, m, of)) for m in steps]
    load = [Piece(f"start/load/{m}", functools.partial(loading, m, of)) for m in loaded]
    return (*first, *load, Piece("start/import", functools.partial(importing, of)))


def path_of(model: str) -> Path:
    """The files of a model; "mini" is the one that ships with the package."""
    if model == "mini":
        from prompt_jax.models import hub

        return Path(hub.locate("mini"))
    return inputs.folder(model)


def child(side: str, path: Path, task: first_step.Task, of: Scale, cache: str) -> dict[str, Any]:
    """The result of `first_step` in a process of its own, with the seconds that it took.

    Args:
      side: "ours" or "peer".
      path: of the model.
      task: what it does.
      of: the scale.
      cache: folder of JAX's compiled programs.
    """
    more = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "benchmarks.first_step", side, str(path)]
    command.append(json.dumps(task._asdict()))
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(of.platform, **more)
    )
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            if line.startswith(first_step.MARK):
                found = json.loads(line[len(first_step.MARK) :])
                found["seconds"] = time.perf_counter() - began  # ending takes its own time
                break
        process.wait()
    finally:
        process.kill()
    if found is None:
        raise RuntimeError(f"the first step of {side} failed")
    return found


def to_first_step(model: str, of: Scale) -> Iterator[Record]:
    """Seconds from the start of a process to the first loss: cold, then warm, against PEFT."""
    batch, prompt, tokens = (2, 4, 12) if of.small else (8, 20, 64)
    task = first_step.Task("float32", batch, prompt, tokens, steps=1)
    path, runs = path_of(model), 3 if model == "mini" else 1
    settings = {"B": batch, "L": prompt, "S": tokens, "T": 3, "dtype": "float32"}
    facts: dict[str, Any] = {"settings": settings, "note": peers.missing()}
    with tempfile.TemporaryDirectory() as cache:
        # Before any of them, so that the files are in memory for all.
        theirs = [] if facts["note"] else [child("peer", path, task, of, cache)]
        cold = child("ours", path, task, of, cache)
        warm = []
        for _ in range(runs):
            warm.append(child("ours", path, task, of, cache))
            if not facts["note"]:
                theirs.append(child("peer", path, task, of, cache))
    for name, ours in (("cold", [cold]), ("warm", warm)):
        sides = {"ours": [found["seconds"] for found in ours]}
        if theirs:
            loss = agree("first losses", [ours[-1]["loss"]], [theirs[-1]["loss"]], 1e-4)
            last = theirs[len(theirs) - len(ours) :]
            sides["peer"] = [found["seconds"] for found in last]
            facts |= {"peer_is": "PEFT", "checked": loss}
        yield compared(f"start/first-step/{model}/{name}", Rounds(sides), **facts)


def loading(model: str, of: Scale) -> Iterator[Record]:
    """Loading a model from its files, every weight read (its absolute values are summed)."""
    path = path_of(model)
    total = jax.jit(lambda tree: sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(tree)))

    def ours() -> float:
        return float(total(inputs.load(path, "float32").params))

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    facts: dict[str, Any] = {"note": peers.missing(), "settings": {"dtype": "float32"}}
    if not facts["note"]:
        device = peers.torch_device(of.platform)

        def theirs() -> float:
            weights = peers.load(path, "float32", device).parameters()  # tied weights once
            return float(sum(x.detach().abs().sum() for x in weights))

        checked = agree("sums of the weights", [ours()], [theirs()], 1e-3)
        facts |= {"peer_is": "transformers", "checked": checked}
        sides["peer"] = theirs
    yield compared(f"start/load/{model}", interleave(sides, of), **facts)


def importing(of: Scale) -> Iterator[Record]:
    """What `import prompt_jax` adds to `import jax, flax.linen`."""
    found = import_time.rounds(2 if of.small else 5)
    added = [times["package"] - times["base"] for times in found]
    yield Record(
        "start/import",
        "s",
        statistics.median(added),
        runs=len(added),
        spread=(float(np.min(added)), float(np.max(added))),
        note="seconds that importing it adds to importing jax and flax.linen",
    )
