"""How similar the prompts of a run are, seed by seed, averaged over the seeds.

Prompts of one seed start from one initialisation, so only they are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prompt_jax.prompts import similarity
from prompt_jax.report import figures
from prompt_jax.rundir.folder import PromptFile, RunDirectory
from prompt_jax.rundir.tables import heading


class Kind(NamedTuple):
    """Prompts that differ in their seed alone."""

    method: str  # "": a source
    task: str
    k: int


def draw(run: RunDirectory) -> tuple[list[tuple[str, str, str]], str]:
    """Draws how similar the prompts of targets are to those of sources.

    Returns:
      For every method and k with prompts of targets and sources (method, heading, SVG), and what
      was left out, in a sentence; "" where nothing was.
    """
    usable, note = _one_width([p for p in run.prompts if p.array is not None])
    kinds = _kinds(run, usable)
    mean, nearest = _similarity(usable, kinds)
    return _near(run, kinds, mean, nearest), note


def _one_width(prompts: list[PromptFile]) -> tuple[list[PromptFile], str]:
    """Prompts of the commonest width: those of other models cannot be compared with them."""
    widths = [prompt.width for prompt in prompts]
    if len(set(widths)) < 2:
        return prompts, ""
    width = max(set(widths), key=lambda w: (widths.count(w), w))
    usable = [p for p in prompts if p.width == width]
    return usable, f"{len(prompts) - len(usable)} prompts of another width are left out."


def _kind(prompt: PromptFile) -> Kind:
    record = prompt.record
    method = "" if prompt.is_source else str(record.method)
    return Kind(method, str(record.task), prompt.k)


def _kinds(run: RunDirectory, prompts: list[PromptFile]) -> list[Kind]:
    """Sources first, then method by method, each in the order of the config."""

    def place(value: object, known: list[object]) -> int:
        return known.index(value) if value in known else len(known)

    tasks: list[object] = [run.name(task) for task in (*run.sources, *run.targets)]
    methods: list[object] = ["", *run.methods]
    return sorted(
        {_kind(prompt) for prompt in prompts},
        key=lambda x: (
            place(x.method, methods),
            place(x.k, list(run.shots)),
            place(x.task, tasks),
            x,
        ),
    )


def _similarity(
    prompts: list[PromptFile], kinds: list[Kind]
) -> tuple[np.ndarray, dict[Kind, list[Kind]]]:
    """Mean similarity [n, n] over seeds, NaN where no seed has both; the nearest source by seed."""
    total = np.zeros((len(kinds), len(kinds)))
    count = np.zeros_like(total)
    nearest: dict[Kind, list[Kind]] = {}
    for seed in sorted({p.record.seed or 0 for p in prompts}):
        mine = [p for p in prompts if (p.record.seed or 0) == seed]
        at = [kinds.index(_kind(p)) for p in mine]
        table = similarity([p.array for p in mine])
        total[np.ix_(at, at)] += table
        count[np.ix_(at, at)] += 1
        sources = [i for i, p in enumerate(mine) if p.is_source]
        for i, p in enumerate(mine):
            if sources and not p.is_source:
                best = max(sources, key=lambda j, i=i: table[i, j])  # type: ignore[misc]
                nearest.setdefault(_kind(p), []).append(_kind(mine[best]))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean, nearest


def _near(
    run: RunDirectory, kinds: list[Kind], mean: np.ndarray, nearest: dict[Kind, list[Kind]]
) -> list[tuple[str, str, str]]:
    """Targets x sources, method by method, all on one scale; a frame marks the nearest source."""
    sources = [i for i, kind in enumerate(kinds) if not kind.method]
    groups: dict[tuple[str, int], list[int]] = {}
    for i, kind in enumerate(kinds):
        if kind.method and sources:
            groups.setdefault((kind.method, kind.k), []).append(i)
    every = [i for rows in groups.values() for i in rows]
    limits = _limits(mean[np.ix_(every, sources)])
    made = []
    for (method, k), rows in groups.items():
        votes = [[nearest.get(kinds[i], []).count(kinds[j]) for j in sources] for i in rows]
        labels = [kinds[i].task.removeprefix(run.prefix) for i in rows]
        title = f"{method}, {heading(k)}: similarity of target prompts to source prompts"
        svg = figures.heatmap(
            title,
            mean[np.ix_(rows, sources)],
            labels,
            [kinds[j].task.removeprefix(run.prefix) for j in sources],
            limits,
            marked=[_majority(vote) for vote in votes],
        )
        made.append((method, heading(k), svg))
    return made


def _majority(votes: list[int]) -> int:
    """The source that is nearest in more than half of the seeds; -1: none is."""
    return int(np.argmax(votes)) if 2 * max(votes) > sum(votes) else -1


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
