"""Methods from outside the package: files, modules and entry points."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.methods import REGISTRY, create, load_plugin, resolve
from prompt_jax.recipes import ExperimentConfig

TEXT = """
from dataclasses import dataclass
from prompt_jax.methods import BaseMethod, PromptTuning

@dataclass(frozen=True)
class {kind}(BaseMethod):
    factor: float = 1.0
    name = "{name}"
    status = "our extension"
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """The registry as it was before."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}_module.py"
    path.write_text(TEXT.format(kind="Mine", name=name))
    return path


def test_a_plugin_is_a_file_or_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "plug_a")
    assert load_plugin(str(path)) == ["plug_a"]
    assert create("plug_a(factor=2)").spec == "plug_a(factor=2)"
    assert load_plugin(str(path)) == ["plug_a"]  # again, as in a notebook
    write(tmp_path, "plug_b")
    monkeypatch.chdir(tmp_path)
    assert load_plugin("plug_b_module") == ["plug_b"]  # from the working directory
    assert create("plug_b").name == "plug_b"


def test_a_method_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "plug_f")
    monkeypatch.chdir(tmp_path)
    for spec in ("./plug_f_module.py:Mine", "plug_f_module.py", "./plug_f_module.py:plug_f"):
        assert resolve(f"{spec}(factor=2)") == "plug_f(factor=2)"
        assert create(spec).spec == "plug_f"
    assert resolve("spot(top_k=2)") == "spot(top_k=2)"
    config = ExperimentConfig(
        targets="mr", sources="sst5", methods="spot, ./plug_f_module.py:Mine(factor=3)"
    )
    assert config.methods == config.specs == ("spot", "plug_f(factor=3)")
    more = TEXT.format(kind="Other", name="plug_g")
    path = tmp_path / "plug_f_module.py"
    path.write_text(path.read_text() + more)
    assert create("./plug_f_module.py:Other").name == "plug_g"
    for spec, says in (
        ("./plug_f_module.py", "defines Mine and Other: name one, as in ./plug_f_module.py:Mine"),
        ("./plug_f_module.py:Othr", "no method 'Othr', but Mine and Other. Did you mean 'Other'?"),
        ("./nothere.py:Mine", "there is no plugin nothere.py"),
        ("./plug_f_module.py:Mine(scale=2)", "method plug_f has no option 'scale' (it has factor)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(says)):
            create(spec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "defines no method"),
        ("from prompt_jax.methods import Spot", "defines no method"),
        ("import surely_not_there", "does not run .*surely_not_there"),
        (TEXT.format(kind="Mine", name="spot"), "the name 'spot' .* is taken by"),
    ],
)
def test_a_plugin_without_a_method_of_its_own(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_plugin(str(path))


def test_a_plugin_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"there is no plugin nothere\.py"):
        load_plugin("nothere.py")
    with pytest.raises(ConfigError, match="the plugin nothere cannot be imported"):
        load_plugin("nothere")


def test_an_installed_package_lists_its_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "plug_c")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint(name, value, "prompt_jax.methods")
        for name, value in (
            ("plug_c", "plug_c_module:Mine"),
            ("other_name", "plug_c_module:Mine"),
            ("no_class", "plug_c_module:TEXT"),
            ("no_method", "pathlib:Path"),
        )
    ]

    def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
        return points if group == "prompt_jax.methods" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert "plug_c" not in REGISTRY
    assert create("plug_c(factor=3)").spec == "plug_c(factor=3)"
    for name, says in (
        ("other_name", "calls itself 'plug_c'; the entry point must have the same name"),
        ("no_class", "cannot be imported: AttributeError"),
        ("no_method", "pathlib:Path is no method class"),
        ("plug_d", r"unknown method 'plug_d' \(known: .*plug_c.*\)\. Did you mean 'plug_c'"),
    ):
        with pytest.raises(ConfigError, match=says):
            create(name)
