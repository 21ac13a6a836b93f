"""The direction of dependencies: docs/architecture.md's table of floors, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "prompt_jax"

# From the ground up; a module imports only from lower floors and from its own. A new module of the
# package has to be given a floor here and in docs/architecture.md.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "errors paths streams units run_key config sharding distributed",
        "models",
        "data",
        "prompts",
        "svgd task_vectors memory_bank",
        "evaluation",
        "training",
        "methods",
        "rundir",
        "report",
        "recipes",
        "configs",
        "cli __main__",
    )
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}

# Modules of methods/ that are not a published method: the protocol's defaults and the registry.
SHARED_METHOD_MODULES = {"base", "__init__"}
METHOD_NAMES = {
    "prompt_tuning",
    "spot",
    "attempt",
    "mpt",
    "task_prompt_vectors",
    "bmtpt",
    "spt",
    "dtvg",
    "full_fine_tuning",
} | {path.stem for path in PACKAGE.glob("methods/[!_]*.py")} - SHARED_METHOD_MODULES


def module_name(path: Path) -> str:
    """`PACKAGE/models/t5/__init__.py` -> `prompt_jax.models.t5.__init__`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imports_of(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute dotted name) of everything from prompt_jax that `source` imports.

    Imports inside functions and under TYPE_CHECKING count, and so does `import_module("...")` with
    a literal name. `from a.b import c` yields `a.b.c`: c may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, base] if base else package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if isinstance(first, ast.JoinedStr) and first.values:
                first = first.values[0]  # f"prompt_jax.configs.{name}": its literal beginning
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names = [str(first.value)]
        for name in names:
            if name.split(".")[0] == "prompt_jax":
                yield node.lineno, name


def violations(source: str, module: str) -> list[str]:
    """Lists the imports of `source` that point upwards, or sideways between two methods."""
    parts = module.split(".")
    own = parts[1]
    found = []
    for line, name in imports_of(source, module):
        target = [part for part in name.split(".")[1:] if part]
        if target == ["__version__"]:
            continue
        if not target or target[0] not in FLOOR_OF:
            found.append(f"{module}:{line} imports {name}: import the module that defines it")
        elif FLOOR_OF[target[0]] > FLOOR_OF[own]:
            found.append(f"{module}:{line} imports {name}, which is on a higher floor")
        elif (
            own == "methods"
            and parts[2] not in SHARED_METHOD_MODULES
            and target[0] == "methods"
            and target[1:2] != ["base"]
        ):
            found.append(f"{module}:{line} imports {name}: no method imports another")
    return found


def method_comparisons(source: str) -> list[int]:
    """Lists the lines that compare something with the literal name of a method."""

    def named(node: ast.expr | None) -> bool:
        return any(
            isinstance(leaf, ast.Constant) and leaf.value in METHOD_NAMES
            for leaf in (ast.walk(node) if node is not None else ())
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
        )

    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            if any(named(side) for side in (node.left, *node.comparators)):
                lines.append(node.lineno)
        elif isinstance(node, ast.MatchValue) and named(node.value):
            lines.append(node.lineno)
    return lines


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
IDS = [module_name(path) for path in MODULES]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_point_downwards(path: Path) -> None:
    module = module_name(path)
    assert module.split(".")[1] in FLOOR_OF, "give the new module a floor in tests/test_layers.py"
    assert violations(path.read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(PACKAGE).parts[0] != "methods"], ids=str
)
def test_only_methods_know_a_method_by_name(path: Path) -> None:
    lines = method_comparisons(path.read_text("utf-8"))
    assert lines == [], f"{module_name(path)}: ask the Method protocol instead, lines {lines}"


def test_the_documented_floors_are_the_tested_ones() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.split("## Floors")[1].split("\n## ")[0]
    documented = [
        [name.strip("`/ ") for name in re.findall(r"`[^`]+`", line.split("|")[1])]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    assert len(documented) >= 8
    numbers = []
    for names in documented:
        assert set(names) <= FLOOR_OF.keys()
        floors = {FLOOR_OF[name] for name in names}
        assert len(floors) == 1, f"{names} stand in one row but on different floors"
        numbers.append(floors.pop())
    assert numbers == sorted(numbers, reverse=True)


# --- the checker itself can fail ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import prompt_jax.training", "prompt_jax.models.t5.modules"),
        ("from prompt_jax.recipes import run", "prompt_jax.methods.spot"),
        ("from prompt_jax import evaluation", "prompt_jax.data.tasks"),
        ("def f():\n  from prompt_jax.methods import base", "prompt_jax.training.step"),
        ("from ..training import step", "prompt_jax.evaluation.metrics"),
        ("from ...training.step import f", "prompt_jax.models.t5.modules"),
        ("if TYPE_CHECKING:\n  from prompt_jax.cli import main", "prompt_jax.recipes.run"),
        ("import importlib\nimportlib.import_module('prompt_jax.cli')", "prompt_jax.config"),
        ("import_module(f'prompt_jax.configs.{name}')", "prompt_jax.recipes.run"),
        ("from prompt_jax import FrozenT5", "prompt_jax.training.step"),
        ("import prompt_jax", "prompt_jax.cli"),
        ("from prompt_jax.methods import spot", "prompt_jax.methods.dtvg"),
        ("from . import spot", "prompt_jax.methods.dtvg"),
        ("from .spot import f", "prompt_jax.methods.dtvg"),
    ],
)
def test_a_wrong_import_is_found(source: str, module: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import numpy as np\nfrom optax import adam", "prompt_jax.config"),
        ("from prompt_jax.errors import PromptJaxError", "prompt_jax.config"),
        ("from prompt_jax import __version__", "prompt_jax.cli"),
        ("from . import base", "prompt_jax.methods.dtvg"),
        ("from prompt_jax.methods.base import Base", "prompt_jax.methods.dtvg"),
        ("from prompt_jax.methods import dtvg, spot", "prompt_jax.methods.__init__"),
        ("from prompt_jax import svgd", "prompt_jax.methods.bmtpt"),
        ("from .t5 import config", "prompt_jax.models.base"),
    ],
)
def test_a_right_import_passes(source: str, module: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if method == 'dtvg':\n  pass", [1]),
        ("\nx = 'spot' != method.name", [2]),
        ("y = name in ('mpt', 'other')", [1]),
        ("match name:\n  case 'bmtpt':\n    pass", [2]),
        ("method = get('dtvg')", []),
        ("if stage == 'source':\n  pass", []),
    ],
)
def test_a_comparison_with_a_method_is_found(source: str, lines: list[int]) -> None:
    assert method_comparisons(source) == lines
