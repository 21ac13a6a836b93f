"""One step of M particles against M steps of one, and the SVGD update as a share of the step.

Both sides have the same prior and the same rows: one replica of `bmtpt_particles` with M particles,
and M steps of one with a single particle.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import inputs
from benchmarks.harness import Piece, Record, Scale, agree, compared, interleave
from prompt_jax.data.feed import Feed
from prompt_jax.methods import BmtptParticles, Context
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.population import Population
from prompt_jax.training.types import Replica, TrainConfig


def pieces(of: Scale) -> tuple[Piece, ...]:
    """A few particles, and many."""
    counts = of.choose((5,), (5, 50), (3,))
    return tuple(
        Piece(f"operations/svgd/M={count}", functools.partial(measure, count, of))
        for count in counts
    )


def population(lm: Any, rows: Any, batch: int, prompt: np.ndarray, particles: int) -> Population:
    """A population of one replica with this number of particles."""
    method = BmtptParticles(particles=particles)
    params, consts = method.init(Context(lm, prompt, 0, "benchmark"))
    config = TrainConfig(
        steps=10**6,
        batch_size=batch,
        eval_every=0,
        optimizer=OptimizerConfig(schedule="constant"),
    )
    replica = Replica(RunKey(), Feed(rows, batch, 0), params, consts)
    return Population(lm, method, [replica], config)


def update_program(count: int, length: int, width: int) -> Callable[[], Any]:
    """The SVGD update of M prompts alone."""
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(count, length, width)), jnp.float32) for _ in range(2))
    tx = BmtptParticles(particles=count).transform(optax.identity())
    update, state = jax.jit(tx.update), tx.init({"particles": x})
    arguments = {"particles": g}, state, {"particles": x}
    return lambda: jax.block_until_ready(update(*arguments))


def measure(count: int, of: Scale) -> Iterator[Record]:
    """The two ratios."""
    model, dtype, batch, length, tokens = of.choose(
        cpu=("t5-small", "float32", 8, 100, 128),
        accelerator=("t5-base", "bfloat16", 32, 100, 128),
        small=("toy-t5", "float32", 2, 4, 12),
    )
    lm = inputs.load(inputs.folder(model), dtype)
    rows = inputs.rows(inputs.lengths("fixed", 4 * batch, tokens), lm.vocab_size)
    prompt = np.asarray(lm.embed(np.arange(length)), np.float32)
    together = population(lm, rows, batch, prompt, count)
    alone = population(lm, rows, batch, prompt, 1)
    number = iter(range(10**6)).__next__
    # Particles of one prompt start near it, each at its own place: losses are near, not equal.
    first = [float(side.step(0).loss[0]) for side in (together, alone)]
    checked = agree("mean losses of the first step", first[:1], first[1:], 0.05)

    def one_by_one() -> None:
        at = number()
        for _ in range(count):
            jax.block_until_ready(alone.step(at).loss)

    found = interleave(
        {
            "ours": lambda: jax.block_until_ready(together.step(number()).loss),
            "peer": one_by_one,
            "update": update_program(count, length, lm.d_model),
        },
        of,
    )
    settings = {"M": count, "B": batch, "L": length, "S": tokens, "D": lm.d_model, "dtype": dtype}
    two = found._replace(seconds={k: found.seconds[k] for k in ("ours", "peer")})
    peer_is = f"prompt_jax, {count} steps of one particle"
    name = f"operations/svgd/M={count}"
    yield compared(name, two, peer_is=peer_is, checked=checked, settings=settings)
    shares = found.ratios("update", "ours")
    yield Record(
        f"{name}/update",
        "ms",
        1e3 * found.median("update"),
        1e3 * found.median("ours"),
        "share",
        f"a step of {model}",
        ratio=statistics.median(shares),
        runs=found.count,
        spread=(min(shares), max(shares)),
        settings=settings,
    )
