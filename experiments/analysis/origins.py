"""How alike are the task vectors of one task that were learnt from different initialisations?

    python -m experiments.analysis.origins RUN

RUN is a run directory with source prompts of several seeds, each of which has an initialisation of
its own (`prompt-jax run quickstart`). A task vector is the source's prompt minus that
initialisation, which is made again from the seed. Prints cosines over pairs, of whole prompts and
of their mean tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import prompt_jax
from experiments import command
from prompt_jax.errors import DataError
from prompt_jax.models import LanguageModel
from prompt_jax.prompts import parse
from prompt_jax.rundir.folder import get, read
from prompt_jax.rundir.tables import Table, markdown

KINDS = ("same task, other origin", "other task, same origin", "other task, other origin")
Vectors = Mapping[tuple[str, int], np.ndarray]  # by task and seed, [L, D]


class Cosines(NamedTuple):
    """Cosines of one kind of pairs."""

    mean: float
    smallest: float
    largest: float
    pairs: int


def cosines(vectors: Vectors) -> dict[str, Cosines]:
    """Cosines over all pairs, by kind; kinds without a pair are left out."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for (one, a), (other, b) in itertools.combinations(sorted(vectors), 2):
        kind = KINDS[0] if one == other else KINDS[1] if a == b else KINDS[2]
        x, y = vectors[one, a].ravel(), vectors[other, b].ravel()
        found[kind].append(float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))))
    return {
        kind: Cosines(float(np.mean(values)), min(values), max(values), len(values))
        for kind, values in found.items()
        if values
    }


def source_vectors(path: str | Path, lm: LanguageModel) -> tuple[Vectors, Vectors]:
    """The source prompts of a run, and their task vectors.

    Raises:
      DataError: it has no source prompts of several seeds.
    """
    run = read(path)
    init = str(get(run.config, "prompt", "init"))
    prompts: dict[tuple[str, int], np.ndarray] = {}
    vectors: dict[tuple[str, int], np.ndarray] = {}
    for file in run.prompts:
        task, seed = file.record.task, file.record.seed
        if file.is_source and file.array is not None and task and seed is not None:
            start = np.asarray(parse(init)(lm, len(file.array), seed).embeddings, np.float64)
            prompts[task, seed] = np.asarray(file.array, np.float64)
            vectors[task, seed] = prompts[task, seed] - start
    if len({seed for _, seed in prompts}) < 2:
        raise DataError(f"{path} has no source prompts of several seeds.")
    return prompts, vectors


def report(prompts: Vectors, vectors: Vectors) -> str:
    """The cosines as a Markdown table."""
    rows = []
    for name, of in (("prompts", prompts), ("task vectors", vectors)):
        pooled = {key: value.mean(0) for key, value in of.items()}
        for how, values in (("all tokens", of), ("mean token", pooled)):
            found = cosines(values)
            cells = (
                f"{c.mean:.2f} [{c.smallest:.2f}, {c.largest:.2f}]" if c else "-"
                for c in map(found.get, KINDS)
            )
            rows.append((f"{name}, {how}", *cells))
    return markdown(Table("origins", "Cosines", ("", *KINDS), tuple(rows)))


def main(arguments: Sequence[str]) -> None:
    """Prints the table of a run with the mini T5.

    Raises:
      DataError: there is not one run, or it has no source prompts of several seeds.
    """
    if len(arguments) != 1:
        raise DataError("name one run directory.")
    print(report(*source_vectors(arguments[0], prompt_jax.from_pretrained("mini"))))


if __name__ == "__main__":
    command.run("origins", main)
