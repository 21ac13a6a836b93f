"""The rows that `prompt-jax predict` answers: lines of text, JSON lines, or a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prompt_jax.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from prompt_jax.data import Example, Task
    from prompt_jax.models.base import Tokenizer

_TABLES = (".csv", ".tsv", ".parquet")
_JSON_LINES = (".jsonl", ".ndjson")
# Formats that would be read as lines of something else.
_OTHERS = (".json", ".xlsx", ".xls", ".arrow", ".feather", ".xml", ".yaml", ".yml", ".zip")
_IDS = ("id", "idx", "guid")


class Row(NamedTuple):
    """One input."""

    line: int  # of the input, counted from 1; of a table the row below its header
    example: Example
    prompts: tuple[int, ...]  # numbers of its prompts; empty: those of its own task
    task: Task | None = None
    labelled: bool = False  # whether the example has a gold answer
    id: Any = None  # the row's own, if it has one
    is_line: bool = True
    fields: Any = None  # what was rendered
    template: str | None = None  # of the task; None: the first

    @property
    def ranked(self) -> bool:
        """Whether the answer is chosen by rank classification, not generated."""
        task = self.task
        return task is not None and task.kind in ("classification", "choice") and not task.generated


def read(
    source: str, jsonl: bool, task: Task | None, template: str | None, names: Sequence[str]
) -> list[Row]:
    """Reads and renders all rows of an input.

    Args:
      source: a file, whose suffix tells its format, or "-" for stdin.
      jsonl: whether lines are JSON objects whatever the suffix.
      task: renders the rows; None: they are texts, or name their own task.
      template: of the task.
      names: of the prompts.

    Raises:
      DataError: the input cannot be read, or a row does not match its task.
    """
    rows = [
        _row(number, fields, where, task, template, names, is_line)
        for number, fields, where, is_line in _entries(source, jsonl)
    ]
    if not rows:
        raise DataError(f"{_name(source)} has no {'rows' if _is_table(source) else 'lines'}.")
    return rows


def _row(
    number: int,
    fields: Any,
    where: str,
    task: Task | None,
    template: str | None,
    names: Sequence[str],
    is_line: bool,
) -> Row:
    prompts, identity = tuple(range(len(names))), None
    if not isinstance(fields, str):
        fields = dict(fields)
        if task is None and "task" in fields:
            task, template = _pop_task(fields, where)
            prompts = ()
        if "prompt" in fields and (task is None or "prompt" not in task.fields):
            prompts = (_prompt_number(fields.pop("prompt"), names, where),)
        identity = next((fields[name] for name in _IDS if name in fields), None)
    example, labelled = _example(fields, task, template, where)
    return Row(number, example, prompts, task, labelled, identity, is_line, fields, template)


def for_model(row: Row, tokenizer: Tokenizer) -> Row:
    """The row with the label words that the tokenizer's model answers with.

    Rows are read, and refused, before a model is loaded.
    """
    from prompt_jax.data.tokenise import task_for

    if row.task is None or (task := task_for(tokenizer, row.task)) == row.task:
        return row
    example, _ = _example(row.fields, task, row.template, f"row {row.line}")
    return row._replace(example=example, task=task)


def _entries(source: str, jsonl: bool) -> Iterator[tuple[int, Any, str, bool]]:
    """Yields number, text or fields, name for error messages, and whether it is a line."""
    from prompt_jax.data.files import read_rows
    from prompt_jax.data.lines import json_object

    suffix = _suffix(source)
    if suffix in _OTHERS and not jsonl:
        raise DataError(
            f"{source} is neither lines of text (.txt, or stdin) nor rows ({', '.join(_TABLES)},"
            " .jsonl); give --jsonl if its lines are JSON objects."
        )
    if suffix in _TABLES and jsonl:
        raise ConfigError(f"{source} is a table: omit --jsonl.")
    if suffix in _TABLES or (suffix in _JSON_LINES and source.lower().endswith(".gz")):
        table = read_rows(source)
        for i in range(len(table)):
            yield i + 1, table[i], f"row {i + 1} of {source}", False
        return
    for number, text, where in _lines(source):
        fields: Any = json_object(text, where) if jsonl or suffix in _JSON_LINES else text
        yield number, fields, where, True


def _suffix(source: str) -> str:
    """The suffix that tells the format, in lower case, before `.gz`; "" of stdin."""
    return "" if source == "-" else Path(source.lower().removesuffix(".gz")).suffix


def _is_table(source: str) -> bool:
    return _suffix(source) in _TABLES


def _pop_task(fields: dict[str, Any], where: str) -> tuple[Task, str | None]:
    """Removes task and template from a row and returns them."""
    from prompt_jax.data import registry

    name = fields.pop("task")
    if not isinstance(name, str):
        raise DataError(f"{where}: 'task' must be a name, not {name!r}.")
    task = registry.get(name)
    template = None if "template" in task.fields else fields.pop("template", None)
    if template is not None and not isinstance(template, str):
        raise DataError(f"{where}: 'template' must be a name, not {template!r}.")
    return task, template


def _lines(source: str) -> Iterator[tuple[int, str, str]]:
    """Yields the number (from 1), text, and name for error messages of each line."""
    from prompt_jax.data.lines import decoded

    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from None
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else (), start=1):
        where = f"line {number} of {_name(source)}"
        text = decoded(line, where, first=number == 1).strip()
        if not text:
            raise DataError(f"{where} is empty.")
        yield number, text, where


def _name(source: str) -> str:
    return "the input" if source == "-" else source


def _prompt_number(name: Any, names: Sequence[str], where: str) -> int:
    """The number of the prompt that a row names."""
    if isinstance(name, str) and name in names:
        return list(names).index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(names):
        return name
    raise DataError(
        f"{where}: unknown prompt {name!r}. Known: {', '.join(names)} (or 0 to"
        f" {len(names) - 1}).{did_you_mean(str(name), names)}"
    )


def _example(
    fields: Any, task: Task | None, template: str | None, where: str
) -> tuple[Example, bool]:
    from prompt_jax.data import Example
    from prompt_jax.data.unlabelled import render_to_answer

    if task is None:
        text = fields if isinstance(fields, str) else fields.get("input")
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f'{where} needs {{"input": TEXT}}, or --task to render its fields{_has(fields)}.'
            )
        return Example(text, ""), False
    if isinstance(fields, str):
        if len(task.fields) > 1:
            raise DataError(
                f"a row of task '{task.name}' has the fields {', '.join(task.fields)}: give JSON"
                " objects and --jsonl, or a table."
            )
        fields = {task.fields[0]: fields}
    return render_to_answer(task, task.template(template), fields, where)


def _has(fields: Any) -> str:
    if not isinstance(fields, Mapping) or not fields:
        return ""
    return f"; it has {', '.join(map(str, fields))}"
