"""Cuts the rows of all runs of a step into micro-batches of a few fixed shapes.

Planning happens on the host and never changes the order of a run's rows: it only decides which
rows pass through the T5 together. Rows are sorted by length, so that short rows do not pay for
long ones, and every shape (rows, S) is one compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prompt_jax.errors import ConfigError

# Each about a third wider than the last: at most a sixth of the tokens is padding on average, and
# a step meets few enough shapes that compiling them does not matter.
_WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


class MicroBatch(NamedTuple):
    """Rows that pass through the T5 together."""

    rows: np.ndarray  # [b] int64, positions in the folded order; fillers repeat the last row
    real: np.ndarray  # [b] bool, False for fillers
    width: int  # S, the padded input length


@dataclass(frozen=True)
class Shapes:
    """The static shapes that micro-batches may have.

    Attributes:
      widths: ascending padded input lengths.
      token_budget: encoder tokens (prompt included) of one micro-batch.
      prompt_tokens: L, added to every row.
      multiple: the number of rows is a multiple of this (devices on the 'data' axis).
    """

    widths: tuple[int, ...]
    token_budget: int
    prompt_tokens: int
    multiple: int = 1

    @classmethod
    def up_to(
        cls, longest: int, token_budget: int, prompt_tokens: int, multiple: int = 1
    ) -> Shapes:
        """The standard widths, ending at the first that holds `longest` tokens."""
        if longest > _WIDTHS[-1]:
            raise ConfigError(
                f"an input of {longest} tokens is longer than {_WIDTHS[-1]}, the widest supported;"
                " lower data.max_input_tokens."
            )
        widths = tuple(w for w in _WIDTHS if w < longest)
        return cls((*widths, _WIDTHS[len(widths)]), token_budget, prompt_tokens, multiple)

    def width(self, length: int) -> int:
        """The smallest width that holds `length` tokens."""
        return self.widths[int(np.searchsorted(self.widths, length))]

    def rows(self, width: int) -> int:
        """Rows of a full micro-batch: `multiple` times a power of two, within the budget."""
        fit = self.token_budget // ((width + self.prompt_tokens) * self.multiple)
        return self.multiple * (1 << (max(1, fit).bit_length() - 1))


def plan(lengths: Sequence[int] | np.ndarray, shapes: Shapes) -> list[MicroBatch]:
    """Sorts folded rows by length and cuts them into micro-batches.

    Args:
      lengths: input tokens of every folded row, prompt not counted.
      shapes: the shapes that may be used.

    Returns:
      Micro-batches, longest rows first; every folded row is real in exactly one of them.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        width = shapes.width(int(lengths[order[start]]))
        size, left = shapes.rows(width), len(order) - start
        while size // 2 >= left and (size // 2) % shapes.multiple == 0:
            size //= 2
        rows = order[start : start + size]
        real = np.arange(size) < len(rows)
        rows = np.concatenate([rows, np.full(size - len(rows), rows[-1])])
        batches.append(MicroBatch(rows, real, width))
        start += size
    return batches
