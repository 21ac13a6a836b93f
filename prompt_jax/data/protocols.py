"""Split protocols: which rows of the published files train, choose and test.

`attempt` goes by the name of the task, as ATTEMPT's released code does (attempt/data/tasks.py) and
those that took it over (MPT, DePT, ULPT): two lists of names, and splits of their own for the
others. `task_prompt_vectors` goes by the number of training rows alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np

from prompt_jax.config.suggestions import replaced_value
from prompt_jax.data.tasks import Task
from prompt_jax.data.torch_order import torch_permutation
from prompt_jax.errors import ConfigError, DataError, did_you_mean

Protocol = Literal["development", "attempt", "task_prompt_vectors"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

SEED = 42
"""Of every cut of the published protocols."""

DEV_OF_TRAIN = 1_000
"""Development rows that are taken from a large training set."""

_LARGE = 10_000  # rows of a large training set, of the size rule


class Cut(NamedTuple):
    """How a protocol makes the three sets of a task.

    Attributes:
      dev: "half" of the validation split, the first 1,000 rows of "train" in the protocol's order,
        or the name of a published split.
      test: the other half ("half"), or the name of a published split.
      most: largest number of training rows, the first ones in the protocol's order; 0: all.
    """

    dev: str
    test: str
    most: int = 0


_HALF, _TRAIN = Cut("half", "half"), Cut("train", "validation")
_ATTEMPT = MappingProxyType(
    dict.fromkeys(
        (
            *(f"glue/{name}" for name in ("cola", "wnli", "rte", "mrpc", "stsb")),
            *(f"super_glue/{name}" for name in ("cb", "copa", "multirc", "wic", "wsc.fixed")),
            *("super_glue/boolq", "scitail", "scitail_snli"),
        ),
        _HALF,
    )
    | dict.fromkeys(
        (
            *(f"glue/{name}" for name in ("qqp", "qnli", "sst2")),
            *(f"mrqa/{name}" for name in ("natural_questions", "hotpot_qa", "search_qa")),
            *("mrqa/news_qa", "super_glue/record", "squad", "snli", "winogrande"),
            *(f"anli/r{number}" for number in (1, 2, 3)),
        ),
        _TRAIN,
    )
    | {
        "yelp_polarity": Cut("train", "validation", 100_000),
        "glue/mnli": Cut("validation_mismatched", "validation"),
        "paws": Cut("validation", "test"),
    }
)


class _Published(NamedTuple):
    """A published protocol.

    Attributes:
      cut: how it cuts a task with so many training rows.
      order: the first `count` of n rows in its order.
      few_shot_dev: largest development set of a few-shot run; 0: the whole one.
      by_name: whether it is about the published files of named tasks.
    """

    cut: Callable[[Task, int], Cut]
    order: Callable[[int, int | None], np.ndarray]
    few_shot_dev: int
    by_name: bool


def _by_name(task: Task, rows: int) -> Cut:
    del rows
    if task.name not in _ATTEMPT:
        raise DataError(
            f"the split protocol 'attempt' goes by the name of the task and says nothing about"
            f" '{task.name}': use data.protocol=task_prompt_vectors, which goes by the number of"
            " rows, or data.protocol=development."
        )
    return _ATTEMPT[task.name]


def _by_size(task: Task, rows: int) -> Cut:
    del task
    return _TRAIN if rows > _LARGE else _HALF


def _torch_order(n: int, count: int | None) -> np.ndarray:
    """The papers' own order, so that the sets hold the papers' rows."""
    return torch_permutation(n, SEED, count)


def _numpy_order(n: int, count: int | None) -> np.ndarray:
    """Task Prompt Vectors' code draws by class, with another generator: ours are other rows."""
    return np.random.default_rng(SEED).permutation(n)[:count]


_PUBLISHED = MappingProxyType(
    {
        "attempt": _Published(_by_name, _torch_order, 0, by_name=True),
        "task_prompt_vectors": _Published(_by_size, _numpy_order, 250, by_name=False),
    }
)


def check_protocol(protocol: str) -> None:
    """Refuses an unknown protocol.

    Raises:
      ConfigError: with what replaces the protocol, where it had another name.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"unknown split protocol '{protocol}'."
            f"{replaced_value(protocol) or did_you_mean(protocol, PROTOCOLS)}"
            f" Known: {', '.join(PROTOCOLS)}."
        )


def cut_of(task: Task, protocol: str, rows: int) -> Cut | None:
    """How a published protocol cuts a task; None for `development`, which has limits instead.

    Args:
      task: the task.
      protocol: one of `PROTOCOLS`.
      rows: training rows in the file.

    Raises:
      DataError: `attempt` says nothing about this task.
    """
    published = _PUBLISHED.get(protocol)
    return None if published is None else published.cut(task, rows)


def other_splits(task: Task, protocol: str) -> tuple[str, ...]:
    """The published splits that a protocol reads beside train and validation."""
    published = _PUBLISHED.get(protocol)
    cut = _ATTEMPT.get(task.name) if published is not None and published.by_name else None
    known = ("half", "train", "validation")
    return tuple(name for name in cut[:2] if name not in known) if cut else ()


def order(protocol: str, n: int, count: int | None = None) -> np.ndarray:
    """The order in which a published protocol takes n rows: the first `count` of it, int64."""
    return _PUBLISHED[protocol].order(n, count)


def few_shot_dev(protocol: str) -> int:
    """Largest development set of a few-shot run under a published protocol; 0: the whole one."""
    return _PUBLISHED[protocol].few_shot_dev


def planned_sizes(
    task: Task, protocol: str, train: int | None, validation: int | None
) -> tuple[int | None, int | None]:
    """Numbers of training and test rows under a protocol, from those of the published files.

    Those of `development` are left as they are: its development set depends on limits.

    Raises:
      DataError: as in `cut_of`.
    """
    cut = cut_of(task, protocol, train or 0) if train else None
    if cut is None or train is None:
        return train, validation
    if cut.dev == "train":
        train -= _taken_from_train(train)
    if cut.most:
        train = min(train, cut.most)
    if cut.test == "half":
        validation = None if validation is None else validation - validation // 2
    elif cut.test != "validation":
        validation = dict(task.sizes).get(cut.test)
    return train, validation


def cut_rows(cut: Cut, protocol: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a training file of n rows that train and that choose, sorted, int64.

    Those that choose are none where the development set is not from the training file.
    """
    n_dev = _taken_from_train(n) if cut.dev == "train" else 0
    last = n_dev + cut.most if cut.most else n
    if not n_dev and last >= n:
        return np.arange(n), np.zeros(0, np.int64)
    taken = order(protocol, n, min(n, last) if cut.most else n_dev)
    if cut.most:
        train = taken[n_dev:]
    else:
        train = np.setdiff1d(np.arange(n), taken, assume_unique=True)
    return np.sort(train), np.sort(taken[:n_dev])


def size_notes(task: Task, protocol: str, found: dict[str, int]) -> tuple[str, ...]:
    """Warnings where files are not the published ones, whose rows `attempt` is about."""
    if not _PUBLISHED[protocol].by_name:
        return ()
    return tuple(
        f"{task.name}: its {split} file has {found[split]:,} rows, the published one {rows:,}: the"
        f" sets that the protocol '{protocol}' makes of it are not the papers'"
        for split, rows in task.sizes
        if split in found and found[split] != rows
    )


def _taken_from_train(n: int) -> int:
    return min(DEV_OF_TRAIN, max(1, n // 5))
