"""`import prompt_jax`: cheap, lazy, without side effects, and every public name is there."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prompt_jax

ROOT = Path(__file__).resolve().parents[1]

# Everything that is optional, slow or large. numpy, jax and the standard library may come.
FORBIDDEN = (
    "datasets",
    "flax.nnx",
    "fsspec",
    "huggingface_hub",
    "matplotlib",
    "optax",
    "orbax",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "typer",
)


def run_fresh(program: str) -> Any:
    """Runs `program` in a new interpreter and returns the JSON that it prints last."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.process
def test_import_brings_nothing() -> None:
    program = "import json, sys, prompt_jax\nprint(json.dumps(sorted(sys.modules)))"
    modules = run_fresh(program)
    assert [name for name in modules if name.startswith("prompt_jax.")] == []
    # Without jax there is no backend to touch; numpy would be the next largest import.
    assert [name for name in (*FORBIDDEN, "jax", "flax", "numpy") if name in modules] == []


PUBLIC_PROGRAM = """
import json, logging, os, sys
os.environ.pop("XLA_FLAGS", None)
before = dict(os.environ)
handlers = list(logging.getLogger().handlers)
import jax
# jax refuses to change the number of CPU devices once a backend exists: a public way to ask.
config = {name: getattr(jax.config, name) for name in ("jax_enable_x64", "jax_platforms")}
import prompt_jax
import prompt_jax.prompts
assert "optax" not in sys.modules, "prompts need no optimizer"
for name in prompt_jax.__all__:
    getattr(prompt_jax, name)
assert dict(os.environ) == before, "the environment changed"
assert logging.getLogger().handlers == handlers, "logging was set up"
assert {name: getattr(jax.config, name) for name in config} == config, "jax was configured"
modules = sorted(sys.modules)
jax.config.update("jax_num_cpu_devices", 3)
assert jax.device_count() == 3
print(json.dumps(modules))
"""

# What the public names may bring along: their subpackages are made for training.
ALLOWED_WITH_EVERY_NAME = {"optax"}


@pytest.mark.process
def test_every_public_name_resolves_without_a_backend_or_an_optional_package() -> None:
    modules = run_fresh(PUBLIC_PROGRAM)
    heavy = [name for name in FORBIDDEN if name in modules]
    assert set(heavy) <= ALLOWED_WITH_EVERY_NAME


@pytest.mark.process
def test_a_backend_would_have_been_noticed() -> None:
    program = PUBLIC_PROGRAM.replace("import prompt_jax\n", "import prompt_jax\njax.devices()\n")
    with pytest.raises(AssertionError, match="RuntimeError"):
        run_fresh(program)


def test_public_names_are_listed_once_and_sorted() -> None:
    names = prompt_jax.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names)
    assert set(names) <= set(dir(prompt_jax))


def test_dir_lists_no_imported_module() -> None:
    for module in (prompt_jax, prompt_jax.task_vectors, prompt_jax.models):
        plain = {name for name in dir(module) if not name.startswith("__")}
        assert not plain & {"Any", "TYPE_CHECKING", "importlib", "jax", "jnp", "functools", "chex"}
        assert set(getattr(module, "__all__", ())) <= set(dir(module))


@pytest.mark.parametrize("name", prompt_jax.__all__)
def test_public_name(name: str) -> None:
    value = getattr(prompt_jax, name)
    if inspect.ismodule(value):
        assert value.__name__ == f"prompt_jax.{name}"
    if name != "__version__":
        doc = inspect.getdoc(value)
        assert doc
        assert len(doc) > 20
    if inspect.isclass(value) or inspect.isfunction(value):
        assert doc != inspect.getdoc(object)
        assert value.__name__ == name
    assert getattr(prompt_jax, name) is value


def test_type_checkers_see_the_names_that_exist() -> None:
    """The imports under TYPE_CHECKING and the lazy table name the same things."""
    source = (ROOT / "prompt_jax" / "__init__.py").read_text("utf-8")
    for name in set(prompt_jax.__all__) - {"__version__"}:
        assert f" import {name} as {name}\n" in source, name
    assert (ROOT / "prompt_jax" / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SoftPromt'"):
        prompt_jax.SoftPromt  # noqa: B018
    with pytest.raises(ImportError, match="nothing_of_this_name"):
        from prompt_jax import nothing_of_this_name  # noqa: F401


def test_an_import_error_of_a_lazy_name_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prompt_jax._NAMES, "Broken", "prompt_jax.errors_of_nobody")
    with pytest.raises(ModuleNotFoundError, match="errors_of_nobody"):
        prompt_jax.Broken  # noqa: B018


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT / "prompt_jax")], "prompt_jax.")
    if not module.name.endswith("__main__")
)


def test_every_module_imports_and_says_what_it_is() -> None:
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"
