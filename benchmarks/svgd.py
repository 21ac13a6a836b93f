"""Time of one step with M particles, compared with M single steps, and the cost of SVGD itself.

    python benchmarks/svgd.py                                    # T5-small, M = 5, 100 + 128, fp32
    python benchmarks/svgd.py --particles 50 --rounds 2
    python benchmarks/svgd.py --shape base --dtype bfloat16 --batch 32    # a GPU

Both sides have the same prior and the same rows: one replica of `bmtpt_particles` with M particles,
and M steps of one with a single particle. Rounds alternate between the two, so that noise of the
machine affects both; the ratio is the median over rounds of the time of the M single steps divided
by that of the one step (above 1: together is faster). The isolated SVGD update is timed on
particles of the same shape and given as a share of the step. The targets: a ratio of at least 1,
and a share of at most 1 % at M = 5 and 5 % at M = 50 with L = 100 and D = 768.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax.data.feed import Feed
from prompt_jax.data.ragged import Ragged
from prompt_jax.data.render import Example
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.methods import BmtptParticles, Context
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.population import Population
from prompt_jax.training.types import Replica, TrainConfig


def make_rows(args: argparse.Namespace, vocab: int) -> TokenisedSplit:
    """Random token rows of equal length with three target tokens."""
    rng, count = np.random.default_rng(args.seed), 4 * args.batch
    inputs = [[*rng.integers(3, vocab - 200, args.tokens - 1).tolist(), 1] for _ in range(count)]
    targets = [[*rng.integers(3, vocab - 200, 2).tolist(), 1] for _ in range(count)]
    none = np.zeros(count, np.int32)
    return TokenisedSplit(
        "benchmark",
        Ragged.of(inputs),
        Ragged.of(targets),
        none - 1,
        none,
        none,
        Ragged.of([[]] * count),
        Ragged.of([]),
        none.astype(bool),
        none.astype(bool),
        tuple(Example("", "") for _ in range(count)),
        ("plain",),
        ("benchmark",),
    )


def population(
    lm: FrozenT5, rows: TokenisedSplit, args: argparse.Namespace, particles: int
) -> Population:
    """A population of one replica with this number of particles."""
    method = BmtptParticles(particles=particles, kernel=args.kernel)
    initial = np.asarray(lm.embed(np.arange(args.prompt)), np.float32)
    params, consts = method.init(Context(lm, initial, 0, "benchmark"))
    config = TrainConfig(
        steps=10**6,
        batch_size=args.batch,
        eval_every=0,
        optimizer=OptimizerConfig(schedule="constant"),
        micro_batch_tokens=args.micro_batch_tokens,
    )
    return Population(
        lm, method, [Replica(RunKey(), Feed(rows, args.batch, 0), params, consts)], config
    )


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call, including the device."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def isolated(args: argparse.Namespace, width: int) -> float:
    """Median seconds of one SVGD update of M prompts."""
    rng = np.random.default_rng(args.seed)
    shape = (args.particles, args.prompt, width)
    x, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    method = BmtptParticles(particles=args.particles, kernel=args.kernel)
    tx = method.transform(optax.identity())
    update, state = jax.jit(tx.update), tx.init({"particles": x})
    jax.block_until_ready(update({"particles": g}, state, {"particles": x}))
    seconds = [timed(lambda: update({"particles": g}, state, {"particles": x})) for _ in range(11)]
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=["small", "base", "large", "toy"], default="small")
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--kernel", default="rbf")
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--micro-batch-tokens", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.shape == "toy":
        config = T5Config(
            vocab_size=512,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=2,
        )
    else:
        config = T5Config.known(f"t5-{args.shape}")
    lm = FrozenT5.from_config(config, seed=args.seed, dtype=args.dtype)
    rows = make_rows(args, config.vocab_size)
    together = population(lm, rows, args, args.particles)
    alone = population(lm, rows, args, 1)

    def one(number: int) -> float:
        return timed(lambda: together.step(number).loss)

    def several(number: int) -> float:
        return sum(timed(lambda: alone.step(number).loss) for _ in range(args.particles))

    for warm in range(2):
        one(warm), several(warm)
    seconds = [(one(number), several(number)) for number in range(2, 2 + args.rounds)]
    ratios = [apart / joint for joint, apart in seconds]
    step, update = statistics.median(s for s, _ in seconds), isolated(args, config.d_model)
    facts = {
        **vars(args),
        "seconds_together": round(step, 4),
        "seconds_alone": round(statistics.median(s for _, s in seconds), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds_svgd": round(update, 6),
        "svgd_share_of_step": round(update / step, 5),
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": version("jax"),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
