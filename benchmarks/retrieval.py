"""Recall and time of the memory bank's block-wise search, compared with the exact search.

    python benchmarks/retrieval.py                          # N = 1e4, 1e5, 1e6, D = 768, m = 1
    python benchmarks/retrieval.py --slots 2000 --width 64  # seconds

For every N: 256 queries, top-k by the exact chunked search and by the block-wise one at several
recall targets; keys at random, in contiguous clusters (a bank filled task by task), and in
interleaved clusters ("by turns", the round-robin order of `place_keys`). Recall is relative to the
exact search, which is checked against float64 brute force at the smallest N. Searches are
interleaved, and the median over rounds is printed with the temporary bytes of the compiled program
(a score matrix would take 4 B N). On TPU the second search is `jax.lax.approx_max_k`.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.memory_bank import MemoryBank, num_blocks, retrieve

ORDERS = ("random", "clusters", "by turns")


def make_keys(slots: int, width: int, order: str, seed: int) -> np.ndarray:
    """Keys float32 [N, D]: random; 500 around each centre; or 128 centres in round-robin order."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((slots, width), np.float32)
    if order == "random":
        return keys
    centres = rng.standard_normal(
        (-(-slots // 500) if order == "clusters" else 128, width), np.float32
    )
    numbers = np.arange(slots)
    return 0.5 * keys + centres[numbers // 500 if order == "clusters" else numbers % 128]


def compile_search(keys: Any, query: Any, k: int, recall: float | None) -> Any:
    """Compiles the search; `recall` None is the exact one."""

    def search(keys: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        bank = MemoryBank(keys, keys[:, None])
        if recall is None:
            return retrieve(bank, query, k)
        return retrieve(bank, query, k, approximate=True, recall=recall)

    return jax.jit(search).lower(keys, query).compile()


def timed(program: Any, *arguments: Any) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    indices, _ = jax.block_until_ready(program(*arguments))
    return time.perf_counter() - began, np.asarray(indices)


def recall_of(indices: np.ndarray, true: np.ndarray) -> float:
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(indices, true, strict=True)]
    return float(np.mean(shares))


def measure(args: argparse.Namespace, slots: int, order: str, check: bool) -> list[dict]:
    host = make_keys(slots, args.width, order, args.seed)
    rng = np.random.default_rng(args.seed + 1)
    # Queries near random keys, as templates are near their keys.
    near = host[rng.integers(0, slots, args.queries)]
    query = near + rng.standard_normal(near.shape, np.float32)
    keys, query = jnp.asarray(host), jnp.asarray(query)
    searches = [None, *args.recall]
    programs = {r: compile_search(keys, query, args.k, r) for r in searches}
    answers, seconds = {}, {r: [] for r in searches}
    for turn in range(args.rounds + 1):
        for r, program in programs.items():
            took, answers[r] = timed(program, keys, query)
            if turn:  # the first warms up
                seconds[r].append(took)
    if check:
        scores = np.asarray(query, np.float64) @ host.T.astype(np.float64)
        true = np.argsort(-scores, axis=1, kind="stable")[:, : args.k]
        assert recall_of(answers[None], true) > 0.9999, "the exact search is not exact"
    return [
        {
            "N": slots,
            "keys": order,
            "search": "exact" if r is None else f"recall {r:g}",
            "blocks": None if r is None else num_blocks(args.k, r),
            "recall": recall_of(answers[r], answers[None]),
            "ms": 1e3 * statistics.median(seconds[r]),
            "temporary_mb": programs[r].memory_analysis().temp_size_in_bytes / 1e6,
            "score_matrix_mb": 4e-6 * slots * args.queries,
        }
        for r in searches
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    number = functools.partial(parser.add_argument, type=int)
    number("--slots", nargs="+", default=[10_000, 100_000, 1_000_000], help="N")
    number("--width", default=768, help="D")
    number("--queries", default=256)
    number("--k", default=20)
    number("--rounds", default=5)
    number("--seed", default=0)
    parser.add_argument("--recall", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    print(f"{args.queries} queries, D = {args.width}, top-{args.k}, {jax.devices()[0].device_kind}")
    for slots in args.slots:
        for order in ORDERS:
            for row in measure(args, slots, order, check=slots == min(args.slots)):
                if args.json:
                    print(json.dumps(row), flush=True)
                    continue
                print(
                    f"N {row['N']:>9,}  {row['keys']:<8}  {row['search']:<11}"
                    f"  recall {row['recall']:.4f}  {row['ms']:9.1f} ms"
                    f"  temporaries {row['temporary_mb']:7.1f} MB"
                    f" (score matrix {row['score_matrix_mb']:.0f} MB)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
