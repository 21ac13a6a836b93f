"""Configs are frozen dataclasses; overrides are dotted paths with values parsed by field type.

`override(config, ["target.steps=2000", "targets=glue/rte,mr"])` returns a new config. An unknown
key, a value of the wrong type or a value outside a field's choices is one `ConfigError` that names
the nearest key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prompt_jax.errors import ConfigError, PromptJaxError, did_you_mean

C = TypeVar("C")

_LARGEST = 2**31 - 1
_TRUE, _FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


def split_list(text: str) -> tuple[str, ...]:
    """Splits at commas that stand outside brackets.

    >>> split_list("prompt_tuning, spot(variant=top_k, top_k=3)")
    ('prompt_tuning', 'spot(variant=top_k, top_k=3)')
    """
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(char, 0)
        if char == "," and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return tuple(part.strip() for part in parts if part.strip())


def parse_value(text: str, kind: Any, where: str) -> Any:
    """Parses `text` as a value of the annotated type `kind`.

    Args:
      text: the right-hand side of an override.
      kind: bool, int, float, str, a Literal, an Optional of these, or a tuple of one of them.
      where: the dotted key, for messages.

    Raises:
      ConfigError: when the text is no such value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null", ""):
            return None
        return parse_value(text, next(a for a in args if a is not type(None)), where)
    if origin is typing.Literal:
        if text not in args:
            raise ConfigError(
                f"option '{where}' must be one of {', '.join(map(str, args))}, not '{text}'."
                + did_you_mean(text, map(str, args))
            )
        return text
    if origin is tuple:
        return tuple(parse_value(part, args[0], where) for part in split_list(text.strip("[]")))
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"option '{where}' must be true or false, not '{text}'.")
        return text.lower() in _TRUE
    if kind in (int, float):
        try:
            number = kind(float(text)) if kind is int and float(text).is_integer() else kind(text)
        except (ValueError, OverflowError):
            name = "a whole number" if kind is int else "a number"
            raise ConfigError(f"option '{where}' must be {name}, not '{text}'.") from None
        if kind is int and abs(number) > _LARGEST:  # what a device counts with
            raise ConfigError(f"option '{where}' must lie within ±{_LARGEST:,}, not be {text}.")
        return number
    return text


def keys(config: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a config dataclass, leaves only."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        path = prefix + field.name
        found += keys(value, path + ".") if dataclasses.is_dataclass(value) else [path]
    return found


def override(config: C, assignments: Iterable[str]) -> C:
    """Returns `config` with dotted overrides applied.

    Args:
      config: a frozen dataclass, possibly nested.
      assignments: strings `a.b=value`.

    Raises:
      ConfigError: for an unknown key, a missing `=`, or a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    known = keys(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override '{assignment}' is not of the form key=value.")
        _note(changes, config, key.strip().split("."), text.strip(), key.strip(), known)
    # All at once: a config may be valid only after several of them, in whatever order they stand.
    return _replace(config, changes)


def _note(
    changes: dict[str, Any], config: Any, path: list[str], text: str, where: str, known: list[str]
) -> None:
    """Adds one assignment to a nested dictionary of new values."""
    names = {f.name for f in dataclasses.fields(config)}
    if path[0] not in names:
        raise ConfigError(f"unknown option '{where}' in overrides." + did_you_mean(where, known))
    current = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise ConfigError(
                f"unknown option '{where}' in overrides: '{path[0]}' has no parts."
                + did_you_mean(where, known)
            )
        _note(changes.setdefault(path[0], {}), current, path[1:], text, where, known)
    elif dataclasses.is_dataclass(current):
        inside = ", ".join(f"{where}.{k}" for k in keys(current)[:4])
        raise ConfigError(f"option '{where}' is a group; set one of its parts ({inside}, ...).")
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
    """A config as JSON-able nested dictionaries (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


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


def load_config(name: str, packaged: str = "prompt_jax.configs") -> Any:
    """The config of a Python file, or one that ships inside the package: its `get_config()`.

    Args:
      name: a path ending in `.py`, or the name of a packaged config such as `quickstart`.
      packaged: the package that holds the named configs.

    Raises:
      ConfigError: no such file or name, the module has no `get_config`, or it does not run.
    """
    module = _config_module(name, packaged)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"the config {name} defines no function get_config().")
    try:
        return module.get_config()
    except Exception as error:
        raise _broken(f"get_config() of {name} fails", error) from error


def _config_module(name: str, packaged: str) -> Any:
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"there is no config file {name}.")
        spec = importlib.util.spec_from_file_location(f"prompt_jax_config_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise _broken(f"the config file {name} does not run", error) from error
        return module
    package = importlib.import_module(packaged)
    folder = Path(next(iter(package.__path__)))
    names = sorted(p.stem for p in folder.glob("[a-z]*.py"))
    if name not in names:
        raise ConfigError(
            f"'{name}' is neither a Python file nor a packaged config"
            f" ({', '.join(names)})." + did_you_mean(name, names)
        )
    return importlib.import_module(f"{packaged}.{name}")


def _broken(what: str, error: Exception) -> ConfigError:
    """What is wrong inside a config file, in one line; our own errors speak for themselves."""
    line = ""
    trace = error.__traceback__
    while trace is not None:
        line = f" (line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name})"
        trace = trace.tb_next
    if isinstance(error, PromptJaxError):
        return ConfigError(f"{what}: {error}")
    return ConfigError(f"{what}{line}: {type(error).__name__}: {error}.")
