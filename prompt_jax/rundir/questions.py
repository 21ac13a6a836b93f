"""The questions that an experiment declares before it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from prompt_jax.errors import DataError

T = TypeVar("T", "Question", "TargetGroup")


@dataclass(frozen=True)
class Question:
    """A contrast that is declared before the run: the mean over targets of a - b.

    Attributes:
      a: a method's spec.
      b: another one; it may be of another run directory.
      targets: all of the experiment's where empty.
      templates: of the test rows; all where empty.
      why: the question that the difference answers.
      role: `primary`: one test, not corrected; `secondary`: one of a family that is corrected
        together (Holm); `calibration`: compares how far the probabilities of two methods' answers
        can be trusted, outside the family.
    """

    a: str
    b: str
    targets: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    why: str = ""
    role: Literal["primary", "secondary", "calibration"] = "secondary"


@dataclass(frozen=True)
class TargetGroup:
    """Targets whose macro average is shown beside that of all targets.

    Attributes:
      name: in words.
      targets: those of a run are taken; the others are left out.
    """

    name: str
    targets: tuple[str, ...]


def declared(config: Mapping[str, Any]) -> tuple[tuple[Question, ...], tuple[TargetGroup, ...]]:
    """The questions and target groups in a `config.json`; empty where it has none.

    Raises:
      DataError: they are there, but have another form.
    """
    return _read(config, "questions", Question), _read(config, "target_groups", TargetGroup)


def _read(config: Mapping[str, Any], key: str, kind: type[T]) -> tuple[T, ...]:
    entries = config.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"config.json: {key} is no list of objects.")
    return tuple(_one(entry, key, kind) for entry in entries)


def _one(entry: dict[str, Any], key: str, kind: type[T]) -> T:
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in entry:
            continue
        value = entry[field.name]
        several = str(field.type).startswith("tuple")
        texts = value if several else [value]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"config.json: {field.name} of {key} has the wrong type.")
        values[field.name] = tuple(texts) if several else value
    try:
        return kind(**values)
    except TypeError:
        raise DataError(f"config.json: an entry of {key} lacks a field.") from None
