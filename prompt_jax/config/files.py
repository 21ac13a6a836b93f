"""Configs from files: a Python file, a packaged config, or the table of a JSON or YAML file."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prompt_jax.config.keys import Key, arguments
from prompt_jax.config.tables import SUFFIXES, from_table, read_table
from prompt_jax.config.trees import override
from prompt_jax.config.values import parse_value
from prompt_jax.errors import ConfigError, PromptJaxError, did_you_mean


def load_config(
    name: str,
    assignments: Iterable[str] = (),
    packaged: str = "prompt_jax.configs",
    kind: type | None = None,
) -> Any:
    """The config of a file, or one that ships inside the package, with overrides.

    A config module defines `get_config(...)`. Its parameters are chosen by name, as in
    `suite=real`, and their values are parsed by the annotated type; `NAME:VALUE` sets the first
    one. All other assignments are overrides of the config that it returns. While the module and
    its `get_config` run, modules beside it can be imported.

    Args:
      name: a path ending in `.py`, after it perhaps `:VALUE`; the name of a packaged config such as
        `quickstart`; a table in JSON or YAML such as the `config.json` of a run directory, or the
        directory.
      assignments: strings `key=value`: arguments of `get_config`, and overrides.
      packaged: the package that holds the named configs.
      kind: the dataclass that a table describes.

    Raises:
      ConfigError: no such file or name, the module has no `get_config`, it does not run, it takes
        no such argument, a table does not describe a `kind`, or an override is wrong.
    """
    path = _table_path(name)
    if path is not None:
        if kind is None:
            raise ConfigError(f"{path} is a table, but a Python file is needed here.")
        return override(from_table(kind, read_table(path), str(path)), assignments)
    address, colon, variant = _split_address(name)
    with modules_beside(address):
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
    others = [key.name for key in arguments(module.get_config)]
    return override(config, rest, others) if rest else config


def config_arguments(name: str, packaged: str = "prompt_jax.configs") -> list[Key]:
    """The arguments of a config's `get_config`; none where it is a table.

    Raises:
      ConfigError: no such file or name, or it does not run.
    """
    if _table_path(name) is not None:
        return []
    address = _split_address(name)[0]
    with modules_beside(address):
        return arguments(_config_module(address, packaged).get_config)


@contextmanager
def modules_beside(file: str) -> Iterator[None]:
    """While this is open, a Python file can import what lies in its folder, as a program can.

    The folder that holds its package is searched too, where it is part of one.

    Args:
      file: a path; the name of a packaged config changes nothing.
    """
    path = Path(file)
    if path.suffix != ".py":
        yield
        return
    folder = path.resolve().parent
    places = [folder]
    while (places[-1] / "__init__.py").is_file():
        places.append(places[-1].parent)
    added = [str(place) for place in (folder, places[-1])]
    sys.path[:0] = added
    try:
        yield
    finally:
        for place in added:
            if place in sys.path:  # the file may have changed it
                sys.path.remove(place)


def _table_path(name: str) -> Path | None:
    path = Path(name)
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    return path if path.suffix in SUFFIXES else None


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


def load_file(path: Path, what: str = "config file") -> Any:
    """The module of a Python file, under a name of its own.

    Args:
      path: ending in `.py`.
      what: it is, for messages.

    Raises:
      ConfigError: there is no such file, or it does not run.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {what} {path}.")
    spec = importlib.util.spec_from_file_location(f"prompt_jax_config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # required to find the source of classes in the file
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise _broken(f"the {what} {path} does not run", error) from error
    return module


def _config_module(name: str, packaged: str) -> Any:
    if Path(name).suffix == ".py":
        return load_file(Path(name))
    package = importlib.import_module(packaged)
    folder = Path(next(iter(package.__path__)))
    names = sorted(p.stem for p in folder.glob("[a-z]*.py"))
    if name not in names:
        raise ConfigError(
            f"'{name}' is neither a Python file nor a packaged config"
            f" ({', '.join(names)}).{did_you_mean(name, names) or _where(name)}"
        )
    return importlib.import_module(f"{packaged}.{name}")


def _where(name: str) -> str:
    """Where a config of that name may be instead."""
    if Path(name).is_file():
        return f" A prompt for a table or a task file is tuned by: prompt-jax tune {name}"
    file = f"experiments/{name}.py"
    if Path(file).is_file():
        return f" Did you mean '{file}'?"
    return (
        " The studies of the documentation are files of the source repository: prompt-jax run"
        " experiments/NAME.py, in a checkout."
    )


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
