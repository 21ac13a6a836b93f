"""Rows whose answer is hidden or missing, as those of test sets, rendered to be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.data.render import Example, Row, render
from prompt_jax.data.tasks import Task, Template
from prompt_jax.data.values import is_missing, match_label, plain

# What stands in a file for a label that is not published, in lower case.
_HIDDEN = ("", "-", "?", "-1", "-1.0", "none", "null", "nan", "na", "n/a", "<na>")


def is_hidden(task: Task, value: Any) -> bool:
    """Whether the value of a row's answer field means that there is no gold answer.

    None, NaN, an empty text and an empty list do everywhere. Unless they are an answer of the task,
    so do -1 and what CSV files hold for a missing value where the answers are labels or numbers.

    >>> from prompt_jax.data.registry import get
    >>> is_hidden(get("glue/rte"), -1), is_hidden(get("glue/rte"), 0)
    (True, False)
    """
    value = plain(value)
    if is_missing(value):
        return True
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return all(is_hidden(task, item) for item in value)
    if isinstance(value, Mapping):  # SQuAD's {"text": [], "answer_start": []}
        return not value or all(is_hidden(task, item) for item in value.values())
    if task.kind in ("span", "text") or (task.kind == "choice" and task.answers):
        return isinstance(value, str) and not value.strip()
    if match_label(value, task.labels, 0) is not None:  # -1 is the label "-1", in every format
        return False
    low, high = task.value_range
    minus_one = task.kind == "regression" and low <= -1 <= high  # an answer like any other
    if isinstance(value, str):
        text = value.strip().lower()
        return text in _HIDDEN and not (minus_one and text.startswith("-1"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == -1 and not minus_one


def render_to_answer(
    task: Task, template: Template, row: Row, where: str = "a row"
) -> tuple[Example, bool]:
    """Renders a row that is to be answered.

    Args:
      task: meaning of the row.
      template: one of the task's templates.
      row: the fields by name; the answer may be missing or hidden.
      where: name of the row in error messages.

    Returns:
      The example, and whether it has a gold answer; without one its label is -1, its target is ""
      and there are no references.

    Raises:
      DataError: as `render`; an answer that is neither hidden nor one of the task's is an error.
    """
    row, field = task.renamed(row), task.answer_field
    known = task.fixed_label is not None if field not in row else not is_hidden(task, row[field])
    # Without its group a row is answered, but not scored.
    known = known and all(name in row for name in task.group_fields)
    return render(task, template, row, where, answered=known), known
