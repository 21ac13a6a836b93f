"""Candidates with the same score: no answer may depend on the position of a candidate.

Two candidates are tied when their scores are equal, and always when they are the same tokens, as
choices that differ only behind the maximum target length. A metric counts a tied row as the mean
over its tied candidates: the gold one among n earns 1 / n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from prompt_jax.data import TokenisedSplit

Ties = Mapping[int, tuple[int, ...]]  # row -> its candidates with the smallest score, two or more


def rows_with_same_tokens(split: TokenisedSplit) -> np.ndarray:
    """Whether a row has two candidates of the same tokens, bool [n]."""
    table = np.sort(_numbered(split), axis=1)
    return ((table[:, 1:] == table[:, :-1]) & (table[:, 1:] >= 0)).any(1)


def equalise(scores: np.ndarray, split: TokenisedSplit) -> np.ndarray:
    """Gives candidates of the same tokens exactly the same score.

    They can differ by rounding: the matrix products of a batch need not treat all rows alike.

    Args:
      scores: float [n, C].
      split: n rows with at most C candidates.
    """
    rows = np.flatnonzero(rows_with_same_tokens(split))
    if not len(rows):
        return scores
    table = _numbered(split)[rows]
    first = (table[:, :, None] == table[:, None, :]).argmax(1)
    equal = scores.copy()
    equal[rows] = np.where(table >= 0, np.take_along_axis(scores[rows], first, 1), scores[rows])
    return equal


def _numbered(split: TokenisedSplit) -> np.ndarray:
    """A number for the tokens of every candidate, int64 [n, C]; -1: no such candidate."""
    seen: dict[bytes, int] = {}
    answers = split.answers
    numbers = [seen.setdefault(answers[i].tobytes(), i) for i in range(len(answers))]
    return np.asarray([*numbers, -1], np.int64)[
        split.candidates.padded(np.arange(len(split)), None, -1)
    ]


def of(scores: np.ndarray) -> dict[int, tuple[int, ...]]:
    """The rows whose smallest score several candidates share.

    Args:
      scores: float [n, C], lower is better; inf: no such candidate. Rows with NaN have no ties.
    """
    if not scores.size:
        return {}
    smallest = scores.min(1, keepdims=True)
    tied = (scores == smallest) & np.isfinite(smallest)
    rows = np.flatnonzero(tied.sum(1) > 1)
    return {int(row): tuple(np.flatnonzero(tied[row]).tolist()) for row in rows}


def choose(scores: np.ndarray, split: TokenisedSplit, ties: Ties) -> np.ndarray:
    """The candidate with the smallest score.

    One of several is drawn by a hash of the texts of the row and of the candidate, so that the
    order of the candidates does not matter.

    Args:
      scores: float [n, C], as for `of`.
      split: the n rows.
      ties: of these scores.

    Returns:
      int64 [n]; -1 where a score is NaN.
    """
    best = np.where(np.isnan(scores), np.inf, scores).argmin(1)
    for row, candidates in ties.items():
        example = split.examples[row]
        best[row] = min(candidates, key=lambda c: _draw(example.input, example.candidates[c]))
    return np.where(np.isnan(scores).any(1), -1, best)


def _draw(text: str, answer: str) -> bytes:
    both = f"{len(text)} {text} {answer}"
    return hashlib.blake2b(both.encode(errors="surrogatepass"), digest_size=8).digest()
