"""Training, development and test sets of a task.

Published `validation` splits are our **test** sets: they are read once at the end and never used
to choose anything. Choices are made on a development set drawn from the training rows.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from prompt_jax.data import protocols
from prompt_jax.data.holdout import draw_groups, first_of_each
from prompt_jax.data.overlap import refuse_identical_splits
from prompt_jax.data.protocols import Cut, Protocol
from prompt_jax.data.shots import ShotsCount, few_shot
from prompt_jax.data.sources import HeldOut, Mapped, Source, Subset, open_split
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.streams import rng

# Second words of the "few_shot" stream, one for each kind of draw; 1 is that of `shots`.
_DEV, _LIMIT, _LIMIT_TEST = 0, 2, 3

_NONE: Mapping[str, Source] = MappingProxyType({})


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

    def __repr__(self) -> str:
        return (
            f"Splits({len(self.train):,} training, {len(self.dev):,} development and"
            f" {len(self.test):,} test rows)"
        )


def load_splits(
    task: Task,
    root: str | Path | None = None,
    protocol: Protocol = "development",
    seed: int = 0,
    limits: Limits | None = None,
    k: int = 0,
    shots_count: ShotsCount = "per_class",
) -> Splits:
    """Opens a task and makes its three sets: `open_split`, then `make_splits`.

    Args:
      task: the task.
      root: folder with one folder per task, see `open_split`.
      protocol: see `make_splits`.
      seed: see `make_splits`.
      limits: see `make_splits`.
      k: see `make_splits`.
      shots_count: see `make_splits`.

    Raises:
      DataError: if the data is not on this machine or too small for the protocol, the files
        of train and validation hold the same rows, or the protocol does not know the task.
      ConfigError: for an unknown protocol or a negative k.
    """
    evaluation_only = task.split_protocol == "evaluation"
    train = None if evaluation_only else open_split(task, "train", root)
    test = open_split(task, "validation", root)
    names = () if evaluation_only else protocols.other_splits(task, protocol)
    others = {name: open_split(task, name, root) for name in names}
    return make_splits(
        task, train, test, protocol, seed, limits, k, shots_count=shots_count, others=others
    )


def make_splits(
    task: Task,
    rows: Source | None,
    validation: Source,
    protocol: Protocol = "development",
    seed: int = 0,
    limits: Limits | None = None,
    k: int = 0,
    *,
    shots_count: ShotsCount = "per_class",
    others: Mapping[str, Source] = _NONE,
) -> Splits:
    """Makes train, dev and test from the published splits.

    - "development": dev = min(`limits.dev`, a fifth) of the training file, drawn with `seed`;
      test = the published validation split.
    - "attempt" (ATTEMPT, MPT and their followers): by the name of the task, see `protocols`. Either
      the validation split is halved into dev and test, and all training rows train; or 1,000
      training rows are dev and test is the published validation split; MNLI and PAWS have
      published splits for both. The rows are those that the papers' code takes.
    - "task_prompt_vectors": with more than 10,000 training rows, 1,000 of them are dev and test is
      the published validation split; otherwise that split is halved.

    With k > 0 the training rows are a few-shot draw (see `few_shot`). Under "development" it is
    from the whole training file, and so is dev, which has as many rows. Under the other two, dev
    stays the protocol's ("task_prompt_vectors": at most 250 rows of it), and the draw is from the
    rows that train. The protocol determines the test set.

    Args:
      task: meaning of the rows.
      rows: the training file; None for a task that is only evaluated: train and dev are empty.
      validation: the published validation split.
      protocol: see above.
      seed: seed of all draws (stream "few_shot"); "attempt" and "task_prompt_vectors" cut all
        sets but the few-shot draw with 42.
      limits: largest sizes; `limits.train` does not apply to a few-shot draw, and `limits.dev`
        only to "development".
      k: shots; 0 means all rows.
      shots_count: whether k counts rows per class or in all.
      others: published splits that the protocol needs beyond the two, by name
        (`protocols.other_splits`).

    Raises:
      DataError: if there are too few rows, files of two splits hold the same ones, or the protocol
        does not know the task.
      ConfigError: for an unknown protocol or a negative k.
    """
    limits = limits or Limits()
    protocols.check_protocol(protocol)
    if k < 0:
        raise ConfigError(f"k must not be negative (0 means all rows), not {k}.")
    if not len(validation):
        raise DataError(f"task '{task.name}': its validation split has no rows.")
    notes = _dropped(validation, "validation")
    none = Subset(validation, ())
    if rows is None:
        if k:
            raise DataError(f"task '{task.name}' is for evaluation only: it has no training rows.")
        return Splits(none, none, _limit(task, validation, limits.test, 0, _LIMIT_TEST), notes)

    for other in (validation, *others.values()):
        refuse_identical_splits(task, rows, other)
    notes += _dropped(rows, "train")
    if len(rows) < 2:
        raise DataError(f"task '{task.name}': its train split has {len(rows)} rows; 2 are needed.")
    cut = protocols.cut_of(task, protocol, len(rows))
    if cut is None:
        train, dev = _development(task, rows, limits.dev, seed)
        test = validation
    else:
        train, dev, test = _cut(task, cut, protocol, rows, {"validation": validation, **others})
        found = {"train": rows, "validation": validation, **others}
        counted = {name: len(part) + _dropped_rows(part) for name, part in found.items()}
        notes += protocols.size_notes(task, protocol, counted)
    if k:
        drawn = rows if cut is None else train
        whole = _different(rows, drawn)
        train, few_dev, shot_notes = few_shot(task, whole, k, seed, shots_count, cut is None)
        notes += shot_notes
        if cut is None:
            dev = few_dev
        elif most := protocols.few_shot_dev(protocol):
            dev = Subset(dev, np.sort(protocols.order(protocol, len(dev), most)))
    else:
        train = _limit(task, train, limits.train, seed, _LIMIT)
    return Splits(train, dev, _limit(task, test, limits.test, 0, _LIMIT_TEST), notes)


def _development(task: Task, rows: Source, most: int, seed: int) -> tuple[Source, Source]:
    """Train and dev of the default protocol."""
    n_dev = min(most, max(1, len(rows) // 5))
    order = _rng(task, seed, _DEV).permutation(len(rows))
    # Sorted: the feed determines the order of training, and files read faster in order.
    parts = _draw_groups(rows, n_dev, _rng(task, seed, _DEV))
    chosen, others = parts or (np.sort(order[:n_dev]), np.sort(order[n_dev:]))
    return Subset(rows, others), Subset(rows, chosen)


def _cut(
    task: Task, cut: Cut, protocol: str, rows: Source, published: Mapping[str, Source]
) -> tuple[Source, Source, Source]:
    """Train, dev and test of a published protocol."""
    train_at, dev_at = protocols.cut_rows(cut, protocol, len(rows))
    if len(dev_at) and isinstance(rows, HeldOut):
        generator = np.random.default_rng(protocols.SEED)
        dev_at, train_at = _draw_groups(rows, len(dev_at), generator) or (dev_at, train_at)
    train = Subset(rows, train_at) if len(train_at) < len(rows) else rows
    if cut.dev != "half":
        for name in {cut.dev, cut.test} - {"train"} - set(published):
            raise DataError(f"task '{task.name}': '{protocol}' needs its {name} split.")
        dev = Subset(rows, dev_at) if cut.dev == "train" else published[cut.dev]
        return train, dev, published[cut.test]
    validation = published["validation"]
    if len(validation) < 2:
        raise DataError(f"task '{task.name}': one validation row cannot be halved.")
    order, half = protocols.order(protocol, len(validation)), len(validation) // 2
    dev, test = (Subset(validation, np.sort(part)) for part in (order[:half], order[half:]))
    return train, dev, test


def _different(rows: Source, train: Source) -> Source:
    """The rows of `train` whose texts differ, where texts were compared; `train` is of `rows`."""
    if not isinstance(rows, HeldOut):
        return train
    first = first_of_each(rows.groups)
    if isinstance(train, Subset) and train is not rows:
        first = np.intersect1d(first, train.indices, assume_unique=True)
    return Subset(rows, first)


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


def _dropped_rows(source: Source) -> int:
    return source.dropped if isinstance(source, Mapped) else 0


def _dropped(source: Source, split: str) -> tuple[str, ...]:
    if isinstance(source, Mapped) and source.dropped:
        return (f"{source.dropped} rows of the {split} split have no label of this task: dropped",)
    return source.notes if isinstance(source, HeldOut) else ()
