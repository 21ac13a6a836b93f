"""The first steps of prompt tuning in a process of its own: `start` and `memory` run it."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

MARK = "first-step "


class Task(NamedTuple):
    """What is done: the dtype, B, L, S, and how many steps."""

    dtype: str
    batch: int
    prompt: int
    tokens: int
    steps: int


def ours(path: Path, task: Task) -> dict[str, Any]:
    """First loss and memory of this library."""
    import jax
    import numpy as np

    from benchmarks import inputs
    from benchmarks.train_step import Ours

    lm = inputs.load(path, task.dtype)
    rows = inputs.rows(inputs.lengths("fixed", task.batch, task.tokens), lm.vocab_size)
    prompt = np.asarray(lm.embed(np.arange(task.prompt)), np.float32)
    side = Ours(lm, rows, [prompt], task.batch)
    losses = [side.step(number)[0] for number in range(task.steps)]
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"loss": losses[0], "device": stats.get("peak_bytes_in_use")}


def peer(path: Path, task: Task) -> dict[str, Any]:
    """First loss and memory of PEFT; every step has all rows, so their order does not matter."""
    import torch

    from benchmarks import inputs, peers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = peers.load(path, task.dtype, device)
    ids = torch.arange(task.prompt, device=device)
    prompt = model.get_input_embeddings()(ids).detach().float().cpu().numpy()
    side = peers.Peft(model, prompt)
    sizes = inputs.lengths("fixed", task.batch, task.tokens)
    batch = side.collate(*inputs.texts(sizes, model.config.vocab_size, 3))
    losses = [side.train(batch) for _ in range(task.steps)]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"loss": losses[0], "device": peak}


def peak_of_process() -> int:
    """The most bytes that this process held.

    From Linux's own record: `ru_maxrss` of a new process begins with what its parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """`python -m benchmarks.first_step ours|peer FOLDER TASK`."""
    side, path, task = sys.argv[1:]
    found = {"ours": ours, "peer": peer}[side](Path(path), Task(**json.loads(task)))
    found["host"] = peak_of_process()
    print(MARK + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
