"""Answers the questions that an experiment declared, from the run directories alone, as Markdown.

    python -m experiments.sandbox_contrasts [--answerable] STUDY.py[:VARIANT] [suite=SUITE] RUN ...

STUDY declares its questions (`get_questions`, `experiments.suites.Experiment`); the first RUN
is its own, more are searched for methods that it does not have. A RUN is a run directory, or an
archive of one (`experiments.archive`; those of docs/results are in docs/results/archives). The same
seeds draw the same rows, so cells of different run directories are paired; runs with another T5,
other test rows or another edition of the sandbox are refused.

A question is about the mean over its targets. Seeds and items are resampled in pairs; where a
metric has no items the signs of the seeds' differences are flipped. The primary contrast is one
test; p of the secondary ones is after Holm over them all. With `--answerable`, secondary questions
about a line that no RUN has are named as not run and left out of the family.

A study that names two `calibrated` methods gets a second table: how far the probabilities of
their answers can be trusted, beside their accuracy, and the differences, outside the family.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import archive, command
from experiments.suites import CONTRARY, RELATED, Experiment, Question
from prompt_jax.data import registry
from prompt_jax.errors import DataError
from prompt_jax.evaluation import (
    Calibration,
    Comparison,
    judge,
    paired_bootstrap,
    sign_flip,
    summarise,
)
from prompt_jax.report.findings import p_text
from prompt_jax.rundir import folder, results

Key = tuple[str, str]  # method, target


@dataclass(frozen=True, eq=False)
class Runs:
    """The cells of several run directories at one k.

    Attributes:
      own: methods of the first directory.
      targets: of the first directory.
      values: primary metric of each cell by seed.
      items: per-item scores of each cell by seed, where the metric has them.
      per_row: answers to each test row: the number of its templates, or 1.
      calibration: likewise as `values`, by the names of `Calibration`, where answers were ranked.
    """

    own: tuple[str, ...]
    targets: tuple[str, ...]
    values: dict[Key, dict[int, float]]
    items: dict[Key, dict[int, np.ndarray]]
    per_row: bool
    calibration: dict[str, dict[Key, dict[int, float]]]


def read(paths: Sequence[str]) -> Runs:
    """Reads run directories or archives; of a cell that several have, the first one's is taken.

    Raises:
      DataError: a directory is none, has no or several k, or does not go with the first one.
    """
    runs = archive.read(paths)
    first = runs[0]
    if len(first.shots) != 1:
        raise DataError(f"{first.path} has not one number of shots but {list(first.shots)}.")
    for run in runs[1:]:
        for what in (
            ("provenance", "model", "weights_sha256"),
            ("config", "data", "test_rows"),
            ("config", "data", "test_templates"),
        ):
            mine, other = (folder.get(getattr(r, what[0]), *what[1:]) for r in (first, run))
            if mine != other:
                raise DataError(f"{run.path} differs from {first.path} in {what[-1]}.")
    suites = {row.suite for run in runs for row in run.rows if row.suite}
    if len(suites) > 1:
        raise DataError(f"the runs are of different editions of the sandbox: {sorted(suites)}.")
    k = first.shots[0]
    values: dict[Key, dict[int, float]] = {}
    items: dict[Key, dict[int, np.ndarray]] = {}
    calibration: dict[str, dict[Key, dict[int, float]]] = {name: {} for name in Calibration._fields}
    for run in runs:
        found = results.cells(run.rows, results.primary_metrics(run.rows))
        for (method, target, shots), by_seed in found.items():
            if shots == k and (method, target) not in values:
                values[method, target] = dict(by_seed)
                mine = {s: run.items.get((method, target, k, s)) for s in by_seed}
                if all(x is not None for x in mine.values()):
                    items[method, target] = {s: x for s, x in mine.items() if x is not None}
        for name, made in calibration.items():
            measured = results.cells(run.rows, dict.fromkeys(run.targets, name))
            for (method, target, shots), by_seed in measured.items():
                if shots == k:
                    made.setdefault((method, target), dict(by_seed))
    everything = folder.get(first.config, "data", "test_templates") == "all"
    return Runs(first.methods, first.targets, values, items, everything, calibration)


def asked(runs: Runs, question: Question) -> tuple[str, ...]:
    """The question's targets, less those that the run left out.

    Raises:
      DataError: the run has none of them.
    """
    targets = tuple(t for t in question.targets or runs.targets if t in runs.targets)
    if not targets:
        raise DataError(f"the run has none of the targets of {question.a} - {question.b}.")
    return targets


def compare(runs: Runs, question: Question) -> Comparison:
    """The mean over targets of a - b.

    Raises:
      DataError: a cell is not there, or no seed is healthy in all of them.
    """
    targets = asked(runs, question)
    cells = {x: [(x, target) for target in targets] for x in (question.a, question.b)}
    for key in (*cells[question.a], *cells[question.b]):
        if key not in runs.values:
            raise DataError(f"no run directory has {key[0]} on {key[1]}: give the one that has.")
    every = [runs.values[key] for keys in cells.values() for key in keys]
    seeds = _healthy(every, question.a, question.b)
    if any(key not in runs.items for keys in cells.values() for key in keys):
        if question.templates:
            raise DataError("without per-item scores, templates cannot be told apart.")
        means = [
            np.mean([[runs.values[k][s] for s in seeds] for k in keys], 0)
            for keys in cells.values()
        ]
        return sign_flip(*means)
    tables = [
        [_items(runs, key, seeds, question.templates) for key in keys] for keys in cells.values()
    ]
    sizes = [table.shape[1] for table in tables[0]]
    # Weighted, so that every target counts alike however many test rows it has.
    weights = [sum(sizes) / (len(sizes) * size) for size in sizes]
    left, right = (
        np.concatenate([w * t for w, t in zip(weights, some, strict=True)], 1) for some in tables
    )
    return paired_bootstrap(left, right)


def _healthy(every: Sequence[dict[int, float]], a: str, b: str) -> list[int]:
    """The seeds whose numbers are finite in all cells of two methods."""
    seeds = [s for s in sorted(every[0]) if all(np.isfinite(v.get(s, np.nan)) for v in every)]
    if not seeds:
        raise DataError(f"{a} and {b} have no healthy seed in common.")
    return seeds


def _items(runs: Runs, key: Key, seeds: Sequence[int], templates: tuple[str, ...]) -> np.ndarray:
    """Scores [seeds, rows] of a cell; answers under several templates are averaged per row."""
    table = np.stack([runs.items[key][s] for s in seeds]).astype(np.float64)
    names = [template.name for template in registry.get(key[1]).templates]
    if not runs.per_row:
        return table
    template_prompts = table.reshape(len(seeds), -1, len(names))
    keep = [i for i, name in enumerate(names) if not templates or name in templates]
    return template_prompts[:, :, keep].mean(2)


def table(runs: Runs, asked_about: Sequence[str] = ()) -> list[str]:
    """Mean and spread over seeds of the mean over targets.

    Args:
      runs: the run directories.
      asked_about: methods to show besides those of the first one.
    """
    groups = {"all targets": runs.targets}
    for name, some in (("a source should help", RELATED), ("a source should hurt", CONTRARY)):
        mine = tuple(t for t in some if t in runs.targets)
        if mine and mine != runs.targets:
            groups[name] = mine
    lines = [
        "| method | " + " | ".join(f"{n} ({len(t)})" for n, t in groups.items()) + " |",
        "|" + "-|" * (1 + len(groups)),
    ]
    for method in dict.fromkeys((*runs.own, *asked_about)):
        cells = []
        for targets in groups.values():
            found = [runs.values.get((method, t), {}) for t in targets]
            seeds = sorted(set.union(*map(set, found)))
            by_seed = [float(np.mean([v.get(s, np.nan) for v in found])) for s in seeds]
            cells.append(results.cell_text(summarise(by_seed)) if seeds else "-")
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return lines


def trust(runs: Runs, a: str, b: str) -> list[str]:
    """Accuracy and calibration of two methods, and the differences.

    Every number is the mean over the targets whose answers were ranked, of the seeds that are
    healthy in all of these cells.

    Args:
      runs: the run directories.
      a: a method.
      b: another one.

    Raises:
      DataError: no such target, or no such seed.
    """
    ranked = runs.calibration["nll"]
    targets = [t for t in runs.targets if (a, t) in ranked and (b, t) in ranked]
    if not targets:
        raise DataError(
            f"no run directory has the calibration of {a} and {b} on one target: their answers"
            " were not ranked, or the run is older than this number (give its command again)."
        )
    tables = {"points": runs.values, **runs.calibration}
    every = [table.get((x, t), {}) for table in tables.values() for x in (a, b) for t in targets]
    seeds = _healthy(every, a, b)

    def means(name: str, method: str) -> list[float]:
        by_target = [tables[name][method, t] for t in targets]
        return [float(np.mean([by_seed[s] for by_seed in by_target])) for s in seeds]

    def text(name: str, method: str) -> str:
        found = summarise(means(name, method))
        if name == "points":
            return results.cell_text(found)
        return f"{found.mean:.3f} ± {found.std:.3f}"

    def difference(name: str) -> str:
        found = sign_flip(means(name, a), means(name, b))
        scale, digits = (100, 1) if name == "points" else (1, 3)
        return f"{scale * found.difference:+.{digits}f} (p {p_text(found.p)})"

    head = ("method", *tables)
    rows = [(f"`{x}`", *(text(name, x) for name in tables)) for x in (a, b)]
    last = ("difference", *map(difference, tables))
    return [
        f"How far the answers' probabilities can be trusted: mean over {len(targets)} targets ±"
        f" standard deviation over {len(seeds)} seeds; less is better but for points. p from the"
        " signs of the seeds' differences, outside the family.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "-|" * len(head),
        *(f"| {' | '.join(row)} |" for row in (*rows, last)),
    ]


def answerable(runs: Runs, question: Question) -> bool:
    """Whether the run directories have both lines on all of the question's targets."""
    return all((x, t) in runs.values for x in question[:2] for t in asked(runs, question))


def markdown(
    runs: Runs, primary: Question, secondary: Sequence[Question], partly: bool = False
) -> str:
    """The table of means, and the answers; partly: those that the runs can give."""
    unanswered = [q for q in secondary if partly and not answerable(runs, q)]
    secondary = [q for q in secondary if q not in unanswered]
    minimum = results.minimum(runs.targets)
    named = [spec for question in (primary, *secondary) for spec in (question.a, question.b)]
    lines = [
        "Test rows, in points, mean ± standard deviation over seeds of the mean over targets.",
        "",
        *table(runs, named),
        "",
        f"An effect has p < 0.05 and {100 * minimum:g} points. The primary contrast is one"
        " test; p of the others is after Holm over them.",
        "",
        "| contrast | targets | question | points [95 %] | p | effect |",
        "|-|-|-|-|-|-|",
    ]
    one = {primary: compare(runs, primary)}
    others = {question: compare(runs, question) for question in secondary}
    for family, name in ((one, "**primary**: "), (others, "")):
        judged = judge({str(i): c for i, c in enumerate(family.values())}, minimum)
        for question, verdict in zip(family, judged.values(), strict=True):
            under = f", under {', '.join(question.templates)}" if question.templates else ""
            here, declared = len(asked(runs, question)), len(question.targets)
            count = f"{here} of {declared}" if declared > here else str(here)
            lines.append(
                f"| {name}`{question.a}` - `{question.b}` | {count}{under} | {question.why} |"
                f" {results.interval_text(verdict.comparison)} | {p_text(verdict.p_holm)} |"
                f" {'yes' if verdict.effect else 'no'} |"
            )
    if unanswered:
        pairs = (f"`{question.a}` - `{question.b}`" for question in unanswered)
        lines += ["", f"Declared, not run and not in the family: {', '.join(pairs)}."]
    return "\n".join(lines) + "\n"


def declared(address: str, assignments: Sequence[str]) -> Experiment:
    """The experiment of a study with its declared questions.

    Args:
      address: path of the study, perhaps with a variant: `FILE.py:VARIANT`.
      assignments: `suite=SUITE`.

    Raises:
      DataError: it declares none.
    """
    file, _, variant = address.partition(":")
    study = runpy.run_path(file)
    if "get_questions" not in study:
        raise DataError(f"{file} declares no questions.")
    chosen = {"variant": variant} if variant else {}
    chosen |= dict(assignment.split("=", 1) for assignment in assignments)
    return study["get_questions"](**chosen)


def main(arguments: Sequence[str]) -> None:
    """Prints the tables of a study's questions."""
    partly = "--answerable" in arguments
    given = [argument for argument in arguments if argument != "--answerable"]
    assignments = [argument for argument in given if argument.startswith("suite=")]
    given = [argument for argument in given if argument not in assignments]
    if len(given) < 2 or not Path(given[0].partition(":")[0]).is_file():
        raise DataError(
            "usage: python -m experiments.sandbox_contrasts [--answerable] STUDY.py[:VARIANT]"
            " [suite=SUITE] RUN [RUN ...]"
        )
    experiment = declared(given[0], assignments)
    if experiment.primary is None:
        raise DataError(f"{experiment.config.name} declares no primary question.")
    runs = read(given[1:])
    print(markdown(runs, experiment.primary, experiment.secondary, partly))
    if experiment.calibrated:
        print("\n".join(trust(runs, *experiment.calibrated)))


if __name__ == "__main__":
    command.run("sandbox_contrasts", main)
