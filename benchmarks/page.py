"""Writes the tables of docs/benchmarks.md from the files of results.

python -m benchmarks.page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from prompt_jax.rundir.tables import Table, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- from benchmarks/results, by `python -m benchmarks.page` -->\n"
END = "<!-- to here -->\n"
_NOTHING = "\nNothing has been measured with `make bench` yet.\n\n"
# A machine that was busier than this share of its cores before a suite began is named busy.
_BUSY = 0.3


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """The text between the two marks: a table for each machine and set of versions.

    Args:
      found: objects of the files of results.

    Raises:
      ValueError: there is a result of toy shapes.
    """
    if any(one["small"] for one in found):
        raise ValueError("a result of toy shapes says nothing and is not for the page.")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault(_machine(one), []).append(one)
    return "".join(_group(head, each) for head, each in groups.items()) or _NOTHING


def page(text: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The page with tables of these results in place of the earlier ones.

    Raises:
      ValueError: the page has not the two marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has lost the marks between which the tables stand.")
    return before + BEGIN + tables(found) + END + after


def stored() -> list[dict[str, Any]]:
    """The results of all files but those of toy shapes."""
    paths = sorted(set(results.FOLDER.glob("*.json")) - {results.SMALL})
    return [one for path in paths for one in results.read(path)]


def _machine(one: Mapping[str, Any]) -> str:
    """Machine and versions in words."""
    hardware, versions = one["hardware"], one["versions"]
    where = f"{hardware['device']}, {hardware['cores']} cores"
    if hardware.get("devices", 1) > 1:
        where = f"{hardware['devices']} x {where}"
    names = {"python": "Python", "torch": "PyTorch", "peft": "PEFT"}
    known = [f"{names.get(k, k)} {versions[k]}" for k in versions if k != "jaxlib"]
    return f"{where}; {', '.join(known)}"


def _group(head: str, found: Sequence[Mapping[str, Any]]) -> str:
    dates = sorted({one["date"] for one in found})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    with_goal = [one for one in found if one["met"] is not None]
    lines = [f"\n### {head}\n\nMeasured {when}."]
    if with_goal:
        met = sum(one["met"] for one in with_goal)
        lines.append(f" {met} of {len(with_goal)} goals are met.")
    busy = [one for one in found if (one["load"] or 0) > _BUSY * one["hardware"]["cores"]]
    if busy:
        most = max(one["load"] for one in busy)
        lines.append(
            f" The machine was busy: before {len(busy)} of the measurements, up to {most:g}"
            " processes wanted a core."
        )
    lines.append("\n\n" + markdown(Table("", "", results.COLUMNS, _cells(found), left=4)))
    lines += (f"\n- {line}" for line in results.notes(found))
    return "".join(lines).rstrip("\n") + "\n\n"


def _cells(found: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    return tuple(results.row(one) for one in found)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8"), stored()), "utf-8")


if __name__ == "__main__":
    main()
