"""Rows per second as one size grows and the others stay: B, L, R, K, M and simulated devices.

The model is the one that ships with the package, so that a point takes seconds. Rates are of rows
of training; a method with M particles passes each row once for each of them.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.harness import Piece, Record, Rounds, Scale, interleave
from benchmarks.suite import environment
from benchmarks.train_step import Ours
from prompt_jax.models import LanguageModel

_MARK = "rows-per-second "


def pieces(of: Scale) -> tuple[Piece, ...]:
    """One piece for each size."""
    counts: Mapping[str, Sequence[int]] = of.choose(
        cpu={
            "B": (1, 8, 32, 128),
            "L": (5, 20, 100),
            "R": (1, 4, 16, 64),
            "M": (1, 5, 20),
            "K": (6, 100),
        },
        accelerator={
            "B": (8, 32, 128, 512),
            "L": (5, 20, 100),
            "R": (1, 16, 64, 256),
            "M": (1, 5, 50),
            "K": (6, 100, 1000),
        },
        small={"B": (1, 2), "R": (1, 2), "M": (1, 2), "K": (2,)},
    )
    makers = {"B": of_rows, "L": of_rows, "R": of_rows, "M": of_particles, "K": of_sources}
    found = [
        Piece(f"growth/{size}", functools.partial(measure, size, values, makers[size], of))
        for size, values in counts.items()
    ]
    if of.platform == "cpu":
        found.append(Piece("growth/devices", functools.partial(on_devices, of)))
    return tuple(found)


def model_and_sizes(of: Scale) -> tuple[LanguageModel, dict[str, int]]:
    """The model, and the sizes that stay."""
    if of.small:
        lm = inputs.load(inputs.folder("toy-t5"), "float32")
        return lm, {"B": 2, "L": 4, "R": 1, "S": 12, "M": 1, "K": 1}
    from prompt_jax.models import load

    return load("mini"), {"B": 32, "L": 20, "R": 1, "S": 64, "M": 1, "K": 1}


def of_rows(lm: LanguageModel, sizes: Mapping[str, int]) -> Callable[[int], Any]:
    """Steps of prompt tuning."""
    rows = _rows(lm, sizes)
    prompts = [inputs.prompt(lm, sizes["L"], seed) for seed in range(sizes["R"])]
    return Ours(lm, rows, prompts, sizes["B"]).step


def of_particles(lm: LanguageModel, sizes: Mapping[str, int]) -> Callable[[int], Any]:
    """Steps of M particles."""
    from benchmarks.particles import population

    prompt = inputs.prompt(lm, sizes["L"])
    made = population(lm, _rows(lm, sizes), sizes["B"], prompt, sizes["M"])
    return lambda number: float(made.step(number).loss[0])


def of_sources(lm: LanguageModel, sizes: Mapping[str, int]) -> Callable[[int], Any]:
    """Steps of DTVG with K source tasks."""
    import jax.numpy as jnp

    from prompt_jax.data.feed import Feed
    from prompt_jax.methods import Dtvg
    from prompt_jax.run_key import RunKey
    from prompt_jax.training.optimizers import OptimizerConfig
    from prompt_jax.training.population import Population
    from prompt_jax.training.types import Replica, TrainConfig

    count, length = sizes["K"], sizes["L"]
    init = inputs.prompt(lm, length)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, *init.shape)).astype(np.float32)
    params = {
        "prompt": init + vectors[0],
        "target_scale": np.ones((length,), np.float32),
        "source_scales": np.ones((count, length), np.float32),
    }
    consts = {"init": init, "source_vectors": vectors, "unit": jnp.float32(1.0)}
    feed = Feed(_rows(lm, sizes), sizes["B"], 0)
    config = TrainConfig(
        steps=10**6,
        batch_size=sizes["B"],
        eval_every=0,
        optimizer=OptimizerConfig(schedule="constant"),
    )
    made = Population(lm, Dtvg(), [Replica(RunKey(), feed, params, consts)], config)
    return lambda number: float(made.step(number).loss[0])


def _rows(lm: LanguageModel, sizes: Mapping[str, int]) -> Any:
    return inputs.rows(inputs.lengths("fixed", 2 * sizes["B"], sizes["S"]), lm.vocab_size)


def measure(
    size: str, values: Sequence[int], make: Callable[..., Callable[[int], Any]], of: Scale
) -> Iterator[Record]:
    """A record for each value; the points are measured in turn."""
    lm, same = model_and_sizes(of)
    number = iter(range(10**6)).__next__
    every = {value: same | {size: value} for value in values}
    steps = {str(value): make(lm, sizes) for value, sizes in every.items()}
    sides = {name: lambda step=step: step(number()) for name, step in steps.items()}
    found = interleave(sides, of, seconds=of.seconds / 2)
    for value, sizes in every.items():
        yield rate(f"growth/{size}={value}", sizes, found.seconds[str(value)])


def rate(name: str, sizes: Mapping[str, int], seconds: Sequence[float], **facts: Any) -> Record:
    """Rows per second of all replicas."""
    rates = [sizes["R"] * sizes["B"] / s for s in seconds]
    return Record(
        name,
        "rows/s",
        statistics.median(rates),
        runs=len(rates),
        spread=(min(rates), max(rates)),
        settings=dict(sizes),
        **facts,
    )


def on_devices(of: Scale) -> Iterator[Record]:
    """Weak scaling: n simulated devices, n times the rows, on the same cores.

    The devices share the cores, so the rate should stay; what it loses is the cost of splitting.
    """
    counts, first = of.choose((1, 2, 4, 8), (), (1, 2)), None
    for count in counts:
        flags = f"--xla_force_host_platform_device_count={count}"
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", str(count), str(int(of.small))],
            env=environment("cpu", XLA_FLAGS=flags),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        (line,) = (x for x in found.stdout.splitlines() if x.startswith(_MARK))
        batch, *seconds = map(float, line[len(_MARK) :].split())
        sizes = {"R": 1, "B": int(batch), "devices": count}
        note = "simulated devices that share the cores: an equal rate is ideal"
        one = rate(f"growth/devices={count}", sizes, seconds, note=note if first else "")
        first = first or one
        yield one


def main() -> None:
    """In a process with n devices: seconds of steps, rows split over them."""
    from benchmarks.harness import scale
    from prompt_jax import sharding

    count, small = map(int, sys.argv[1:])
    of = scale("cpu", bool(small))
    lm, sizes = model_and_sizes(of)
    sizes["B"] *= count
    rows, prompt = _rows(lm, sizes), inputs.prompt(lm, sizes["L"])
    mesh = sharding.make_mesh(count)
    side = Ours(lm, rows, [prompt], sizes["B"], mesh=mesh)
    number = iter(range(10**6)).__next__
    found: Rounds = interleave({"ours": lambda: side.step(number())}, of, seconds=of.seconds / 4)
    print(_MARK + " ".join(map(str, [sizes["B"], *found.seconds["ours"]])))


if __name__ == "__main__":
    main()
