"""Do the sources that methods choose on the sandbox help? Tables from results alone, as Markdown.

    python -m experiments.analysis.groups RUN [RUN ...]

A RUN is a run directory or an archive of one (`prompt-jax archive`). Its results list the sources
that each replica chose. They are compared with `sandbox.truth()`, the expected effect of each pair,
and with random groups of the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import command
from prompt_jax.data import sandbox
from prompt_jax.errors import DataError
from prompt_jax.rundir import archive


class Choice(NamedTuple):
    """The sources that one replica chose."""

    method: str
    target: str
    seed: int
    k: int
    sources: tuple[str, ...]


def read(path: str | Path) -> tuple[int, list[Choice]]:
    """The number of sources of a run directory or archive, and all choices in it.

    Raises:
      DataError: it is no run, or no method has chosen anything.
    """
    (run,) = archive.read([path])
    choices = [
        Choice(row.method, row.target, row.seed, row.k, row.chosen)
        for row in run.rows
        if row.chosen is not None
    ]
    if not choices:
        raise DataError(f"{path}: no result lists chosen sources.")
    return len(run.sources), list(dict.fromkeys(choices))  # a replica has several metrics


class Counts(NamedTuple):
    """What the groups of one method contain; shares are None where they have no denominator.

    Attributes:
      runs: how many replicas.
      size: mean number of sources.
      empty: share of empty groups.
      helping: share of the helping sources that are in the group, where there are any.
      helping_blind: the same for groups of equal size, drawn at random.
      hurting: share of the replicas whose group contains a source that hurts, where there is one.
      hurting_blind: likewise.
      neutral: mean number of sources in the group that should do nothing.
    """

    runs: int
    size: float
    empty: float
    helping: float | None
    helping_blind: float | None
    hurting: float | None
    hurting_blind: float | None
    neutral: float


def count(choices: Sequence[Choice], sources: int) -> Counts:
    """Compares choices with `truth()`.

    Args:
      choices: of one method, on targets of the sandbox.
      sources: how many there were to choose from.
    """
    truth = sandbox.truth()
    helping, helping_blind, hurting, hurting_blind, neutral = [], [], [], [], []
    for choice in choices:
        expected = {s: x for (s, t), x in truth.items() if t == choice.target}
        good = [s for s, x in expected.items() if x == "helps"]
        bad = [s for s, x in expected.items() if x == "hurts"]
        taken, share = set(choice.sources), len(choice.sources) / sources
        if good:
            helping.append(len(taken & set(good)) / len(good))
            helping_blind.append(share)
        if bad:
            hurting.append(bool(taken & set(bad)))
            hurting_blind.append(_any(sources, len(taken), len(bad)))
        neutral.append(len(taken - set(good) - set(bad)))
    sizes = [len(choice.sources) for choice in choices]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return Counts(
        len(choices),
        float(np.mean(sizes)),
        float(np.mean([size == 0 for size in sizes])),
        mean(helping),
        mean(helping_blind),
        mean(hurting),
        mean(hurting_blind),
        float(np.mean(neutral)),
    )


def _any(sources: int, size: int, bad: int) -> float:
    """The chance that a random group of a size holds at least one of the bad ones."""
    none = 1.0
    for i in range(size):
        none *= max(0, sources - bad - i) / (sources - i)
    return 1.0 - none


def markdown(choices: Sequence[Choice], sources: int) -> str:
    """One row a method, then one row a target for every method."""
    lines = [
        "Shares in percent; in brackets the share for random groups of the same size.",
        "",
        "| method | replicas | size of the group | empty | helping sources taken | groups with a"
        " hurting source | neutral sources |",
        "|-|-|-|-|-|-|-|",
    ]
    methods = list(dict.fromkeys(choice.method for choice in choices))
    for method in methods:
        mine = [choice for choice in choices if choice.method == method]
        lines.append(f"| `{method}` | {_row(count(mine, sources))} |")
    names = list(dict.fromkeys(s for s, _ in sandbox.truth()))
    truth = sandbox.truth()
    for method in methods:
        lines += [
            "",
            f"How often `{method}` takes a source, in percent of seeds; (+) helps, (-) hurts.",
            "",
            "| target | " + " | ".join(f"`{_short(s)}`" for s in names) + " | size |",
            "|" + "-|" * (len(names) + 2),
        ]
        for target in dict.fromkeys(c.target for c in choices if c.method == method):
            mine = [c for c in choices if (c.method, c.target) == (method, target)]
            cells = []
            for source in names:
                share = np.mean([source in c.sources for c in mine])
                sign = {"helps": " (+)", "hurts": " (-)"}.get(truth.get((source, target), ""), "")
                cells.append(f"{100 * share:.0f}{sign}")
            size = np.mean([len(c.sources) for c in mine])
            lines.append(f"| `{_short(target)}` | " + " | ".join(cells) + f" | {size:.1f} |")
    return "\n".join(lines) + "\n"


def _short(name: str) -> str:
    return name.removeprefix("sandbox/")


def _row(c: Counts) -> str:
    def share(value: float | None, blind: float | None) -> str:
        if value is None or blind is None:
            return "-"
        return f"{100 * value:.0f} ({100 * blind:.0f})"

    return " | ".join(
        (
            str(c.runs),
            f"{c.size:.2f}",
            f"{100 * c.empty:.0f}",
            share(c.helping, c.helping_blind),
            share(c.hurting, c.hurting_blind),
            f"{c.neutral:.2f}",
        )
    )


def main(arguments: Sequence[str]) -> None:
    """Prints the tables of all given run directories."""
    if not arguments:
        raise DataError("usage: python -m experiments.analysis.groups RUN [RUN ...]")
    for path in arguments:
        sources, choices = read(path)
        known = {target for _, target in sandbox.truth()}
        print(markdown([c for c in choices if c.target in known], sources))


if __name__ == "__main__":
    command.run("groups", main)
