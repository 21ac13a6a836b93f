"""Every key of a config with its type, its value and one line on its meaning."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple


class Key(NamedTuple):
    """An option of a config.

    Attributes:
      name: dotted.
      type: what it may be, for people.
      value: what it is, as an override would write it.
      doc: one line.
    """

    name: str
    type: str
    value: str
    doc: str


def describe(config: Any, prefix: str = "") -> list[Key]:
    """All keys of a config dataclass, leaves only, in the order of its fields.

    Args:
      config: an object of a dataclass whose docstring describes its fields under `Attributes:`.
      prefix: of the names.
    """
    return list(_describe(config, prefix))


def arguments(get_config: Any) -> list[Key]:
    """The arguments of a `get_config`, which are set like options."""
    hints = typing.get_type_hints(get_config)
    return [
        Key(
            parameter.name,
            type_text(hints.get(parameter.name, str)),
            "" if parameter.default is parameter.empty else value_text(parameter.default),
            "an argument of this config",
        )
        for parameter in inspect.signature(get_config).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _describe(config: Any, prefix: str) -> Iterator[Key]:
    hints, docs = typing.get_type_hints(type(config)), attribute_docs(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _describe(value, f"{prefix}{field.name}.")
            continue
        text = type_text(hints[field.name])
        yield Key(prefix + field.name, text, value_text(value), docs.get(field.name, ""))


def attribute_docs(kind: type) -> dict[str, str]:
    """Name -> first sentence of each field in the section `Attributes:` of a class."""
    text = inspect.cleandoc(kind.__doc__ or "")
    section = re.search(r"^Attributes:\n((?:(?:  .*)?\n?)*)", text, re.MULTILINE)
    docs: dict[str, str] = {}
    for entry in re.finditer(
        r"^  (\w+): (.*(?:\n    .*)*)", section.group(1) if section else "", re.MULTILINE
    ):
        whole = " ".join(entry.group(2).split()).replace("...", "\u2026")
        docs[entry.group(1)] = re.split(r"(?<=[a-z0-9)`\]])\. (?=[A-Z])", whole)[0].removesuffix(
            "."
        )
    return docs


def type_text(kind: Any) -> str:
    """A type for people.

    >>> type_text(tuple[int, ...]), type_text(str | None)
    ('whole numbers', 'text or none')
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        first = next(a for a in args if a is not type(None))
        return type_text(first) + (" or none" if type(None) in args else "")
    if origin is typing.Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        many = {int: "whole numbers", float: "numbers"}
        return "in a file" if dataclasses.is_dataclass(args[0]) else many.get(args[0], "list")
    names = {bool: "true | false", int: "whole number", float: "number", str: "text"}
    return names.get(kind, "text")


def value_text(value: Any) -> str:
    """A value as an override writes it.

    >>> value_text((16, 0)), value_text(None), value_text(False), value_text(0.1)
    ('16,0', 'none', 'false', '0.1')
    """
    if isinstance(value, tuple):
        return ",".join(value_text(item) for item in value if _is_text(item))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "spec", value))


def _is_text(item: Any) -> bool:
    """Whether an entry of a list has a text that makes it: a method has, a question has not."""
    return hasattr(item, "spec") or not dataclasses.is_dataclass(item)
