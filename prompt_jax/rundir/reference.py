"""Reference values of every target, and facts about tested replicas beside their metric.

`reference.json` holds, for every target, the scores on its test rows of the majority class or a
random choice and of the frozen model without a prompt; and for every tested replica its development
curve and the class that it answered most often.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prompt_jax.paths import write_atomically
from prompt_jax.run_key import RunKey
from prompt_jax.training.tracking import finite

NAME = "reference.json"
# Names of the lines, in the order in which they are shown.
LINES = {
    "majority": "majority class",
    "chance": "random choice",
    "no_prompt": "no prompt",
}
_ONE_CLASS = 0.95  # share of the answers from which on they are nearly all one class
_MORE_THAN_GOLD = 0.05  # that this class has more answers than rows
_RISE = 0.01  # a fraction of the metric, by which the last evaluation is above all before


@dataclass(frozen=True)
class Line:
    """What a reference reaches on the test rows of a target.

    Attributes:
      kind: one of `LINES`.
      target: as the config names it.
      metrics: values by name; NaN where there is none.
      answer: label of the majority class, else "".
    """

    kind: str
    target: str
    metrics: Mapping[str, float]
    answer: str = ""


@dataclass(frozen=True)
class TestedRun:
    """Facts about one tested replica beside its metric.

    Attributes:
      key: of the replica.
      history: (step, development value).
      answer: the class that it answers most often; "" where answers are no classes.
      share: of the test rows that it answers so.
      gold: share of the test rows that are of this class.
      ties: test rows whose best score several candidates share.
    """

    key: RunKey
    history: tuple[tuple[int, float], ...] = ()
    answer: str = ""
    share: float = 0.0
    gold: float = 0.0
    ties: int = 0

    @property
    def still_rising(self) -> bool:
        """Whether the last development value is clearly above all before it, and below 1."""
        values = [value for _, value in self.history if math.isfinite(value)]
        return len(values) > 1 and values[-1] < 1 and values[-1] >= max(values[:-1]) + _RISE

    @property
    def one_class(self) -> bool:
        """Whether nearly all answers are one class that the rows do not have as often."""
        return self.share >= _ONE_CLASS and self.share - self.gold >= _MORE_THAN_GOLD


@dataclass(frozen=True)
class Reference:
    """The content of `reference.json`; those of earlier versions have none."""

    lines: list[Line] = field(default_factory=list)
    runs: list[TestedRun] = field(default_factory=list)

    def values(self, target: str, metric: str) -> dict[str, float]:
        """The value of each line of a target that has one, by kind, in the order of `LINES`."""
        own = {line.kind: line.metrics.get(metric, math.nan) for line in self.lines_of(target)}
        return {kind: own[kind] for kind in LINES if math.isfinite(own.get(kind, math.nan))}

    def lines_of(self, target: str) -> Iterator[Line]:
        """The lines of a target."""
        return (line for line in self.lines if line.target == target)


def average(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over targets of each line that all of them have.

    A random choice takes the place of the majority class where targets are of both kinds.
    """
    shared = set(LINES).intersection(*values) if values else set()
    constant = [v.get("majority", v.get("chance")) for v in values]
    made = {kind: sum(v[kind] for v in values) / len(values) for kind in LINES if kind in shared}
    if values and not shared & {"majority", "chance"} and None not in constant:
        known = [value for value in constant if value is not None]
        made = {"chance": sum(known) / len(known), **made}
    return made


def write(folder: Path, reference: Reference) -> None:
    """Writes `reference.json`."""
    lines = [
        {
            "kind": line.kind,
            "target": line.target,
            "metrics": {name: finite(value) for name, value in line.metrics.items()},
            "answer": line.answer,
        }
        for line in reference.lines
    ]
    runs = [
        {
            **run.key.fields(),
            "history": [[step, finite(value)] for step, value in run.history],
            "answer": run.answer,
            "share": run.share,
            "gold": run.gold,
            "ties": run.ties,
        }
        for run in reference.runs
    ]
    text = json.dumps({"lines": lines, "runs": runs}, indent=1) + "\n"
    write_atomically(folder / NAME, text.encode())


def parse(found: Mapping[str, Any]) -> tuple[Reference, bool]:
    """What `write` wrote, and whether some of it is damaged and was left out."""
    made, bad = Reference(), False
    parts: Sequence[tuple[str, list[Any], Any]] = (
        ("lines", made.lines, _line),
        ("runs", made.runs, _run),
    )
    for name, into, read in parts:
        entries = found.get(name)
        for entry in entries if isinstance(entries, list) else [None]:
            try:
                into.append(read(entry))
            except (TypeError, KeyError, ValueError, AttributeError):
                bad = True
    return made, bad


def _line(entry: Any) -> Line:
    metrics = {str(name): _number(value) for name, value in entry["metrics"].items()}
    if entry["kind"] not in LINES or any(abs(value) > 1 for value in metrics.values()):
        raise ValueError(entry)
    return Line(entry["kind"], _text(entry["target"]), metrics, _text(entry["answer"]))


def _run(entry: Any) -> TestedRun:
    history = tuple((_whole(step), _number(value)) for step, value in entry["history"])
    shares = [_number(entry[name]) for name in ("share", "gold")]
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(entry)
    answer, ties = _text(entry["answer"]), _whole(entry["ties"])
    return TestedRun(RunKey.of(entry), history, answer, shares[0], shares[1], ties)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError(value)
    return math.nan if value is None else float(value)
