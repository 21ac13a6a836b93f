"""Measurements by others, as data: what a run's own may be shown beside.

The facts, with where they were read, are in `numbers.json`: a selection of our own. Nothing of it
is a result of this package, and no contrast uses it. `prompt_jax.rundir.published` finds the tables
that a run may be compared with.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

__all__ = [
    "PublishedRow",
    "PublishedTable",
    "PublishedTarget",
    "tables",
]


class PublishedTarget(NamedTuple):
    """What a column of a published table was measured on."""

    task: str  # a name of the registry
    metric: str  # as a run calls it; "" where the source does not name it


@dataclass(frozen=True)
class PublishedRow:
    """A method in a published table.

    Attributes:
      method: what it is called there.
      values: in points, by column.
      std: standard deviations over seeds, in points, where there are any.
      spec: the name of this package's method of the same kind; "" where there is none.
      parameters: trained parameters per task, as printed.
    """

    method: str
    values: Mapping[str, float]
    std: Mapping[str, float] = field(default_factory=dict)
    spec: str = ""
    parameters: str = ""

    def cell(self, column: str) -> str:
        """The value as text, with its deviation; "-" where there is none."""
        if column not in self.values:
            return "-"
        text = f"{self.values[column]:.1f}"
        return f"{text} ± {self.std[column]:.1f}" if column in self.std else text


@dataclass(frozen=True)
class PublishedTable:
    """A published table, and how its numbers were made.

    Attributes:
      name: identifies it.
      title: a few words.
      source: where the numbers were read.
      model: its name, as `t5` in `t5-base`.
      t5: which T5 that is.
      protocol: of the splits, as in `data.protocol`.
      targets: what each column was measured on.
      rows: the methods.
      k: shots; 0: all rows. They are rows in all (`data.shots_count=total`).
      answers: how the model answered: `digits`, `words`.
      dropout: while training; None where nothing is known.
      dropout_note: how that is known.
      tokens: of the prompt.
      seeds: how many, in words.
      steps: of training, in words.
      protocol_note: what is not certain of the protocol.
      note: what else a reader must know.
      averages: over targets that are not given one by one.
      cosines: of a table of cosines, by kind of pair.
    """

    name: str
    title: str
    source: str
    model: str
    t5: str
    protocol: str
    targets: Mapping[str, PublishedTarget]
    rows: tuple[PublishedRow, ...]
    k: int = 0
    answers: str = "not read"
    dropout: float | None = None
    dropout_note: str = ""
    tokens: int | str = 100
    seeds: str = "not read"
    steps: str = "not read"
    protocol_note: str = ""
    note: str = ""
    averages: Mapping[str, float] = field(default_factory=dict)
    cosines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@functools.lru_cache(maxsize=1)
def tables() -> tuple[PublishedTable, ...]:
    """All published tables, in the order of the file."""
    text = (resources.files(__name__) / "numbers.json").read_text("utf-8")
    return tuple(_table(entry) for entry in json.loads(text)["tables"])


def _table(entry: Mapping[str, Any]) -> PublishedTable:
    targets = {name: PublishedTarget(*target) for name, target in entry["targets"].items()}
    rows = tuple(PublishedRow(**row) for row in entry["rows"])
    return PublishedTable(**{**entry, "targets": targets, "rows": rows})
