"""The findings of a run as tables, sentences, JSON and `summary.md`.

Nothing is computed here that is not in `Findings`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from prompt_jax.evaluation import Comparison, Verdict, statistics
from prompt_jax.rundir.findings import Answer, Best, Contrast, Findings, Row, State
from prompt_jax.rundir.folder import RunDirectory, get
from prompt_jax.rundir.reference import LINES
from prompt_jax.rundir.tables import (
    Mark,
    Table,
    cell_text,
    heading,
    interval_text,
    markdown,
    missing_interval,
    multiple,
    p_text,
    signed,
)
from prompt_jax.training import speed
from prompt_jax.units import format_count, format_flops

_STATES: dict[State, str] = {
    "ahead": "effect",
    "not_significant": "no effect",
    "baseline": "all others significantly behind",
    "no_comparison": "no comparison",
    "failed": "no result",
}


_NAMED = 6  # targets of one note
_NO_INTERVAL = (
    " Interval none: so few seeds cannot support one; it would be wider than the metric's range."
)


def lead(findings: Findings) -> str:
    """One sentence: what was found.

    The answer to the primary question where one was declared, else on how many targets which method
    is significantly ahead, else what the only method reached.
    """
    run = findings.run
    if not run.rows:
        return "There are no results yet."
    if findings.answer is not None:
        return _answered(findings, findings.answer)
    tested = [b for b in findings.best if b.state in ("ahead", "not_significant", "baseline")]
    if not tested:
        return _reached(findings)
    ahead = [b.method for b in tested if b.state == "ahead"]
    where = "targets" if len(run.shots) == 1 else "targets and amounts of data"
    if not ahead:
        found = f"No method is significantly ahead of {findings.baseline} on {len(tested)} {where}"
        if behind := sum(b.state == "baseline" for b in tested):
            others = {m for row in findings.rows for m in row.summaries} - {findings.baseline}
            who = next(iter(others)) + " is" if len(others) == 1 else "all others are"
            found += f"; {who} significantly behind it on {behind}"
        return f"{found}."
    counts = [f"{name} on {ahead.count(name)}" for name in sorted(set(ahead))]
    ends = f"{len(tested)} {where}"
    return f"Significantly ahead of {findings.baseline}: {', '.join(counts)} of {ends}."


def _answered(findings: Findings, answer: Answer) -> str:
    """The answer to the primary question, with its interval."""
    question, verdict = answer.question, answer.verdict
    d = verdict.comparison
    targets = answer.targets
    over = f"on average over {len(targets)} targets"
    if len(targets) == 1:
        over = f"on {findings.run.name(targets[0])}"
    points = f"{abs(100 * d.difference):.1f} points"
    if verdict.effect:
        verb = "beats" if d.difference > 0 else "is behind"
        found = f"{question.a} {verb} {question.b} by {points} {over}"
    elif effect(verdict) == "no":
        side = "ahead of" if d.difference >= 0 else "behind"
        found = f"{question.a} is not significantly {side} {question.b} {over}"
    else:
        side = "more" if d.difference > 0 else "fewer"
        found = f"{question.a} has {points} {side} than {question.b} {over}, below the minimum"
    interval = interval_text(d).partition(" ")[2] if verdict.effect else interval_text(d)
    seeds = f"{d.seeds} seed{'s' if d.seeds > 1 else ''}"
    return " ".join(part for part in (found, interval) if part) + f", {seeds}."


def _reached(findings: Findings) -> str:
    """What the methods of a run reached that has nothing to compare."""
    rows = [row for row in findings.rows if any(s.n for s in row.summaries.values())]
    averages = [row for row in rows if row.kind == "average"]
    methods = {m for row in rows for m, s in row.summaries.items() if s.n}
    if len(methods) != 1 or len(findings.run.shots) != 1:
        return "No two methods have results on the same target."
    row = (averages or rows)[0]
    (method,) = methods
    over = f" on average over {row.metric}" if averages else f" ({row.metric}) on {row.name}"
    return f"{method} reaches {cell_text(row.summaries[method])} points{over}."


def rule(findings: Findings) -> str:
    """How differences are tested and what counts as an effect."""
    count = len(findings.contrasts)
    return (
        "Paired over seeds and test rows (where the metric is no mean of rows, over seeds); p after"
        f" Holm over {count} test{'s' if count != 1 else ''}. {threshold(findings.minimum)}"
        + (_NO_INTERVAL if any(map(_has_none, findings.contrasts)) else "")
    )


def _has_none(contrast: Contrast) -> bool:
    return bool(missing_interval(contrast.verdict.comparison))


def threshold(minimum: float) -> str:
    """What counts as an effect."""
    return (
        f"Effect: significant (p < {statistics.ALPHA:g}) and at least {100 * minimum:g} points;"
        " below minimum: significant, but smaller."
    )


def effect(verdict: Verdict) -> str:
    """Whether a difference is an effect: significant and at least the minimum.

    Returns:
      `yes`: p < 0.05 after Holm and at least the minimum effect; `below minimum`: p alone; `no`.
    """
    if verdict.effect:
        return "yes"
    return "below minimum" if verdict.p_holm < statistics.ALPHA else "no"


def tables(findings: Findings) -> dict[str, Table]:
    """All tables of a run by name."""
    every = (
        results(findings),
        contrasts(findings),
        best(findings),
        costs(findings),
        rows_of_tasks(findings.run),
    )
    return {table.name: table for table in every}


def results(findings: Findings, methods: Literal["rows", "columns"] = "rows") -> Table:
    """The results: methods as rows and targets as columns, or the other way round."""
    run = findings.run
    spread = f", mean ± standard deviation over {len(run.seeds)} seeds"
    title = f"Test rows, in points{spread if len(run.seeds) > 1 else ''}"
    kinds = [kind for kind in LINES if any(kind in row.reference for row in findings.rows)]
    note = f"{chosen_rates(run)} {_reference_note(findings, kinds)}".strip()
    if methods == "columns":
        lines = tuple(
            (
                heading(row.k),
                row.name,
                row.metric,
                *(cell_text(row.summaries.get(method)) for method in run.methods),
                *(_level(row, kind) for kind in kinds),
            )
            for row in findings.rows
        )
        marked = {
            (i, j): _marks(findings, method, row)
            for i, row in enumerate(findings.rows)
            for j, method in enumerate(run.methods, 3)
        }
        titles = ("", "target", "metric", *run.methods, *(LINES[kind] for kind in kinds))
        return Table("results", title, titles, lines, 3, note, marked)
    cells, marks = list[tuple[str, ...]](), dict[tuple[int, int], frozenset[Mark]]()
    for k in run.shots:
        group = [row for row in findings.rows if row.k == k]
        for method in run.methods:
            for column, row in enumerate(group, 2):
                marks[len(cells), column] = _marks(findings, method, row)
            texts = (cell_text(row.summaries.get(method)) for row in group)
            cells.append((heading(k), method, *texts))
        cells += [
            (heading(k), LINES[kind], *(_level(row, kind) for row in group)) for kind in kinds
        ]
    first = [row for row in findings.rows if row.k == findings.rows[0].k]
    columns = ("", "method", *(f"{row.name} ({row.metric})" for row in first))
    return Table("results", title, columns, tuple(cells), 2, note, marks)


def _level(row: Row, kind: str) -> str:
    value = row.reference.get(kind)
    return "-" if value is None else f"{100 * value:.1f}"


def _reference_note(findings: Findings, kinds: Sequence[str]) -> str:
    """What the reference lines are, and which class is the most frequent one of which target."""
    run = findings.run
    parts = []
    if "majority" in kinds:
        named = [
            f"{run.name(target)}: {line.answer}"
            for target in run.targets
            for line in run.reference.lines_of(target)
            if line.kind == "majority"
        ]
        classes = f" ({'; '.join(named)})" if len(named) <= _NAMED else ""
        parts.append(f"Majority class: the most frequent class of the test rows{classes}.")
    if "chance" in kinds:
        parts.append(
            "Random choice: each choice of a row counts as 1 / their number; where targets are of"
            " both kinds, an average takes the majority class of the others."
        )
    if "no_prompt" in kinds:
        parts.append("No prompt: the frozen model on the same rows, without a soft prompt.")
    return " ".join(parts)


def chosen_rates(run: RunDirectory) -> str:
    """Which learning rates were chosen where there were several; "" where there were none."""
    rates = {row.key: row.rate for row in run.rows if row.rate is not None}
    cells: dict[tuple[str, int], Counter[float]] = {}
    for key, rate in rates.items():
        cells.setdefault((key.method, key.k or 0), Counter())[rate] += 1
    if not cells:
        return ""
    parts = []
    for (method, k), counts in cells.items():
        chosen = [
            f"{rate:g} ({n} replica{'s' if n > 1 else ''})" for rate, n in counts.most_common()
        ]
        parts.append(f"{method}, {heading(k)}: {', '.join(chosen)}")
    return (
        "Learning rates that the development set chose, as factors of the budget's:"
        f" {'; '.join(parts)}."
    )


def _marks(findings: Findings, method: str, row: Row) -> frozenset[Mark]:
    marks = set[Mark]()
    means = [summary.mean for summary in row.summaries.values() if summary.n]
    own = row.summaries.get(method)
    if own is not None and own.n and len(means) > 1 and own.mean == max(means):
        marks.add("best")
    contrast = findings.contrast(method, row.target, row.k)
    if contrast is not None and contrast.verdict.effect:
        marks.add("ahead" if contrast.verdict.comparison.difference > 0 else "behind")
    return frozenset(marks)


def contrasts(findings: Findings) -> Table:
    """Every method against the baseline."""
    lines = []
    for c in findings.contrasts:
        d = c.verdict.comparison
        known = math.isfinite(d.low) and math.isfinite(d.high)
        lines.append(
            (
                heading(c.k),
                findings.run.name(c.target),
                c.method,
                signed(d.difference),
                f"{signed(d.low)} to {signed(d.high)}" if known else missing_interval(d),
                p_text(c.verdict.p_holm),
                effect(c.verdict),
            )
        )
    columns = ("", "target", "method", "points", "95 %", "p", "effect")
    title = f"Against {findings.baseline}"
    return Table("contrasts", title, columns, tuple(lines), 3, note=rule(findings))


def best(findings: Findings) -> Table:
    """The best method on each target, and what it was compared with."""
    cells = {(row.target, row.k): row.summaries for row in findings.rows if row.kind == "target"}
    lines = tuple(
        (
            heading(b.k),
            findings.run.name(b.target),
            b.method,
            b.against,
            _STATES[b.state],
            cell_text(cells[b.target, b.k].get(b.method)),
            "" if b.comparison is None else interval_text(b.comparison),
            "" if math.isnan(b.p) else p_text(b.p),
            multiple(b.cost),
        )
        for b in findings.best
    )
    columns = ("", "target", "best method", "compared with", "difference")
    numbers = ("points", "difference [95 %]", "p", "training cost, ratio")
    title = "The best method on each target"
    return Table("best", title, columns + numbers, lines, 5, note=rule(findings))


def costs(findings: Findings) -> Table:
    """The mean cost of one replica of every method."""
    lines = tuple(
        (
            heading(c.k),
            c.method,
            format_flops(c.means["flops"]),
            multiple(c.ratio),
            *(f"{c.means[name]:,.0f}" for name in ("source_steps", "target_steps", "rows_seen")),
            f"{c.means['wall_s']:,.1f}",
            *(format_count(c.means[f"{name}_parameters"]) for name in ("trained", "stored")),
            f"{c.means['trials']:,.0f}",
        )
        for c in findings.costs
    )
    columns = ("", "method", "training", "ratio", "source steps", "target steps", "rows seen")
    more = ("seconds", "trained numbers", "stored numbers", "trials")
    return Table(
        "costs",
        "Costs of one replica, means over targets and seeds",
        columns + more,
        lines,
        2,
        note="A replica counts all source prompts of its seed as if it had trained them alone,"
        " including those from the cache and trials that were not chosen. Evaluation is not"
        " counted. Operations are counted by hand, the ratio is to"
        f" {findings.baseline}, seconds are shares of wall-clock time.",
    )


def rows_of_tasks(run: RunDirectory) -> Table:
    """Rows of every task at every k, as ranges over the seeds, and the share that was truncated."""
    lines = []
    for task, entries in run.data.items():
        role = "target" if task in run.targets else "source"
        for k in sorted({entry["k"] for entry in entries}):
            mine = [entry for entry in entries if entry["k"] == k]
            cells = []
            for part in ("train", "dev", "test"):
                cells.append(_range([entry["rows"][part] for entry in mine]))
                pairs = [(entry["cut"][part]["inputs"], entry["rows"][part]) for entry in mine]
                cells.append(f"{max((cut / n for cut, n in pairs if n), default=0.0):.0%}")
            lines.append((run.name(task), role, heading(k), f"{len(mine)}", *cells))
    parts = [title for part in ("train", "dev", "test") for title in (f"{part} rows", "truncated")]
    counted = "in all" if get(run.config, "data", "shots_count") == "total" else "per class"
    return Table(
        "rows",
        "Rows of every task, and how many inputs were truncated",
        ("task", "role", "data", "draws", *parts),
        tuple(sorted(lines, key=lambda line: line[1], reverse=True)),
        3,
        note=f"k rows {counted} are drawn again for every seed; a share is the largest over them.",
    )


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def summary(findings: Findings) -> str:
    """The text of `summary.md`."""
    name = findings.run.config.get("name") or findings.run.path.name
    parts = [f"# {name}\n", f"{lead(findings)}\n"]
    for table in (results(findings), contrasts(findings)):
        if table.rows:
            parts += [f"{table.title}. {table.note}".rstrip() + "\n", markdown(table)]
    if findings.truncation:
        lines = "\n".join(f"- {line}" for line in findings.truncation)
        parts.append(f"Truncated inputs and skipped rows:\n\n{lines}\n")
    if findings.warnings:
        lines = "\n".join(f"- {line}" for line in findings.warnings)
        parts.append(f"Warnings:\n\n{lines}\n")
    if table_lines := speed.markdown(speed.read(findings.run.path)):
        title = "Speed, medians over the logged intervals of all processes so far:\n"
        parts += [title, "\n".join(table_lines) + "\n"]
    return "\n".join(parts)


def to_dict(findings: Findings) -> dict[str, Any]:
    """All numbers, for JSON; NaN where there is none."""
    return {
        "folder": str(findings.run.path),
        "lead": lead(findings),
        "answer": _answer(findings.answer),
        "cells": [
            {
                "kind": row.kind,
                "target": row.target or row.name,
                "k": row.k,
                "metric": row.metric,
                "method": method,
                **summary._asdict(),
            }
            for row in findings.rows
            for method, summary in row.summaries.items()
        ],
        "reference": [
            {
                "kind": row.kind,
                "target": row.target or row.name,
                "k": row.k,
                "metric": row.metric,
                "line": LINES[kind],
                "value": value,
                "answer": next(
                    (
                        line.answer
                        for line in findings.run.reference.lines_of(row.target)
                        if line.kind == kind
                    ),
                    "",
                ),
            }
            for row in findings.rows
            for kind, value in row.reference.items()
        ],
        "contrasts": [
            {
                "method": c.method,
                "baseline": c.baseline,
                "target": c.target,
                "k": c.k,
                **_verdict(c.verdict),
            }
            for c in findings.contrasts
        ],
        "rates": [
            {**row.key.fields(), "rate": row.rate, "learning_rate": row.learning_rate}
            for row in {row.key: row for row in findings.run.rows if row.rate is not None}.values()
        ],
        "minimum_effect": findings.minimum,
        "costs": [
            {"method": c.method, "k": c.k, **c.means, "ratio": c.ratio} for c in findings.costs
        ],
        "best": [_best(entry) for entry in findings.best],
        "truncation": findings.truncation,
        "warnings": findings.warnings,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **verdict.comparison._asdict(),
        "p_holm": verdict.p_holm,
        "significant": bool(verdict.p_holm < statistics.ALPHA),
        "effect": bool(verdict.effect),
    }


def _answer(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "a": answer.question.a,
        "b": answer.question.b,
        "k": answer.k,
        "targets": list(answer.targets),
        "why": answer.question.why,
        **_verdict(answer.verdict),
    }


def _best(entry: Best) -> dict[str, Any]:
    comparison: Comparison | None = entry.comparison
    return asdict(entry) | {"comparison": comparison and comparison._asdict()}
