"""Rendering: a row and a template become an `Example`, the input and target texts of a model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import string
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from prompt_jax.data.tasks import LETTERS, Task, Template
from prompt_jax.errors import DataError

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row under one template.

    Attributes:
      input: text of the model's input.
      target: text that the model is trained to generate; `candidates[label]` where there are any.
      label: index of the right candidate; -1 for tasks without candidates.
      candidates: every possible target, for rank classification.
      references: accepted answers of a generated text; for a regression the exact label.
      template: name of the template.
      group: equal for rows that are scored together (a digest), or "".
    """

    input: str
    target: str
    label: int = -1
    candidates: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    template: str = ""
    group: str = ""


def render(task: Task, template: Template, row: Row, where: str = "a row") -> Example:
    """Renders a row under a template.

    Args:
      task: meaning of the row.
      template: one of the task's templates.
      row: the fields by name; see `Task` for the answer it must contain.
      where: name of the row in error messages, like "row 812 of train.jsonl".

    Raises:
      DataError: if a field is missing, empty or not a text, or the answer is not one of the
        task's; the message starts with `where`.
    """
    # `{choices}` is the rendered list, even where the row has a field of that name.
    rendered = ("choices",) if task.kind == "choice" else ()
    values = {
        field: _text(task, row, field, where)
        for field in template.fields
        if field in row and field not in rendered
    }
    choices: tuple[str, ...] = ()
    if task.kind == "choice":
        choices = _choices(task, row, where)
        values["choices"] = " ".join(
            f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
        )
    for field in template.fields:
        if field not in values:
            raise _missing(task, row, field, where)

    label = -1
    candidates: tuple[str, ...] = ()
    references: tuple[str, ...]
    if task.kind in ("classification", "choice"):
        if task.kind == "classification":
            answers = task.words(template)
        else:
            by_letter = template.choice_answers == "letter"
            answers = tuple(LETTERS[: len(choices)]) if by_letter else choices
        label = label_of(task, row, where, len(answers))
        candidates = _targets(template.target, answers)
        target = candidates[label]
        references = (target,)
    elif task.kind == "regression":
        value = value_of(task, row, where)
        target = _fill(template.target, {"answer": format_value(task, value)})
        references = (str(value),)
    else:
        references = _answers(task, row, where)
        target = _fill(template.target, {"answer": references[0]})
    text = _fill(template.text, values)
    for output in (text, *candidates, *references):
        try:
            output.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}: {output[:60]!r} contains a lone surrogate, which is not a valid"
                f" character (task '{task.name}')."
            ) from None
    return Example(
        input=text,
        target=target,
        label=label,
        candidates=candidates,
        references=references,
        template=template.name,
        group=_group(task, row, where),
    )


def label_of(task: Task, row: Row, where: str = "a row", count: int | None = None) -> int:
    """Returns the label number of a row of a "classification" or "choice" task.

    Labels may be numbers, label words, or (in a "choice" task) letters. If the task names a key for
    the text of the right choice (`Task.answers`), that text is the label.

    Args:
      task: defines the labels.
      row: contains the label, unless the task has a fixed one, and the choices if they are needed.
      where: name of the row in error messages.
      count: number of answers of this row; None: the task's number of labels, if it has any.

    Raises:
      DataError: if the label is missing or not one of the task's.
    """
    field = task.answer_field
    if task.fixed_label is not None and field not in row:
        return task.fixed_label
    if field not in row:
        raise _missing(task, row, field, where)
    raw = row[field]
    if task.answers and isinstance(raw, str):
        return _choice_of_text(task, row, raw, where)
    count = count or len(task.labels) or len(LETTERS)
    number = None
    if isinstance(raw, str):
        if raw in task.labels:
            number = task.labels.index(raw)
        elif raw.isascii() and raw.isdigit():
            number = int(raw)
        elif task.kind == "choice" and len(raw) == 1 and raw in LETTERS:
            number = LETTERS.index(raw)
    elif isinstance(raw, int | float | np.number | np.bool_) and raw in range(count):
        number = int(raw)  # tables store integers as 1.0
    if number is None or not 0 <= number < count:
        known = task.labels or tuple(LETTERS[:count])
        raise DataError(
            f"{where} has label {raw!r}, which is not one of {', '.join(known[:10])}"
            f"{', ...' if len(known) > 10 else ''} (task '{task.name}')."
        )
    return number


def value_of(task: Task, row: Row, where: str = "a row") -> float:
    """Returns the exact label of a row of a regression.

    Raises:
      DataError: if it is missing, not a number or outside the task's range.
    """
    if "label" not in row:
        raise _missing(task, row, "label", where)
    try:
        value = float(row["label"])
    except (TypeError, ValueError):
        value = math.nan
    low, high = task.value_range
    if not low <= value <= high:
        raise DataError(
            f"{where} has label {row['label']!r}, which is not a number from {low:g} to {high:g}"
            f" (task '{task.name}')."
        )
    return value


def format_value(task: Task, value: float) -> str:
    """Formats a regression label as T5 does: rounded to the nearest step, fixed decimals.

    Raffel et al. 2020, section 2.4 (STS-B): 2.57 becomes "2.6".
    """
    # Multiplied by the reciprocal: 0.3 * 5.0 is 1.5, but 0.3 / 0.2 is 1.4999...
    steps = round(value * (1.0 / task.value_step))
    decimals = max(0, -int(Decimal(str(task.value_step)).normalize().as_tuple().exponent))
    return f"{steps * task.value_step + 0.0:.{decimals}f}"  # + 0.0: never "-0.0"


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    # Not str.format: the fields of the pattern are known to be plain names, and braces in a value
    # must not be interpreted.
    return "".join(
        literal if name is None else literal + values[name] for literal, name in _parts(pattern)
    )


@functools.lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[tuple[str, str | None], ...]:
    parsed = string.Formatter().parse(pattern)
    return tuple((literal, name) for literal, name, _, _ in parsed)


@functools.lru_cache(maxsize=1024)
def _targets(pattern: str, answers: tuple[str, ...]) -> tuple[str, ...]:
    # Cached, so that all rows of a classification share one tuple.
    return tuple(_fill(pattern, {"answer": answer}) for answer in answers)


def _text(task: Task, row: Row, field: str, where: str) -> str:
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: field '{field}' must be a text, not {type(value).__name__}"
            f" (task '{task.name}')."
        )
    text = str(value)
    if not text.strip() and field not in task.optional_fields:
        raise DataError(f"{where}: field '{field}' is empty (task '{task.name}').")
    return text


def _choices(task: Task, row: Row, where: str) -> tuple[str, ...]:
    for field in task.choices:
        if field not in row:
            raise _missing(task, row, field, where)
    if len(task.choices) > 1:
        choices = tuple(_text(task, row, field, where) for field in task.choices)
    else:
        raw = row[task.choices[0]]
        is_list = isinstance(raw, Sequence) and not isinstance(raw, str | bytes)
        if not is_list or not all(isinstance(choice, str) and choice.strip() for choice in raw):
            raise DataError(
                f"{where}: '{task.choices[0]}' must be a list of texts (task '{task.name}')."
            )
        choices = tuple(raw)
    if not 2 <= len(choices) <= len(LETTERS):
        raise DataError(
            f"{where} has {len(choices)} choices; it needs 2 to {len(LETTERS)}"
            f" (task '{task.name}')."
        )
    return choices


def _choice_of_text(task: Task, row: Row, text: str, where: str) -> int:
    """The number of the choice with this text, ignoring white space around it."""
    choices = [choice.strip() for choice in _choices(task, row, where)]
    if choices.count(text.strip()) != 1:
        raise DataError(
            f"{where}: '{task.answer_field}' is {text!r}, which is not exactly one of the choices"
            f" {', '.join(map(repr, choices[:10]))} (task '{task.name}')."
        )
    return choices.index(text.strip())


def _answers(task: Task, row: Row, where: str) -> tuple[str, ...]:
    field = task.answer_field
    if field not in row:
        raise _missing(task, row, field, where)
    raw = row[field]
    answers = [raw] if isinstance(raw, str) else raw
    is_list = isinstance(answers, Sequence) and all(isinstance(answer, str) for answer in answers)
    # Unique, in order: SQuAD's annotators often agree.
    unique = tuple(dict.fromkeys(a for a in answers if a.strip())) if is_list else ()
    if not unique:
        raise DataError(
            f"{where}: '{field}' must be a text or a list with at least one text"
            f" (task '{task.name}')."
        )
    return unique


def _group(task: Task, row: Row, where: str) -> str:
    if not task.group_fields:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for field in task.group_fields:
        if field not in row:
            raise _missing(task, row, field, where)
        digest.update(str(row[field]).encode() + b"\x00")
    return digest.hexdigest()


def _missing(task: Task, row: Row, field: str, where: str) -> DataError:
    return DataError(
        f"{where} has no field '{field}' (task '{task.name}'); it has {', '.join(map(str, row))}."
    )
