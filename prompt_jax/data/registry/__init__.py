"""The registry: every task with a name, its templates and sources.

Names are those of TensorFlow Datasets where it has the task ("glue/rte"). A task is also found by
the name of its folder under `data.root` ("glue_rte") and by a path to a TOML file (see
`prompt_jax.data.toml`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from types import MappingProxyType

from prompt_jax.data import digits, sandbox
from prompt_jax.data.files import is_rows_file
from prompt_jax.data.registry import (
    choice,
    classification,
    glue,
    nli,
    qa,
    sentiment,
    superglue,
    t0,
)
from prompt_jax.data.tasks import Task
from prompt_jax.data.toml import load_task
from prompt_jax.errors import DataError

__all__ = [
    "ALIASES",
    "CONFLICTS",
    "PAPER_SOURCES",
    "RESERVED",
    "check_conflicts",
    "families",
    "get",
    "names",
    "suite",
]

_FAMILIES = MappingProxyType(
    {
        "Sandbox": sandbox.TASKS,
        "GLUE": glue.TASKS,
        "SuperGLUE": superglue.TASKS,
        "Inference and paraphrase": nli.TASKS,
        "Sentiment": sentiment.TASKS,
        "Classification": classification.TASKS,
        "Choice": choice.TASKS,
        "Questions": qa.TASKS,
        "T0": t0.TASKS,
    }
)
_TASKS = MappingProxyType({task.name: task for tasks in _FAMILIES.values() for task in tasks})

ALIASES = MappingProxyType(
    {task.folder: task.name for task in _TASKS.values() if task.folder != task.name}
    # The same data under another name; "anli" alone means its first round.
    | {"super_glue/rte": "glue/rte", "superglue_rte": "glue/rte", "anli": "anli/r1"}
)
"""Other name -> name of the task."""

PAPER_SOURCES = (
    "glue/mnli",
    "glue/qnli",
    "glue/qqp",
    "glue/sst2",
    "squad",
    "super_glue/record",
)
"""The six source tasks of ATTEMPT, MPT, BMTPT and DTVG."""

RESERVED = frozenset(task.name for task in _TASKS.values() if task.reserved)
"""Targets that no pre-training mixture of a language model may contain."""

CONFLICTS: tuple[tuple[str, str, str], ...] = (
    ("glue/wnli", "wsc273", "WNLI is made from the sentences of wsc273"),
    ("glue/wnli", "super_glue/wsc.fixed", "both are made from Winograd's sentences"),
    ("super_glue/wsc.fixed", "wsc273", "both are made from Winograd's sentences"),
    ("squad_small", "squad", "squad_small is cut from SQuAD's development set"),
    (
        "nq_qed",
        "mrqa/natural_questions",
        "nq_qed is cut from the development set of Natural Questions",
    ),
    ("scitail", "scitail_snli", "both are SciTail"),
    ("kilt/hotpotqa", "mrqa/hotpot_qa", "both are HotpotQA"),
    (
        "commonsenseqa",
        "commonsenseqa_v1.1",
        "the two versions share questions and split them differently",
    ),
)
"""(task, task, why) where training on one leaks into a test on the other, either way round."""


def names() -> tuple[str, ...]:
    """Names of all tasks, family by family."""
    return tuple(_TASKS)


def families() -> dict[str, tuple[Task, ...]]:
    """The tasks by family, in the order of the documentation."""
    return dict(_FAMILIES)


def get(name: str) -> Task:
    """Returns a task by name, alias, name of its local folder, or path of a TOML file.

    `+digits` after it gives the task with answers in digits (`digits.with_digits`).

    Raises:
      DataError: for an unknown name, or a TOML file that is wrong.

    >>> get("glue_rte").name
    'glue/rte'
    """
    known = (*_TASKS, *ALIASES)
    if name.endswith(digits.SUFFIX):
        return digits.with_digits(get(name.removesuffix(digits.SUFFIX)))
    if name in _TASKS:
        return _TASKS[name]
    if name in ALIASES:
        return _TASKS[ALIASES[name]]
    if name.endswith(".toml"):
        return load_task(name, reserved=known)
    if is_rows_file(name):
        raise DataError(
            f"'{name}' is a table, not a task: `prompt-jax tune {name}` tunes a prompt for it, and"
            f" `prompt-jax tasks new {name}` writes its task file."
        )
    raise DataError(
        f"unknown task '{name}'.{_meant(name)} See `prompt-jax tasks` for all of them, or give the"
        " path of a .toml file."
    )


def _meant(name: str) -> str:
    """Which task somebody may have meant: first one of that name in whatever collection."""
    last = _letters(name.rpartition("/")[2])
    tasks: dict[str, list[str]] = {}
    for task in _TASKS:
        tasks.setdefault(_letters(task.rpartition("/")[2]), []).append(task)
    if last in tasks:
        return f" Did you mean {' or '.join(map(repr, tasks[last]))}?"
    whole = {name.casefold(): task for name, task in ({t: t for t in _TASKS} | ALIASES).items()}
    known = {text: found[0] for text, found in tasks.items() if text} | whole
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    return f" Did you mean '{known[near[0]]}'?" if near else ""


def _letters(name: str) -> str:
    """A name without case and punctuation: SST-2 is sst2."""
    return re.sub(r"[\W_]", "", name).casefold()


def suite(task: Task) -> str:
    """Which edition of generated data a task has: the suite's content hash, "" for other tasks."""
    return "" if task.make_rows is None else sandbox.EDITION


def check_conflicts(sources: Iterable[str], targets: Iterable[str]) -> None:
    """Refuses to train on one task and test on another that holds the same texts.

    Args:
      sources: names (or aliases) of tasks that are trained on.
      targets: names of tasks that are tested on.

    Raises:
      DataError: for the first pair of `CONFLICTS`, in either direction.
    """
    trained = {ALIASES.get(name, name) for name in sources}
    tested = {ALIASES.get(name, name) for name in targets}
    for one, other, why in CONFLICTS:
        for source, target in ((one, other), (other, one)):
            if source in trained and target in tested:
                raise DataError(
                    f"task '{source}' cannot be a source of '{target}': {why}, so the test would be"
                    " answered by the training data. Leave one of them out."
                )
