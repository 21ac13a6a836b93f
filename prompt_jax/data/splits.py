"""Which rows train, which rows choose and which rows test.

Published `validation` splits are our **test** sets: read once at the end, never used to choose
anything. What is chosen is chosen on a development set cut from the training rows.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from prompt_jax.data.sources import Mapped, Source, Subset, labels, open_split
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError, DataError, did_you_mean
from prompt_jax.streams import rng

Protocol = Literal["development", "transfer_papers"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

# Numbers behind the "few_shot" stream, one for each thing drawn from it.
_CUT, _SHOTS, _LIMIT, _LIMIT_TEST = range(4)

PAPERS_LARGE = 10_000
_PAPERS_DEV = 1_000
_PAPERS_SEED = 42


@dataclasses.dataclass(frozen=True)
class Limits:
    """Largest sizes of the splits.

    Attributes:
      train: training rows (0: all), drawn with the run's seed from what the development set left.
      dev: development rows; never more than a fifth of the training file.
      test: test rows (0: all), drawn with a fixed seed, so that every run is tested on the same.
    """

    train: int = 0
    dev: int = 200
    test: int = 0

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 0 or self.dev < 1:
            raise ConfigError(
                "limits of train and test rows must not be negative (0: all) and that of dev rows "
                f"must be positive, not {self.train}, {self.test} and {self.dev}."
            )


@dataclasses.dataclass(frozen=True)
class Splits:
    """The three sets of a task.

    Attributes:
      train: rows that gradients see.
      dev: rows that every choice is made on; disjoint from `train`.
      test: rows of the published validation split.
      notes: what a reader of the results must know (classes with too few rows, dropped rows).
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
    """Opens a task and cuts its three sets: `open_split` and `make_splits` in one.

    Args:
      task: what to load.
      root: folder with one folder per task, see `open_split`.
      protocol: see `make_splits`.
      seed: see `make_splits`.
      limits: see `make_splits`.
      k: see `make_splits`.

    Raises:
      DataError: if the data is not here or too small for the protocol.
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
    """Cuts train, dev and test from the two published splits.

    - "development": dev = min(`limits.dev`, a fifth) of the training file, drawn with `seed`;
      test = the published validation split.
    - "transfer_papers" (ATTEMPT, MPT and their followers): with more than 10,000 training rows,
      1,000 of them are dev and test is the published validation split; otherwise that split is
      halved into dev and test (seed 42), and all training rows train.

    With k > 0, train and dev are a few-shot draw from the training file (see `few_shot`) and test
    is as the protocol says.

    Args:
      task: what the rows mean.
      rows: the training file; None for a task that is only evaluated: train and dev are empty.
      validation: the published validation split.
      protocol: see above.
      seed: seed of the cut and the draws (stream "few_shot").
      limits: largest sizes; `limits.train` does not apply to a few-shot draw.
      k: shots; 0 means all rows.

    Raises:
      DataError: if there are too few rows.
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
            raise DataError(f"task '{task.name}' is for evaluation only: it has no rows to train.")
        return Splits(train, dev, _limit(task, test, limits.test, 0, _LIMIT_TEST), notes)

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
        order = _rng(task, seed, _CUT).permutation(len(rows))
        cut = min(_PAPERS_DEV if papers else limits.dev, max(1, len(rows) // 5))
        # Sorted: the order of training is the feed's business, and files read faster in order.
        dev, train = Subset(rows, np.sort(order[:cut])), Subset(rows, np.sort(order[cut:]))
    if k:
        train, dev, drawn = few_shot(task, rows, k, seed)
        notes += drawn
    else:
        train = _limit(task, train, limits.train, seed, _LIMIT)
    return Splits(train, dev, _limit(task, test, limits.test, 0, _LIMIT_TEST), notes)


def few_shot(task: Task, rows: Source, k: int, seed: int) -> tuple[Subset, Subset, tuple[str, ...]]:
    """Draws k-shot training and development sets from the training file.

    A classification gets k rows per class in each set; other kinds have no classes and get k rows
    in each set. The sets are disjoint. A class with fewer than 2 k rows is shared out evenly, the
    odd row to training; a note says so.

    Args:
      task: says what the classes are.
      rows: the training file.
      k: rows per class (or in all), at least 1.
      seed: of the stream "few_shot"; the draw differs between tasks too.

    Returns:
      train, dev, notes.

    Raises:
      DataError: if there are fewer than two rows to share.
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
    """The draw behind `few_shot`, on class numbers alone.

    Args:
      classes: int [n], values in 0 .. len(names) - 1.
      k: rows per class in each set.
      generator: source of randomness.
      names: what the classes are called in notes.

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
        held = min(k, len(members) - shots)
        train.append(members[:shots])
        dev.append(members[shots : shots + held])
        if shots < k or held < k:
            notes.append(
                f"{name} has {len(members)} rows, fewer than 2 x {k}: {shots} train, {held} dev"
            )
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(dev)), tuple(notes)


def _rng(task: Task, seed: int, *more: int) -> np.random.Generator:
    return rng(seed, "few_shot", zlib.crc32(task.name.encode()), *more)


def _limit(task: Task, rows: Source, limit: int, seed: int, purpose: int) -> Source:
    if not limit or len(rows) <= limit:
        return rows
    order = _rng(task, seed, purpose).permutation(len(rows))
    return Subset(rows, np.sort(order[:limit]))


def _dropped(source: Source, split: str) -> tuple[str, ...]:
    if isinstance(source, Mapped) and source.dropped:
        return (f"{source.dropped} rows of the {split} split have no label of this task: dropped",)
    return ()
