"""Config dataclasses from the tables of JSON and YAML files; the inverse of `to_dict`."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from prompt_jax.config.suggestions import suggest
from prompt_jax.config.trees import keys
from prompt_jax.config.values import parse_value
from prompt_jax.errors import ConfigError

C = TypeVar("C")

SUFFIXES = (".json", ".yaml", ".yml")


def read_table(path: Path) -> Mapping[str, Any]:
    """The table of a JSON or YAML file.

    Raises:
      ConfigError: it cannot be read, is malformed, names a key twice, or holds no table; or YAML
        without the package pyyaml.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error.reason}).") from None
    table = _json(text, path) if path.suffix == ".json" else _yaml(text, path)
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path} must hold a table of options, not {_kind_of(table)}.")
    return table


def from_table(kind: type[C], table: Mapping[str, Any], where: str, prefix: str = "") -> C:
    """A config dataclass from a table; options that the table does not name have their defaults.

    Args:
      kind: the dataclass.
      table: nested tables of JSON values. A text is parsed by the type of the field, as an
        override is.
      where: names the file in messages.
      prefix: dotted key of the table in the file, with a dot at the end, or "".

    Raises:
      ConfigError: an unknown key or a value of the wrong type; and whatever `kind` raises.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if name not in fields:
            raise ConfigError(f"{where}: unknown option '{key}'.{_near(key, kind, prefix)}")
        values[name] = _value(hints[name], value, where, key)
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{where}: '{prefix}{name}' is missing.")
    return kind(**values)


def _near(key: str, kind: Any, prefix: str) -> str:
    leaves = {f.name: f.default_factory for f in dataclasses.fields(kind)}
    known = []
    for name, factory in leaves.items():
        made = factory() if factory is not dataclasses.MISSING else None
        path = f"{prefix}{name}"
        known += keys(made, f"{path}.") if dataclasses.is_dataclass(made) else [path]
    if key in known:
        return f" Tables are nested: {key.partition('.')[0]}: {{{key.partition('.')[2]}: ...}}."
    return suggest(key, known)


def _value(kind: Any, value: Any, where: str, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        if isinstance(value, str):
            return parse_value(value, kind, key)
        return _value(next(a for a in args if a is not type(None)), value, where, key)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: '{key}' must be a table, not {_kind_of(value)}.")
        return from_table(kind, value, where, f"{key}.")
    if origin is tuple:
        if isinstance(value, str):
            return parse_value(value, kind, key)
        if not isinstance(value, list):
            raise ConfigError(f"{where}: '{key}' must be a list, not {_kind_of(value)}.")
        inner = args if len(args) > 1 and args[1] is not Ellipsis else args[:1] * len(value)
        if len(inner) != len(value):
            raise ConfigError(f"{where}: '{key}' must have {len(inner)} entries, not {len(value)}.")
        return tuple(
            _value(part, item, where, f"{key}.{number}")
            for number, (part, item) in enumerate(zip(inner, value, strict=True))
        )
    # JSON's numbers and truth values are of the field's own type, or of none.
    exact = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(kind, (str,))
    if isinstance(value, str) and kind is not str:
        return parse_value(value, kind, key)
    if not isinstance(value, exact) or (isinstance(value, bool) and kind is not bool):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(
            f"{where}: '{key}' must be {wanted.get(kind, 'a text')}, not {_kind_of(value)}."
        )
    return kind(value) if kind in (int, float) else value


def _json(text: str, path: Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{path} names '{twice}' twice.")
        return table

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not valid JSON: {error}.") from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"{path}: reading YAML needs the package pyyaml: pip install pyyaml. JSON is read"
            " without it."
        ) from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which the library would drop one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ConfigError(f"{path} names '{twice[0]}' twice.")
            if not all(isinstance(name, str) for name in names):
                raise ConfigError(f"{path}: keys must be texts, not {names}.")
            return super().construct_mapping(node, deep)

    try:
        return Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not valid YAML: {error}.") from None


def _kind_of(value: Any) -> str:
    names: dict[Any, str] = {list: "a list", dict: "a table", type(None): "nothing"}
    return names.get(type(value), repr(value))
