"""What was answered: confusion matrices, calibration, and rows answered right and wrong."""

from __future__ import annotations

import math

import numpy as np

from prompt_jax.evaluation import Calibration
from prompt_jax.report import figures
from prompt_jax.report.charts import Figure, setting
from prompt_jax.rundir.answers import Entry
from prompt_jax.rundir.findings import Findings
from prompt_jax.rundir.scores import scores
from prompt_jax.rundir.tables import Table, heading

_TITLES = {"nll": "negative log-likelihood", "brier": "Brier score", "ece": "calibration error"}


def shown(findings: Findings) -> list[Entry]:
    """For every target and k the entry of its best method, in the order of the results."""
    found = {(e.method, e.target, e.k): e for e in findings.run.answers}
    keys = [(best.method, best.target, best.k) for best in findings.best]
    return [found[key] for key in keys if key in found]


def confusions(findings: Findings) -> list[Figure]:
    """Shares of the rows of every label, by answer."""
    made = []
    for entry in shown(findings):
        counts = np.asarray(entry.confusion, float)
        if not counts.size:
            continue
        with np.errstate(invalid="ignore"):  # a label without rows has no shares
            shares = 100 * counts / counts.sum(1, keepdims=True)
        name = f"{setting(findings.run, entry.target, entry.k)}: {entry.method}"
        title = f"Answers on {name}"
        svg = figures.heatmap(title, shares, entry.labels, entry.labels, (0.0, 100.0), digits=0)
        made.append(Figure(name, svg))
    return made


def samples(findings: Findings) -> list[tuple[str, Table]]:
    """(what it is, rows answered right and wrong) for every target."""
    made = []
    for entry in shown(findings):
        rows = tuple(
            ("right" if row.right else "wrong", row.text, row.expected, row.answer)
            for row in sorted(entry.rows, key=lambda row: row.right)
        )
        name = setting(findings.run, entry.target, entry.k)
        columns = ("answered", "input", "label", "answer")
        title = f"{name}: {entry.method}, seed {entry.seed}"
        if rows:
            made.append((title, Table("samples", title, columns, rows, 4)))
    return made


def calibration(findings: Findings) -> Table:
    """How far the probabilities of answers can be trusted: means over ranked targets and seeds."""
    run = findings.run
    measured = {name: scores(run.rows, dict.fromkeys(run.targets, name)) for name in _TITLES}
    ranked = [t for t in run.targets if any(c.target == t for c in measured["nll"].values)]
    rows = []
    for k in run.shots:
        for method in run.methods:
            means = [
                _mean(list(measured[name].macro(method, ranked, k).values()))
                for name in Calibration._fields
            ]
            if ranked and all(map(math.isfinite, means)):
                rows.append((heading(k), method, *(f"{mean:.3f}" for mean in means)))
    columns = ("", "method", *(_TITLES[name] for name in Calibration._fields))
    where = run.short(ranked[0]) if len(ranked) == 1 else f"{len(ranked)} ranked targets"
    title = f"Means over all seeds of {where}; less is better"
    return Table("calibration", title, columns, tuple(rows), 2)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
