"""The figures of the results: comparisons, scores, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prompt_jax.evaluation import Verdict
from prompt_jax.report import figures, svg
from prompt_jax.rundir import curves
from prompt_jax.rundir.curves import Group, Lines
from prompt_jax.rundir.findings import Findings
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.scores import Cell
from prompt_jax.rundir.tables import cell_text, heading, interval_text


class Figure(NamedTuple):
    """An SVG element with its title."""

    title: str
    svg: str


def forests(findings: Findings) -> list[Figure]:
    """Every comparison with the baseline, method by method, on one scale.

    The answer to the primary question comes first where it is about the baseline.
    """
    rows: dict[str, list[figures.Interval]] = {}
    answer = findings.answer
    if answer is not None and answer.question.b == findings.baseline and len(answer.targets) > 1:
        label = f"mean of {len(answer.targets)} targets"
        rows[answer.question.a] = [_interval(label, answer.verdict)]
    for c in findings.contrasts:
        label = setting(findings.run, c.target, c.k)
        rows.setdefault(c.method, []).append(_interval(label, c.verdict))
    ends = [v for intervals in rows.values() for r in intervals for v in (r.middle, r.low, r.high)]
    minimum = 100 * findings.minimum
    limits = figures.span([*ends, 0.0], 2 * minimum)
    return [
        Figure(
            method,
            figures.forest(f"{method} against {findings.baseline}", intervals, limits, minimum),
        )
        for method, intervals in rows.items()
    ]


def _interval(label: str, verdict: Verdict) -> figures.Interval:
    d = verdict.comparison
    points = (100 * d.difference, 100 * d.low, 100 * d.high)
    return figures.Interval(label, interval_text(d), *points, verdict.effect)


def setting(run: RunDirectory, target: str, k: int) -> str:
    """What a figure of a target at one k is called."""
    name = run.short(target)
    return f"{name}, {heading(k)}" if len(run.shots) > 1 else name


def _within(limits: tuple[float, float], findings: Findings) -> tuple[float, float]:
    """Limits of an axis of scores, without what no metric can be: accuracy has no 102 points."""
    ranges = findings.scores.ranges
    ends = np.asarray([ranges.get(target, (-1.0, 1.0)) for target in findings.run.targets])
    air = 0.02 * (limits[1] - limits[0])  # a dot at the end is drawn whole
    return (
        max(limits[0], 100 * float(ends[:, 0].min()) - air),
        min(limits[1], 100 * float(ends[:, 1].max()) + air),
    )


def scores(findings: Findings) -> list[Figure]:
    """Every seed of every cell, target by target, on one scale."""
    run, values = findings.run, findings.scores.values
    points = [100 * v for by_seed in values.values() for v in by_seed.values()]
    limits = _within(figures.span(points, 5.0), findings)
    made = []
    for target in run.targets:
        lines = []
        for row in findings.rows:
            for number, method in enumerate(run.methods):
                summary = row.summaries.get(method)
                if row.target != target or summary is None:
                    continue
                label = f"{method}, {heading(row.k)}" if len(run.shots) > 1 else method
                by_seed = values[Cell(method, target, row.k)]
                dots = [100 * by_seed[s] for s in sorted(by_seed)]
                text = cell_text(summary)
                lines.append(figures.Scores(label, text, dots, 100 * summary.mean, number))
        if lines:
            title = run.short(target)
            made.append(Figure(title, figures.scores(f"Scores on {title}", lines, limits)))
    return made


def keys(run: RunDirectory) -> list[svg.Key]:
    """The legend of the methods."""
    return svg.legend(run.methods)


def learning(run: RunDirectory) -> list[Figure]:
    """Development values of the last stage over its steps, target by target, on one scale."""
    logged = curves.collect(run, "dev")
    last = {row.method: row.key.stage for row in run.rows}
    drawn = []
    for k in run.shots:
        for target in run.targets:
            lines: list[figures.Curve] = []
            for number, method in enumerate(run.methods):
                group = Group(method, last.get(method, ""), target, k)
                runs = curves.numbers(logged.get(group, {}), 100.0)
                if runs:
                    lines += figures.with_mean(runs, number)
            if lines:
                drawn.append((setting(run, target, k), lines))
    return _on_one_scale("Development value", drawn, 5.0)


def losses(run: RunDirectory) -> list[Figure]:
    """Training loss over steps, stage by stage, on one scale: the mean over a stage's replicas."""
    stages: dict[str, Lines] = {}
    for group, lines in curves.collect(run, "loss").items():
        known = stages.setdefault(group.label, {})
        for steps in lines.values():
            known[len(known), 0] = steps
    drawn = []
    for stage, lines in stages.items():
        runs = curves.numbers(lines)
        if runs:
            drawn.append((stage, figures.with_mean(runs, 1)))
    return _on_one_scale("Training loss", drawn, 0.1)


def _on_one_scale(
    what: str, drawn: Sequence[tuple[str, list[figures.Curve]]], least: float
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
