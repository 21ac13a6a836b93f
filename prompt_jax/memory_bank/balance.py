"""Usage of slots, and penalties that balance it."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import sharding
from prompt_jax.memory_bank.bank import Array, MemoryBank


def key_pull(bank: MemoryBank, query: Array, indices: Array) -> jax.Array:
    """Mean over rows and retrieved slots of 1 - cos(sg[q], k_j), as in L2P's prompt pool."""
    query = jax.lax.stop_gradient(jnp.asarray(query, jnp.float32))
    chex.assert_rank([bank.keys, query, indices], 2)
    chex.assert_equal_shape_suffix([bank.keys, query], 1)
    chex.assert_equal_shape_prefix([query, indices], 1)
    return sharding.call_with_auto_axes(_pull, jnp.asarray(bank.keys), query, jnp.asarray(indices))


def _pull(keys: jax.Array, query: jax.Array, indices: jax.Array) -> jax.Array:
    keys = keys[indices].astype(jnp.float32)
    norms = jnp.sqrt((query**2).sum(-1) + 1e-12)[:, None] * jnp.sqrt((keys**2).sum(-1) + 1e-12)
    return (1.0 - jnp.einsum("bkd,bd->bk", keys, query, precision="highest") / norms).mean()


def load_balance(shares: Array, indices: Array) -> jax.Array:
    """N sum_n f_n p_n (Switch Transformer, eq. 4): 1 if all slots are used equally.

    Args:
      shares: p [B, N], `probabilities`; gradients flow through it.
      indices: [B, k]; f_n is slot n's share of all retrievals.
    """
    chex.assert_rank([shares, indices], 2)
    chex.assert_equal_shape_prefix([shares, indices], 1)
    return sharding.call_with_auto_axes(_balance, jnp.asarray(shares), jnp.asarray(indices))


def _balance(shares: jax.Array, indices: jax.Array) -> jax.Array:
    slots = shares.shape[1]
    f = usage(indices, slots) / indices.size
    return slots * jnp.vdot(f, shares.mean(0))


def usage(indices: Array, slots: int) -> jax.Array:
    """Retrieval counts of the slots, [N] float32."""
    chex.assert_type(indices, int)
    count = functools.partial(_count, slots)
    return sharding.call_with_auto_axes(count, jnp.asarray(indices))


def _count(slots: int, indices: jax.Array) -> jax.Array:
    return jnp.zeros((slots,), jnp.float32).at[indices.reshape(-1)].add(1.0)


def usage_entropy(counts: Array) -> jax.Array:
    """Entropy of the shares of [.., N] counts over log N: 1 is uniform, 0 one slot (or none)."""
    counts = jnp.asarray(counts, jnp.float32)
    p = counts / jnp.maximum(counts.sum(-1, keepdims=True), 1e-30)
    entropy = -(p * jnp.log(jnp.where(p > 0, p, 1.0))).sum(-1)
    return entropy / math.log(max(counts.shape[-1], 2))


class Usage(NamedTuple):
    """Summary of the use of a bank's slots."""

    slots: int
    dead: tuple[int, ...]  # never retrieved
    entropy: float  # of the retrievals, over log N
    effective: float  # exp of the entropy: effective number of slots

    @property
    def summary(self) -> str:
        """The usage in one line of text."""
        used = self.slots - len(self.dead)
        line = f"{used} of {self.slots} slots were retrieved, effective number {self.effective:.1f}"
        if self.dead:
            line += f"; {len(self.dead)} are dead: use fewer slots or more load balance"
        return line


def describe_usage(counts: Array) -> Usage:
    """Summarises counts [N]: the dead slots, and how evenly the others are used."""
    counts = np.asarray(counts)
    chex.assert_rank(counts, 1)
    entropy = float(usage_entropy(counts))
    dead = tuple(np.flatnonzero(counts == 0).tolist())
    effective = math.exp(entropy * math.log(max(len(counts), 2))) if counts.any() else 0.0
    return Usage(len(counts), dead, entropy, effective)
