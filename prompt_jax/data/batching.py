"""Rows of many splits in batches of a few static shapes, for training and evaluation.

Rows are sorted by length before they are batched, longest first: a batch is as wide as its longest
row, only the last batch of a sweep is padded with rows, and running out of memory happens in the
first batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from prompt_jax.errors import ConfigError

if TYPE_CHECKING:
    from prompt_jax.data.tokenise import TokenisedSplit

# Steps of a third to a half: on average 10 to 20 % of a batch's tokens is padding, and a program is
# compiled for few widths.
_INPUT_WIDTHS = np.array([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024])
_TARGET_WIDTHS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])


class EvalRows(NamedTuple):
    """The rows of a batch, as a `prompt_fn` receives them."""

    input_ids: jax.Array | np.ndarray  # [b, S] int32
    mask: jax.Array | np.ndarray  # [b, S] int32
    task: jax.Array | np.ndarray  # [b] int32
    template: jax.Array | np.ndarray  # [b] int32
    embedded: jax.Array | None = None  # [b, S, D] float32, where the `prompt_fn` asks for it


class BatchPlan(NamedTuple):
    """Positions (in the caller's order) of the rows of one batch."""

    rows: np.ndarray  # [<= size] int64
    size: int  # rows of the padded batch
    width: int  # S

    def padded(self) -> np.ndarray:
        """The positions, int64 [size]: the last one is repeated as filler."""
        filler = np.full(self.size - len(self.rows), self.rows[-1])
        return np.concatenate([self.rows, filler])


class Folded(NamedTuple):
    """The rows of all replicas under all views as one sequence of n rows."""

    replica: np.ndarray  # [n] int64, r
    row: np.ndarray  # [n] int64, b: position within the replica's batch
    view: np.ndarray  # [n] int32, r * V + v
    prompt: np.ndarray  # [n] int32: the view, or view * B + b with a prompt per row
    share: np.ndarray  # [R, B] float32, |B_k| / |B_kv| where views share the rows, else 1


def input_width(length: int) -> int:
    """The padded width of an input of `length` tokens."""
    return _round_up(_INPUT_WIDTHS, length)


def target_width(length: int) -> int:
    """The padded width of a target of `length` tokens."""
    return _round_up(_TARGET_WIDTHS, length)


def assign_views(task: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Assigns the rows of a batch to views, task by task in round-robin order.

    Args:
      task: int [R, B], the task of each row of each replica.
      views: V.

    Returns:
      The view [R, B] of each row, and |B_k| / |B_kv| [R, B] float32: the number of rows of the
      row's task in the batch, divided by the number of those in its view.

    Raises:
      ConfigError: a task has fewer rows than there are views.
    """
    same = task[:, :, None] == task[:, None, :]  # [R, B, B]
    earlier = np.tril(np.ones(same.shape[1:], bool), -1)
    view = (same & earlier[None]).sum(2) % views
    rows = same.sum(2)
    if (rows < views).any():
        raise ConfigError(
            f"a batch of {task.shape[1]} rows has a task with {rows.min()} rows, but each of"
            f" {views} particles needs its own rows of every task: raise the batch size."
        )
    rows_in_view = (same & (view[:, :, None] == view[:, None, :])).sum(2)
    return view, (rows / rows_in_view).astype(np.float32)


def fold(
    shape: tuple[int, ...],
    kept: np.ndarray,
    views: int,
    *,
    by_row: bool,
    tasks: np.ndarray | None = None,
) -> Folded:
    """Folds replicas, views and rows into one axis.

    Args:
      shape: (R, B).
      kept: bool [R], the replicas that take part.
      views: V.
      by_row: whether every row has its own prompt.
      tasks: int [R, B], the task of each row, if each view has its own share of the rows; None if
        each view has all of them.

    Raises:
      ConfigError: with `tasks`, a task has fewer rows than there are views.
    """
    batch = shape[1]
    grid = np.meshgrid(np.flatnonzero(kept), np.arange(views), np.arange(batch), indexing="ij")
    r, v, b = (axis.reshape(-1) for axis in grid)
    share = np.ones(shape, np.float32)
    if tasks is not None:
        view_of_row, share = assign_views(tasks, views)
        assigned = view_of_row[r, b] == v
        r, v, b = r[assigned], v[assigned], b[assigned]
    view = r * views + v
    prompt = view * batch + b if by_row else view
    return Folded(r, b, view.astype(np.int32), prompt.astype(np.int32), share)


def plan(lengths: np.ndarray, extra: int, token_budget: int, multiple: int = 1) -> list[BatchPlan]:
    """Groups rows into batches of few shapes.

    Args:
      lengths: int [n], input tokens of each row.
      extra: Tokens of a row besides its input (prompt, candidates).
      token_budget: Tokens of a batch; a batch has at least `multiple` rows even above the budget.
      multiple: Every batch has a multiple of this many rows (number of devices).

    Returns:
      Batches, longest rows first; every row is in exactly one. Sizes depend only on the width,
      except for the last batch, whose size is the smallest of 1, 2, 3, 4, 6, 8, 12, ... that holds
      the remaining rows: at most a third of it is padding, and it has few possible shapes.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        width = input_width(int(lengths[order[start]]))
        fit = max(1, token_budget // (width + extra))
        size = _round_down(fit, 8 * multiple if fit >= 8 * multiple else multiple)
        remaining = len(order) - start
        if remaining < size:
            size = min(size, -(-last_batch_size(remaining) // multiple) * multiple)
        batches.append(BatchPlan(order[start : start + size], size, width))
        start += size
    return batches


class Pool:
    """The distinct splits of a sweep as one sequence of numbered rows.

    Args:
      splits: Splits; the same object may occur many times (replicas with one development set).
    """

    def __init__(self, splits: Sequence[TokenisedSplit]) -> None:
        unique = {id(split): split for split in splits}
        self.splits = list(unique.values())
        sizes = [len(split) for split in self.splits]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._number = {key: number for number, key in enumerate(unique)}
        self.lengths = np.concatenate(
            [np.asarray(split.inputs.lengths, np.int64) for split in self.splits]
            or [np.zeros(0, np.int64)]
        )

    def number(self, split: TokenisedSplit) -> int:
        """Index of a split among `splits`."""
        return self._number[id(split)]

    def rows_of(self, split: TokenisedSplit) -> np.ndarray:
        """Pool rows of a split, int64 [n]."""
        number = self.number(split)
        return np.arange(self._starts[number], self._starts[number + 1])

    def tasks_and_templates(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Task and template number of pool rows, int32 [b] each."""
        task, template = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32)
        for split, inside, local in self._by_split(rows):
            task[inside], template[inside] = split.task[local], split.template[local]
        return task, template

    def _by_split(
        self, rows: np.ndarray
    ) -> Iterator[tuple[TokenisedSplit, np.ndarray, np.ndarray]]:
        """Yields each split with a mask of its rows [b] and their numbers within the split."""
        split_numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(split_numbers):
            inside = split_numbers == number
            yield self.splits[number], inside, rows[inside] - self._starts[number]

    def gather(
        self,
        rows: np.ndarray,
        width: int,
        pad_id: int,
        answers: Sequence[np.ndarray | None] | None = None,
    ) -> tuple[EvalRows, np.ndarray | None]:
        """Gathers the padded inputs of rows, and their answers.

        Args:
          rows: int64 [b] pool rows.
          width: S, at least the longest of them.
          pad_id: Token id of padding.
          answers: Per split, an array [n, ...] of equal trailing shape, or None for all.

        Returns:
          The rows, and their answers [b, ...] (None without answers).
        """
        ids = np.full((len(rows), width), pad_id, np.int32)
        gathered: np.ndarray | None = None
        for split, inside, local in self._by_split(rows):
            ids[inside] = split.inputs.padded(local, width, pad_id)
            table = None if answers is None else answers[self.number(split)]
            if table is not None:
                if gathered is None:
                    gathered = np.empty((len(rows), *table.shape[1:]), table.dtype)
                gathered[inside] = table[local]
        task, template = self.tasks_and_templates(rows)
        mask = np.arange(width)[None, :] < self.lengths[rows][:, None]
        return EvalRows(ids, mask.astype(np.int32), task, template), gathered


def _round_up(widths: np.ndarray, length: int) -> int:
    """The smallest of the widths, or multiple of the largest, that is at least `length`."""
    if length <= widths[-1]:
        return int(widths[np.searchsorted(widths, length)])
    largest = int(widths[-1])
    return -(-length // largest) * largest


def last_batch_size(rows: int) -> int:
    """The smallest power of two, or 1.5 times one, that is at least `rows`."""
    power = 1 << (rows - 1).bit_length()
    return 3 * power // 4 if rows <= 3 * power // 4 else power


def _round_down(value: int, step: int) -> int:
    """The largest multiple of `step` up to `value`, but at least `step`."""
    return max(step, value // step * step)
