"""What a run established, in words: the best method of every target, by how much, at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation.statistics import Summary
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.results import (
    Cell,
    Contrast,
    cell_text,
    contrasts,
    heading,
    interval_text,
    primary_metrics,
    summaries,
)
from prompt_jax.rundir.results import cells as primary_cells
from prompt_jax.units import format_count

State = Literal["ahead", "open", "baseline", "alone", "failed"]
VERDICTS: dict[State, str] = {
    "ahead": "established",
    "open": "not established",
    "baseline": "baseline established ahead",
    "alone": "nothing to compare",
    "failed": "no result",
}


@dataclass(frozen=True)
class Standing:
    """The answer for one target at one k.

    Attributes:
      target: as the config names it.
      k: training rows per class; 0: all.
      state: `ahead`: the best method is established ahead of the baseline; `open`: it has the
        highest mean, no more; `baseline`: all others are established behind the baseline.
      best: its spec; "" where nothing has a result.
      score: its cell of the table.
      against: the method that it was compared with.
      difference: best - against, in points with interval.
      p: after Holm over all comparisons; NaN without a comparison.
      cost: training operations of the best method, over those of `against`; NaN where unknown.
      note: what else a reader must know.
    """

    target: str
    k: int
    state: State
    best: str = ""
    score: str = ""
    against: str = ""
    difference: str = ""
    p: float = math.nan
    cost: float = math.nan
    note: str = ""

    @property
    def verdict(self) -> str:
        """The state in words."""
        return VERDICTS[self.state]


@dataclass(frozen=True, eq=False)
class Findings:
    """All numbers that the page shows of the results.

    Attributes:
      primary: the primary metric of each target.
      table: mean and spread of every cell.
      values: the value of every seed.
      contrasts: every method against the baseline.
      flops: mean training operations of a run of every cell.
      references: methods that are only a reference line, as full fine-tuning.
      standings: one per target and k.
      lead: the answer in a sentence.
      more: what a reader should know with it.
    """

    primary: dict[str, str]
    table: dict[Cell, Summary]
    values: dict[Cell, dict[int, float]]
    contrasts: list[Contrast]
    flops: dict[Cell, float]
    references: frozenset[str]
    standings: list[Standing]
    lead: str
    more: list[str]

    def contrast(self, method: str, target: str, k: int) -> Contrast | None:
        """The comparison of a method with the baseline."""
        for found in self.contrasts:
            if (found.method, found.target, found.k) == (method, target, k):
                return found
        return None


def status(spec: str) -> str:
    """How a method stands to its paper; "" for one that this version does not know."""
    from prompt_jax.methods import create

    try:
        return str(getattr(create(spec), "status", ""))
    except ConfigError:
        return ""


def find(run: RunDirectory) -> Findings:
    """Computes everything from the rows and items of a run directory."""
    primary = primary_metrics(run.rows)
    values = primary_cells(run.rows, primary)
    table = summaries(values)
    compared = contrasts(run.methods, values, run.items) if run.methods else []
    costs: dict[Cell, list[float]] = {}
    for row in run.rows:
        if row.split == "test" and row.metric == primary.get(row.target):
            costs.setdefault((row.method, row.target, row.k), []).append(row.flops)
    flops = {cell: float(np.mean(found)) for cell, found in costs.items()}
    references = frozenset(m for m in run.methods if status(m) == "reference")
    # A reference line is no rival, unless there is nothing else to compare.
    rivals = [m for m in run.methods if m not in references]
    rivals = rivals if len(rivals) > 1 else list(run.methods)
    by_cell = {(c.method, c.target, c.k): c for c in compared}
    standings = [
        _standing(target, k, rivals, run.methods[0], table, by_cell, flops)
        for k in run.shots
        for target in run.targets
    ]
    kind = "method" if set(rivals) == set(run.methods) else "prompt method"
    lead = _lead(run, standings, kind)
    more = _more(run, standings, compared, references - set(rivals))
    return Findings(primary, table, values, compared, flops, references, standings, lead, more)


def _standing(
    target: str,
    k: int,
    rivals: Sequence[str],
    baseline: str,
    table: Mapping[Cell, Summary],
    compared: Mapping[Cell, Contrast],
    flops: Mapping[Cell, float],
) -> Standing:
    def mean(method: str) -> float:
        return table[method, target, k].mean

    scored = [m for m in rivals if (s := table.get((m, target, k))) is not None and s.n]
    if not scored:
        return Standing(target, k, "failed")
    found = {m: c for m in scored if (c := compared.get((m, target, k))) is not None}
    winners = [
        m for m, c in found.items() if c.verdict.effect and c.verdict.comparison.difference > 0
    ]
    highest = max(scored, key=mean)
    best = max(winners, key=mean) if winners else highest
    score = cell_text(table[best, target, k])
    if not found:
        return Standing(target, k, "alone", best, score)
    note = ""
    if winners and highest != best:
        note = f"{highest} has the higher mean ({100 * mean(highest):.1f}), not established"
    if best == baseline:
        all_behind = all(c.verdict.effect for c in found.values())
        state: State = "baseline" if all_behind else "open"
        rival = max(found, key=mean)
        verdict = found[rival].verdict
        d = verdict.comparison
        against = d._replace(difference=-d.difference, low=-d.high, high=-d.low)
    elif best in found:
        state, rival, verdict = "ahead" if winners else "open", baseline, found[best].verdict
        against = verdict.comparison
    else:  # it shares no seed with the baseline
        return Standing(target, k, "alone", best, score)
    own, other = flops.get((best, target, k), 0.0), flops.get((rival, target, k), 0.0)
    return Standing(
        target,
        k,
        state,
        best,
        score,
        rival,
        interval_text(against),
        verdict.p_holm,
        own / other if other else math.nan,
        note,
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def setting(run: RunDirectory, standing: Standing) -> str:
    """How a target at one k is called in a sentence."""
    name = run.name(standing.target)
    return name if len(run.shots) == 1 else f"{name}, {heading(standing.k)}"


def _range(texts: Sequence[str]) -> str:
    """The smallest and largest difference among texts like '+3.0 [+1.0, +5.0]'."""
    points = sorted((text.split(" ")[0] for text in texts), key=float)
    low, high = points[0].lstrip("+"), points[-1].lstrip("+")
    return f"{low} points" if low == high else f"{low} to {high} points"


def _lead(run: RunDirectory, standings: Sequence[Standing], kind: str) -> str:
    """The answer in one or two sentences; `kind` is what may win: a method, a prompt method."""
    if not run.rows:
        return "There are no results yet."
    tested = [s for s in standings if s.state in ("ahead", "open", "baseline")]
    baseline = run.methods[0]
    if not tested:
        if len(standings) == 1 and standings[0].best:
            return f"{standings[0].best} reaches {standings[0].score} points; nothing was compared."
        return "Nothing was compared: no target has results of two methods."
    won = [s for s in tested if s.state == "ahead"]
    several = "cases" if len(run.shots) > 1 else "targets"
    if not won:
        if all(s.state == "baseline" for s in tested):
            return f"Nothing beats {baseline}: every other {kind} is established behind it."
        where = f"on {setting(run, tested[0])}"
        if len(tested) > 1:
            where = f"in any of {len(tested)} {several}" if several == "cases" else "on any target"
        return f"No {kind} is established ahead of {baseline} {where}."
    parts = []
    for method in sorted({s.best for s in won}, key=lambda m: (-sum(s.best == m for s in won), m)):
        mine = [s for s in won if s.best == method]
        where = f"on {setting(run, mine[0])}"
        if len(mine) > 1:
            preposition = "in" if several == "cases" else "on"
            where = f"{preposition} {len(mine)} of {len(tested)} {several}"
        points = _range([s.difference for s in mine])
        parts.append(f"{method} beats {baseline} {where}, by {points}")
    rest = [s for s in tested if s.state == "open"]
    tail = ""
    if rest:
        others = "one" if len(rest) == 1 else str(len(rest))
        tail = f" On the other {others}, nothing is established."
        tail = tail.replace("On the", "In the") if several == "cases" else tail
    return "; ".join(parts) + "." + tail


def _more(
    run: RunDirectory,
    standings: Sequence[Standing],
    compared: Sequence[Contrast],
    references: frozenset[str],
) -> list[str]:
    """What belongs with the answer: the nearest miss, losses, reference lines, few seeds."""
    said = []
    tested = [s for s in standings if s.state in ("ahead", "open", "baseline")]
    misses = [s for s in tested if s.state == "open" and s.best != run.methods[0]]
    if misses and not any(s.state == "ahead" for s in tested):
        top = max(misses, key=lambda s: float(s.difference.split(" ")[0]))
        said.append(
            f"The largest difference seen is {top.difference} points ({top.best},"
            f" {setting(run, top)}; p = {p_text(top.p)}), which chance alone could give."
        )
    for method in run.methods[1:]:
        mine = [c for c in compared if c.method == method]
        signs = [np.sign(c.verdict.comparison.difference) for c in mine if c.verdict.effect]
        ahead, behind = signs.count(1), signs.count(-1)
        best = sum(s.state == "ahead" and s.best == method for s in standings)
        if method in references and mine:
            said.append(
                f"{method} is a reference line: established ahead of {run.methods[0]} in {ahead} of"
                f" {_plural(len(mine), 'comparison')}, behind in {behind}."
            )
            continue
        if ahead > best:
            said.append(
                f"{method} is also established ahead of"
                f" {run.methods[0]} in {ahead} of {_plural(len(mine), 'comparison')}."
            )
        if behind:
            said.append(
                f"{method} is established behind {run.methods[0]} in {behind} of"
                f" {_plural(len(mine), 'comparison')}."
            )
    if len(run.seeds) == 1:
        said.append("There is one seed: all of this speaks about that seed only.")
    return said


def p_text(p: float) -> str:
    """A p-value with three decimals.

    >>> p_text(0.0214), p_text(0.00002)
    ('0.021', '<0.001')
    """
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def multiple(ratio: float) -> str:
    """A ratio with two digits; "" where it is not known.

    >>> multiple(9.123), multiple(0.0772), multiple(1200.0)
    ('9.1', '0.077', '1.2 k')
    """
    return format_count(float(f"{ratio:.2g}")) if math.isfinite(ratio) else ""
