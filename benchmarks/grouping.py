"""The time of DTVG's grouping and merging, alone and as a share of a training step.

    python benchmarks/grouping.py                         # K = 6 and K = 1,000, T5-base's L and D
    python benchmarks/grouping.py --step-ms 250           # and the share of a step of 250 ms
    python benchmarks/grouping.py --model small --rows 32 # and of a step measured here

A step groups and merges twice (in the forward pass, and again for the gradient), so both are timed
as in the trainer: `forward` is `Method.prompts` of one replica, `backward` its gradient with
respect to the parameters. `group` is the selection alone. Times are medians over rounds, with the
cases interleaved.

The target is a share of at most 1 % of a step at K = 6, L = 100, D = 768, and of at most 5 % at
K = 1,000 on a CPU. `--model` measures a step of prompt tuning of one replica on random weights of
T5's shape (100 + 128 -> 8 tokens), so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.methods import Dtvg
from prompt_jax.training.protocol import Rows

SHAPES = {
    "tiny": {
        "vocab_size": 128,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_heads": 4,
    },
    "small": {
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
    },
    "base": {
        "vocab_size": 32128,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 3072,
        "num_layers": 12,
        "num_heads": 12,
    },
}


def programs(count: int, length: int, width: int) -> dict[str, Callable[[], Any]]:
    """The parts of a step, compiled, as functions without arguments."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    method = Dtvg()
    init = normal(length, width)
    params = {
        "prompt": init + normal(length, width),
        "target_scale": jnp.ones((length,), jnp.float32),
        "source_scales": jnp.ones((count, length), jnp.float32),
    }
    consts = {
        "init": init,
        "source_vectors": normal(count, length, width),
        "unit": jnp.float32(1.0),
    }
    carry = method.carry(params, consts)
    empty, zeros = jnp.zeros((1, 0), jnp.int32), jnp.zeros((1,), jnp.int32)
    rows = Rows(empty, empty, zeros, zeros, jnp.ones((1,), jnp.float32))
    step, key, pull = jnp.int32(0), jax.random.key(0), normal(1, length, width)

    def prompts(params: Any, consts: Any) -> Any:
        return method.prompts(params, consts, carry, rows, step, key).prompts

    def back(params: Any, consts: Any) -> Any:
        return jax.grad(lambda p: jnp.vdot(prompts(p, consts), pull))(params)

    timed = {
        "group": jax.jit(lambda p, c: method.carry(p, c)["group"]),
        "forward": jax.jit(prompts),
        "backward": jax.jit(back),
    }
    return {name: lambda f=f: jax.block_until_ready(f(params, consts)) for name, f in timed.items()}


def step_program(shape: str, rows: int, length: int) -> Callable[[], Any]:
    """Forward and backward to one prompt of a T5 with random weights."""
    from prompt_jax.models.t5 import FrozenT5, T5Config

    lm = FrozenT5.from_config(T5Config(**SHAPES[shape]), seed=0)
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(3, 100, (rows, 128)), jnp.int32)
    labels = jnp.asarray(rng.integers(3, 100, (rows, 8)), jnp.int32)
    prompt = jnp.asarray(rng.normal(size=(length, lm.d_model)), jnp.float32)

    def loss(prompt: Any, lm: Any) -> Any:
        return lm.score(ids, jnp.ones_like(ids), labels, prompt).nll.sum()

    step = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(step(prompt, lm))


def medians(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each part, without the first call, which compiles."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()
    for _ in range(rounds):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(part_times) for name, part_times in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", default="6,1000", help="K, several with commas")
    parser.add_argument("--length", type=int, default=100, help="L")
    parser.add_argument("--width", type=int, default=768, help="D")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", choices=sorted(SHAPES), help="also measure a step of this T5")
    parser.add_argument("--rows", type=int, default=32, help="B of that step")
    parser.add_argument("--step-ms", type=float, help="the time of a step measured elsewhere")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    step = options.step_ms
    if options.model:
        one = step_program(options.model, options.rows, options.length)
        step = medians({"step": one}, max(3, options.rounds // 4))["step"]
    cases = []
    for count in map(int, options.sources.split(",")):
        times = medians(programs(count, options.length, options.width), options.rounds)
        entry: dict[str, Any] = {"K": count, "L": options.length, "D": options.width, **times}
        both = times["forward"] + times["backward"]
        if step:
            entry |= {"step": step, "share": both / (step + both)}
        cases.append(entry)
    if options.json:
        print(json.dumps({"device": jax.devices()[0].device_kind, "cases": cases}, indent=2))
        return
    print(f"{jax.devices()[0].device_kind}, milliseconds, median of {options.rounds}")
    for entry in cases:
        text = "  ".join(f"{k} {entry[k]:.3f}" for k in ("group", "forward", "backward"))
        share = f"  {entry['share']:.2%} of a step of {step:.1f}" if step else ""
        print(f"K = {entry['K']:5d}  {text}{share}")


if __name__ == "__main__":
    main()
