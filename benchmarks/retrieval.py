"""The memory bank's exact search against a plain product and `top_k`, and the block-wise search.

256 queries, top-20. Keys are random; or in contiguous clusters (a bank filled task by task); or in
128 clusters by turns (the round-robin order of `place_keys`). The exact search has to find the same
slots as the plain one. The block-wise search does less work, so it has a recall and no ratio. On
TPU it is `jax.lax.approx_max_k`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Piece, Record, Rounds, Scale, compared, interleave
from prompt_jax.memory_bank import MemoryBank, num_blocks, retrieve

ORDERS = ("random", "clusters", "by turns")
RECALL = 0.99


def pieces(of: Scale) -> tuple[Piece, ...]:
    """Banks of several sizes."""
    slots = of.choose((10_000, 100_000), (100_000, 1_000_000), (2000,))
    return tuple(
        Piece(f"operations/retrieval/N={count}", functools.partial(measure, count, of))
        for count in slots
    )


def make_keys(slots: int, width: int, order: str, seed: int = 0) -> np.ndarray:
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


def recall_of(indices: np.ndarray, true: np.ndarray) -> float:
    """The share of the true indices that were found."""
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(indices, true, strict=True)]
    return float(np.mean(shares))


@functools.partial(jax.jit, static_argnames="k")
def plain(keys: jax.Array, query: jax.Array, k: int) -> jax.Array:
    """The slots of the k largest products, from the whole matrix of scores."""
    scores = jnp.dot(query, keys.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.top_k(scores, k)[1]


def measure(slots: int, of: Scale) -> Iterator[Record]:
    """The two searches, for each order of the keys."""
    width, queries, k = of.choose((768, 256, 20), (768, 256, 20), (32, 8, 20))
    for order in ORDERS if slots < 1_000_000 else ORDERS[:1]:
        host = make_keys(slots, width, order)
        rng = np.random.default_rng(1)
        # Queries near random keys, as templates are near their keys.
        near = host[rng.integers(0, slots, queries)]
        keys = jnp.asarray(host)
        query = jnp.asarray(near + rng.standard_normal(near.shape, np.float32))
        exact, blocks = (compile_search(keys, query, k, r) for r in (None, RECALL))

        def call(program: Any, keys: Any = keys, query: Any = query) -> np.ndarray:
            return np.asarray(program(keys, query)[0])

        def whole(keys: Any = keys, query: Any = query) -> np.ndarray:
            return np.asarray(plain(keys, query, k))

        true = whole()
        equal, recall = recall_of(call(exact), true), recall_of(call(blocks), true)
        if equal < 0.999:
            raise RuntimeError(f"the exact search finds {equal:.2%} of the true slots, not timed")
        sides: dict[str, Callable[[], Any]] = {
            "ours": functools.partial(call, exact),
            "peer": whole,
            "blocks": functools.partial(call, blocks),
        }
        found = interleave(sides, of, seconds=of.seconds / 3)
        settings = {"N": slots, "D": width, "k": k, "queries": queries, "keys": order}
        name = f"operations/retrieval/N={slots}/{order.replace(' ', '-')}"
        temporary = exact.memory_analysis().temp_size_in_bytes / 1e6
        yield compared(
            f"{name}/exact",
            Rounds({side: found.seconds[side] for side in ("ours", "peer")}),
            unit="ms",
            factor=1e3,
            peer_is="a plain product and top_k",
            checked=f"{equal:.2%} of the slots are equal",
            note=f"temporaries {temporary:.0f} MB, the scores at once {4e-6 * slots * queries:.0f}",
            settings=settings,
        )
        yield compared(
            f"{name}/blocks",
            Rounds({"ours": found.seconds["blocks"]}),
            unit="ms",
            factor=1e3,
            note=f"finds {recall:.3f} of the true slots, {RECALL:g} were asked for"
            f" ({num_blocks(k, RECALL)} blocks)",
            settings=settings,
        )
