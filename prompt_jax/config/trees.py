"""Config dataclasses as trees: their dotted keys, changed copies, differences and hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from prompt_jax.config.suggestions import suggest
from prompt_jax.config.values import parse_value
from prompt_jax.errors import ConfigError

C = TypeVar("C")


def keys(config: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a config dataclass, leaves only."""
    dotted = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        path = prefix + field.name
        dotted += keys(value, path + ".") if dataclasses.is_dataclass(value) else [path]
    return dotted


def override(config: C, assignments: Iterable[str], others: Sequence[str] = ()) -> C:
    """Returns `config` with dotted overrides applied.

    Args:
      config: a frozen dataclass, possibly nested.
      assignments: strings `a.b=value`.
      others: options that are set elsewhere, to suggest them for an unknown one.

    Raises:
      ConfigError: for an unknown key, a missing `=`, or a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    known = [*others, *keys(config)]
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override '{assignment}' is not of the form key=value.")
        _add_change(changes, config, key.strip().split("."), text.strip(), key.strip(), known)
    # All at once: a config may be valid only with several of them together.
    return _replace(config, changes)


def _add_change(
    changes: dict[str, Any], config: Any, path: list[str], text: str, where: str, known: list[str]
) -> None:
    """Adds one assignment to a nested dictionary of changed values."""
    names = {f.name for f in dataclasses.fields(config)}
    if path[0] not in names:
        raise ConfigError(f"unknown option '{where}' in overrides." + suggest(where, known))
    current = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise ConfigError(
                f"unknown option '{where}' in overrides: '{path[0]}' has no parts."
                + suggest(where, known)
            )
        _add_change(changes.setdefault(path[0], {}), current, path[1:], text, where, known)
    elif dataclasses.is_dataclass(current):
        parts = ", ".join(f"{where}.{k}" for k in keys(current)[:4])
        raise ConfigError(f"option '{where}' is a group; set one of its parts ({parts}, ...).")
    else:
        kind = typing.get_type_hints(type(config))[path[0]]
        changes[path[0]] = parse_value(text, kind, where)


def _replace(config: Any, changes: dict[str, Any]) -> Any:
    values = {}
    for name, value in changes.items():
        current = getattr(config, name)
        values[name] = _replace(current, value) if dataclasses.is_dataclass(current) else value
    return dataclasses.replace(config, **values)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON-able nested dictionaries; tuples become lists.

    What has a `spec`, the text that makes it, such as a method, becomes that text.
    """
    return json.loads(json.dumps(_plain(config)))


def _plain(value: Any) -> Any:
    if isinstance(text := getattr(value, "spec", None), str):
        return text
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Entries that differ between two nested dictionaries, as text by their dotted path.

    Args:
      old: as it was stored.
      new: what it is compared with.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    {'a.b': '1 -> 3'}
    """
    a, b = _flat(old), _flat(json.loads(json.dumps(new)))
    return {
        key: f"{a.get(key, '(absent)')} -> {b.get(key, '(absent)')}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix[:-1]: tree}
    return {k: v for key in tree for k, v in _flat(tree[key], f"{prefix}{key}.").items()}


def digest(*parts: Any) -> str:
    """A short stable hash (16 hex digits) of JSON-able parts and dataclasses."""

    def default(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"__class__": type(value).__name__, **dataclasses.asdict(value)}
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(f"cannot hash a {type(value).__name__}")

    text = json.dumps(parts, sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
