"""Usage of the slots of a memory bank: metrics, panels and summary of methods that have one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from prompt_jax import memory_bank as mb
from prompt_jax.methods.base import BaseMethod, Panel
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted

_MOST_LOGGED = 4096  # numbers of a table that is written into every line of the log


@dataclass(frozen=True)
class SlotUsage(BaseMethod):
    """Defaults of a method with a memory bank: panels, metrics and the summary of usage.

    Its carry has the counts `usage` [K, N] float32, how often each task has retrieved each slot
    since the start; the `aux` of its prompts the scalars `balance` and `pull`.
    """

    panels = (
        Panel("slots_used", "lines", "Slots used", "How many slots any row has retrieved so far."),
        Panel(
            "usage_entropy",
            "lines",
            "Evenness of use",
            "Entropy of all retrievals over log N: 1 is even use, 0 a bank collapsed to one slot.",
        ),
        Panel(
            "slot_overlap",
            "heatmap",
            "Slots shared by tasks",
            "Share of retrievals that two tasks have in common. Related tasks share where retrieval"
            " follows skill; tasks that are worded alike share where it follows wording.",
            "sources",
        ),
        Panel(
            "slot_usage",
            "heatmap",
            "Slot usage by task",
            "Share of each task's retrievals that go to each slot, tasks downwards, in the first"
            " seed: slots have other numbers in others.",
            "sources",
            first_seed=True,
        ),
    )

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Usage of the slots since the start, by task, and the penalties."""
        by_task = prompted.carry["usage"]
        tasks, slots = by_task.shape
        shares = by_task / jnp.maximum(by_task.sum(1, keepdims=True), 1.0)
        numbers = {
            "slots_used": (by_task.sum(0) > 0).sum().astype(jnp.float32),
            "usage_entropy": mb.usage_entropy(by_task.sum(0)),
            "load_balance": prompted.aux["balance"],
            "key_pull": prompted.aux["pull"],
        }
        if tasks > 1 and tasks * tasks <= _MOST_LOGGED:
            numbers["slot_overlap"] = jnp.minimum(shares[:, None], shares[None]).sum(-1)
        if tasks > 1 and tasks * slots <= _MOST_LOGGED:
            numbers["slot_usage"] = shares
        return numbers

    def summarize(self, carry: Carry) -> str:
        """How many slots the mixture used, and how many are dead.

        One task alone is not asked: it retrieves few slots.
        """
        by_task = np.asarray(carry["usage"])
        return mb.describe_usage(by_task.sum(0)).summary if len(by_task) > 1 else ""
