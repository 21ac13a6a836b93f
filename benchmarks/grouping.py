"""DTVG's grouping and merging, as a share of a training step.

A step groups and merges twice (in the forward pass, and again for the gradient), so both are timed
as in the trainer: `forward` is `Method.prompts` of one replica, `backward` its gradient with
respect to the parameters. `group` is the selection alone.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs
from benchmarks.harness import Piece, Record, Scale, interleave
from prompt_jax.methods import Dtvg
from prompt_jax.training.protocol import Rows


def pieces(of: Scale) -> tuple[Piece, ...]:
    """A few source tasks, and many."""
    counts = of.choose((6, 1000), (6, 1000), (3,))
    return tuple(
        Piece(f"operations/grouping/K={count}", functools.partial(measure, count, of))
        for count in counts
    )


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


def step_program(name: str, rows: int, length: int, tokens: int) -> tuple[Callable[[], Any], int]:
    """Forward and backward to one prompt of a model, and the model's width."""
    lm = inputs.load(inputs.folder(name), "float32")
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(3, 100, (rows, tokens)), jnp.int32)
    labels = jnp.asarray(rng.integers(3, 100, (rows, 8)), jnp.int32)
    prompt = jnp.asarray(rng.normal(size=(length, lm.d_model)), jnp.float32)

    def loss(prompt: Any, lm: Any) -> Any:
        return lm.score(ids, jnp.ones_like(ids), labels, prompt).nll.sum()

    step = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(step(prompt, lm)), lm.d_model


def measure(count: int, of: Scale) -> Iterator[Record]:
    """Forward and backward of grouping and merging over those and a step of one replica."""
    model, rows, length, tokens = of.choose(
        cpu=("t5-base", 8, 100, 128),
        accelerator=("t5-base", 32, 100, 128),
        small=("toy-t5",) + (2,) * 3,
    )
    step, width = step_program(model, rows, length, tokens)
    parts = programs(count, length, width)
    found = interleave({**parts, "step": step}, of)
    pairs = zip(*(found.seconds[name] for name in ("forward", "backward", "step")), strict=True)
    shares = [(f + b) / (f + b + s) for f, b, s in pairs]
    ours = found.median("forward") + found.median("backward")
    yield Record(
        f"operations/grouping/K={count}",
        "ms",
        1e3 * ours,
        1e3 * (ours + found.median("step")),
        "share",
        f"a step of {model} with it",
        ratio=statistics.median(shares),
        runs=found.count,
        spread=(min(shares), max(shares)),
        note=f"the grouping alone: {1e3 * found.median('group'):.3g} ms",
        settings={"K": count, "B": rows, "L": length, "S": tokens, "D": width},
    )
