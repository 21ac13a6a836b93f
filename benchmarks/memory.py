"""Peak memory of training at equal batches, against PEFT: a process of its own each."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks import first_step, inputs, peers
from benchmarks.harness import Piece, Record, Scale, agree
from benchmarks.start import child

_MIB = 2**20


def pieces(of: Scale) -> tuple[Piece, ...]:
    """One batch of each model."""
    sizes = of.choose(
        cpu=(("t5-small", "float32", 32, 100, 128), ("t5-small", "bfloat16", 32, 100, 128)),
        accelerator=(("t5-base", "bfloat16", 128, 100, 128),),
        small=(("toy-t5", "float32", 2, 4, 12),),
    )
    return tuple(
        Piece(f"memory/{model}/{dtype}", functools.partial(measure, model, dtype, *shape, of))
        for model, dtype, *shape in sizes
    )


def measure(
    model: str, dtype: str, batch: int, prompt: int, tokens: int, of: Scale
) -> Iterator[Record]:
    """Most bytes of the device, or on a CPU of the process, libraries and weights included."""
    task = first_step.Task(dtype, batch, prompt, tokens, steps=1 if of.small else 3)
    path, kind = inputs.folder(model), "host" if of.platform == "cpu" else "device"
    settings = {"B": batch, "L": prompt, "S": tokens, "T": 3}
    facts: dict[str, Any] = {"settings": settings}
    with tempfile.TemporaryDirectory() as cache:
        ours = child("ours", path, task, of, cache)
        bytes_of_ours = ours[kind] / _MIB
        if note := peers.missing():
            yield Record(f"memory/{model}/{dtype}", "MiB", bytes_of_ours, note=note, **facts)
            return
        theirs = child("peer", path, task, of, cache)
    bytes_of_theirs = theirs[kind] / _MIB
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    yield Record(
        f"memory/{model}/{dtype}",
        "MiB",
        bytes_of_ours,
        bytes_of_theirs,
        "times",
        "PEFT",
        ratio=bytes_of_theirs / bytes_of_ours,
        checked=agree("first losses", [ours["loss"]], [theirs["loss"]], tolerance),
        note=f"peak of the {'process' if kind == 'host' else 'device'}",
        **facts,
    )
