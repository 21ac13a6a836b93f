"""Writes the TOML file of a task from a guess about its data, with a comment on every choice."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence

from prompt_jax.data.guess import Guess
from prompt_jax.errors import DataError

_IMBALANCED = 0.7  # share of the largest label from which accuracy hides the others


def task_text(
    guess: Guess,
    name: str,
    file: str,
    words: Sequence[str] = (),
    holdout: float = 0.2,
    seed: int = 0,
) -> str:
    """The content of a task file.

    Args:
      guess: the meaning of the columns.
      name: of the task.
      file: name of the data file, which lies beside the task file.
      words: what the model says for each label, from `label_words`; empty where there are none.
      holdout: fraction of the rows that are test rows.
      seed: of their draw.

    Raises:
      DataError: `holdout` is no fraction.
    """
    if not 0 < holdout < 1:
        raise DataError(f"holdout is a fraction between 0 and 1, like 0.2, not {holdout:g}.")
    fields = [field for field, _ in guess.fields]
    lines = [
        *_comment(f"How {file} is read as a task. Edit what is wrong."),
        *(line for sentence in guess.why for line in _comment(f"- {sentence}")),
        "",
        f"name = {quote(name)}",
        f"kind = {quote(guess.kind)}",
        f"fields = {_list(fields)}",
    ]
    if guess.optional and len(fields) > 1:
        lines.append(f"optional_fields = {_list(guess.optional)}  # empty in some rows")
    if guess.labels:
        lines.append(f"labels = {_list(guess.labels)}  # as in the file")
    lines += _metrics(guess)
    if guess.kind == "regression":
        low, high = guess.value_range
        lines += [
            f"value_range = [{low!r}, {high!r}]  # smallest and largest value in the file",
            f"value_step = {_step(high - low)!r}  # targets are rounded to it",
        ]
    lines += [
        f"holdout = {holdout!r}  # of the rows are test rows; rows of equal texts stay together",
        f"holdout_seed = {seed}",
        "",
        "[[templates]]",
        'name = "plain"',
        f"text = {quote(_template(fields))}",
    ]
    if words and tuple(words) != guess.labels:
        lines.append(f"labels = {_list(words)}  # what the model says for each label")
    answer = {"text": "answers"}.get(guess.kind, "label")
    columns = [(n, c) for n, c in (*guess.fields, (answer, guess.answer)) if n != c]
    if columns:
        lines += ["", "[columns]  # field = column of the file"]
        lines += [f"{field} = {quote(other)}" for field, other in columns]
    lines += ["", "[files]", f"train = {quote(file)}"]
    return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    r"""A text as a string of TOML.

    >>> print(quote('a "b"\n'))
    "a \"b\"\n"
    """
    # JSON's escapes are TOML's; only DEL has to be escaped in TOML alone.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def task_name(stem: str) -> str:
    """The name of a task from that of a file.

    >>> task_name("My tickets (2024)"), task_name("???")
    ('My_tickets_2024', 'task')
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("_.-") or "task"


def _metrics(guess: Guess) -> list[str]:
    names = {
        "classification": ["accuracy", "macro_f1"],
        "regression": ["pearson", "spearman"],
        "text": ["squad_f1", "squad_em"],
    }[guess.kind]
    why = "the first one chooses"
    if guess.counts and max(guess.counts) > _IMBALANCED * sum(guess.counts):
        names.reverse()
        why += ", and counts every label alike: one has most of the rows"
    return [f"metrics = {_list(names)}  # {why}"]


def _template(fields: Sequence[str]) -> str:
    """The field alone, or every field after its name."""
    if len(fields) == 1:
        return f"{{{fields[0]}}}"
    return " ".join(f"{field}: {{{field}}}" for field in fields)


def _step(width: float) -> float:
    """A step of a fiftieth of the range or finer: 1, 2 or 5 times a power of ten."""
    for exponent in range(6, -7, -1):
        for digit in (5, 2, 1):
            step = float(f"{digit}e{exponent}")
            if step <= width / 20:
                return step
    return 1e-6


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(quote, names))}]"


def _comment(text: str) -> list[str]:
    # A newline or another control character of a column's name would end the comment.
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return textwrap.wrap(plain, 100, initial_indent="# ", subsequent_indent="#   ")
