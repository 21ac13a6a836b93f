"""What methods answered on the test rows: confusion matrices, and rows answered right and wrong.

One entry of `answers.json` for every method, target and k. Counts are over all seeds; the rows are
the first ones of the first seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.evaluation import Evaluation
from prompt_jax.run_key import RunKey

NAME = "answers.json"
_CLASSES = 20  # of a task, above which no confusion matrix is kept
_SHOWN = 3  # rows answered right, and as many answered wrong
_LONGEST = 300  # characters of a text


@dataclass(frozen=True)
class Answered:
    """A test row and its answer.

    Attributes:
      text: the input, truncated to 300 characters.
      expected: the answer in the data, with the label that it stands for.
      answer: of the method, likewise.
      right: whether the primary metric counts it in full.
    """

    text: str
    expected: str
    answer: str
    right: bool


@dataclass
class Entry:
    """The answers of a method on a target at one k.

    Attributes:
      method: its spec.
      target: as the config names it.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      seed: whose rows are shown.
      rows: some answered right and some answered wrong, in the order of the test rows.
      labels: of a classification; empty for other tasks.
      confusion: [C][C], rows by their label and their answer, summed over seeds.
    """

    method: str
    target: str
    k: int
    seed: int
    rows: list[Answered] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    confusion: list[list[int]] = field(default_factory=list)


class AnswerLog:
    """Collects entries while an experiment runs."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, int], Entry] = {}

    def add(self, key: RunKey, task: Task, test: TokenisedSplit, evaluation: Evaluation) -> None:
        """Adds the answers of a replica that did not diverge.

        Args:
          key: of the replica.
          task: the target.
          test: the n rows that were answered.
          evaluation: the answers.
        """
        cell = key.method, key.task, key.k or 0
        known = self._entries.get(cell)
        if known is None:
            rows = _rows(task, test, evaluation)
            known = self._entries[cell] = Entry(*cell, key.seed, rows)
        counts = _confusion(task, test, evaluation)
        if counts is not None:
            before = np.asarray(known.confusion or np.zeros_like(counts))
            known.labels, known.confusion = task.labels, (before + counts).tolist()

    def write(self, folder: Path) -> None:
        """Writes `answers.json`."""
        entries = [asdict(entry) for entry in self._entries.values()]
        text = json.dumps({"answers": entries}, ensure_ascii=False) + "\n"
        (folder / NAME).write_text(text, encoding="utf-8", errors="replace")


def _confusion(task: Task, test: TokenisedSplit, evaluation: Evaluation) -> np.ndarray | None:
    """Counts int [C, C] by label and answer; None where the answers are no classes."""
    found, size = evaluation.predictions, len(task.labels)
    if task.kind != "classification" or isinstance(found, list) or not 2 <= size <= _CLASSES:
        return None
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (np.asarray(test.label), np.asarray(found)), 1)
    return counts


def _rows(task: Task, test: TokenisedSplit, evaluation: Evaluation) -> list[Answered]:
    found = evaluation.predictions
    ranked = not isinstance(found, list)
    scores = evaluation.per_item.get(task.metrics[0])
    if scores is None or len(scores) != len(test):  # the metric is no mean over rows
        if not ranked:
            return []
        scores = np.asarray(found) == np.asarray(test.label)
    right = np.asarray(scores) >= 1
    shown = sorted(i for side in (right, ~right) for i in np.flatnonzero(side)[:_SHOWN])
    made = []
    for i in shown:
        example = test.examples[i]
        expected, answer = example.target, str(found[i])
        if ranked:
            number = int(found[i])
            answer = task.named(example.candidates[number], number)
            expected = task.named(expected, example.label)
        made.append(Answered(_cut(example.input), _cut(expected), _cut(answer), bool(right[i])))
    return made


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def parse(found: Mapping[str, Any]) -> tuple[list[Entry], bool]:
    """The entries of `answers.json`, and whether some are damaged and were left out."""
    entries = found.get("answers")
    if not isinstance(entries, list):
        return [], True
    made = [entry for raw in entries if (entry := _entry(raw)) is not None]
    return made, len(made) < len(entries)


def _entry(raw: Any) -> Entry | None:
    try:
        rows = [Answered(**row) for row in raw["rows"]]
        made = Entry(
            **{**raw, "rows": rows, "labels": tuple(raw["labels"])}  # a wrong field is a TypeError
        )
        texts = [made.method, made.target, *made.labels]
        texts += [text for row in rows for text in (row.text, row.expected, row.answer)]
        numbers = [made.k, made.seed, *(n for line in made.confusion for n in line)]
    except (TypeError, KeyError, ValueError):
        return None
    sizes: Sequence[int] = [len(line) for line in made.confusion]
    square = sizes in ([], [len(made.labels)] * len(made.labels))
    sound = all(type(row.right) is bool for row in rows)
    sound &= all(isinstance(text, str) for text in texts) and all(
        type(number) is int and 0 <= number < 1 << 53 for number in numbers
    )
    return made if square and sound else None
