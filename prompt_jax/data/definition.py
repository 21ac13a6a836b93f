"""A task as plain JSON, for records: what renders and reads its rows, without its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_jax.data.tasks import Task, Template
from prompt_jax.data.toml import parse_task

# Keys of a task file that say what a row means; `files` are not among them.
_KEYS = (
    "name",
    "kind",
    "fields",
    "labels",
    "metrics",
    "choices",
    "answers",
    "group_fields",
    "optional_fields",
    "value_range",
    "value_step",
    "generated",
    "max_input",
    "max_target",
    "licence",
    "description",
)


def to_json(task: Task) -> dict[str, Any]:
    """The definition of a task, with the keys of a task file; defaults are left out.

    >>> from prompt_jax.data import registry
    >>> ", ".join(to_json(registry.get("glue/rte"))["labels"])
    'entailment, not_entailment'
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Task)}
    values = {key: getattr(task, key) for key in _KEYS}
    table = {key: _plain(value) for key, value in values.items() if value != defaults[key]}
    if task.columns:
        table["columns"] = dict(task.columns)
    table["templates"] = [_template(template) for template in task.templates]
    return table


def from_json(table: Mapping[str, Any], where: str) -> Task:
    """Reads what `to_json` wrote.

    Args:
      table: the definition.
      where: its place, for messages.

    Raises:
      DataError: it defines no task.
    """
    return parse_task(table, Path(where))


def _template(template: Template) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(Template)}
    values = vars(template).items()
    return {key: _plain(value) for key, value in values if value != defaults[key]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
