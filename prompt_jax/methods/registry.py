"""Methods by name, and by spec: the text that the command line and config.json use for a method.

A spec is a name, and in brackets the options that differ from the defaults, as in
`spot(variant=top_k_average, top_k=2)`. In Python, methods are objects.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from prompt_jax.config import load_file, modules_beside, parse_value, split_list
from prompt_jax.errors import ConfigError, did_you_mean
from prompt_jax.methods.base import BaseMethod
from prompt_jax.training.protocol import Method

M = TypeVar("M", bound=type[BaseMethod])

REGISTRY: dict[str, type[BaseMethod]] = {}

ENTRY_POINTS = "prompt_jax.methods"
"""Group in which an installed package lists its methods: `name = "module:Class"`."""

# What the trainer reads of a method.
_TRAINING = frozenset(
    name
    for name in (*Method.__annotations__, *vars(Method))
    if not name.startswith("_") and name != "name"
)
_SPEC = re.compile(r"\s*([A-Za-z_][\w]*)\s*(?:\((.*)\))?\s*", re.DOTALL)
_FILE = re.compile(r"\s*([^():]+\.py)\s*(?::\s*(\w+)\s*)?(\(.*\))?\s*", re.DOTALL)


def register(kind: M) -> M:
    """Makes a method class known by its name, so that specs can name it; a class decorator.

    Raises:
      ConfigError: it has no name of its own, or another class has that name.
    """
    if "name" not in vars(kind):
        raise ConfigError(f"the method class {kind.__qualname__} has no name of its own.")
    known = REGISTRY.get(kind.name, kind)
    # The same class again, as after its module was reloaded, takes the place of the old one.
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ConfigError(
            f"the name '{kind.name}' of the method class {kind.__qualname__} is taken by"
            f" {known.__module__}.{known.__qualname__}."
        )
    REGISTRY[kind.name] = kind
    return kind


def resolve(spec: str) -> str:
    """The spec by name of a method that is given by its file; any other spec as it is.

    Args:
      spec: `./my_method.py:Mine`, or `./my_method.py:Mine(option=value)`; the class may be left out
        where the file defines one method. Its methods are registered.

    Raises:
      ConfigError: as `load_plugin`; or the file has no such class, or several.
    """
    match = _FILE.fullmatch(spec)
    if match is None:
        return spec
    path, wanted, options = match.group(1), match.group(2), match.group(3) or ""
    names = load_plugin(path)
    classes = [REGISTRY[name].__name__ for name in names]
    known = " and ".join(classes)
    if wanted is None and len(names) > 1:
        raise ConfigError(f"{path} defines {known}: name one, as in {path}:{classes[0]}.")
    if wanted is not None and wanted not in (*classes, *names):
        raise ConfigError(
            f"{path} defines no method '{wanted}', but {known}.{did_you_mean(wanted, classes)}"
        )
    number = 0 if wanted is None else [*classes, *names].index(wanted) % len(names)
    return names[number] + options


def create(spec: str) -> BaseMethod:
    """The method of a spec, or of a file as for `resolve`.

    Raises:
      ConfigError: unknown method or option, or an option of the wrong type.

    >>> create("spot(variant=mixture)")
    Spot(variant='mixture', top_k=3, steps=1, batch=1)
    >>> create("spot(top_k=3, variant=mixture)").spec
    'spot(variant=mixture)'
    """
    match = _SPEC.fullmatch(resolve(spec))
    if match is None:
        raise ConfigError(f"method '{spec}' is not of the form name or name(option=value, ...).")
    name, options = match.group(1), match.group(2) or ""
    if name not in REGISTRY and not _load_entry_point(name):
        known = dict.fromkeys([*REGISTRY, *(point.name for point in _entry_points())])
        raise ConfigError(
            f"unknown method '{name}' (known: {', '.join(known)}).{did_you_mean(name, known)}"
        )
    kind = REGISTRY[name]
    types = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    return kind(**dict(_options(name, options, fields, types)))


def load_plugin(address: str) -> list[str]:
    """Registers the methods of a module, so that specs can name them.

    Args:
      address: path of a Python file, or the name of a module that can be imported from here.

    Returns:
      The names of its methods.

    Raises:
      ConfigError: there is no such module, it does not run, or it defines no method with a name.
    """
    path = Path(address)
    try:
        with modules_beside(address if path.suffix == ".py" else str(Path.cwd() / "plugin.py")):
            if path.suffix == ".py":
                module = load_file(path, "plugin")
            else:
                module = importlib.import_module(address)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the plugin {address} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseMethod)
        and kind.__module__ == module.__name__
        and "name" in vars(kind)
    ]
    if not kinds:
        raise ConfigError(
            f"the plugin {address} defines no method: a subclass of prompt_jax.methods.BaseMethod"
            " with a name."
        )
    return [register(kind).name for kind in kinds]


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _load_entry_point(name: str) -> bool:
    """Registers the method of an installed package that has this name; False without one."""
    for point in _entry_points():
        if point.name == name:
            try:
                kind = point.load()
            except Exception as error:
                raise ConfigError(
                    f"method '{name}' of {point.value} cannot be imported: {type(error).__name__}:"
                    f" {error}."
                ) from error
            if not (isinstance(kind, type) and issubclass(kind, BaseMethod)):
                raise ConfigError(f"method '{name}': {point.value} is no method class.")
            if register(kind).name != name:
                raise ConfigError(
                    f"method '{name}': {point.value} calls itself '{kind.name}'; the entry point"
                    " must have the same name."
                )
            return True
    return False


def as_method(method: BaseMethod | str) -> BaseMethod:
    """The method itself, or the one of a spec.

    Raises:
      ConfigError: as in `create`; or the object is no method, has the name of another registered
        class, or defines parts of its training that none of its stages uses.
    """
    if isinstance(method, str):
        method = create(method)
    if not isinstance(method, BaseMethod):
        raise ConfigError(f"{method!r} is no method: give an object of a method class, or a spec.")
    known = REGISTRY.get(method.name, type(method))
    if known is not type(method):
        raise ConfigError(
            f"{type(method).__qualname__} has the name of {known.__qualname__}, '{method.name}':"
            " give it a name of its own."
        )
    if unused := _unused(method):
        raise ConfigError(
            f"{type(method).__qualname__} defines {', '.join(unused)}, but another method trains"
            " every one of its stages, which would ignore it: leave trains out of its last Stage,"
            " as in Stage('target', on='target')."
        )
    return method


def _unused(method: BaseMethod) -> list[str]:
    """What a subclass defines for its trainer while the stages it inherits name other trainers."""
    order = type(method).__mro__
    newer = order[: next(n for n, kind in enumerate(order) if "stages" in vars(kind))]
    if any(stage.trains is None for stage in method.stages()):
        return []
    return sorted(name for name in _TRAINING if any(name in vars(kind) for kind in newer))


def spec_of(method: BaseMethod | str) -> str:
    """The name of a method in files and tables: its spec, or the spec that was given."""
    return method if isinstance(method, str) else method.spec


def _options(
    name: str, text: str, fields: list[str], types: dict[str, typing.Any]
) -> Iterator[tuple[str, typing.Any]]:
    for part in split_list(text):
        option, equals, value = part.partition("=")
        option = option.strip()
        if not equals or option not in fields:
            raise ConfigError(
                f"method {name} has no option '{option}'"
                + (f" (it has {', '.join(fields)})." if fields else "; it takes none.")
                + did_you_mean(option, fields)
            )
        yield option, parse_value(value.strip(), types[option], f"{name}.{option}")
