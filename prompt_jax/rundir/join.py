"""Several runs of one protocol as one: side by side in a table or on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.config import differences
from prompt_jax.errors import DataError
from prompt_jax.prompts import config_differences
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.paths import FREE

# What two runs of one protocol may differ in, beside what changes no number.
_OWN = ("name", "methods", "population", "mesh", "data.root", "data.cache")


def refuse_other_model(runs: Sequence[RunDirectory]) -> None:
    """Checks that runs are of one model and of one edition of a generated suite.

    Models are compared by weights, and by configuration where both runs recorded it.

    Raises:
      DataError: they differ.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.weights != first.weights:
            raise DataError(f"{run.path} differs from {first.path} in weights_sha256.")
        if found := config_differences(first.model_config, run.model_config):
            raise DataError(
                f"{run.path} is of the weights of {first.path} under another configuration of the "
                f"model: {'; '.join(found)}."
            )
    suites = set[str]().union(*(run.suites for run in runs))
    if len(suites) > 1:
        raise DataError(
            f"the runs are of different editions of the sandbox: {', '.join(sorted(suites))}."
        )


def protocol_differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between the protocols of two configs: `key: one -> other`.

    Sources count only where both configs have some: methods without sources name none.
    """
    free = {*FREE, *_OWN}
    if not (first.get("sources") and other.get("sources")):
        free.add("sources")
    return [f"{k}: {v}" for k, v in differences(first, other).items() if k not in free]


def refuse_other_protocol(
    first: RunDirectory, other: RunDirectory, free: Sequence[str] = ()
) -> None:
    """Checks that two runs are of one protocol.

    Args:
      first: one of them.
      other: the other one.
      free: more keys of the config that they may differ in.

    Raises:
      DataError: with the keys that differ.
    """
    allowed = tuple(f"{key}:" for key in free)
    lines = protocol_differences(first.config, other.config)
    if lines := [line for line in lines if not line.startswith(allowed)]:
        raise DataError(
            f"{other.path} is of another protocol than {first.path}:\n"
            + "\n".join(f"  {line}" for line in lines)
        )


def join(runs: Sequence[RunDirectory]) -> RunDirectory:
    """Puts several runs of one protocol side by side; a single one is returned as it is.

    Of a method that several have the first run's results are taken; where another one's numbers
    differ, `problems` says so.

    Raises:
      DataError: their protocols, models or suites differ; the differing keys are named.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    refuse_other_model(runs)
    for run in runs[1:]:
        refuse_other_protocol(first, run)
    made = RunDirectory(
        first.path,
        config={**first.config, "name": " + ".join(_name(run) for run in runs)},
        provenance=first.provenance,
        targets=first.targets,
        shots=first.shots,
        sources=max((run.sources for run in runs), key=len),
        seeds=tuple(sorted({seed for run in runs for seed in run.seeds})),
    )
    owners: dict[str, RunDirectory] = {}
    for run in runs:
        new = [method for method in run.methods if method not in owners]
        owners |= dict.fromkeys(new, run)
        made.rows += [row for row in run.rows if row.method in new]
        made.items |= {key: scores for key, scores in run.items.items() if key.method in new}
        made.answers += [entry for entry in run.answers if entry.method in new]
        known_lines = {(line.kind, line.target) for line in made.reference.lines}
        made.reference.lines.extend(
            line for line in run.reference.lines if (line.kind, line.target) not in known_lines
        )
        made.reference.runs.extend(x for x in run.reference.runs if x.key.method in new)
        made.prompts += [p for p in run.prompts if not p.is_source and p.record.method in new]
        made.problems += [f"{run.path}: {problem}" for problem in run.problems]
        made.problems += [
            f"{method} is in {owners[method].path} and in {run.path} with different numbers:"
            " the first are shown."
            for method in run.methods
            if method not in new and _values(run, method) != _values(owners[method], method)
        ]
        made.hashes += [(f"{run.path}/{name}", size, sha) for name, size, sha in run.hashes]
        for task, entries in run.data.items():
            made.data.setdefault(task, entries)
        known = {line.key for line in made.metrics}
        made.metrics += [line for line in run.metrics if line.key not in known]
    made.prompts += [p for p in first.prompts if p.is_source]
    made.methods = tuple(owners)
    return made


def _name(run: RunDirectory) -> str:
    name = run.config.get("name")
    return name if isinstance(name, str) and name else Path(run.path).name


def _values(run: RunDirectory, method: str) -> dict[Any, float]:
    return {
        (row.target, row.k, row.seed, row.metric, row.split): row.value
        for row in run.rows
        if row.method == method and np.isfinite(row.value)
    }
