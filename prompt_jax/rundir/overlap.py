"""Rows of an experiment that are in two splits, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

_PARTS = {"dev": "development", "test": "test"}


def notes(
    data: Mapping[str, Sequence[Mapping[str, Any]]], tested: Collection[str] = ()
) -> list[str]:
    """One line per task and split some of whose rows are training rows too.

    Args:
      data: what `data.json` holds: for every task its entries of one seed and k.
      tested: the tasks, as `data` names them, whose test rows are used.
    """
    found: dict[tuple[str, str], list[Mapping[str, int]]] = {}
    elsewhere: dict[tuple[str, str, str], list[Mapping[str, int]]] = {}
    for key, entries in data.items():
        for entry in entries:
            for part, counted in entry.get("overlap", {}).items():
                if part == "dev" or key in tested:
                    found.setdefault((entry.get("task", key), part), []).append(counted)
            for source, parts in entry.get("sources", {}).items():
                for part, counted in parts.items():
                    if part == "dev" or key in tested:
                        pair = (entry.get("task", key), source, part)
                        elsewhere.setdefault(pair, []).append(counted)
    return [
        f"{name}: {text}"
        for (name, part), counts in found.items()
        if (text := sentence(counts, f"{_PARTS[part]} rows"))
    ] + [
        f"{name}: {source_sentence(counts, f'{_PARTS[part]} rows', source)}"
        for (name, source, part), counts in elsewhere.items()
        if any(counted["same"] for counted in counts)
    ]


def sentence(counts: Sequence[Mapping[str, int]], rows: str) -> str:
    """How many rows of a split are training rows too; "" if none is.

    Args:
      counts: "same", "other" and "rows" of every seed and k, as `data.overlap.Overlap`.
      rows: what the rows are called.

    >>> sentence([{"same": 3, "other": 1, "rows": 60}], "test rows")
    '3 of 60 test rows are training rows too, and 1 with another answer'
    """
    same, other, total = (_range([c[name] for c in counts]) for name in ("same", "other", "rows"))
    parts = []
    if same != "0":
        parts.append(f"{same} of {total} {rows} are training rows too")
    if other != "0":
        first = "and " if parts else ""
        these = "" if parts else f" of {total} {rows} are training rows"
        parts.append(f"{first}{other}{these} with another answer")
    return ", ".join(parts)


def source_sentence(counts: Sequence[Mapping[str, int]], rows: str, source: str) -> str:
    """How many rows of a split are training rows of another task.

    Args:
      counts: "same" and "rows" of every seed and k.
      rows: what the rows are called.
      source: the other task.

    >>> source_sentence([{"same": 15, "rows": 1000}], "test rows", "sst5")
    '15 of 1,000 test rows are training rows of the source sst5 (their texts)'
    """
    same, total = (_range([c[name] for c in counts]) for name in ("same", "rows"))
    return f"{same} of {total} {rows} are training rows of the source {source} (their texts)"


def _range(values: Sequence[int]) -> str:
    """The number, or its range over seeds and shots."""
    low, high = f"{min(values):,}", f"{max(values):,}"
    return low if low == high else f"{low} to {high}"
