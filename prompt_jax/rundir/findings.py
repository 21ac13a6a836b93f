"""The results of a run, computed once from its files; every table and page shows these numbers.

The terminal, JSON, `summary.md`, the page, CSV and LaTeX take their numbers from `Findings` and go
through its rows and tables without knowing what they are. A new number is a new entry here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from prompt_jax.errors import ConfigError, DataError
from prompt_jax.evaluation import (
    Comparison,
    Summary,
    Verdict,
    bounded,
    judge,
    statistics,
    summarise,
)
from prompt_jax.rundir import doubts, overlap, paired, questions, reference, truncation
from prompt_jax.rundir.folder import RunDirectory, get, number
from prompt_jax.rundir.questions import Question
from prompt_jax.rundir.results import ResultRow
from prompt_jax.rundir.scores import Cell, Scores, primary_metrics, scores
from prompt_jax.rundir.tables import heading

_MEANS = (
    "source_steps",
    "target_steps",
    "rows_seen",
    "flops",
    "wall_s",
    "trained_parameters",
    "stored_parameters",
    "trials",
)
State = Literal["ahead", "not_significant", "baseline", "no_comparison", "failed"]


@dataclass(frozen=True)
class Row:
    """A row of the results: a target, or an average of targets, at one k.

    Attributes:
      k: shots, as `data.shots_count` counts them; 0: all rows.
      kind: `target` or `average`.
      name: in words.
      target: as the config names it; "" for an average.
      metric: the primary metric; of an average what it is a mean of.
      summaries: mean and spread over seeds, by method.
      reference: what the majority class, a random choice and the model without a prompt reach, by
        kind (`reference.LINES`), where that is known.
    """

    k: int
    kind: Literal["target", "average"]
    name: str
    target: str
    metric: str
    summaries: Mapping[str, Summary]
    reference: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contrast:
    """A method against the baseline on one target at one k.

    Attributes:
      method: its spec.
      baseline: that of the baseline.
      target: as the config names it.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      verdict: the paired comparison, corrected (Holm) over the family.
    """

    method: str
    baseline: str
    target: str
    k: int
    verdict: Verdict


@dataclass(frozen=True)
class Answer:
    """The answer to the primary question of the config: one test, not corrected.

    Attributes:
      question: as it was declared before the run.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      targets: those that the mean is over, as the config names them.
      verdict: of a - b.
    """

    question: Question
    k: int
    targets: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Cost:
    """The mean cost of one replica of a method at one k, over targets and seeds.

    Attributes:
      method: its spec.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      means: by the names of `ResultRow`'s fields.
      ratio: training operations over those of the baseline; NaN where unknown.
    """

    method: str
    k: int
    means: Mapping[str, float]
    ratio: float


@dataclass(frozen=True)
class Best:
    """The best method on one target at one k.

    Attributes:
      target: as the config names it.
      k: shots, as `data.shots_count` counts them; 0: all rows.
      state: `ahead`: the best method is significantly ahead of the baseline, by at least the
        minimum effect; `not_significant`: it has the highest mean, no more; `baseline`: all others
        are behind the baseline in that sense; `no_comparison`; `failed`: there is no result.
      method: its spec; "" where nothing has a result.
      against: the method that it was compared with.
      comparison: method - against.
      p: after Holm over all comparisons; NaN without a comparison.
      cost: training operations of `method` over those of `against`; NaN where unknown.
    """

    target: str
    k: int
    state: State
    method: str = ""
    against: str = ""
    comparison: Comparison | None = None
    p: float = math.nan
    cost: float = math.nan


@dataclass(frozen=True, eq=False)
class Findings:
    """All numbers of a run, computed from its directory.

    Attributes:
      run: the directory's content.
      primary: the primary metric of each target.
      scores: the value of every seed, and the items behind it.
      rows: the results, k by k: every target, then the averages.
      contrasts: every method against the first one.
      minimum: smallest difference (a fraction) that counts.
      costs: of every method at every k.
      best: one per target and k.
      references: methods that are only a reference, as full fine-tuning: never the best method.
      truncation: truncated inputs and skipped rows, in sentences.
      warnings: what is missing, damaged, in two splits or diverged, in sentences.
      answer: to the primary question; None where none was declared, or it has no answer here.
    """

    run: RunDirectory
    primary: dict[str, str]
    scores: Scores
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    minimum: float
    costs: tuple[Cost, ...]
    best: tuple[Best, ...]
    references: frozenset[str]
    truncation: list[str]
    warnings: list[str]
    answer: Answer | None = None

    def __repr__(self) -> str:
        return f"Findings({self.run.size})"

    @property
    def baseline(self) -> str:
        """The first method; "" without one."""
        return self.run.methods[0] if self.run.methods else ""

    def contrast(self, method: str, target: str, k: int) -> Contrast | None:
        """The comparison of a method with the baseline."""
        for contrast in self.contrasts:
            if (contrast.method, contrast.target, contrast.k) == (method, target, k):
                return contrast
        return None


def minimum_effect(run: RunDirectory) -> float:
    """The smallest difference that counts: the config's, else that of the suite or of text."""
    asked = number(run.config.get("minimum_effect"))
    if 0 <= asked < 1:
        return asked
    return statistics.MINIMUM_EFFECT["sandbox" if run.suites else "text"]


def status(spec: str) -> str:
    """How a method relates to its paper; "" for one that this version does not know."""
    from prompt_jax.methods import create

    try:
        return str(getattr(create(spec), "status", ""))
    except ConfigError:
        return ""


def find(run: RunDirectory) -> Findings:
    """Computes everything from the files of a run directory."""
    primary = primary_metrics(run.rows)
    measured = scores(run.rows, primary, run.items)
    minimum = minimum_effect(run)
    contrasts = _contrasts(run.methods, measured, minimum)
    references = frozenset(m for m in run.methods if status(m) == "reference")
    # A reference cannot be the best method, unless there is nothing else to compare.
    rivals = [m for m in run.methods if m not in references]
    rivals = rivals if len(rivals) > 1 else list(run.methods)
    by_cell = {Cell(c.method, c.target, c.k): c for c in contrasts}
    rows = tuple(row for k in run.shots for row in _rows(run, k, primary, measured))
    best = [_best(row, rivals, run.methods[0], by_cell) for row in rows if row.kind == "target"]
    flops = _mean_flops(run, primary)
    limit, answer_limit = (
        get(run.config, "data", f"max_{name}_tokens") or "?" for name in ("input", "target")
    )
    return Findings(
        run,
        primary,
        measured,
        rows,
        contrasts,
        minimum,
        tuple(cost for k in run.shots for cost in _costs(run, k, primary)),
        tuple(replace(b, cost=_ratio(flops, b)) for b in best),
        references,
        truncation.notes(run.data, limit, run.targets, answer_limit),
        [
            *run.problems,
            *overlap.notes(run.data, run.targets),
            *_died(run, primary),
            *doubts.find(run, _levels(rows)),
        ],
        _answer(run, measured, minimum),
    )


def _answer(run: RunDirectory, measured: Scores, minimum: float) -> Answer | None:
    """The answer to the primary question, where the config has one and one number of shots."""
    try:
        asked = [q for q in questions.declared(run.config)[0] if q.role == "primary"]
        if not asked or len(run.shots) != 1:
            return None
        question, k = asked[0], run.shots[0]
        comparison = paired.compare(run, measured, k, question)
        targets = paired.targets_of(run, question)
    except DataError:
        return None
    return Answer(question, k, targets, judge({"": comparison}, minimum)[""])


def _rows(run: RunDirectory, k: int, primary: Mapping[str, str], measured: Scores) -> list[Row]:
    """The targets at one k, then the macro averages over all of them and over declared groups."""

    def summaries(
        values: Mapping[str, Mapping[int, float]], targets: Sequence[str]
    ) -> dict[str, Summary]:
        limits = measured.range(targets)
        return {
            method: bounded(summarise([by_seed[s] for s in sorted(by_seed)]), *limits)
            for method, by_seed in values.items()
            if by_seed
        }

    made = []
    for target in run.targets:
        values = {m: measured.values.get(Cell(m, target, k), {}) for m in run.methods}
        metric = primary.get(target, "")
        found, own = summaries(values, [target]), run.reference.values(target, metric)
        made.append(Row(k, "target", run.name(target), target, metric, found, own))
    for name, targets in averages(run):
        values = {m: measured.macro(m, targets, k) for m in run.methods}
        found = summaries(values, targets)
        own = reference.average([run.reference.values(t, primary.get(t, "")) for t in targets])
        made.append(Row(k, "average", name, "", f"{len(targets)} targets", found, own))
    return made


def _levels(rows: Sequence[Row]) -> list[doubts.Level]:
    return [
        doubts.Level(method, row.k, row.name, summary.mean, row.reference)
        for row in rows
        if row.kind == "target"
        for method, summary in row.summaries.items()
        if summary.n
    ]


def averages(run: RunDirectory) -> list[tuple[str, tuple[str, ...]]]:
    """The groups of targets that are averaged: all of them, and those that the config declares."""
    if len(run.targets) < 2:
        return []
    try:
        _, groups = questions.declared(run.config)
    except DataError:
        groups = ()
    made = [("macro average", run.targets)]
    for group in groups:
        mine = tuple(target for target in run.targets if target in group.targets)
        if mine and mine != run.targets:
            made.append((group.name, mine))
    return made


def _contrasts(methods: Sequence[str], measured: Scores, minimum: float) -> tuple[Contrast, ...]:
    """Every method against the first one, Holm-corrected over the whole family."""
    if not methods:
        return ()
    family: dict[Cell, Comparison] = {}
    for cell in measured.values:
        base = cell._replace(method=methods[0])
        if cell != base and base in measured.values:
            comparison = measured.compare([cell], [base])
            if comparison is not None:
                family[cell] = comparison
    judged = judge({str(i): c for i, c in enumerate(family.values())}, minimum)
    return tuple(
        Contrast(cell.method, methods[0], cell.target, cell.k, verdict)
        for cell, verdict in zip(family, judged.values(), strict=True)
    )


def _best(row: Row, rivals: Sequence[str], baseline: str, by_cell: Mapping[Cell, Contrast]) -> Best:
    scored = [m for m in rivals if m in row.summaries and row.summaries[m].n]
    if not scored:
        return Best(row.target, row.k, "failed")

    def mean(method: str) -> float:
        return row.summaries[method].mean

    compared = {m: c for m in scored if (c := by_cell.get(Cell(m, row.target, row.k))) is not None}
    winners = [
        m for m, c in compared.items() if c.verdict.effect and c.verdict.comparison.difference > 0
    ]
    best = max(winners or scored, key=mean)
    if best == baseline and compared:
        behind = all(c.verdict.effect for c in compared.values())
        rival = max(compared, key=mean)
        verdict = compared[rival].verdict
        d = verdict.comparison
        turned = d._replace(difference=-d.difference, low=-d.high, high=-d.low)
        state: State = "baseline" if behind else "not_significant"
        return Best(row.target, row.k, state, best, rival, turned, verdict.p_holm)
    if best not in compared:  # alone, or it shares no seed with the baseline
        return Best(row.target, row.k, "no_comparison", best)
    verdict = compared[best].verdict
    state = "ahead" if winners else "not_significant"
    return Best(row.target, row.k, state, best, baseline, verdict.comparison, verdict.p_holm)


def _mean_flops(run: RunDirectory, primary: Mapping[str, str]) -> dict[Cell, float]:
    by_cell: dict[Cell, list[float]] = {}
    for row in _primary(run, primary):
        by_cell.setdefault(Cell(row.method, row.target, row.k), []).append(row.flops)
    return {cell: float(np.mean(values)) for cell, values in by_cell.items()}


def _ratio(flops: Mapping[Cell, float], best: Best) -> float:
    own, other = (flops.get(Cell(m, best.target, best.k), 0.0) for m in (best.method, best.against))
    return own / other if other else math.nan


def _primary(run: RunDirectory, primary: Mapping[str, str]) -> list[ResultRow]:
    """The test rows of each target's primary metric."""
    return [r for r in run.rows if r.split == "test" and r.metric == primary.get(r.target)]


def _costs(run: RunDirectory, k: int, primary: Mapping[str, str]) -> list[Cost]:
    means: dict[str, dict[str, float]] = {}
    for method in run.methods:
        mine = [row for row in _primary(run, primary) if (row.method, row.k) == (method, k)]
        if mine:
            means[method] = {
                name: float(np.mean([getattr(row, name) for row in mine])) for name in _MEANS
            }
    base = means.get(run.methods[0], {}).get("flops", 0.0) if run.methods else 0.0
    return [
        Cost(method, k, mean, mean["flops"] / base if base else math.nan)
        for method, mean in means.items()
    ]


def _died(run: RunDirectory, primary: Mapping[str, str]) -> list[str]:
    return [
        f"{row.method}, {run.name(row.target)}, {heading(row.k)}, seed {row.seed}: the replica"
        " diverged (a loss or gradient was not finite) and has no result."
        for row in _primary(run, primary)
        if not math.isfinite(row.value)
    ]
