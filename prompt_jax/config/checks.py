"""Types of a config that is made in Python, where no parser has seen its values."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from prompt_jax.errors import ConfigError, did_you_mean

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def check_types(config: Any) -> None:
    """Brings the fields of a frozen dataclass to their types, for its `__post_init__`.

    Numbers of numpy become Python's, 300.0 becomes 300 where a whole number is wanted, a path
    becomes a text and a list a tuple. Fields of other types are left alone.

    Raises:
      ConfigError: a value of another type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Budget:
    ...     steps: int = 3
    ...     def __post_init__(self) -> None:
    ...         check_types(self)
    >>> Budget(3e2).steps
    300
    """
    own: Any = type(config)
    for name, kind in _hints(own).items():
        value = getattr(config, name)
        object.__setattr__(config, name, _checked(kind, value, name))


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _checked(kind: Any, value: Any, name: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        others = [each for each in args if each is not type(None)]
        if value is None and len(others) < len(args):
            return None
        return _checked(others[0], value, name) if len(others) == 1 else value
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(
                f"option '{name}' must be one of {', '.join(map(str, args))}, not {value!r}."
                f"{did_you_mean(str(value), map(str, args))}"
            )
        return value
    if origin is tuple and args[-1:] == (Ellipsis,):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"option '{name}' must be a list, not {value!r}.")
        return tuple(_checked(args[0], item, f"{name}.{i}") for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and not isinstance(value, kind):
        raise ConfigError(f"option '{name}' must be a {kind.__name__}, not {value!r}.")
    return _scalar(kind, value, name) if kind in _NAMES else value


def _scalar(kind: Any, value: Any, name: str) -> Any:
    value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    if kind is float and is_number:
        return value
    raise ConfigError(f"option '{name}' must be {_NAMES[kind]}, not {value!r}.")
