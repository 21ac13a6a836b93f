"""What the columns of a table mean for a task: which are texts, which is the answer, and why.

Nothing here decides silently: every choice has a sentence in `Guess.why`, and a table that can be
read in two ways is refused with the option that settles it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from prompt_jax.data.columns import Column, read_columns
from prompt_jax.data.sources import Source, row_name
from prompt_jax.data.table_checks import (
    check_direction,
    check_header,
    check_labels,
    notes_on_labels,
    notes_on_quotes,
)
from prompt_jax.data.tasks import Kind
from prompt_jax.data.values import as_number, comparable, spelt_number
from prompt_jax.errors import DataError, did_you_mean

MIN_ROWS = 20  # train, development and test rows are drawn from them
MAX_LABELS = 100
GUESSED_KINDS: tuple[Kind, ...] = ("classification", "text", "regression")

_LABELS = "label labels class category target sentiment intent tag topic y gold polarity stance"
_ANSWERS = "answer answers output response completion summary target translation reference label"
_TEXTS = (
    "text sentence review content body message question input comment tweet document utterance"
    " query title description prompt article post source"
)
_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("query", "document"),
    ("query", "passage"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"),
    ("title", "body"),
    ("title", "text"),
    ("subject", "body"),
)
_NO_TEXTS = "id idx index uid guid uuid key date time timestamp url link split fold author user"
_LONG = 3.0  # words on average: a text rather than a name


@dataclasses.dataclass(frozen=True)
class Guess:
    """A reading of a table.

    Attributes:
      kind: of the task.
      fields: (field of the task, column) pairs of the input.
      optional: fields that are empty in some rows.
      answer: column of the answer.
      labels: of a classification, in the order of their names.
      counts: rows of each label.
      value_range: of a regression.
      why: one sentence for every choice.
    """

    kind: Kind
    fields: tuple[tuple[str, str], ...]
    answer: str
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    optional: tuple[str, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    why: tuple[str, ...] = ()


def guess(
    rows: Source,
    name: str,
    text: Sequence[str] = (),
    label: str | None = None,
    kind: str | None = None,
) -> Guess:
    """Reads a table as a task.

    Args:
      rows: all rows.
      name: of the file, for messages.
      text: columns of the input; empty: they are guessed.
      label: column of the answer; None: it is guessed.
      kind: one of `GUESSED_KINDS`; None: it is guessed, and never `regression`.

    Raises:
      DataError: the table can be read in no way or in several, or has too few rows or labels.
    """
    if kind is not None and kind not in GUESSED_KINDS:
        raise DataError(
            f"kind must be one of {', '.join(GUESSED_KINDS)}, not '{kind}'."
            f"{did_you_mean(kind, GUESSED_KINDS)}"
        )
    columns = read_columns(rows, name)
    check_header(columns, name)
    if len(rows) < MIN_ROWS:
        raise DataError(
            f"{name} has {len(rows)} rows; at least {MIN_ROWS} are needed to train, choose and test"
            " a prompt."
        )
    for given in (*text, *([] if label is None else [label])):
        if given not in columns:
            raise DataError(
                f"{name} has no column '{given}'.{did_you_mean(given, columns)}"
                f" It has {', '.join(columns)}."
            )
    if label in text:
        raise DataError(f"column '{label}' is named as text and as label.")
    why: list[str] = []
    answer = columns[label] if label else _answer(columns, text, name, why)
    if label:
        why.append(f"answer: column '{label}', as given.")
    inputs = _inputs(columns, text, answer, name, why)
    for one in (answer, *(inputs if len(inputs) == 1 else ())):
        _check_filled(one, rows, name)
    _check_some(inputs, rows, name)
    if kind is None:
        check_direction(inputs, answer, name)
    why += notes_on_quotes(inputs, name)
    ignored = [c.name for c in columns.values() if c is not answer and c not in inputs]
    if ignored:
        why.append(f"not read: {', '.join(ignored)}.")
    fields = tuple(zip(_field_names(inputs), (c.name for c in inputs), strict=True))
    optional = tuple(f for (f, _), c in zip(fields, inputs, strict=True) if c.filled < len(rows))
    made = Guess(_kind(answer, kind, name, why), fields, answer.name, optional=optional)
    if made.kind == "classification":
        labels, counts = _labels(answer, name, why)
        made = dataclasses.replace(made, labels=labels, counts=counts)
    elif made.kind == "regression":
        numbers = [float(value) for value in answer.values if value is not None]
        made = dataclasses.replace(made, value_range=(min(numbers), max(numbers)))
    return dataclasses.replace(made, why=tuple(why))


# --- the answer ----------------------------------------------------------------------------------


def _answer(columns: dict[str, Column], text: Sequence[str], name: str, why: list[str]) -> Column:
    free = [c for c in columns.values() if c.name not in text and c.filled]
    named = [c for known in _LABELS.split() for c in free if c.key == known]
    few = [c for c in free if _few(c) and not _is_id(c)]
    both = [c for c in named if c in few]
    if both:
        chosen, reason = both[0], "it is named like a label and has few values"
    elif len(few) == 1:
        chosen, reason = few[0], "no other column has few different values"
    elif few:
        options = " or ".join(f"--label '{c.name}'" for c in few)
        raise DataError(
            f"{name}: which column is the answer? {', '.join(c.name for c in few)} have few"
            f" different values. Say {options}."
        )
    else:
        wanted = [c for known in _ANSWERS.split() for c in free if c.key == known]
        rest = [c for c in free if c not in wanted[:1] and c.words >= _LONG]
        if not wanted or not rest:
            raise DataError(
                f"{name}: no column looks like an answer (none has few different values, and none"
                f" is named like one). Name it with --label; there are {', '.join(columns)}."
            )
        chosen, reason = wanted[0], "it is named like an answer"
    why.append(f"answer: column '{chosen.name}', for {reason}.")
    return chosen


def _few(one: Column) -> bool:
    return 2 <= one.distinct <= MAX_LABELS and one.distinct * 3 <= one.filled and one.words <= 6


def _is_id(one: Column) -> bool:
    return one.key in _NO_TEXTS.split() or one.key.endswith("_id") or one.key.startswith("unnamed")


def _kind(answer: Column, stated: str | None, name: str, why: list[str]) -> Kind:
    if stated == "regression" and not answer.numbers:
        wrong = next(v for v in answer.values if v is not None and as_number(v) is None)
        raise DataError(f"{name}: '{answer.name}' has {wrong!r}, which is not a number.")
    if answer.distinct < 2:
        only = next((v for v in answer.values if v is not None), "nothing")
        raise DataError(
            f"{name}: every row has the same '{answer.name}', {only!r}: there is nothing to learn."
        )
    if stated is not None:
        why.append(f"kind: {stated}, as given.")
        for kind in GUESSED_KINDS:
            if stated == kind:
                return kind
    if answer.distinct <= MAX_LABELS and answer.distinct * 2 <= answer.filled:
        also = " (to predict a number use --kind regression)" if answer.numbers else ""
        why.append(
            f"kind: classification, for '{answer.name}' has {answer.distinct} different values"
            f" in {answer.filled:,} rows{also}."
        )
        return "classification"
    if answer.numbers:
        raise DataError(
            f"{name}: '{answer.name}' has {answer.distinct:,} different numbers in"
            f" {answer.filled:,} rows. To predict a number use --kind regression; otherwise"
            " name another column with --label."
        )
    if answer.words < _LONG and not _is_answer(answer):
        raise DataError(
            f"{name}: '{answer.name}' has {answer.distinct:,} different values in"
            f" {answer.filled:,} rows, too many for labels. Name another column with --label, or"
            " use --kind text if they are texts to generate."
        )
    why.append(
        f"kind: text (answers are generated), for '{answer.name}' has {answer.distinct:,} different"
        " values."
    )
    return "text"


def _is_answer(one: Column) -> bool:
    return one.key in _ANSWERS.split() and one.key not in _LABELS.split()


def _labels(answer: Column, name: str, why: list[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    spellings: dict[str, Counter[str]] = {}
    for value in answer.values:
        if value is not None:
            word = " ".join(value.split())
            number = spelt_number(word)  # 1 and 1.0 are one label
            key = comparable(word) if number is None else str(number)
            spellings.setdefault(key, Counter())[word] += 1
    if len(spellings) > MAX_LABELS:
        raise DataError(
            f"{name}: '{answer.name}' has {len(spellings):,} different labels; at most {MAX_LABELS}"
            " are ranked. Say --kind text to generate them, or name another column with --label."
        )
    chosen = {word: _spelling(seen) for word, seen in spellings.items()}
    for word, seen in spellings.items():
        if len(seen) > 1:
            why.append(f"labels: {', '.join(map(repr, seen))} are one label, '{chosen[word]}'.")
    counts = {chosen[word]: sum(seen.values()) for word, seen in spellings.items()}
    single = [label for label, count in counts.items() if count == 1]
    if single:
        near = did_you_mean(single[0], [label for label in counts if label not in single])
        more = f" (and {len(single) - 1} more labels are so rare)" if single[1:] else ""
        raise DataError(
            f"{name}: one row only has the {answer.name} {single[0]!r}{more}: it cannot be both"
            f" trained and tested.{near} Correct or remove it."
        )
    check_labels(list(counts), answer, name)
    numeric = all(as_number(label) is not None for label in counts)
    order = sorted(counts, key=(lambda x: (as_number(x), x)) if numeric else str.casefold)
    most = max(counts, key=lambda label: counts[label])
    why.append(
        f"labels: {', '.join(f'{x} ({counts[x]:,})' for x in order[:12])}"
        f"{', ...' if len(order) > 12 else ''}; always saying '{most}' is right in"
        f" {counts[most] / sum(counts.values()):.1%} of the rows."
    )
    why += notes_on_labels(counts)
    if numeric:
        why.append(
            "label words: the labels are numbers, which the model has to answer; words with a"
            " meaning work better (labels of the template in the task file)."
        )
    return tuple(order), tuple(counts[label] for label in order)


def _spelling(seen: Counter[str]) -> str:
    """The most frequent spelling of a label; of a number the shortest."""
    numbers = spelt_number(next(iter(seen))) is not None
    return min(seen, key=len) if numbers else seen.most_common(1)[0][0]


# --- the texts -----------------------------------------------------------------------------------


def _inputs(
    columns: dict[str, Column], text: Sequence[str], answer: Column, name: str, why: list[str]
) -> list[Column]:
    if text:
        text = list(dict.fromkeys(text))
        why.append(f"input: {_list(text)}, as given.")
        return [columns[each] for each in text]
    by_key = {c.key: c for c in columns.values() if c is not answer and c.filled}
    for first, second in _PAIRS:
        if first in by_key and second in by_key:
            pair = [by_key[first], by_key[second]]
            why.append(f"input: {_list([c.name for c in pair])}, which are named like a pair.")
            return pair
    free = [c for c in by_key.values() if not _is_id(c) and not c.numbers]
    named = [c for known in _TEXTS.split() for c in free if c.key == known]
    long = [c for c in free if c.words >= _LONG and c.distinct * 2 > c.filled]
    if named and (len(long) < 2 or named[0] in long):
        others = [c for c in long if c is not named[0]]
        if len(others) != 1:
            why.append(f"input: column '{named[0].name}', for it is named like a text.")
            return named[:1]
    if len(long) == 2:
        pair = sorted(long, key=lambda c: c.words)
        why.append(f"input: {_list([c.name for c in pair])}, the two columns with long texts.")
        return pair
    if len(long) == 1 or (not long and len(free) == 1):
        (only,) = long or free
        why.append(f"input: column '{only.name}', the only one with texts.")
        return [only]
    found = f"{_list([c.name for c in long])} have long texts" if long else "none has long texts"
    raise DataError(
        f"{name}: which column is the text ({found})?"
        f" Say --text COLUMN (twice for two); there are {', '.join(columns)}."
    )


def _list(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return ("column " if len(quoted) == 1 else "columns ") + " and ".join(quoted)


def _check_filled(one: Column, rows: Source, name: str) -> None:
    empty = [i for i, value in enumerate(one.values) if value is None]
    if empty:
        raise DataError(
            f"{name}: '{one.name}' is empty in {len(empty):,} of {len(rows):,} rows"
            f" ({row_name(rows, empty[0])} is the first). Fill them in, or remove these rows."
        )


def _check_some(inputs: Sequence[Column], rows: Source, name: str) -> None:
    for i in range(len(rows)):
        if all(one.values[i] is None for one in inputs):
            raise DataError(f"{name}: {row_name(rows, i)} has no text at all. Remove this row.")


def _field_names(inputs: Sequence[Column]) -> list[str]:
    """Names of fields in templates, which are plain words."""
    names: list[str] = []
    for one in inputs:
        word = one.name if one.name.isidentifier() and one.name.isascii() else one.key
        word = word if word.isidentifier() and word not in ("label", "answers", "choices") else ""
        word = word or "text"
        names.append(word if word not in names else f"{word}{len(names) + 1}")
    return names
