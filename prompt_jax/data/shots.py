"""Few-shot draws: k rows per class, or k rows in all, from the training rows of a task."""

from __future__ import annotations

import zlib
from typing import Literal, get_args

import numpy as np

from prompt_jax.data.sources import Source, Subset, labels
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError, DataError, did_you_mean
from prompt_jax.streams import rng

ShotsCount = Literal["per_class", "total"]
SHOTS_COUNTS: tuple[str, ...] = get_args(ShotsCount)

_SHOTS = 1  # second word of the "few_shot" stream; `splits` has the others


def check_shots_count(count: str) -> None:
    """Refuses an unknown count of shots.

    Raises:
      ConfigError: it is none of `SHOTS_COUNTS`.
    """
    if count not in SHOTS_COUNTS:
        raise ConfigError(
            f"unknown count of shots '{count}'.{did_you_mean(count, SHOTS_COUNTS)}"
            f" Known: {', '.join(SHOTS_COUNTS)}."
        )


def few_shot(
    task: Task,
    rows: Source,
    k: int,
    seed: int,
    count: ShotsCount = "per_class",
    with_dev: bool = True,
) -> tuple[Subset, Subset, tuple[str, ...]]:
    """Draws k-shot training and development sets from training rows.

    Counted per class, a classification gets k rows per class in each set. Counted in total, it gets
    k // (number of classes) rows per class and is filled up to k with rows of any class, as in the
    transfer papers (DePT's released code, which fills one row at most: 30 rows of CB for k = 32).
    Other kinds have no classes and get k rows in each set. The sets are disjoint. A class with too
    few rows for both is split evenly between the sets, with the odd row in train, and a note
    reports it.

    Args:
      task: defines the classes.
      rows: training rows.
      k: rows per class, or in all; at least 1.
      seed: of the stream "few_shot"; the draw differs between tasks too.
      count: what k counts.
      with_dev: whether a development set is drawn too; False: it is empty.

    Returns:
      train, dev, notes.

    Raises:
      DataError: if there are too few rows.
      ConfigError: for k < 1 or an unknown count.
    """
    if task.kind == "classification":
        classes, names = labels(task, rows), task.labels
    else:
        classes, names = np.zeros(len(rows), np.int64), ("all rows",)
    generator = rng(seed, "few_shot", zlib.crc32(task.name.encode()), _SHOTS)
    train, dev, notes = draw_shots(classes, k, generator, names, count, with_dev)
    if not len(train) or (with_dev and not len(dev)):
        raise DataError(f"task '{task.name}': {len(rows)} rows are too few for train and dev.")
    return Subset(rows, train), Subset(rows, dev), tuple(f"{task.name}: {n}" for n in notes)


def draw_shots(
    classes: np.ndarray,
    k: int,
    generator: np.random.Generator,
    names: tuple[str, ...],
    count: ShotsCount = "per_class",
    with_dev: bool = True,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The draw of `few_shot`, on class numbers alone.

    Args:
      classes: int [n], values in 0 .. len(names) - 1.
      k: rows per class in each set, or rows in each set.
      generator: source of randomness.
      names: names of the classes in notes.
      count: what k counts.
      with_dev: as in `few_shot`.

    Returns:
      Sorted row numbers of train and of dev, int64, and notes.
    """
    if k < 1:
        raise ConfigError(f"a few-shot draw needs k >= 1, not {k}.")
    check_shots_count(count)
    each = k if count == "per_class" else k // len(names)
    train: list[np.ndarray] = [np.zeros(0, np.int64)]
    dev: list[np.ndarray] = [np.zeros(0, np.int64)]
    notes: list[str] = []
    # One permutation of all rows, so that a class's draw does not depend on the classes before it.
    order = generator.permutation(len(classes))
    for number, name in enumerate(names):
        members = order[classes[order] == number]
        shots = min(each, (len(members) + 1) // 2 if with_dev else len(members))
        n_dev = min(each, len(members) - shots) if with_dev else 0
        train.append(members[:shots])
        dev.append(members[shots : shots + n_dev])
        if shots < each or (with_dev and n_dev < each):
            sets = f"{shots} train, {n_dev} dev" if with_dev else f"{shots} train"
            needed = f"2 x {each}" if with_dev else f"{each}"
            notes.append(f"{name} has {len(members)} rows, fewer than {needed}: {sets}")
    drawn = np.concatenate(train), np.concatenate(dev)
    if count == "total":
        drawn = _filled(drawn, k, order, with_dev)
        wanted = {"train": k, "dev": k if with_dev else 0}
        short = [
            f"{len(part)} {name}"
            for (name, rows), part in zip(wanted.items(), drawn, strict=True)
            if len(part) < rows
        ]
        if short:
            notes.append(f"{len(classes)} rows are too few for k = {k}: {', '.join(short)}")
    return np.sort(drawn[0]), np.sort(drawn[1]), tuple(notes)


def _filled(
    drawn: tuple[np.ndarray, np.ndarray], k: int, order: np.ndarray, with_dev: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Train and dev with k rows each, as far as there are rows: the next ones of any class."""
    train, dev = drawn
    rest = order[~np.isin(order, np.concatenate(drawn))]
    missing = k - len(train), k - len(dev) if with_dev else 0
    # Rows that are too few for both are shared evenly, with the odd one in train.
    extra = min(missing[0], max(len(rest) - missing[1], (len(rest) + 1) // 2))
    last = extra + min(missing[1], len(rest) - extra)
    return np.concatenate([train, rest[:extra]]), np.concatenate([dev, rest[extra:last]])
