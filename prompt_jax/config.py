"""Configs as frozen dataclasses, with overrides: dotted keys and values parsed by field type.

`override(config, ["target.steps=2000", "targets=glue/rte,mr"])` returns a new config. An unknown
key, a value of the wrong type or a value outside a field's choices raises one `ConfigError`, which
suggests the nearest key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prompt_jax.errors import ConfigError, PromptJaxError, did_you_mean

C = TypeVar("C")

_MAX_INT = 2**31 - 1
_TRUE, _FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


def split_list(text: str) -> tuple[str, ...]:
    """Splits at commas outside brackets.

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

    Where it may be None, `none` (or `null`) is None, and an empty text is the empty text.

    Args:
      text: the right-hand side of an override.
      kind: bool, int, float, str, a Literal, an Optional of these, or a tuple of one of them.
      where: the dotted key, for messages.

    Raises:
      ConfigError: when the text is no such value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null"):
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
        if kind is int and abs(number) > _MAX_INT:  # int32, as on devices
            raise ConfigError(f"option '{where}' must lie within ±{_MAX_INT:,}, not be {text}.")
        return number
    return text


def keys(config: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a config dataclass, leaves only."""
    dotted = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        path = prefix + field.name
        dotted += keys(value, path + ".") if dataclasses.is_dataclass(value) else [path]
    return dotted


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
        _add_change(changes, config, key.strip().split("."), text.strip(), key.strip(), known)
    # All at once: a config may be valid only with several of them together.
    return _replace(config, changes)


def _add_change(
    changes: dict[str, Any], config: Any, path: list[str], text: str, where: str, known: list[str]
) -> None:
    """Adds one assignment to a nested dictionary of changed values."""
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


def load_config(
    name: str, assignments: Iterable[str] = (), packaged: str = "prompt_jax.configs"
) -> Any:
    """The config of a Python file, or one that ships inside the package, with overrides.

    A config module defines `get_config(...)`. Its parameters are chosen by name, as in
    `suite=real`, and their values are parsed by the annotated type; `NAME:VALUE` sets the first
    one. All other assignments are overrides of the config that it returns.

    Args:
      name: a path ending in `.py`, or the name of a packaged config such as `quickstart`; after it
        perhaps `:VALUE`.
      assignments: strings `key=value`: arguments of `get_config`, and overrides.
      packaged: the package that holds the named configs.

    Raises:
      ConfigError: no such file or name, the module has no `get_config`, it does not run, it takes
        no such argument, or an override is wrong.
    """
    address, colon, variant = _split_address(name)
    module = _config_module(address, packaged)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"the config {address} defines no function get_config().")
    first = variant if colon else None
    chosen, rest = _arguments(module.get_config, address, first, assignments)
    try:
        config = module.get_config(**chosen)
    except Exception as error:
        raise _broken(f"get_config() of {address} fails", error) from error
    if rest and not dataclasses.is_dataclass(config):
        raise ConfigError(
            f"get_config() of {address} returns a {type(config).__name__}, which has no options"
            " to override."
        )
    return override(config, rest) if rest else config


def _split_address(name: str) -> tuple[str, str, str]:
    """(file or name, ":" or "", value of the first parameter); a path may hold other colons."""
    file, suffix, after = name.rpartition(".py:")
    if suffix:
        return f"{file}.py", ":", after
    return (name, "", "") if name.endswith(".py") else name.partition(":")


def _arguments(
    get_config: Any, address: str, first: str | None, assignments: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a `get_config`, and the assignments that are none of them."""
    parameters = [
        parameter
        for parameter in inspect.signature(get_config).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    names = [parameter.name for parameter in parameters]
    if first is not None and not names:
        raise ConfigError(f"the config {address} has no variants, so ':{first}' is not understood.")
    texts = {} if first is None else {names[0]: first}
    rest = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or key not in names:
            rest.append(assignment)
        elif key in texts:
            raise ConfigError(f"'{key}' of the config {address} is given more than once.")
        else:
            texts[key] = text.strip()
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in texts]
    if missing:
        raise ConfigError(f"the config {address} needs {', '.join(f'{m}=...' for m in missing)}.")
    types = typing.get_type_hints(get_config)
    return {key: parse_value(text, types.get(key, str), key) for key, text in texts.items()}, rest


def _config_module(name: str, packaged: str) -> Any:
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"there is no config file {name}.")
        spec = importlib.util.spec_from_file_location(f"prompt_jax_config_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # required to find the source of classes in the file
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[spec.name]
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
    """An error of a config file in one line; errors of this package keep their message."""
    line = ""
    trace = error.__traceback__
    while trace is not None:
        line = f" (line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name})"
        trace = trace.tb_next
    if isinstance(error, PromptJaxError):
        return ConfigError(f"{what}: {error}")
    return ConfigError(f"{what}{line}: {type(error).__name__}: {error}.")
