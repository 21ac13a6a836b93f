"""Draws of whole groups of rows: test rows held out of one file.

Rows of equal texts stay together, so that no test row was trained on, and every label keeps its
share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.values import as_text, comparable


def text_groups(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> np.ndarray:
    """Numbers that are equal for rows of equal texts, as `comparable` compares them.

    Args:
      rows: all rows.
      fields: whose texts are compared.

    Returns:
      int64 [n], counted from 0 in the order of first appearance.

    >>> text_groups([{"text": "a  b"}, {"text": "c"}, {"text": "A b"}], ["text"]).tolist()
    [0, 1, 0]
    """
    seen: dict[tuple[str, ...], int] = {}
    numbers = [
        seen.setdefault(tuple(_normal(row.get(field)) for field in fields), len(seen))
        for row in rows
    ]
    return np.asarray(numbers, np.int64)


def draw_groups(
    groups: np.ndarray, classes: np.ndarray, fraction: float, generator: np.random.Generator
) -> np.ndarray:
    """Draws a fraction of the rows of each class, whole groups only.

    A group is of the class of its first row. A class of one group is not drawn from, of others at
    least one group is.

    Args:
      groups: int [n].
      classes: int [n].
      fraction: of the rows of each class, within (0, 1).
      generator: source of randomness.

    Returns:
      bool [n], the rows that are drawn.
    """
    first, inverse, sizes = _grouped(groups)
    kinds = classes[first]
    drawn = np.zeros(len(first), bool)
    order = generator.permutation(len(first))
    for kind in np.unique(kinds):
        members = order[kinds[order] == kind]
        if len(members) < 2:
            continue
        wanted = max(1, round(fraction * int(sizes[members].sum())))
        taken = 0
        for member in members:
            if abs(taken + sizes[member] - wanted) < abs(taken - wanted):
                drawn[member] = True
                taken += int(sizes[member])
        if not taken:  # every group is larger than that
            drawn[members[np.argmin(sizes[members])]] = True
    return drawn[inverse]


def first_of_each(groups: np.ndarray) -> np.ndarray:
    """The row numbers of the first row of every group, int64, sorted."""
    return np.sort(_grouped(groups)[0])


def notes_on(
    groups: np.ndarray, classes: np.ndarray | None, name: Callable[[int], str]
) -> tuple[str, ...]:
    """Sentences on repeated texts, and on repeated texts with different labels.

    Args:
      groups: int [n].
      classes: int [n]; None where the task has no labels.
      name: of a row by its number.
    """
    first, inverse, sizes = _grouped(groups)
    repeated = int((sizes - 1).sum())
    if not repeated:
        return ()
    notes = [
        f"{repeated:,} of {len(groups):,} rows repeat the text of another row: rows of equal texts"
        " are together in train, development or test"
    ]
    if classes is not None:
        other = np.flatnonzero(classes != classes[first][inverse])
        if len(other):
            one, two = name(int(first[inverse[other[0]]])), name(int(other[0]))
            notes.append(
                f"{len(other):,} rows have the text of another row and a different label ({one} and"
                f" {two}): at most one of them is right"
            )
    return tuple(notes)


def _grouped(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row and size of each group, and the group of each row."""
    _, first, inverse, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    return first, inverse, sizes


def _normal(value: object) -> str:
    return comparable(as_text(value) or "")
