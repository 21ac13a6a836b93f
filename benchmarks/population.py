"""Thirty prompts trained at once, against one at a time: by PEFT, and by this library."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import inputs, peers
from benchmarks.harness import Piece, Record, Rounds, Scale, agree, compared, interleave
from benchmarks.train_step import LEARNING_RATE, Ours

MEASURED = 3  # of the runs that are trained one at a time


def pieces(of: Scale) -> tuple[Piece, ...]:
    """One comparison with two records."""
    return (Piece("population", functools.partial(measure, of), limit=300.0),)


def measure(of: Scale) -> Iterator[Record]:
    """A step of all replicas, and a step of a few runs one after the other, in every round.

    The time of all runs one after the other is that of the few, times their number over the few:
    every run does the same work.
    """
    name, dtype, replicas, batch, prompt, tokens = of.choose(
        cpu=("t5-small", "float32", 30, 4, 100, 64),
        accelerator=("t5-base", "bfloat16", 30, 16, 100, 128),
        small=("toy-t5", "float32", 4, 2, 4, 12),
    )
    path = inputs.folder(name)
    lm = inputs.load(path, dtype)
    rows = inputs.rows(inputs.lengths("fixed", 8 * batch, tokens), lm.vocab_size)
    prompts = [inputs.prompt(lm, prompt, seed) for seed in range(replicas)]
    together = Ours(lm, rows, prompts, batch)
    few = range(MEASURED)
    alone = [Ours(lm, rows, [prompts[r]], batch, feeds=[together.feeds[r]]) for r in few]
    first = together.step(0)[:MEASURED]
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    checked = agree("first losses", first, [run.step(0)[0] for run in alone], tolerance)
    number = iter(range(1, 10**6)).__next__

    def one_by_one(runs: list[Any]) -> None:
        at = number()
        for run in runs:
            run.step(at)

    sides: dict[str, Callable[[], Any]] = {
        "together": lambda: together.step(number()),
        "alone": lambda: one_by_one(alone),
    }
    note = peers.missing()
    if not note:
        device = peers.torch_device(of.platform)
        made = functools.partial(peers.load, path, dtype, device)
        theirs = [
            peers.Peft(made(), prompts[r], rows, together.feeds[r], LEARNING_RATE) for r in few
        ]
        of_peft = agree("first losses", first, [run.step(0) for run in theirs], tolerance)
        sides["peft"] = lambda: one_by_one(theirs)
    found = interleave(sides, of, seconds=2 * of.seconds)
    settings = {"R": replicas, "B": batch, "L": prompt, "S": tokens, "T": 3, "dtype": dtype}
    said = f"{MEASURED} of {replicas} runs one at a time are measured, in every round"

    def against(side: str) -> Rounds:
        whole = [s * replicas / MEASURED for s in found.seconds[side]]
        return Rounds({"ours": found.seconds["together"], "peer": whole})

    facts: dict[str, Any] = {"settings": settings, "extrapolated": said}
    if note:
        only = Rounds({"ours": found.seconds["together"]})
        yield compared("population/peft", only, settings=settings, note=note)
    else:
        peer_is = "PEFT, one run after another"
        yield compared(
            "population/peft", against("peft"), peer_is=peer_is, checked=of_peft, **facts
        )
    peer_is = "prompt_jax, one run after another"
    yield compared("population/alone", against("alone"), peer_is=peer_is, checked=checked, **facts)
    rates = [replicas * batch / s for s in found.seconds["together"]]
    yield Record(
        "population/rows",
        "rows/s",
        statistics.median(rates),
        runs=found.count,
        spread=(float(np.min(rates)), float(np.max(rates))),
        settings=settings,
    )
