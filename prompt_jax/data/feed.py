"""The rows of each training step: pure functions of (seed, stream, step).

There is no stored position: step s has the same rows in a resumed run, for a replica trained
together with others, and on any number of devices.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

import numpy as np

from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.errors import ConfigError, DataError, did_you_mean
from prompt_jax.streams import rng, stream_id

Mode = Literal["proportional", "uniform", "stratified", "sampled"]
MODES: tuple[str, ...] = get_args(Mode)

_CACHED_EPOCHS = 3  # cached permutations: a batch spans one or two epochs, seldom more


class ShuffledStream:
    """An infinite sequence of the numbers 0 .. n - 1: shuffled epochs, one after the other.

    Args:
      n: how many numbers, at least 1.
      seed: of the stream.
      stream: name of the random stream.
      words: more integers that distinguish this sequence from others of the stream.
    """

    def __init__(self, n: int, seed: int, stream: str, *words: int) -> None:
        self.n = n
        self._seed, self._stream, self._words = seed, stream, words
        self._epochs: OrderedDict[int, np.ndarray] = OrderedDict()

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Numbers at the given positions (non-negative int [m], any order), int64 [m]."""
        epochs, within = np.divmod(positions, self.n)
        result = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            result[inside] = self._epoch(int(epoch))[within[inside]]
        return result

    def _epoch(self, epoch: int) -> np.ndarray:
        order = self._epochs.get(epoch)
        if order is None:
            order = rng(self._seed, self._stream, *self._words, epoch).permutation(self.n)
            self._epochs[epoch] = order
            if len(self._epochs) > _CACHED_EPOCHS:
                self._epochs.popitem(last=False)
        else:
            self._epochs.move_to_end(epoch)
        return order


class Feed:
    """Rows of one split in shuffled epochs; a batch may span two epochs.

    Args:
      split: the rows.
      batch_size: B; may exceed the number of rows, which then repeat within a batch.
      seed: of the order.
      stream: name of the random stream.

    Raises:
      DataError: if there are no rows.
      ConfigError: for a batch size below 1 or an unknown stream.
    """

    def __init__(
        self, split: TokenisedSplit, batch_size: int, seed: int, stream: str = "order"
    ) -> None:
        if not len(split):
            raise DataError(f"'{split.name}' has no rows to train on.")
        if batch_size < 1:
            raise ConfigError(f"the batch size must be at least 1, not {batch_size}.")
        stream_id(stream)
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream
        self.task_sizes = np.bincount(split.task, minlength=len(split.task_names)).astype(np.int64)
        self._order = ShuffledStream(len(split), seed, stream)

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of a step, int64 [B]."""
        return self._order.at(self._positions(step))

    def scale(self, rows: np.ndarray) -> np.ndarray:
        """N_k / |B_k| of each row's task k in this batch, float32 [B].

        N_k is the number of rows of the task in the split, |B_k| in the batch. With this factor the
        sum over a batch estimates the sum over all data.
        """
        tasks = self.split.task[rows]
        in_batch = np.bincount(tasks, minlength=len(self.task_sizes))
        return (self.task_sizes[tasks] / in_batch[tasks]).astype(np.float32)

    def _positions(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)


class Mixture(Feed):
    """Rows of a split with several tasks, mixed in a chosen proportion.

    - "proportional": a task has min(N_k, cap) rows in every virtual epoch (examples-proportional
      mixing with a limit, Raffel et al. 2020, section 3.5.2).
    - "uniform": every task has the same number of rows in a virtual epoch.
    - "stratified": every task has B // K rows in every batch; the other B % K rows are assigned to
      the tasks in round-robin order.
    - "sampled": every step draws a number n of tasks, uniform in 2 .. K, then n of the tasks, which
      share the batch evenly (the stochastic task sampling of MPT).

    The rows of each task come in shuffled epochs of that task, independently of the others; a
    "sampled" mixture leaves gaps in them, so that a step remains a function of its number.

    Args:
      split: the rows; tasks without rows are ignored.
      batch_size: B.
      seed: of the order.
      stream: name of the random stream.
      mode: see above.
      cap: of "proportional".

    Raises:
      DataError: if there are no rows, or B < K in "stratified" mode.
      ConfigError: for an unknown mode or a cap below 1.
    """

    def __init__(
        self,
        split: TokenisedSplit,
        batch_size: int,
        seed: int,
        stream: str = "order",
        mode: Mode = "proportional",
        cap: int = 2**19,
    ) -> None:
        super().__init__(split, batch_size, seed, stream)
        if mode not in MODES:
            raise ConfigError(
                f"unknown mixture '{mode}'.{did_you_mean(mode, MODES)} Known: {', '.join(MODES)}."
            )
        if cap < 1:
            raise ConfigError(f"the cap of a mixture must be at least 1, not {cap}.")
        self.mode = mode
        self.cap = cap
        present = np.flatnonzero(self.task_sizes)
        if mode == "stratified" and batch_size < len(present):
            raise DataError(
                f"a stratified batch needs a row of each of {len(present)} tasks: raise the batch "
                f"size from {batch_size} to at least {len(present)}."
            )
        self._members = [np.flatnonzero(split.task == task) for task in present]
        # The second word (the task) makes these streams differ from the epochs of a plain feed.
        self._streams = [
            ShuffledStream(len(members), seed, stream, 1, int(task))
            for task, members in zip(present, self._members, strict=True)
        ]
        sizes = self.task_sizes[present]
        if mode == "uniform":
            quota = np.full(len(present), max(1, -(-int(sizes.sum()) // len(present))), np.int64)
        else:
            quota = np.minimum(sizes, cap)
        self._quota = quota  # rows of each task in a virtual epoch
        self._slots = ShuffledStream(int(quota.sum()), seed, stream, 2)

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of a step, int64 [B]; grouped by task if "stratified" or "sampled"."""
        if self.mode == "stratified":
            return self._stratified(step)
        if self.mode == "sampled":
            return self._sampled(step)
        # A slot of a virtual epoch is (task, position among the slots of that task).
        positions = self._positions(step)
        slots = self._slots.at(positions)
        ends = np.cumsum(self._quota)
        tasks = np.searchsorted(ends, slots, side="right")
        within_task = slots - (ends - self._quota)[tasks]
        within_task += positions // self._slots.n * self._quota[tasks]
        result = np.empty(self.batch_size, np.int64)
        for k in np.unique(tasks):
            inside = tasks == k
            result[inside] = self._members[k][self._streams[k].at(within_task[inside])]
        return result

    def _sampled(self, step: int) -> np.ndarray:
        draw = rng(self.seed, self.stream, 3, step)
        most = min(len(self._members), self.batch_size)
        count = int(draw.integers(min(2, most), most + 1))
        tasks = draw.permutation(len(self._members))[:count]
        parts = []
        for place, k in enumerate(tasks.tolist()):
            rows = self.batch_size // count + (place < self.batch_size % count)
            positions = np.arange(step * self.batch_size, step * self.batch_size + rows)
            parts.append(self._members[k][self._streams[k].at(positions)])
        return np.concatenate(parts)

    def _stratified(self, step: int) -> np.ndarray:
        count = len(self._members)
        each, rest = divmod(self.batch_size, count)
        parts = []
        for k in range(count):
            # Extra rows j = 0, 1, 2, ... of all steps belong to task j % K; `before` and `after`
            # count those of task k before this step and before the next one.
            before, after = ((s * rest - k + count - 1) // count for s in (step, step + 1))
            within_task = np.arange(step * each + before, (step + 1) * each + after)
            parts.append(self._members[k][self._streams[k].at(within_task)])
        return np.concatenate(parts)


def process_slice(rows: np.ndarray, index: int, count: int) -> np.ndarray:
    """The contiguous part of a batch that process `index` of `count` reads, int64 [B / count].

    Raises:
      ConfigError: if the batch cannot be split evenly.
    """
    if not 0 <= index < count or len(rows) % count:
        raise ConfigError(
            f"{len(rows)} rows cannot be split evenly: part {index} of {count} processes. "
            f"Use a batch size that is a multiple of {count}."
        )
    part = len(rows) // count
    return rows[index * part : (index + 1) * part]
