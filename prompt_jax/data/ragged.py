"""Ragged arrays: rows of integers of different lengths in two flat arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from prompt_jax.arrays import fields_repr


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """n rows of int32 of different lengths.

    Attributes:
      values: int32 [N], the rows end to end.
      offsets: int64 [n + 1]; row i is `values[offsets[i] : offsets[i + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    __repr__ = fields_repr

    def __post_init__(self) -> None:
        if self.offsets.ndim != 1 or self.values.ndim != 1 or len(self.offsets) < 1:
            raise ValueError("values and offsets must be vectors, offsets with n + 1 entries")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError("offsets must run from 0 to the number of values")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must not decrease")

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """Packs rows of integers.

        >>> Ragged.of([[1, 2], [], [3]]).lengths.tolist()
        [2, 0, 1]
        """
        rows = list(rows)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        values = np.fromiter((v for row in rows for v in row), np.int32, int(lengths.sum()))
        return cls(values, _offsets(lengths))

    @classmethod
    def concat(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one after the other."""
        values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        return cls(values, _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Row `index`, int32 [its length], a view."""
        index = range(len(self))[index]
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row, int64 [n]."""
        return np.diff(self.offsets)

    def padded(
        self, rows: Sequence[int] | np.ndarray, width: int | None = None, fill: int = 0
    ) -> np.ndarray:
        """Gathers rows into a matrix.

        Args:
          rows: row numbers, int [b], repeats allowed.
          width: columns; None: the longest of these rows.
          fill: padding value.

        Returns:
          int32 [b, width].

        Raises:
          ValueError: if a row is longer than `width`: only tokenisation truncates, and it counts
            the truncated rows.
        """
        rows = np.asarray(rows, np.int64)
        starts = self.offsets[:-1][rows]
        lengths = self.offsets[1:][rows] - starts
        longest = int(lengths.max(initial=0))
        width = longest if width is None else width
        if longest > width:
            raise ValueError(f"a row of {longest} does not fit in {width} columns")
        columns = np.arange(width)
        inside = columns[None, :] < lengths[:, None]
        result = np.full((len(rows), width), fill, np.int32)
        positions = starts[:, None] + columns[None, :]
        result[inside] = self.values[positions[inside]]
        return result

    def take(self, rows: Sequence[int] | np.ndarray) -> Ragged:
        """The given rows, in the given order."""
        rows = np.asarray(rows, np.int64)
        starts = self.offsets[:-1][rows]
        lengths = self.offsets[1:][rows] - starts
        offsets = _offsets(lengths)
        # Position of each value: the old start of its row plus its offset from the row's new start.
        shift = np.repeat(starts - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1]) + shift], offsets)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
