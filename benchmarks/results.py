"""The file of results: one object per name, merged, so that a long suite can be done in pieces."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"
LATEST = FOLDER / "latest.json"
SMALL = FOLDER / "small.json"  # not committed: toy shapes say nothing


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a file; none where there is no file.

    Raises:
      ValueError: the file is not what `merge` writes.
    """
    if not path.exists():
        return []
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, list) or not all(isinstance(x, dict) and "name" in x for x in found):
        raise ValueError(f"{path} is no list of results.")
    return found


def merge(path: Path, new: Mapping[str, Any]) -> None:
    """Adds a result, in place of an earlier one of that name; the file is replaced at once."""
    by_name = {one["name"]: one for one in read(path)} | {new["name"]: dict(new)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    lines = ",\n".join(json.dumps(by_name[name], sort_keys=True) for name in sorted(by_name))
    temporary.write_text(f"[\n{lines}\n]\n", "utf-8")
    os.replace(temporary, path)


COLUMNS = ("measurement", "shape", "ours", "peer", "ratio (range)", "goal", "met", "rounds")


def row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a result under `COLUMNS`, as texts."""
    low, high = one["spread"] or (None, None)
    spread = "" if one["runs"] < 2 or low is None else f" ({_number(low)} - {_number(high)})"
    ours, ratio = f"{_number(one['ours'])} {one['unit']}", "-"
    if one["ratio"] is None:
        ours += spread
    else:
        ratio = _number(one["ratio"]) + (" of it" if one["compares"] == "share" else " x") + spread
    peer = "-"
    if one["peer"] is not None:
        peer = f"{_number(one['peer'])} {one['unit']}, {one['peer_is']}"
    met = {None: "-", True: "yes", False: "no"}[one["met"]]
    marked = " (extrapolated)" if one["extrapolated"] else ""
    shape = ", ".join(f"{k} {v:,}" for k, v in one["settings"].items() if len(k) == 1)
    return (
        one["name"] + marked,
        shape or "-",
        ours,
        peer,
        ratio,
        one["goal_is"] or "-",
        met,
        str(one["runs"]),
    )


def notes(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know of results, a line each."""
    lines = []
    for one in found:
        if one["extrapolated"]:
            lines.append(f"{one['name']} (extrapolated): {one['extrapolated']}")
        if one["note"]:
            lines.append(f"{one['name']}: {one['note']}")
    return lines


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Prints one table."""
    from rich.console import Console
    from rich.table import Table

    shown = [name for name in COLUMNS if name != "shape"]
    table = Table(*shown)
    for one in found:
        cells = dict(zip(COLUMNS, row(one), strict=True))
        table.add_row(*(cells[name] for name in shown))
    console = Console()
    # Lines that are longer than the terminal are better than cells of three letters.
    console = Console(width=max(console.width, Console(width=1000).measure(table).maximum))
    console.print(table)
    for line in notes(found):
        console.print(line, markup=False, highlight=False)


def _number(value: float) -> str:
    """Three digits or more, without an exponent where that is readable."""
    if value != 0 and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
