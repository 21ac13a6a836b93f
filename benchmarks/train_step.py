"""Time of a training step of prompt tuning, compared with Hugging Face PEFT, interleaved.

    python -m benchmarks step                                        # as part of the suite
    python -m benchmarks.train_step                                  # any shape: T5-small, B = 32
    python -m benchmarks.train_step --model smollm2-135m --batch 16 --prompt 20
    python -m benchmarks.train_step --model t5-base --batch 128 --dtype bfloat16   # a GPU

Both sides have the same weights, prompt, rows and loss; the first losses must agree. A step is a
forward pass, a backward pass to the prompt and an AdamW update, without dropout. Rounds alternate
between the two, so that noise of the machine affects both; the ratio is the median over rounds of
PEFT's time divided by ours (above 1: prompt_jax is faster). The share of the ceiling is the number
of FLOPs (counted by hand) divided by the time and by the rate of a matrix product of a feed-forward
layer's shape, measured in the same process with both libraries (the faster one counts).

With `--lengths real`, row lengths follow a mixture of GLUE and SuperGLUE tasks under the T5
vocabulary. PEFT pads a batch to its longest row, as its default collators do; prompt_jax sorts rows
into micro-batches.

Where others compute on the same machine, `--clock cpu` under `taskset -c 0` compares the processor
time of one thread, which they hardly change.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs, peers
from benchmarks.harness import (
    Piece,
    Record,
    Rounds,
    Scale,
    agree,
    compared,
    hardware,
    interleave,
    scale,
    versions,
)
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.methods import create
from prompt_jax.models import LanguageModel
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.population import Population
from prompt_jax.training.types import Replica, TrainConfig

LEARNING_RATE = 0.3


class Shape(NamedTuple):
    """What is measured.

    Attributes:
      model: name of `inputs.published`.
      dtype: of both sides.
      lengths: "fixed" or "real".
      batch: B.
      prompt: L.
      tokens: S, where lengths are fixed.
      targets: T.
      batches: different batches of a round.
      micro_tokens: `TrainConfig.micro_batch_tokens`.
    """

    model: str
    dtype: str = "float32"
    lengths: str = "fixed"
    batch: int = 32
    prompt: int = 100
    tokens: int = 128
    targets: int = 3
    batches: int = 1
    micro_tokens: int = 0


def pieces(of: Scale) -> tuple[Piece, ...]:
    """The steps of this scale, most important first."""
    small = {"batch": 4, "prompt": 4, "tokens": 12}
    decoder = {"prompt": 20, "tokens": 108}
    shapes: Sequence[Shape] = of.choose(
        cpu=(
            Shape("t5-small"),
            Shape("t5-small", lengths="real", batches=2),
            Shape("smollm2-135m", batch=8, **decoder),
            Shape("smollm2-135m", lengths="real", batch=8, batches=2, **decoder),
            Shape("t5-small", "bfloat16"),
            Shape("t5-small", "bfloat16", "real", batches=2),
            Shape("smollm2-135m", "bfloat16", batch=8, **decoder),
            Shape("smollm2-135m", "bfloat16", "real", batch=8, batches=2, **decoder),
            Shape("t5-base", batch=8),
        ),
        accelerator=(
            Shape("t5-base", "bfloat16", batch=128, batches=4),
            Shape("t5-base", "bfloat16", "real", batch=128, batches=4),
            Shape("smollm2-135m", "bfloat16", batch=128, batches=4, **decoder),
            Shape("smollm2-135m", "bfloat16", "real", batch=128, batches=4, **decoder),
            Shape("t5-base", "float32", batch=32, batches=4),
            Shape("t5-small", "bfloat16", batch=128, batches=4),
        ),
        small=(
            Shape("toy-t5", **small),
            Shape("toy-t5", "bfloat16", "real", batches=2, **small),
            Shape("toy-decoder", "float32", "real", batches=2, **small),
        ),
    )
    return tuple(
        Piece(f"step/{s.model}/{s.dtype}/{s.lengths}", functools.partial(measure, s, of))
        for s in shapes
    )


class Ours:
    """The training step of this library.

    Args:
      lm: the model.
      rows: of every replica.
      prompts: the prompts at the start, one replica each.
      batch: B.
      micro_tokens: `TrainConfig.micro_batch_tokens`.
      mesh: of several devices.
      feeds: the rows of each replica; by default those of its number.
    """

    def __init__(
        self,
        lm: LanguageModel,
        rows: TokenisedSplit,
        prompts: Sequence[np.ndarray],
        batch: int,
        micro_tokens: int = 0,
        mesh: Any = None,
        feeds: Sequence[Feed] = (),
    ) -> None:
        optimizer = OptimizerConfig(
            learning_rate=LEARNING_RATE, unit="absolute", schedule="constant"
        )
        config = TrainConfig(
            steps=10**6,
            batch_size=batch,
            optimizer=optimizer,
            eval_every=0,
            micro_batch_tokens=micro_tokens,
        )
        self.feeds = feeds or [Feed(rows, batch, seed) for seed in range(len(prompts))]
        replicas = [
            Replica(RunKey(task=f"task{seed}", seed=seed), feed, {"prompt": prompt})
            for seed, (feed, prompt) in enumerate(zip(self.feeds, prompts, strict=True))
        ]
        self.population = Population(lm, create("prompt_tuning"), replicas, config, mesh)

    def step(self, number: int) -> list[float]:
        """One step; returns the loss of each replica (waits for the device)."""
        return np.asarray(self.population.step(number).loss).tolist()


def matmul_rate(
    shape: tuple[int, int, int], dtype: str, device: str, clock: Callable[[], float]
) -> float:
    """FLOP/s of a matrix product [m, k] x [k, n], the faster of JAX and (on `device`) torch."""
    m, k, n = shape
    a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
    product = jax.jit(jnp.matmul)

    def ours() -> None:
        jax.block_until_ready([product(a, b) for _ in range(4)])

    calls = [ours]
    if device:
        import torch

        x = torch.ones(m, k, device=device, dtype=getattr(torch, dtype))
        y = torch.ones(k, n, device=device, dtype=getattr(torch, dtype))

        def theirs() -> None:
            for _ in range(4):
                z = x @ y
            float(z[0, 0])

        calls.append(theirs)
    return 4 * 2.0 * m * k * n / min(best_time(call, clock) for call in calls)


def best_time(call: Callable[[], Any], clock: Callable[[], float], rounds: int = 5) -> float:
    """Minimum seconds over rounds, after a warm-up call."""
    call()
    times = []
    for _ in range(rounds):
        began = clock()
        call()
        times.append(clock() - began)
    return min(times)


def measure(
    shape: Shape,
    of: Scale,
    *,
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = 0,
) -> Iterator[Record]:
    """The step against PEFT, and its share of the rate of a matrix product.

    Args:
      shape: what.
      of: how long.
      clock: of the rounds.
      rounds: exactly so many; 0: as the scale says.
    """
    name = f"step/{shape.model}/{shape.dtype}/{shape.lengths}"
    path = inputs.folder(shape.model)
    lm = inputs.load(path, shape.dtype)
    sizes = inputs.lengths(shape.lengths, shape.batch * shape.batches, shape.tokens)
    rows = inputs.rows(sizes, lm.vocab_size, targets=shape.targets)
    prompt = np.asarray(lm.embed(np.arange(shape.prompt)), np.float32)
    ours = Ours(lm, rows, [prompt], shape.batch, shape.micro_tokens)
    numbers = range(shape.batches)  # the rows of a step depend only on its number
    sides: dict[str, Callable[[], Any]] = {"ours": lambda: [ours.step(n) for n in numbers]}
    facts: dict[str, Any] = {"note": peers.missing()}
    device = ""
    first = ours.step(0)
    if not facts["note"]:
        device = peers.torch_device(of.platform)
        model = peers.load(path, shape.dtype, device)
        theirs = peers.Peft(model, prompt, rows, ours.feeds[0], LEARNING_RATE)
        tolerance = 1e-4 if shape.dtype == "float32" else 2e-2
        checked = agree("first losses", first, [theirs.step(0)], tolerance)
        sides["peer"] = lambda: [theirs.step(n) for n in numbers]
        facts |= {"peer_is": "PEFT", "checked": checked}
    found = interleave(sides, of, clock=clock, rounds=rounds)
    per_step = Rounds({k: [s / shape.batches for s in v] for k, v in found.seconds.items()})
    settings = {
        "B": shape.batch,
        "L": shape.prompt,
        "S": round(float(sizes.mean()), 1),
        "T": shape.targets,
        "batches": shape.batches,
        "micro_batch_tokens": ours.population.token_budget,
    }
    yield compared(name, per_step, settings=settings, **facts)

    tokens = shape.prompt + round(float(sizes.mean()))
    work = lm.flops(shape.batch, tokens, shape.targets, backward="prompt")
    width, hidden = lm.feed_forward_shape
    rate = matmul_rate((shape.batch * tokens, width, hidden), shape.dtype, device, clock)
    reached = [work / seconds for seconds in per_step.seconds["ours"]]
    yield Record(
        f"{name}/ceiling",
        "GFLOP/s",
        statistics.median(reached) / 1e9,
        rate / 1e9,
        "share",
        "matrix product",
        ratio=statistics.median(reached) / rate,
        runs=per_step.count,
        spread=(min(reached) / rate, max(reached) / rate),
        settings=settings,
    )


def main() -> None:
    """Runs one comparison of any shape and prints its records as JSON objects."""
    parser = argparse.ArgumentParser(description="prompt tuning step: prompt_jax against PEFT")
    parser.add_argument("--model", default="t5-small", help="a published name, in any case")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--lengths", default="fixed", choices=("fixed", "real"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4, help="different batches")
    parser.add_argument("--micro-tokens", type=int, default=0, help="0: the library's choice")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    args = vars(parser.parse_args())
    clock = time.process_time if args.pop("clock") == "cpu" else time.perf_counter
    rounds, of = args.pop("rounds"), scale(jax.default_backend(), small=False)
    for record in measure(Shape(**args), of, clock=clock, rounds=rounds):
        found = record.to_dict(of, hardware()) | {"goal": None, "goal_is": None, "met": None}
        print(json.dumps(found | {"versions": versions()}))


if __name__ == "__main__":
    main()
