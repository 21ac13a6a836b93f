"""A digest of source code that comments, docstrings and formatting do not change.

Stored results are found under a key that covers the code that made them. A module is digested as it
was when its digest was first asked for after it was loaded.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import logging
import sys
import sysconfig
import uuid
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent
PROCESS = uuid.uuid4().hex
"""What stands for code whose source is not known: no other process has it."""
_METHODS = "prompt_jax.methods"
# What `dataclass` may write into a class.
_GENERATED = frozenset(
    ["__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__"]
)
_modules: dict[str, tuple[Any, str, tuple[str, ...]]] = {}  # spec, digest, imported names
_unknown: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def of_source(source: str) -> str:
    """The digest of a module's text.

    Raises:
      SyntaxError: the text is no Python.
    """
    return _of_tree(ast.parse(source))


@functools.cache
def of_package(parts: tuple[str, ...], without: tuple[str, ...] = ()) -> str | None:
    """The digest of some of the package's own modules; computed once per process.

    Args:
      parts: modules or packages in it, as `models` or `methods.base`.
      without: those in `parts` that are left out.

    Returns:
      None where the sources are no files, as in a zip file.

    Raises:
      FileNotFoundError: there is no module of such a name.
    """
    if not PACKAGE.is_dir():
        return None
    state = hashlib.sha256()
    for path in package_files(parts, without):
        name = path.relative_to(PACKAGE).as_posix()
        state.update(f"{name} {of_source(path.read_text('utf-8'))}\n".encode())
    return state.hexdigest()[:16]


def package_files(parts: Sequence[str], without: Sequence[str] = ()) -> list[Path]:
    """The modules that `of_package` digests.

    Raises:
      FileNotFoundError: there is no such module.
    """
    left_out = {path for part in without for path in files_of(part)}
    return sorted({path for part in parts for path in files_of(part)} - left_out)


def files_of(part: str) -> list[Path]:
    """The files of a module or package in `prompt_jax`.

    Raises:
      FileNotFoundError: there is none of this name.
    """
    path = PACKAGE.joinpath(*part.split("."))
    if path.is_dir():
        return list(path.rglob("*.py"))
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    raise FileNotFoundError(f"there is no module {path}")


def of_class(kind: type) -> str | None:
    """The digest of the code of a class: its module, those of its bases, and what these import.

    Imports are followed through the user's own modules and through `prompt_jax.methods`, not
    through the rest of the package or other installed packages.

    Returns:
      None where the source is not known: a class of a notebook, of a zip file, made inside a
      function (what it closes over is in no file), or of a module that was loaded again since.
    """
    digests: dict[str, str] = {}
    for base in kind.__mro__:
        if base.__module__ in ("builtins", "abc", "typing"):
            continue
        module = sys.modules.get(base.__module__)
        if module is None or not _is_from_file(base, module):
            return None
        if not _follow(module, _root(module), digests):
            return None
    state = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}".encode())
    for name, digest in sorted(digests.items()):
        state.update(f"{name} {digest}\n".encode())
    return state.hexdigest()[:16]


def identity(kind: type) -> str:
    """`of_class`; where that is not known, a name that no other class and no other process has."""
    digest = of_class(kind)
    if digest is not None:
        return digest
    if kind not in _unknown:
        _unknown[kind] = f"unknown {uuid.uuid4().hex}"
        logging.getLogger("prompt_jax").warning(
            f"the source of {kind.__module__}.{kind.__qualname__} is not known (it is not at the"
            " top level of a file): its results are not stored, and nothing stored is used. Move it"
            " to a module."
        )
    return _unknown[kind]


def _is_from_file(kind: type, module: ModuleType) -> bool:
    """Whether a class is what its module's file defines: at the top level, and not redefined."""
    found: Any = module
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    file = Path(str(getattr(module, "__file__", None))).name
    written = [
        function
        for name, function in vars(kind).items()
        if inspect.isfunction(function)
        and name not in _GENERATED
        # What a base defines is in the base's file, even where it is named again.
        and all(vars(base).get(name) is not function for base in kind.__mro__[1:])
    ]
    return found is kind and all(
        Path(inspect.unwrap(function).__code__.co_filename).name == file for function in written
    )


def _root(module: ModuleType) -> str:
    """What a module's imports have to begin with to be followed wherever they are installed."""
    name = module.__name__
    return _METHODS if name.startswith("prompt_jax.") else name.partition(".")[0]


def _follow(module: ModuleType, root: str, digests: dict[str, str]) -> bool:
    """Adds the digest of a module and of what it imports; False where there is no source."""
    name = module.__name__
    if name in digests:
        return True
    known = _read(module)
    if known is None:
        return False
    digests[name], imported = known
    for other in imported:
        loaded = sys.modules.get(other)
        if loaded is not None and _is_followed(loaded, root):
            _follow(loaded, root, digests)
    return True


def _is_followed(module: ModuleType, root: str) -> bool:
    name, file = module.__name__, getattr(module, "__file__", None)
    if f"{name}.".startswith(f"{root}."):
        return True
    if file is None or f"{name}.".startswith("prompt_jax."):
        return False
    return not any(Path(file).resolve().is_relative_to(place) for place in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Folders of the standard library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


def _read(module: ModuleType) -> tuple[str, tuple[str, ...]] | None:
    """Digest and imports of a module, as of its (re)load: a later edit of the file is not run."""
    name, spec = module.__name__, getattr(module, "__spec__", None)
    known = _modules.get(name)
    if known is None or known[0] is not spec:
        try:
            tree = ast.parse(Path(str(module.__file__)).read_bytes())
        except (AttributeError, OSError, SyntaxError, ValueError):
            return None
        known = _modules[name] = (spec, _of_tree(tree), tuple(_imports(tree, module)))
    return known[1], known[2]


def _imports(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Full names of the modules that may be imported by a module, some of which do not exist."""
    package = (module.__package__ or "").split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _of_tree(tree: ast.AST) -> str:
    state = hashlib.sha256()
    _add(tree, state.update)
    return state.hexdigest()[:16]


def _add(value: Any, add: Any) -> None:
    """Feeds a syntax tree to a hash, without docstrings and what only some Pythons write."""
    if isinstance(value, ast.AST):
        add(b"(" + type(value).__name__.encode())
        for name in value._fields:
            child = getattr(value, name, None)
            if child is None or child == [] or name in ("kind", "type_ignores"):
                continue
            if name == "body" and isinstance(child, list) and _has_docstring(value):
                child = child[1:]
            add(b" " + name.encode() + b"=")
            _add(child, add)
        add(b")")
    elif isinstance(value, list):
        add(b"[")
        for child in value:
            _add(child, add)
        add(b"]")
    else:
        add(f"{type(value).__name__}:{value!r};".encode("utf-8", "surrogatepass"))


def _has_docstring(node: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
