"""The direction of dependencies: docs/architecture.md's table of layers, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "prompt_jax"

# From the ground up; a module imports only from lower layers and from its own. A new module of the
# package has to be given a layer here and in docs/architecture.md.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "errors arrays paths locks streams units run_key store code_digest compile_cache config"
        " sharding distributed mailbox",
        "models",
        "data",
        "prompts",
        "svgd task_vectors memory_bank",
        "evaluation",
        "training",
        "methods",
        "published rundir",
        "report",
        "recipes",
        "configs testing",
        "cli __main__",
    )
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

# Packages of one model family: everything outside models/ uses `prompt_jax.models` and the
# `LanguageModel` protocol instead.
FAMILIES = {path.parent.name for path in PACKAGE.glob("models/*/__init__.py")}

# Modules of methods/ that are not a published method: defaults, which methods import, ..
METHOD_DEFAULTS = {"base", "slot_usage"}
# .. the registry and the files of trained methods.
SHARED_METHOD_MODULES = METHOD_DEFAULTS | {"registry", "trained", "__init__"}
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
        if not target or target[0] not in LAYER_OF:
            found.append(f"{module}:{line} imports {name}: import the module that defines it")
        elif LAYER_OF[target[0]] > LAYER_OF[own]:
            found.append(f"{module}:{line} imports {name}, which is in a higher layer")
        elif own != "models" and target[0] == "models" and target[1:2] and target[1] in FAMILIES:
            found.append(f"{module}:{line} imports {name}: import it from prompt_jax.models")
        elif (
            own == "methods"
            and parts[2] not in SHARED_METHOD_MODULES
            and target[0] == "methods"
            and not METHOD_DEFAULTS.intersection(target[1:2])
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


def source_files() -> dict[str, str]:
    """Module name -> source of every module, without the package's own `__init__`."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
    return {module_name(path): path.read_text("utf-8") for path in paths}


SOURCES = source_files()


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports by name, anywhere in its source.

    That importing `a.b` also runs `a/__init__.py` is no edge.
    """

    def resolve(name: str) -> str | None:
        for candidate in (name, name.rpartition(".")[0]):
            for module in (candidate, f"{candidate}.__init__"):
                if module in sources:
                    return module
        return None

    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = {resolve(name.rstrip(".")) for _, name in imports_of(source, module)}
        graph[module] = {target for target in targets if target is not None}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, or of one that imports itself."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += graph[node]
        return seen

    reach = {module: reachable(module) for module in graph}
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }
    return sorted(sorted(group) for group in groups)


def test_every_module_has_a_layer() -> None:
    missing = sorted({m for m in SOURCES if m.split(".")[1] not in LAYER_OF})
    assert not missing, f"give these a layer in {Path(__file__).name}: {missing}"


def test_imports_point_downwards() -> None:
    wrong = [line for module, source in SOURCES.items() for line in violations(source, module)]
    assert not wrong, "\n".join(wrong)


def test_no_circle_among_modules() -> None:
    left = circles(import_graph(SOURCES))
    assert not left, "modules that import each other: " + "; ".join(map(" <-> ".join, left))


@pytest.mark.slow
def test_only_methods_compare_with_the_name_of_a_method() -> None:
    wrong = {
        module: lines
        for module, source in SOURCES.items()
        if module.split(".")[1] != "methods" and (lines := method_comparisons(source))
    }
    assert not wrong, f"use the Method protocol instead of a name in these lines: {wrong}"


def test_the_documented_layers_are_the_tested_ones() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.split("## Layers")[1].split("\n## ")[0]
    documented = [
        [name.strip("`/ ") for name in re.findall(r"`[^`]+`", line.split("|")[1])]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    assert len(documented) >= 8
    numbers = []
    for names in documented:
        assert set(names) <= LAYER_OF.keys()
        layers = {LAYER_OF[name] for name in names}
        assert len(layers) == 1, f"{names} are in one row but in different layers"
        numbers.append(layers.pop())
    assert numbers == sorted(numbers, reverse=True)
    assert sorted(name for names in documented for name in names) == sorted(LAYER_OF)


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
        ("from prompt_jax.models.t5 import T5Config", "prompt_jax.training.step"),
        ("from prompt_jax.models import t5", "prompt_jax.cli.run"),
        ("def f():\n  import prompt_jax.models.t5.flops", "prompt_jax.recipes.plan"),
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
        ("from prompt_jax.models import FrozenT5, load", "prompt_jax.training.step"),
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


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "import prompt_jax.b", "b": "import prompt_jax.c", "c": ""}, []),
        ({"a": "from prompt_jax.b import f", "b": "def f():\n  from . import a"}, [["a", "b"]]),
        (
            {"a": "if TYPE_CHECKING:\n  from prompt_jax import b", "b": "import prompt_jax.a"},
            [["a", "b"]],
        ),
        (
            {"a": "import prompt_jax.b", "b": "import prompt_jax.c", "c": "import prompt_jax.a.x"},
            [["a", "b", "c"]],
        ),
        ({"a.__init__": "from prompt_jax.a import b", "a.b": "from . import c", "a.c": ""}, []),
        ({"a": "from prompt_jax.a import f"}, [["a"]]),
    ],
)
def test_a_circle_is_found(sources: dict[str, str], expected: list[list[str]]) -> None:
    full = {f"prompt_jax.{name}": source for name, source in sources.items()}
    named = [[f"prompt_jax.{name}" for name in circle] for circle in expected]
    assert circles(import_graph(full)) == named
