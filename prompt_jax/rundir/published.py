"""A run's own numbers beside published ones, where model, protocol, shots and metric agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prompt_jax import published
from prompt_jax.data import registry
from prompt_jax.evaluation import summarise
from prompt_jax.published import PublishedTable
from prompt_jax.rundir.folder import RunDirectory, get, number
from prompt_jax.rundir.tables import Table, cell_text, heading

_PROTOCOLS = {"attempt": "by task name, as ATTEMPT", "task_prompt_vectors": "by size"}


def tables(run: RunDirectory) -> list[Table]:
    """One table for each published one that some target of the run may stand beside.

    A target stands beside a published column where the run has the same model, split protocol,
    number of shots in all, and metric, and nothing of its rows was left out. Each published method
    is beside the run's methods of the same name, or alone.

    Args:
      run: the run; others' numbers never become part of it.

    Returns:
      Tables of points.
    """
    made = []
    for table in published.tables():
        rows = tuple(_rows(run, table)) if _comparable(run, table) else ()
        if rows:
            columns = (
                "",
                "target",
                "metric",
                "published method",
                "published",
                "method here",
                "here",
            )
            name = f"published_{table.name}"
            made.append(Table(name, table.title, columns, rows, left=4, note=_note(run, table)))
    return made


def _comparable(run: RunDirectory, table: PublishedTable) -> bool:
    cut = any(get(run.config, "data", name) for name in ("train_rows", "test_rows"))
    total = not table.k or get(run.config, "data", "shots_count") == "total"
    same = get(run.config, "data", "protocol") == table.protocol and table.k in run.shots
    return _model(run) == table.model and same and total and not cut


def _model(run: RunDirectory) -> str:
    """The model's name: of a hub id or directory, what stands behind the last slash."""
    name = get(run.provenance, "model", "name") or run.config.get("model") or ""
    return str(name).rstrip("/").rsplit("/", 1)[-1].lower()


def _rows(run: RunDirectory, table: PublishedTable) -> Iterator[tuple[str, ...]]:
    for column, (task, metric) in table.targets.items():
        for target in run.targets:
            name = run.name(target)
            if not metric or registry.ALIASES.get(name, name) != task:
                continue
            ours = {method: _ours(run, method, target, table.k, metric) for method in run.methods}
            if not any(ours.values()):
                continue
            for row in table.rows:
                place = (heading(table.k), name, metric, row.method, row.cell(column))
                same = [m for m in run.methods if ours[m] and m.partition("(")[0] == row.spec]
                yield from ((*place, method, ours[method]) for method in same)
                if not same:
                    yield (*place, "-", "-")


def _ours(run: RunDirectory, method: str, target: str, k: int, metric: str) -> str:
    """Mean and deviation over seeds of the run's own test values; "" where it has none."""
    values = [
        row.value
        for row in run.rows
        if (row.key.method, row.key.task, row.key.k) == (method, target, k)
        and (row.metric, row.split) == (metric, "test")
    ]
    return cell_text(summarise(np.asarray(values))) if values else ""


def _note(run: RunDirectory, table: PublishedTable) -> str:
    """Whose numbers these are, and what differs from the run's."""
    splits = f"splits: {_PROTOCOLS.get(table.protocol, table.protocol)}, in both"
    if table.protocol_note:
        splits += f" ({table.protocol_note})"
    dropout = "not read" if table.dropout is None else f"{table.dropout:g}"
    if table.dropout_note:
        dropout += f" ({table.dropout_note})"
    budget = "few_shot" if table.k else "target"
    pairs = [
        ("answers", _answers(table.answers), _answers(get(run.config, "data", "answers"))),
        ("dropout", dropout, f"{number(get(run.config, budget, 'dropout') or 0.0):g}"),
        ("steps on the target", table.steps, _number(get(run.config, budget, "steps"))),
        ("seeds", table.seeds, str(len(run.seeds))),
        ("prompt tokens", str(table.tokens), _number(get(run.config, "prompt", "tokens"))),
    ]
    differing = [
        f"{name}: theirs {theirs}, ours {ours}" for name, theirs, ours in pairs if theirs != ours
    ]
    listed = "; ".join([f"model: theirs {table.t5}, ours {_source(run)}", splits, *differing])
    return (
        f"The published column is measured by others, not by this run, and part of no contrast."
        f" Source: {table.source}. What to know of both: {listed}."
        + (f" {table.note}" if table.note else "")
    )


def _source(run: RunDirectory) -> str:
    weights = get(run.provenance, "model", "weights_sha256")
    known = f", weights {str(weights)[:8]}" if weights else ""
    return f"{get(run.provenance, 'model', 'name') or run.config.get('model')}{known}"


def _answers(kind: Any) -> str:
    """How answers are made, in words; a run that says nothing ranks words."""
    known = {"digits": "generated digits", "words": "generated words", "not read": "not read"}
    return known.get(str(kind), "ranked words")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"
