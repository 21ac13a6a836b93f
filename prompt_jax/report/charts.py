"""The figures and the table of the results: answer, scores, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prompt_jax.report import figures, svg
from prompt_jax.report.findings import Findings
from prompt_jax.rundir import curves, results
from prompt_jax.rundir.folder import RunDirectory


@dataclass(frozen=True)
class Figure:
    """An SVG element with what stands over it."""

    title: str
    svg: str


def forests(run: RunDirectory, found: Findings) -> list[Figure]:
    """Every comparison with the baseline, method by method, on one scale."""
    rows: dict[str, list[figures.Interval]] = {}
    for c in found.contrasts:
        d = c.verdict.comparison
        label = run.name(c.target)
        label += f", {results.heading(c.k)}" if len(run.shots) > 1 else ""
        rows.setdefault(c.method, []).append(
            figures.Interval(
                label,
                results.interval_text(d),
                100 * d.difference,
                100 * d.low,
                100 * d.high,
                c.verdict.effect,
            )
        )
    ends = [v for found in rows.values() for r in found for v in (r.middle, r.low, r.high)]
    minimum = 100 * results.minimum(run.targets)
    limits = figures.span([*ends, 0.0], 2 * minimum)
    return [
        Figure(
            method,
            figures.forest(f"{method} against {run.methods[0]}", intervals, limits, minimum),
        )
        for method, intervals in rows.items()
    ]


def table(run: RunDirectory, found: Findings) -> list[dict[str, Any]]:
    """Rows of the table; a cell is (text, whether it is the highest, verdict against baseline)."""
    made = []
    for k, method, texts in results.table_rows(run.methods, run.targets, run.shots, found.table):
        cells = []
        for target, text in zip(run.targets, texts, strict=True):
            means = [
                s.mean
                for m in run.methods
                if (s := found.table.get((m, target, k))) is not None and s.n
            ]
            own = found.table.get((method, target, k))
            top = bool(own and own.n and len(means) > 1 and own.mean == max(means))
            contrast, mark = found.contrast(method, target, k), ""
            if contrast is not None and contrast.verdict.effect:
                mark = "ahead" if contrast.verdict.comparison.difference > 0 else "behind"
            cells.append((text, top, mark))
        first = method == run.methods[0]
        reference = method in found.references
        made.append(
            {"k": k, "method": method, "cells": cells, "first": first, "reference": reference}
        )
    return made


def scores(run: RunDirectory, found: Findings) -> list[Figure]:
    """Every seed of every cell, target by target, on one scale."""
    everything = [100 * v for by_seed in found.values.values() for v in by_seed.values()]
    limits = figures.span(everything, 5.0)
    made = []
    for target in run.targets:
        rows = []
        for k in run.shots:
            for number, method in enumerate(run.methods):
                by_seed = found.values.get((method, target, k))
                if not by_seed:
                    continue
                label = f"{method}, {results.heading(k)}" if len(run.shots) > 1 else method
                summary = found.table[method, target, k]
                points = [100 * by_seed[s] for s in sorted(by_seed)]
                rows.append(
                    figures.Scores(
                        label, results.cell_text(summary), points, 100 * summary.mean, number
                    )
                )
        if rows:
            title = run.name(target)
            made.append(Figure(title, figures.scores(f"Scores on {title}", rows, limits)))
    return made


def keys(run: RunDirectory) -> list[svg.Key]:
    """The legend of the methods."""
    return svg.legend(run.methods)


def learning(run: RunDirectory) -> list[Figure]:
    """Development values over steps, target by target, on one scale."""
    logged = curves.collect(run, "dev")
    drawn = []
    for k in run.shots:
        for target in run.targets:
            lines: list[figures.Curve] = []
            for number, method in enumerate(run.methods):
                runs = curves.numbers(curves.of_target(logged, method, target, k), 100.0)
                if runs:
                    lines += figures.with_mean(runs, number)
            if lines:
                name = run.name(target)
                name += f", {results.heading(k)}" if len(run.shots) > 1 else ""
                drawn.append((name, lines))
    return _on_one_scale("Development value", drawn, run, 5.0)


def losses(run: RunDirectory) -> list[Figure]:
    """Training loss over steps, stage by stage, on one scale: the mean over the runs of a stage."""
    stages: dict[str, curves.Lines] = {}
    for group, lines in curves.collect(run, "loss").items():
        known = stages.setdefault(group.label, {})
        for steps in lines.values():
            known[len(known), 0] = steps
    drawn = []
    for stage, lines in stages.items():
        runs = curves.numbers(lines)
        made = figures.with_mean(runs, 1) if runs else []
        if made:
            drawn.append((stage, made))
    return _on_one_scale("Training loss", drawn, run, 0.1)


def _on_one_scale(
    what: str, drawn: Sequence[tuple[str, list[figures.Curve]]], run: RunDirectory, least: float
) -> list[Figure]:
    values = [v for _, lines in drawn for line in lines for v in line.values]
    up = figures.span(values, least)
    made = []
    for name, lines in drawn:
        steps = [s for line in lines for s in line.steps]
        across = (min(steps), max(max(steps), min(steps) + 1))
        ends = [f"{line.values[-1]:.3g}" for line in lines if line.strong]
        words = f"{len(lines)} lines over {across[1]:g} steps; means end at {', '.join(ends)}"
        made.append(Figure(name, figures.curves(f"{what}: {name}", lines, across, up, words)))
    return made
