"""Answers the questions that an experiment declared, from the results of one or several runs.

The same seeds draw the same rows, so cells of different runs are paired. A question is about the
mean over its targets. Seeds and items are resampled in pairs; where a metric has no items the signs
of the seeds' differences are flipped. The primary contrast is one test; p of the secondary ones is
after Holm over them all. Calibration is outside the family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prompt_jax.errors import DataError
from prompt_jax.evaluation import (
    Calibration,
    Comparison,
    Verdict,
    judge,
    sign_flip,
    summarise,
)
from prompt_jax.rundir import paired, reference
from prompt_jax.rundir.findings import minimum_effect
from prompt_jax.rundir.folder import RunDirectory, get
from prompt_jax.rundir.join import refuse_other_model, refuse_other_protocol
from prompt_jax.rundir.questions import Question, TargetGroup
from prompt_jax.rundir.scores import Cell, Scores, primary_metrics, scores
from prompt_jax.rundir.tables import Table, cell_text, interval_text, p_text
from prompt_jax.rundir.views import effect, threshold


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to the declared questions of an experiment.

    Attributes:
      means: the macro averages of every method.
      contrasts: of the primary question and the secondary ones.
      calibration: one table per question about calibration.
      not_run: questions that no run can answer, left out of the family.
    """

    means: Table
    contrasts: Table
    calibration: tuple[Table, ...]
    not_run: tuple[Question, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables in order."""
        return (self.means, self.contrasts, *self.calibration)


@dataclass(frozen=True, eq=False)
class Pool:
    """The cells of several runs at one k.

    Attributes:
      run: the first run, whose targets and methods are the experiment's.
      k: shots, as `data.shots_count` counts them.
      primary: the scores of the primary metrics.
      calibration: likewise, by the names of `Calibration`, where answers were ranked.
      minimum: smallest difference that counts.
    """

    run: RunDirectory
    k: int
    primary: Scores
    calibration: dict[str, Scores]
    minimum: float

    def cells(self, method: str, targets: Sequence[str]) -> list[Cell]:
        """The cells of a method on some targets."""
        return [Cell(method, target, self.k) for target in targets]


def pool(runs: Sequence[RunDirectory]) -> Pool:
    """Puts the seeds of several runs together; of one that several have the first one's is taken.

    Args:
      runs: the first one is the experiment's; more are searched for methods and seeds that it does
        not have.

    Raises:
      DataError: the first has no or several k, or one does not go with it: another model, other
        test rows, another edition of a generated suite, or more seeds of a method under another
        protocol.
    """
    first = runs[0]
    if len(first.shots) != 1:
        raise DataError(f"{first.path} has not one number of shots but {list(first.shots)}.")
    refuse_other_model(runs)
    for run in runs[1:]:
        for name in ("test_rows", "test_templates"):
            if get(run.config, "data", name) != get(first.config, "data", name):
                raise DataError(f"{run.path} differs from {first.path} in {name}.")
    k = first.shots[0]
    primary = Scores({}, {})
    calibration = {name: Scores({}, {}) for name in Calibration._fields}
    owners: dict[Cell, RunDirectory] = {}  # the run that a cell's first seeds are of
    for run in runs:
        metrics = {"": primary_metrics(run.rows)}
        metrics |= {name: dict.fromkeys(run.targets, name) for name in calibration}
        for name, by_target in metrics.items():
            into = calibration[name] if name else primary
            found = scores(run.rows, by_target, None if name else run.items)
            into.ranges.update({t: r for t, r in found.ranges.items() if t not in into.ranges})
            for cell, by_seed in found.values.items():
                if cell.k != k:
                    continue
                known = into.values.get(cell, {})
                if known and not by_seed.keys() <= known.keys():
                    refuse_other_protocol(owners[cell], run, ("seeds", "first_seed", "targets"))
                owners.setdefault(cell, run)
                into.values[cell] = by_seed | known
                if cell in found.items:
                    into.items[cell] = found.items[cell] | into.items.get(cell, {})
    return Pool(first, k, primary, calibration, minimum_effect(first))


def answer(
    runs: Sequence[RunDirectory],
    asked: Sequence[Question],
    groups: Sequence[TargetGroup] = (),
    *,
    partly: bool = False,
) -> Answers:
    """Answers questions.

    Args:
      runs: as for `pool`.
      asked: the declared questions.
      groups: targets whose macro average is shown beside that of all.
      partly: leave secondary questions out of the family whose methods no run has.

    Raises:
      DataError: there is no question, a run does not go with the first, or a cell is missing.
    """
    if not asked:
        raise DataError(
            f"the config of {runs[0].path} declares no questions; name the config that does with"
            " --config."
        )
    pooled = pool(runs)
    skipped = tuple(
        q for q in asked if partly and q.role == "secondary" and not _answerable(pooled, q)
    )
    asked = [question for question in asked if question not in skipped]
    tested = [question for question in asked if question.role != "calibration"]
    named = [spec for question in tested for spec in (question.a, question.b)]
    return Answers(
        _means(pooled, groups, named),
        _contrasts(pooled, tested),
        tuple(_calibration(pooled, q) for q in asked if q.role == "calibration"),
        skipped,
    )


def _answerable(pooled: Pool, question: Question) -> bool:
    cells = pooled.cells(question.a, paired.targets_of(pooled.run, question))
    cells += pooled.cells(question.b, paired.targets_of(pooled.run, question))
    return all(cell in pooled.primary.values for cell in cells)


def compare(pooled: Pool, question: Question) -> Comparison:
    """The mean over targets of a - b.

    Raises:
      DataError: a cell is not there, or no seed is healthy in all of them.
    """
    return paired.compare(pooled.run, pooled.primary, pooled.k, question)


def _means(pooled: Pool, groups: Sequence[TargetGroup], named: Sequence[str]) -> Table:
    """Mean and spread over seeds of the mean over targets, of the run's methods and those asked."""
    every = pooled.run.targets
    columns = {"all targets": every}
    for group in groups:
        mine = tuple(target for target in group.targets if target in every)
        if mine and mine != every:
            columns[group.name] = mine
    rows = []
    for method in dict.fromkeys((*pooled.run.methods, *named)):
        means = [pooled.primary.macro(method, targets, pooled.k) for targets in columns.values()]
        texts = (cell_text(summarise(list(m.values()))) if m else "-" for m in means)
        rows.append((method, *texts))
    metrics, known = primary_metrics(pooled.run.rows), pooled.run.reference
    levels = [
        reference.average([known.values(target, metrics.get(target, "")) for target in targets])
        for targets in columns.values()
    ]
    for kind, line in reference.LINES.items():
        if any(kind in level for level in levels):
            cells = (f"{100 * level[kind]:.1f}" if kind in level else "-" for level in levels)
            rows.append((line, *cells))
    titles = (f"{name} ({len(targets)})" for name, targets in columns.items())
    title = "Test rows, in points, mean ± standard deviation over seeds of the mean over targets"
    return Table("means", title, ("method", *titles), tuple(rows))


def _contrasts(pooled: Pool, asked: Sequence[Question]) -> Table:
    rows = []
    for role in ("primary", "secondary"):
        family = {q: compare(pooled, q) for q in asked if q.role == role}
        judged = judge({str(i): c for i, c in enumerate(family.values())}, pooled.minimum)
        for question, verdict in zip(family, judged.values(), strict=True):
            rows.append(_contrast_row(pooled, question, verdict))
    columns = ("", "contrast", "targets", "question", "points [95 %]", "p", "effect")
    note = (
        f"{threshold(pooled.minimum)} The primary contrast is one test; p of the others is after"
        " Holm over them."
    )
    return Table("contrasts", "Declared contrasts", columns, tuple(rows), 4, note=note)


def _contrast_row(pooled: Pool, question: Question, verdict: Verdict) -> tuple[str, ...]:
    under = f", under {', '.join(question.templates)}" if question.templates else ""
    here, declared = len(paired.targets_of(pooled.run, question)), len(question.targets)
    return (
        "primary" if question.role == "primary" else "",
        f"{question.a} - {question.b}",
        (f"{here} of {declared}" if declared > here else str(here)) + under,
        question.why,
        interval_text(verdict.comparison),
        p_text(verdict.p_holm),
        effect(verdict),
    )


def _calibration(pooled: Pool, question: Question) -> Table:
    """Accuracy and calibration of two methods, and the differences.

    Every number is the mean over the targets whose answers were ranked, of the seeds that are
    healthy in all of these cells.

    Raises:
      DataError: no such target, or no such seed.
    """
    a, b = question.a, question.b
    ranked = pooled.calibration["nll"].values
    targets = [
        t
        for t in paired.targets_of(pooled.run, question)
        if all(Cell(x, t, pooled.k) in ranked for x in (a, b))
    ]
    if not targets:
        raise DataError(
            f"no run directory has the calibration of {a} and {b} on one target: their answers"
            " were not ranked, or the run is older than this number (give its command again)."
        )
    measured = {"points": pooled.primary, **pooled.calibration}
    cells = [cell for x in (a, b) for cell in pooled.cells(x, targets)]
    healthy = [set(paired.healthy(table, cells, question)) for table in measured.values()]
    seeds = sorted(set.intersection(*healthy))
    if not seeds:
        raise DataError(f"{a} and {b} have no healthy seed in common.")

    def means(name: str, method: str) -> list[float]:
        by_seed = measured[name].macro(method, targets, pooled.k)
        return [by_seed[s] for s in seeds]

    def text(name: str, method: str) -> str:
        found = summarise(means(name, method))
        return cell_text(found) if name == "points" else f"{found.mean:.3f} ± {found.std:.3f}"

    def difference(name: str) -> str:
        found = sign_flip(means(name, a), means(name, b))
        scale, digits = (100, 1) if name == "points" else (1, 3)
        return f"{scale * found.difference:+.{digits}f} (p {p_text(found.p)})"

    rows = [(x, *(text(name, x) for name in measured)) for x in (a, b)]
    rows.append(("difference", *map(difference, measured)))
    return Table(
        "calibration",
        f"How far the answers' probabilities can be trusted: mean over {len(targets)} targets ±"
        f" standard deviation over {len(seeds)} seeds",
        ("method", *measured),
        tuple(rows),
        note="Less is better but for points. p from the signs of the seeds' differences, outside"
        " the family.",
    )
