"""Truncated inputs and answers, and skipped rows of an experiment, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

_WORTH_SAYING = 0.005  # share of truncated inputs below which a reader is not bothered


def notes(
    data: Mapping[str, Sequence[Mapping[str, Any]]],
    limit: Any,
    tested: Collection[str] = (),
    answer_limit: Any = "?",
) -> list[str]:
    """One line per task and set with truncated texts, and every note of the reader.

    Args:
      data: what `data.json` holds: for every task its entries of one seed and k.
      limit: the longest input, in tokens.
      tested: the tasks, as `data` names them, whose test rows are used.
      answer_limit: the longest target or candidate, in tokens. Every truncated one is reported:
        a truncated answer may be no answer.
    """
    shares: dict[tuple[str, str], list[float]] = {}
    answers: dict[tuple[str, str], list[float]] = {}
    lines: dict[str, None] = {}
    for key, entries in data.items():
        for entry in entries:
            for part in ("train", "test") if key in tested else ("train",):
                rows = entry["rows"][part]
                if rows:
                    share = entry["cut"][part]["inputs"] / rows
                    shares.setdefault((entry.get("task", key), part), []).append(share)
                    share = entry.get("cut_answers", {}).get(part, 0) / rows
                    answers.setdefault((entry.get("task", key), part), []).append(share)
            lines.update(dict.fromkeys(entry["notes"]))
    made = [
        f"{name}: {_percent(share)} of the {part} inputs were longer than {limit} tokens and were"
        " truncated"
        for (name, part), share in shares.items()
        if max(share) >= _WORTH_SAYING
    ]
    made += [
        f"{name}: the answers of {_percent(share)} of the {part} rows were longer than"
        f" {answer_limit} tokens and were truncated"
        for (name, part), share in answers.items()
        if max(share) > 0
    ]
    return made + list(lines)


def _percent(shares: Sequence[float]) -> str:
    """The share, or its range over seeds and shots."""
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"
