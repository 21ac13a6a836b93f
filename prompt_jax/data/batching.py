"""Rows of many splits in batches of a few static shapes, for training and evaluation alike.

Rows are sorted by length before they are cut, longest first: a batch is as wide as its longest row,
only the last batch of a sweep is padded with rows, and a batch that does not fit fails at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from prompt_jax.errors import ConfigError

if TYPE_CHECKING:
    from prompt_jax.data.tokenise import TokenisedSplit

# Steps of a third to a half: on average a tenth to a fifth of a batch's tokens is padding, and a
# program is compiled for a handful of widths.
_WIDTHS = np.array([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024])
_TARGETS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128])


class EvalRows(NamedTuple):
    """The rows of a batch, as a `prompt_fn` sees them."""

    input_ids: jax.Array | np.ndarray  # [b, S] int32
    mask: jax.Array | np.ndarray  # [b, S] int32
    task: jax.Array | np.ndarray  # [b] int32
    template: jax.Array | np.ndarray  # [b] int32


class BatchPlan(NamedTuple):
    """Positions (in the caller's order) that go through the model together."""

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
    return _round(_WIDTHS, length)


def target_width(length: int) -> int:
    """The padded width of a target of `length` tokens."""
    return _round(_TARGETS, length)


def assign_views(task: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives every view its own rows of a batch, of each task in turn.

    Args:
      task: int [R, B], the task of each row of each run.
      views: V.

    Returns:
      The view [R, B] that sees a row, and |B_k| / |B_kv| [R, B] float32: rows of the row's task
      in the batch, over those that its view sees.

    Raises:
      ConfigError: a task has fewer rows than there are views.
    """
    same = task[:, :, None] == task[:, None, :]  # [R, B, B]
    before = np.tril(np.ones(same.shape[1:], bool), -1)
    view = (same & before[None]).sum(2) % views
    rows = same.sum(2)
    if (rows < views).any():
        raise ConfigError(
            f"a batch of {task.shape[1]} rows has a task with {rows.min()} rows, but {views}"
            " particles want rows of their own of every task: raise the batch size."
        )
    mine = (same & (view[:, :, None] == view[:, None, :])).sum(2)
    return view, (rows / mine).astype(np.float32)


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
      by_row: whether every row has a prompt of its own.
      tasks: int [R, B], the task of each row, where each view sees its own share of the rows; None
        where each view sees all of them.

    Raises:
      ConfigError: with `tasks`, a task has fewer rows than there are views.
    """
    batch = shape[1]
    grid = np.meshgrid(np.flatnonzero(kept), np.arange(views), np.arange(batch), indexing="ij")
    r, v, b = (axis.reshape(-1) for axis in grid)
    share = np.ones(shape, np.float32)
    if tasks is not None:
        owner, share = assign_views(tasks, views)
        mine = owner[r, b] == v
        r, v, b = r[mine], v[mine], b[mine]
    view = r * views + v
    prompt = view * batch + b if by_row else view
    return Folded(r, b, view.astype(np.int32), prompt.astype(np.int32), share)


def plan(lengths: np.ndarray, extra: int, token_budget: int, multiple: int = 1) -> list[BatchPlan]:
    """Cuts rows into batches of few shapes.

    Args:
      lengths: int [n], input tokens of each row.
      extra: Tokens of a row besides its input (prompt, candidates).
      token_budget: Tokens of a batch; a batch has at least `multiple` rows all the same.
      multiple: Every batch has a multiple of this many rows (devices).

    Returns:
      Batches, longest rows first; every row is in exactly one. Sizes depend only on the width,
      but for the last batch, which shrinks to the least of 1, 2, 3, 4, 6, 8, 12, ... that holds
      what is left: at most a third of it is padding, and its shapes are few.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        width = input_width(int(lengths[order[start]]))
        fit = max(1, token_budget // (width + extra))
        size = _multiple_below(fit, 8 * multiple if fit >= 8 * multiple else multiple)
        left = len(order) - start
        if left < size:
            size = min(size, -(-_shrunk(left) // multiple) * multiple)
        batches.append(BatchPlan(order[start : start + size], size, width))
        start += size
    return batches


class Pool:
    """The distinct splits of a sweep, numbered through as one sequence of rows.

    Args:
      splits: Splits; the same object may occur many times (runs on one development set).
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
        for split, here, local in self._owners(rows):
            task[here], template[here] = split.task[local], split.template[local]
        return task, template

    def _owners(self, rows: np.ndarray) -> Iterator[tuple[TokenisedSplit, np.ndarray, np.ndarray]]:
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            yield self.splits[number], here, rows[here] - self._starts[number]

    def gather(
        self,
        rows: np.ndarray,
        width: int,
        pad_id: int,
        answers: Sequence[np.ndarray | None] | None = None,
    ) -> tuple[EvalRows, np.ndarray | None]:
        """Pads the inputs of some rows, and picks their answers.

        Args:
          rows: int64 [b] pool rows.
          width: S, at least the longest of them.
          pad_id: Token id of padding.
          answers: Per split, an array [n, ...] of equal trailing shape, or None for all.

        Returns:
          The rows, and their answers [b, ...] (None without answers).
        """
        ids = np.full((len(rows), width), pad_id, np.int32)
        picked: np.ndarray | None = None
        for split, here, local in self._owners(rows):
            ids[here] = split.inputs.padded(local, width, pad_id)
            table = None if answers is None else answers[self.number(split)]
            if table is not None:
                if picked is None:
                    picked = np.empty((len(rows), *table.shape[1:]), table.dtype)
                picked[here] = table[local]
        task, template = self.tasks_and_templates(rows)
        mask = np.arange(width)[None, :] < self.lengths[rows][:, None]
        return EvalRows(ids, mask.astype(np.int32), task, template), picked


def _round(steps: np.ndarray, length: int) -> int:
    if length <= steps[-1]:
        return int(steps[np.searchsorted(steps, length)])
    last = int(steps[-1])
    return -(-length // last) * last


def _shrunk(left: int) -> int:
    """The least power of two, or one and a half of one, that is at least `left`."""
    power = 1 << (left - 1).bit_length()
    return 3 * power // 4 if left <= 3 * power // 4 else power


def _multiple_below(value: int, step: int) -> int:
    return max(step, value // step * step)
