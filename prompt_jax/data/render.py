"""Rendering: a row and a template become an `Example`, the input and target texts of a model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import string
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from prompt_jax.data.tasks import CUE, LETTERS, Task, Template
from prompt_jax.data.values import as_number, as_text, is_missing, match_label, plain, whole_number
from prompt_jax.errors import DataError, did_you_mean

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
      generated: whether the answer is generated although there are candidates.
      cue: of its template, see there.
    """

    input: str
    target: str
    label: int = -1
    candidates: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    template: str = ""
    group: str = ""
    generated: bool = False
    cue: str = CUE


def render(
    task: Task, template: Template, row: Row, where: str = "a row", *, answered: bool = True
) -> Example:
    """Renders a row under a template.

    Args:
      task: meaning of the row.
      template: one of the task's templates.
      row: the fields by name; see `Task` for the answer it must contain.
      where: name of the row in error messages, like "row 812 of train.jsonl".
      answered: False for prediction: an answer in the row is not read, and the example has label
        -1, an empty target and no references or group.

    Raises:
      DataError: if a field is missing, empty or not a text, or the answer is not one of the
        task's; the message starts with `where`.
    """
    row = task.renamed(row)
    # `{choices}` is the rendered list, even where the row has a field of that name.
    rendered = ("choices",) if task.kind == "choice" else ()
    values = {
        field: _text(task, row, field, where)
        for field in template.fields
        if field in row and field not in rendered
    }
    choices: tuple[str, ...] = ()
    if task.kind == "choice":
        choices = choices_of(task, row, where)
        marks = _marks(template, len(choices))
        values["choices"] = " ".join(
            f"{mark}: {choice}" for mark, choice in zip(marks, choices, strict=True)
        )
    for field in template.fields:
        if field not in values:
            raise _missing(task, row, field, where)

    label = -1
    candidates: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    target = ""
    if task.kind in ("classification", "choice"):
        if task.kind == "classification":
            answers = task.words(template)
        else:
            by_text = template.choice_answers == "text"
            answers = choices if by_text else _marks(template, len(choices))
        candidates = _targets(template.target, answers)
        if answered:
            label = label_of(task, row, where, len(answers))
            target = candidates[label]
            references = (target,)
    elif not answered:
        pass
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
        group=_group(task, row, where) if answered else "",
        generated=task.generated,
        cue=template.cue,
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
    if task.answers:
        return _choice_of_text(task, row, raw, where)
    count = count or len(task.labels) or len(LETTERS)
    number = match_label(raw, task.labels, count)
    if number is None and task.kind == "choice" and isinstance(raw, str):
        letter = raw.strip()
        number = LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS else None
    if number is None or not 0 <= number < count:
        known = task.labels or tuple(LETTERS[:count])
        raise DataError(
            f"{where} has {field} {raw!r}, which is not one of {', '.join(known[:10])}"
            f"{', ...' if len(known) > 10 else ''} (task '{task.name}').{_hint(raw, known)}"
        )
    return number


def value_of(task: Task, row: Row, where: str = "a row") -> float:
    """Returns the exact label of a row of a regression.

    Raises:
      DataError: if it is missing, not a number or outside the task's range.
    """
    if "label" not in row:
        raise _missing(task, row, "label", where)
    value = as_number(row["label"])
    low, high = task.value_range
    if value is None or not low <= value <= high:
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


def _marks(template: Template, count: int) -> tuple[str, ...]:
    """What the choices are called: letters, or numbers where these are answered."""
    return tuple(map(str, range(count)) if template.choice_answers == "digit" else LETTERS[:count])


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
    text = value if isinstance(value, str) else as_text(value)
    if text is None:
        empty = is_missing(value)
        if empty and field in task.optional_fields:
            return ""
        what = "is missing" if empty else f"is {_kind(value)}"
        raise DataError(
            f"{where}: field '{field}' must be a text, but {what} (task '{task.name}')."
        )
    if not text.strip() and field not in task.optional_fields:
        raise DataError(f"{where}: field '{field}' is empty (task '{task.name}').")
    return text


def choices_of(task: Task, row: Row, where: str = "a row") -> tuple[str, ...]:
    """Returns the texts of the choices of a row of a "choice" task.

    Raises:
      DataError: a field is missing or no text, or there are fewer than 2 or more than 26 choices.
    """
    for field in task.choices:
        if field not in row:
            raise _missing(task, row, field, where)
    if len(task.choices) > 1:
        choices = tuple(_text(task, row, field, where) for field in task.choices)
    else:
        raw = plain(row[task.choices[0]])
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


def _choice_of_text(task: Task, row: Row, value: Any, where: str) -> int:
    """The number of the choice with this text, ignoring white space around it."""
    choices = [choice.strip() for choice in choices_of(task, row, where)]
    text = (as_text(value) or "").strip()
    if choices.count(text) != 1:
        raise DataError(
            f"{where}: '{task.answer_field}' is {value!r}, which is not exactly one of the choices"
            f" {', '.join(map(repr, choices[:10]))} (task '{task.name}')."
        )
    return choices.index(text)


def _answers(task: Task, row: Row, where: str) -> tuple[str, ...]:
    field = task.answer_field
    if field not in row:
        raise _missing(task, row, field, where)
    raw = plain(row[field])
    answers = [raw] if isinstance(raw, str) else raw
    is_list = isinstance(answers, Sequence) and all(isinstance(answer, str) for answer in answers)
    # Unique, in order: SQuAD's annotators often agree.
    unique = tuple(dict.fromkeys(a for a in answers if a.strip())) if is_list else ()
    if not unique:
        empty = is_missing(raw) or (is_list and len(answers) == 0)
        hint = (
            " A question without an answer needs one that the model can learn, such as"
            ' "unanswerable"; or leave the row out.'
            if empty
            else ""
        )
        raise DataError(
            f"{where}: '{field}' must be a text or a list with at least one text, but is"
            f" {_kind(raw)} (task '{task.name}').{hint}"
        )
    return unique


def _group(task: Task, row: Row, where: str) -> str:
    if not task.group_fields:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for field in task.group_fields:
        if field not in row:
            raise _missing(task, row, field, where)
        value = plain(row[field])
        if is_missing(value) or (isinstance(value, str) and not value.strip()):
            # Rows without an id would be scored together.
            raise DataError(
                f"{where}: group field '{field}' is missing or empty (task '{task.name}')."
            )
        # The same id may be stored as 7, 7.0 (a table with gaps) or "7" (CSV).
        number = whole_number(value) if isinstance(value, float) else None
        digest.update(str(value if number is None else number).encode() + b"\x00")
    return digest.hexdigest()


def _hint(value: Any, labels: Sequence[str]) -> str:
    if isinstance(value, bool):
        return " Name the labels true and false, or yes and no, or write one of the labels."
    return did_you_mean(value, labels) if isinstance(value, str) else ""


def _kind(value: Any) -> str:
    """A value in error messages."""
    if isinstance(value, float | int | bool) or value is None:
        return repr(value)
    if isinstance(value, list | tuple | str) and not value:
        return "empty"
    return f"a {type(value).__name__}"


def _missing(task: Task, row: Row, field: str, where: str) -> DataError:
    column = dict(task.columns).get(field)
    # A file without a header, or with another separator, has its first row as names of columns.
    hint = ""
    if where.removesuffix(".gz").endswith((".csv", ".tsv")):
        hint = (
            " The first line of a CSV or TSV file names its columns, separated by commas or tabs."
        )
    return DataError(
        f"{where} has no field '{field}'{f' (column {column!r})' if column else ''} (task"
        f" '{task.name}'); it has {', '.join(map(str, row))}.{hint}"
    )
