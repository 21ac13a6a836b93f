"""How much of a Gaussian's variance SVGD's particles keep, by kernel, dimension and M.

    python -m experiments.analysis.svgd_variance                     # the table of docs/svgd.md
    python -m experiments.analysis.svgd_variance --dims 20 --particles 20 50 --steps 500

Particles start at a standard normal draw, and settle under N(0, I): Adam with its rate falling
from 0.2 to 0 along a cosine. Printed is the variance per coordinate (the truth is 1), and the
correlation of the first two coordinates where the target has one of 0.6 there.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax import svgd as stein

KERNELS = {
    "rbf": stein.rbf(),
    "imq": stein.imq(),
    "linear": stein.linear(),
    "per_token (4)": stein.per_token(stein.rbf()),
    "per_coordinate": stein.per_coordinate(stein.rbf()),
    "sliced (P)": stein.sliced(stein.rbf(), 1 << 20),
}


def settle(kernel: stein.Kernel, precision: np.ndarray, x: np.ndarray, steps: int) -> np.ndarray:
    """Particles [M, D] after SVGD; kernels see them as [M, D / 4, 4]."""
    schedule = optax.cosine_decay_schedule(0.2, steps)
    tx = optax.chain(stein.svgd(kernel), optax.adam(schedule, b2=0.99))
    start = jnp.asarray(x.reshape(len(x), -1, min(4, x.shape[1])), jnp.float32)

    @jax.jit
    def run(x: jax.Array) -> jax.Array:
        def one(_: int, carry: tuple[jax.Array, optax.OptState]) -> tuple:
            x, state = carry
            g = (x.reshape(len(x), -1) @ precision).reshape(x.shape)
            updates, state = tx.update(g, state, x)
            return optax.apply_updates(x, updates), state

        return jax.lax.fori_loop(0, steps, one, (x, tx.init(x)))[0]

    return np.asarray(run(start), np.float64).reshape(x.shape)


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 20])
    parser.add_argument("--particles", type=int, nargs="+", default=[5, 20, 50, 100, 300])
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=list(KERNELS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| dims | kernel | M | variance | correlation (0.6) | seconds |")
    print("|-|-|-|-|-|-|")
    for dims in options.dims:
        correlated = np.eye(dims)
        correlated[0, 1] = correlated[1, 0] = 0.6
        precision = np.linalg.inv(correlated).astype(np.float32)
        for name in options.kernels:
            for m in options.particles:
                start = np.random.default_rng([options.seed, m]).normal(size=(m, dims))
                began = time.perf_counter()
                plain = settle(KERNELS[name], np.eye(dims, dtype=np.float32), start, options.steps)
                turned = settle(KERNELS[name], precision, start, options.steps)
                seconds = time.perf_counter() - began
                # Not centred by M - 1: the particles are the whole approximation.
                variance = plain.var(0).mean()
                correlation = np.corrcoef(turned[:, :2].T)[0, 1]
                print(
                    f"| {dims} | {name} | {m} | {variance:.2f} | {correlation:.2f} |"
                    f" {seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
