"""Training, development and test sets of a task.

Published `validation` splits are our **test** sets: they are read once at the end and never used
to choose anything. Choices are made on a development set drawn from the training rows.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prompt_jax.data.holdout import draw_groups, first_of_each
from prompt_jax.data.overlap import refuse_identical_splits
from prompt_jax.data.sources import HeldOut, Mapped, Source, Subset, labels, open_split
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError, DataError, did_you_mean
from prompt_jax.streams import rng

Protocol = Literal["development", "transfer_papers"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

# Second words of the "few_shot" stream, one for each kind of draw.
_DEV, _SHOTS, _LIMIT, _LIMIT_TEST = range(4)

PAPERS_LARGE = 10_000
_PAPERS_DEV = 1_000
_PAPERS_SEED = 42


@dataclasses.dataclass(frozen=True)
class Limits:
    """Largest sizes of the splits.

    Attributes:
      train: training rows (0: all), drawn with the replica's seed from those outside the
        development set.
      dev: development rows; never more than a fifth of the training file.
      test: test rows (0: all), drawn with a fixed seed, so that all replicas have the same.
    """

    train: int = 0
    dev: int = 200
    test: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 0 or self.dev < 1:
            raise ConfigError(
                "the limits of train and test rows must not be negative (0: all) and that of dev "
                f"rows must be positive, not {self.train}, {self.test} and {self.dev}."
            )


@dataclasses.dataclass(frozen=True)
class Splits:
    """The three sets of a task.

    Attributes:
      train: training rows.
      dev: rows for all choices; disjoint from `train`.
      test: rows of the published validation split.
      notes: warnings for the report (classes with too few rows, dropped rows).
    """

    train: Source
    dev: Source
    test: Source
    notes: tuple[str, ...] = ()


def load_splits(
    task: Task,
    root: str | Path | None = None,
    protocol: Protocol = "development",
    seed: int = 0,
    limits: Limits | None = None,
    k: int = 0,
) -> Splits:
    """Opens a task and makes its three sets: `open_split`, then `make_splits`.

    Args:
      task: the task.
      root: folder with one folder per task, see `open_split`.
      protocol: see `make_splits`.
      seed: see `make_splits`.
      limits: see `make_splits`.
      k: see `make_splits`.

    Raises:
      DataError: if the data is not on this machine or too small for the protocol, or the files
        of train and validation hold the same rows.
      ConfigError: for an unknown protocol or a negative k.
    """
    evaluation_only = task.split_protocol == "evaluation"
    train = None if evaluation_only else open_split(task, "train", root)
    test = open_split(task, "validation", root)
    return make_splits(task, train, test, protocol, seed, limits, k)


def make_splits(
    task: Task,
    rows: Source | None,
    validation: Source,
    protocol: Protocol = "development",
    seed: int = 0,
    limits: Limits | None = None,
    k: int = 0,
) -> Splits:
    """Makes train, dev and test from the two published splits.

    - "development": dev = min(`limits.dev`, a fifth) of the training file, drawn with `seed`;
      test = the published validation split.
    - "transfer_papers" (ATTEMPT, MPT and their followers): with more than 10,000 training rows,
      1,000 of them are dev and test is the published validation split; otherwise that split is
      halved into dev and test (seed 42), and all training rows train.

    With k > 0, train and dev are a few-shot draw from the training file (see `few_shot`); the
    protocol determines the test set.

    Args:
      task: meaning of the rows.
      rows: the training file; None for a task that is only evaluated: train and dev are empty.
      validation: the published validation split.
      protocol: see above.
      seed: seed of all draws (stream "few_shot").
      limits: largest sizes; `limits.train` does not apply to a few-shot draw.
      k: shots; 0 means all rows.

    Raises:
      DataError: if there are too few rows, or files of both splits hold the same ones.
      ConfigError: for an unknown protocol or a negative k.
    """
    limits = limits or Limits()
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"unknown split protocol '{protocol}'.{did_you_mean(protocol, PROTOCOLS)}"
            f" Known: {', '.join(PROTOCOLS)}."
        )
    if k < 0:
        raise ConfigError(f"k must not be negative (0 means all rows), not {k}.")
    if not len(validation):
        raise DataError(f"task '{task.name}': its validation split has no rows.")
    notes = _dropped(validation, "validation")
    dev: Source = Subset(validation, ())
    train: Source = dev
    test = validation
    if rows is None:
        if k:
            raise DataError(f"task '{task.name}' is for evaluation only: it has no training rows.")
        return Splits(train, dev, _limit(task, test, limits.test, 0, _LIMIT_TEST), notes)

    refuse_identical_splits(task, rows, validation)
    notes += _dropped(rows, "train")
    if len(rows) < 2:
        raise DataError(f"task '{task.name}': its train split has {len(rows)} rows; 2 are needed.")
    papers = protocol == "transfer_papers"
    if papers and len(rows) <= PAPERS_LARGE:
        if len(validation) < 2:
            raise DataError(f"task '{task.name}': one validation row cannot be halved.")
        order = np.random.default_rng(_PAPERS_SEED).permutation(len(validation))
        half = len(validation) // 2
        train, dev, test = rows, Subset(validation, order[:half]), Subset(validation, order[half:])
    else:
        order = _rng(task, seed, _DEV).permutation(len(rows))
        n_dev = min(_PAPERS_DEV if papers else limits.dev, max(1, len(rows) // 5))
        # Sorted: the feed determines the order of training, and files read faster in order.
        parts = _draw_groups(rows, n_dev, _rng(task, seed, _DEV))
        chosen, others = parts or (np.sort(order[:n_dev]), np.sort(order[n_dev:]))
        dev, train = Subset(rows, chosen), Subset(rows, others)
    if k:
        whole = Subset(rows, first_of_each(rows.groups)) if isinstance(rows, HeldOut) else rows
        train, dev, shot_notes = few_shot(task, whole, k, seed)
        notes += shot_notes
    else:
        train = _limit(task, train, limits.train, seed, _LIMIT)
    return Splits(train, dev, _limit(task, test, limits.test, 0, _LIMIT_TEST), notes)


def few_shot(task: Task, rows: Source, k: int, seed: int) -> tuple[Subset, Subset, tuple[str, ...]]:
    """Draws k-shot training and development sets from the training file.

    A classification gets k rows per class in each set; other kinds have no classes and get k rows
    in each set. The sets are disjoint. A class with fewer than 2 k rows is split evenly between the
    sets, with the odd row in train, and a note reports it.

    Args:
      task: defines the classes.
      rows: the training file.
      k: rows per class (or in all), at least 1.
      seed: of the stream "few_shot"; the draw differs between tasks too.

    Returns:
      train, dev, notes.

    Raises:
      DataError: if there are fewer than two rows.
    """
    if task.kind == "classification":
        classes, names = labels(task, rows), task.labels
    else:
        classes, names = np.zeros(len(rows), np.int64), ("all rows",)
    train, dev, notes = draw_shots(classes, k, _rng(task, seed, _SHOTS), names)
    if not len(dev):
        raise DataError(f"task '{task.name}': {len(rows)} rows are too few for train and dev.")
    return Subset(rows, train), Subset(rows, dev), tuple(f"{task.name}: {n}" for n in notes)


def draw_shots(
    classes: np.ndarray, k: int, generator: np.random.Generator, names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The draw of `few_shot`, on class numbers alone.

    Args:
      classes: int [n], values in 0 .. len(names) - 1.
      k: rows per class in each set.
      generator: source of randomness.
      names: names of the classes in notes.

    Returns:
      Sorted row numbers of train and of dev, int64, and notes.
    """
    if k < 1:
        raise ConfigError(f"a few-shot draw needs k >= 1, not {k}.")
    train: list[np.ndarray] = [np.zeros(0, np.int64)]
    dev: list[np.ndarray] = [np.zeros(0, np.int64)]
    notes: list[str] = []
    # One permutation of all rows, so that a class's draw does not depend on the classes before it.
    order = generator.permutation(len(classes))
    for number, name in enumerate(names):
        members = order[classes[order] == number]
        shots = min(k, (len(members) + 1) // 2)
        n_dev = min(k, len(members) - shots)
        train.append(members[:shots])
        dev.append(members[shots : shots + n_dev])
        if shots < k or n_dev < k:
            notes.append(
                f"{name} has {len(members)} rows, fewer than 2 x {k}: {shots} train, {n_dev} dev"
            )
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(dev)), tuple(notes)


def _rng(task: Task, seed: int, *more: int) -> np.random.Generator:
    return rng(seed, "few_shot", zlib.crc32(task.name.encode()), *more)


def _draw_groups(
    rows: Source, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Development and training rows of a `HeldOut`, rows of equal texts together; None of others.

    So it is too where there are too few different texts.
    """
    if not isinstance(rows, HeldOut):
        return None
    dev = draw_groups(rows.groups, rows.classes, count / len(rows), generator)
    return (np.flatnonzero(dev), np.flatnonzero(~dev)) if dev.any() and not dev.all() else None


def _limit(task: Task, rows: Source, limit: int, seed: int, purpose: int) -> Source:
    if not limit or len(rows) <= limit:
        return rows
    order = _rng(task, seed, purpose).permutation(len(rows))
    return Subset(rows, np.sort(order[:limit]))


def _dropped(source: Source, split: str) -> tuple[str, ...]:
    if isinstance(source, Mapped) and source.dropped:
        return (f"{source.dropped} rows of the {split} split have no label of this task: dropped",)
    return source.notes if isinstance(source, HeldOut) else ()
