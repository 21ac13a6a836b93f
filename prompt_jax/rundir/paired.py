"""The paired comparison that a declared question asks for: the mean over its targets of a - b."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prompt_jax.data import registry
from prompt_jax.errors import DataError
from prompt_jax.evaluation import Comparison
from prompt_jax.rundir.folder import RunDirectory, get
from prompt_jax.rundir.questions import Question
from prompt_jax.rundir.scores import Cell, Scores, compare_items


def targets_of(run: RunDirectory, question: Question) -> tuple[str, ...]:
    """The question's targets, less those that the run left out.

    Raises:
      DataError: the run has none of them.
    """
    targets = tuple(t for t in question.targets or run.targets if t in run.targets)
    if not targets:
        raise DataError(f"the run has none of the targets of {question.a} - {question.b}.")
    return targets


def compare(run: RunDirectory, measured: Scores, k: int, question: Question) -> Comparison:
    """The mean over targets of a - b at one k.

    Args:
      run: names the targets, and the templates of the test rows.
      measured: scores of the primary metrics, of this run and others.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      question: names the methods.

    Raises:
      DataError: a cell is not there, or no seed is healthy in all of them.
    """
    targets = targets_of(run, question)
    a, b = ([Cell(method, target, k) for target in targets] for method in (question.a, question.b))
    for cell in (*a, *b):
        if cell not in measured.values:
            raise DataError(
                f"no run directory has {cell.method} on {cell.target}: give the one that has."
            )
    seeds = healthy(measured, [*a, *b], question)
    items = measured.items
    known = all(s in items.get(cell, {}) for cell in (*a, *b) for s in seeds)
    several = get(run.config, "data", "test_templates") == "all"
    if question.templates and not (known and several):
        raise DataError(
            "templates cannot be told apart without per-item scores and data.test_templates=all."
        )
    if not (known and several):
        found = measured.compare(a, b)
        assert found is not None  # there are healthy seeds
        return found
    sides = [[_by_row(items[cell], seeds, cell, question) for cell in cells] for cells in (a, b)]
    return compare_items(*sides)


def healthy(measured: Scores, cells: Sequence[Cell], question: Question) -> list[int]:
    """The seeds whose scores are finite in all cells.

    Raises:
      DataError: there is none.
    """
    seeds = measured.healthy(cells)
    if not seeds:
        raise DataError(f"{question.a} and {question.b} have no healthy seed in common.")
    return seeds


def _by_row(
    items: dict[int, np.ndarray], seeds: Sequence[int], cell: Cell, question: Question
) -> np.ndarray:
    """Scores [seeds, rows]: the answers to a row under several templates, averaged."""
    table = np.stack([items[s] for s in seeds]).astype(np.float64)
    names = [template.name for template in registry.get(cell.target).templates]
    keep = [i for i, name in enumerate(names) if name in (question.templates or names)]
    if not keep:
        raise DataError(
            f"{cell.target} has no template {', '.join(question.templates)}; it has"
            f" {', '.join(names)}."
        )
    return table.reshape(len(seeds), -1, len(names))[:, :, keep].mean(2)
