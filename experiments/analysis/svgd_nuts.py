"""The posterior of a two-token prompt: SVGD's particles against NUTS.

    python -m experiments.analysis.svgd_nuts                # needs blackjax (extra: parity)
    python -m experiments.analysis.svgd_nuts --rows 16 --draws 20 --warmup 20 --steps 20  # short

A small random T5 is frozen; the labels of 64 fixed rows are whether a text holds a marker; the
prior is N(mean embedding, s^2 I) with s the embeddings' root mean square, times `--width`. NUTS is
the reference once R-hat is below 1.01 for every coordinate. Printed per kernel: the distance of the
particles' mean from the posterior mean in posterior standard deviations (root mean square over
coordinates), and the ratio of the particles' standard deviation to the posterior's (its mean and
range). The scale of the T5's answers is what makes the rows informative: `--sharpness` multiplies
its output layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax import svgd as stein
from prompt_jax.models.t5 import FrozenT5, T5Config

KERNELS = {
    "rbf": stein.rbf(),
    "imq": stein.imq(),
    "linear": stein.linear(),
    "per_token": stein.per_token(stein.rbf()),
    "per_coordinate": stein.per_coordinate(stein.rbf()),
}
CONVERGED = 1.01  # R-hat, of every coordinate
TOKENS, MARKER, ANSWERS = 2, 5, (8, 9)
Density = Callable[[jax.Array], jax.Array]


def posterior(args: argparse.Namespace) -> tuple[Density, int]:
    """The log posterior of z [P] = (prompt - centre) / s, up to a constant, and P."""
    config = T5Config(
        vocab_size=64,
        d_model=8,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=1,
        tied_head=False,
        scale_decoder_outputs=False,
    )
    lm = FrozenT5.from_config(config, seed=args.seed)
    lm = lm.replace(params={**lm.params, "lm_head": lm.params["lm_head"] * args.sharpness})
    rng = np.random.default_rng(args.seed)
    ids = rng.integers(10, config.vocab_size, (args.rows, 6)).astype(np.int32)
    label = np.arange(args.rows) % 2
    ids[label == 1, 0] = MARKER
    ids = rng.permuted(ids, axis=1)
    answers = np.asarray(ANSWERS, np.int32)[label][:, None]
    table = np.asarray(lm.embed(np.arange(config.vocab_size)), np.float32)
    centre, width = table.mean(0), args.width * float(lm.embedding_rms())

    def log_density(z: jax.Array) -> jax.Array:
        prompt = centre[None] + width * z.reshape(TOKENS, config.d_model)
        nll = lm.score(ids, np.ones_like(ids), answers, prompt).nll.sum()
        return -nll - 0.5 * jnp.sum(z**2)

    return log_density, TOKENS * config.d_model


def nuts(log_density: Density, dims: int, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Draws [chains, n, P] and the largest R-hat."""
    import blackjax
    from blackjax.diagnostics import potential_scale_reduction

    adapt = blackjax.window_adaptation(blackjax.nuts, log_density)

    @jax.jit
    @jax.vmap
    def chain(key: jax.Array) -> jax.Array:
        start, warm, go = jax.random.split(key, 3)
        position = jax.random.normal(start, (dims,))
        (state, parameters), _ = adapt.run(warm, position, num_steps=args.warmup)
        kernel = blackjax.nuts(log_density, **parameters).step

        def one(state: object, key: jax.Array) -> tuple:
            state, _ = kernel(key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(go, args.draws))[1]

    draws = chain(jax.random.split(jax.random.key(args.seed), args.chains))
    return np.asarray(draws, np.float64), float(potential_scale_reduction(draws).max())


def particles(
    kernel: stein.Kernel, log_density: Density, dims: int, args: argparse.Namespace
) -> tuple[np.ndarray, float]:
    """Particles [M, P] after SVGD, and their Stein discrepancy."""
    gradient = jax.vmap(jax.grad(lambda z: -log_density(z.reshape(-1))))
    schedule = optax.cosine_decay_schedule(0.1, args.steps)
    tx = optax.chain(stein.svgd(kernel), optax.adam(schedule, b2=0.99))
    start = jax.random.normal(
        jax.random.key(args.seed + 1), (args.particles, TOKENS, dims // TOKENS)
    )

    @jax.jit
    def run(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(_: int, carry: tuple) -> tuple:
            x, state = carry
            updates, state = tx.update(gradient(x), state, x)
            return optax.apply_updates(x, updates), state

        x, _ = jax.lax.fori_loop(0, args.steps, one, (x, tx.init(x)))
        return x, stein.stein_discrepancy(x, gradient(x))

    x, discrepancy = run(start)
    return np.asarray(x, np.float64).reshape(args.particles, -1), float(discrepancy)


def main() -> None:
    """Prints the convergence of the chains, and a row per kernel."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--sharpness", type=float, default=3.0)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=50)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=list(KERNELS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    log_density, dims = posterior(args)
    began = time.perf_counter()
    draws, r_hat = nuts(log_density, dims, args)
    flat = draws.reshape(-1, dims)
    mean, spread = flat.mean(0), flat.std(0)
    print(
        f"NUTS: {args.chains} x {args.draws} draws in {dims} dimensions, largest R-hat {r_hat:.4f},"
        f" posterior standard deviation {spread.mean():.3f} (prior 1),"
        f" mean {np.sqrt(np.mean(mean**2)):.3f} from the prior's,"
        f" {time.perf_counter() - began:.0f} s\n"
    )
    if not r_hat < CONVERGED:
        print(
            f"R-hat is not below {CONVERGED}: the chains have not converged to the posterior, so"
            " this table does not compare with it. Raise --draws and --warmup.\n"
        )
    print("| kernel | M | mean off by, sd | sd ratio | range | Stein discrepancy |")
    print("|-|-|-|-|-|-|")
    for name in args.kernels:
        x, discrepancy = particles(KERNELS[name], log_density, dims, args)
        off = np.sqrt(np.mean(((x.mean(0) - mean) / spread) ** 2))
        ratio = x.std(0) / spread
        print(
            f"| {name} | {args.particles} | {off:.3f} | {ratio.mean():.2f} |"
            f" {ratio.min():.2f} - {ratio.max():.2f} | {discrepancy:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
