"""Retrieval strategies: which slots of a bank a text gets, and what is logged and penalised of it.

`TopK`          the k slots of the largest score <q, k_n>
`Attention`     a weighted sum of all slots
`RandomSlots`   k slots drawn by the name of the text's task
`TaskSlots`     k slots for each task
`SharedSlots`   the same k slots for every text
`InstanceLibrary`  k slots for each text; a new row gets those of the nearest stored instance
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import streams
from prompt_jax.memory_bank.balance import key_pull, load_balance
from prompt_jax.memory_bank.bank import (
    Array,
    Gradient,
    MemoryBank,
    attend,
    gather,
    probabilities,
    slot_weights,
)
from prompt_jax.memory_bank.search import retrieve


class Texts(NamedTuple):
    """Texts that retrieve, such as the templates of all tasks."""

    tasks: tuple[str, ...]  # [n] the task of each
    queries: np.ndarray  # [n, D] float32


class Retrieved(NamedTuple):
    """What n texts retrieved."""

    prompts: jax.Array  # [n, L, D]
    query: jax.Array  # [n, D]
    indices: jax.Array | None  # [n, k] int32; None: all slots


@dataclass(frozen=True)
class Retrieval:
    """A retrieval strategy; the defaults are those of retrieval by scores, without penalties.

    Attributes:
      by_query: whether queries and keys decide. If not, each text has fixed slots (`assign`).
      selects: whether a text uses k slots only, not all.
      by_instance: whether new rows get the slots of the nearest stored instance (`nearest`).
    """

    by_query: ClassVar[bool] = True
    selects: ClassVar[bool] = True
    by_instance: ClassVar[bool] = False

    def bank_shape(self, slots: int, tokens: int, k: int, tasks: int) -> tuple[int, int]:
        """The size of a new bank.

        Args:
          slots: N, as the user asks for it.
          tokens: m, likewise.
          k: slots of a prompt.
          tasks: number of tasks that the bank is trained on; of texts if `by_instance`.

        Returns:
          Its number of slots, and the tokens of a slot.
        """
        return slots, tokens

    def assign(self, texts: Texts, known: Texts, slots: int, k: int, seed: int) -> np.ndarray:
        """The fixed slots of each text, for strategies that are not `by_query`.

        Args:
          texts: n of them.
          known: those that the bank is trained under.
          slots: N, as the user asks for it.
          k: slots of a prompt.
          seed: of the stream "init".

        Returns:
          [n, k] int32.
        """
        raise NotImplementedError

    def read(self, bank: MemoryBank, query: Array, k: int, assigned: Array | None) -> Retrieved:
        """The prompts of n texts.

        Args:
          bank: N slots of m tokens.
          query: [n, D].
          k: slots of a prompt.
          assigned: [n, k] int32, what `assign` returned; None if `by_query`.
        """
        raise NotImplementedError

    def count(
        self, usage: Array, bank: MemoryBank, retrieved: Retrieved, of: Array, task: Array
    ) -> jax.Array:
        """Adds the retrievals of B rows to the counts of their tasks.

        Args:
          usage: [K, N] float32.
          bank: what was read.
          retrieved: by n texts.
          of: [B] int32, the text of each row.
          task: [B] int32, the task of each row.

        Returns:
          [K, N] float32.
        """
        assert retrieved.indices is not None
        return usage.at[task[:, None], retrieved.indices[of]].add(1.0)

    def penalties(self, bank: MemoryBank, retrieved: Retrieved, of: Array) -> dict[str, jax.Array]:
        """`load_balance` and `key_pull` of the rows' retrievals, as `balance` and `pull`.

        Args:
          bank: what was read.
          retrieved: by n texts.
          of: [B] int32, the text of each row.

        Returns:
          Scalars; 0 where the strategy has no such penalty.
        """
        zero = jnp.zeros((), jnp.float32)
        return {"balance": zero, "pull": zero}


@dataclass(frozen=True)
class TopK(Retrieval):
    """The k slots of the largest inner product of query and key.

    Attributes:
      gradient: how keys and queries learn, see `slot_weights`.
      temperature: divides the scores in the soft weights.
      approximate: block-wise search, see `retrieve`.
      balanced: whether to compute the load balance, which needs all N scores.
      pulled: whether to compute the pull of keys.
    """

    gradient: Gradient = "soft"
    temperature: float = 1.0
    approximate: bool = False
    balanced: bool = True
    pulled: bool = True

    def read(self, bank: MemoryBank, query: Array, k: int, assigned: Array | None) -> Retrieved:
        """The best k slots, weighted by their scores."""
        indices, scores = retrieve(bank, query, k, approximate=self.approximate)
        weights = slot_weights(scores, query.shape[1], self.gradient, self.temperature)
        return Retrieved(gather(bank, indices, weights), query, indices)

    def penalties(self, bank: MemoryBank, retrieved: Retrieved, of: Array) -> dict[str, jax.Array]:
        """Both, unless they are not asked for."""
        penalties = super().penalties(bank, retrieved, of)
        _, query, indices = retrieved
        assert indices is not None
        if self.balanced:
            shares = probabilities(bank, query, self.temperature)
            penalties["balance"] = load_balance(shares[of], indices[of])
        if self.pulled:
            penalties["pull"] = key_pull(bank, query[of], indices[of])
        return penalties


@dataclass(frozen=True)
class Attention(Retrieval):
    """Soft attention over N / k slots of L tokens: as many parameters, and as long a prompt.

    Attributes:
      temperature: divides the scores.
    """

    temperature: float = 1.0

    selects = False

    def bank_shape(self, slots: int, tokens: int, k: int, tasks: int) -> tuple[int, int]:
        """Slots as long as the prompt, and so fewer of them."""
        return slots // k, tokens * k

    def read(self, bank: MemoryBank, query: Array, k: int, assigned: Array | None) -> Retrieved:
        """The weighted sum of all slots."""
        return Retrieved(attend(bank, query, self.temperature), query, None)

    def count(
        self, usage: Array, bank: MemoryBank, retrieved: Retrieved, of: Array, task: Array
    ) -> jax.Array:
        """Adds each slot's weight."""
        shares = probabilities(bank, retrieved.query, self.temperature)
        return usage.at[task].add(jax.lax.stop_gradient(shares)[of])


@dataclass(frozen=True)
class _FixedSlots(Retrieval):
    """Each text has its slots from the start; there are no keys, and nothing to penalise."""

    by_query = False

    def read(self, bank: MemoryBank, query: Array, k: int, assigned: Array | None) -> Retrieved:
        """The assigned slots."""
        indices = jnp.asarray(assigned)
        return Retrieved(gather(bank, indices), query, indices)


@dataclass(frozen=True)
class RandomSlots(_FixedSlots):
    """Slots drawn without replacement by the name of the text's task and the seed."""

    def assign(self, texts: Texts, known: Texts, slots: int, k: int, seed: int) -> np.ndarray:
        """The same for all texts of a task."""
        draws = {
            task: streams.rng(seed, "init", 3, zlib.crc32(task.encode())).choice(
                slots, k, replace=False
            )
            for task in set(texts.tasks)
        }
        return np.asarray([draws[task] for task in texts.tasks], np.int32)


@dataclass(frozen=True)
class TaskSlots(_FixedSlots):
    """Slots of their own for each task; a new task takes those of the task of nearest texts."""

    def bank_shape(self, slots: int, tokens: int, k: int, tasks: int) -> tuple[int, int]:
        """K slots for each task."""
        return k * tasks, tokens

    def assign(self, texts: Texts, known: Texts, slots: int, k: int, seed: int) -> np.ndarray:
        """Block n belongs to the n-th task of `known`; nearest is by inner product of means."""
        tasks = list(dict.fromkeys(known.tasks))
        of = np.asarray(known.tasks)
        centres = np.stack([known.queries[of == task].mean(0) for task in tasks])
        blocks = [
            tasks.index(task) if task in tasks else int(np.argmax(centres @ query))
            for task, query in zip(texts.tasks, texts.queries, strict=True)
        ]
        return (np.asarray(blocks)[:, None] * k + np.arange(k)[None]).astype(np.int32)


@dataclass(frozen=True)
class SharedSlots(_FixedSlots):
    """One prompt for all texts."""

    def bank_shape(self, slots: int, tokens: int, k: int, tasks: int) -> tuple[int, int]:
        """One prompt."""
        return k, tokens

    def assign(self, texts: Texts, known: Texts, slots: int, k: int, seed: int) -> np.ndarray:
        """All slots."""
        return np.tile(np.arange(k, dtype=np.int32), (len(texts.tasks), 1))


@dataclass(frozen=True)
class InstanceLibrary(_FixedSlots):
    """Slots of their own for each text, and a library of instances that were trained under it.

    As RoSPr (Ye et al. 2022, arXiv 2210.03029): a prompt is trained for each hard prompt and stored
    with embeddings of some of its training instances. A new row gets the prompt of the nearest
    instance.
    """

    by_instance = True

    def bank_shape(self, slots: int, tokens: int, k: int, tasks: int) -> tuple[int, int]:
        """K slots for each text."""
        return k * tasks, tokens

    def assign(self, texts: Texts, known: Texts, slots: int, k: int, seed: int) -> np.ndarray:
        """Block n belongs to the n-th text of `known`; others of its task share the nearest."""
        of = np.asarray(known.tasks)
        blocks = []
        for task, query in zip(texts.tasks, texts.queries, strict=True):
            scores = known.queries @ query
            own = of == task
            blocks.append(int(np.argmax(np.where(own, scores, -np.inf) if own.any() else scores)))
        return (np.asarray(blocks)[:, None] * k + np.arange(k)[None]).astype(np.int32)

    def nearest(
        self, bank: MemoryBank, query: Array, k: int, library: Array, texts: Array
    ) -> Retrieved:
        """The prompts of B rows.

        Args:
          bank: of k slots for each text.
          query: [B, D], of the rows.
          k: slots of a prompt.
          library: [n, D], the queries of the stored instances.
          texts: [n] int32, the text that each was trained under.
        """
        found = jnp.argmax(jnp.matmul(query, jnp.asarray(library).T, precision="highest"), axis=1)
        ranks = jnp.arange(k, dtype=jnp.int32)[None]
        indices = jnp.asarray(texts)[found][:, None] * k + ranks
        return Retrieved(gather(bank, indices), query, indices)
