"""The checks of `make lint` find what they are for: tools/check_repository.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tool(name: str) -> ModuleType:
    """A program of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


CHECK: Any = tool("check_repository")


def test_forbidden_text_is_reported() -> None:
    slash = "/"
    samples = {
        "a path of somebody's machine": f"open('{slash}home/ann/x')",
        "a temporary path": f"cp a {slash}tmp/b",
        "an address of a package mirror": "pip install --extra-index-url" + " https://mirror.test",
        "a secret": "hf_" + "a" * 34,
    }
    assert samples.keys() == CHECK.FORBIDDEN_TEXT.keys()
    for kind, sample in samples.items():
        assert [found[:2] for found in CHECK.forbidden(f"first\n{sample}\n")] == [(2, kind)]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "yaml.load(text, Loader)",
    ],
)
def test_unsafe_code_is_reported(line: str) -> None:
    assert len(CHECK.unsafe(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path, allow_pickle=False)",
        "np.save(path, array, allow_pickle=True)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "model.eval()",
    ],
)
def test_safe_code_passes(line: str) -> None:
    assert CHECK.unsafe(line) == []


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that have to agree, to be changed."""
    names = (
        "pyproject.toml",
        "prompt_jax/__init__.py",
        "CITATION.cff",
        "CHANGELOG.md",
        "LICENSE",
        "constraints.txt",
        "Makefile",
        "README.md",
        "CONTRIBUTING.md",
        "docs/install.md",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(CHECK, "ROOT", tmp_path)
    assert list(CHECK.problems()) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"', "__version__ is not"),
        ("CHANGELOG.md", "## 0.1.0", "## 0.0.9", "no heading for version 0.1.0"),
        ("CITATION.cff", "version: 0.1.0", "version: 0.0.9", "CITATION.cff: the version is not"),
        ("CITATION.cff", "license: Apache-2.0", "license: MIT", "the license pyproject.toml's"),
        ("LICENSE", "Apache License", "A License", "lacks 'Apache License'"),
        ("constraints.txt", "optax==", "optax>=", "not of the form name==version"),
        ("constraints.txt", "optax==0.", "optax==0.0.", "does not meet 'optax"),
        ("pyproject.toml", '"jax>=0.10"', '"jax[cuda12]>=0.10"', "must be an extra"),
        ("README.md", "make test", "make tset", "there is no 'make tset'"),
    ],
)
def test_facts_that_disagree_are_reported(
    tree: Path, name: str, old: str, new: str, problem: str
) -> None:
    text = (tree / name).read_text("utf-8")
    assert old in text
    (tree / name).write_text(text.replace(old, new), "utf-8")
    assert any(problem in line for line in CHECK.problems())


def test_merging_constraints() -> None:
    freezes = {
        "3.11": "same==1\nmoved==1\nDotted_Name==1\ntwice==1\nonly==2.13.0+cpu",
        "3.12": "same==1\nmoved==2\ndotted-name==1\ntwice==2",
        "3.13": "same==1\nmoved==2\ndotted-name==1\ntwice==3",
    }
    assert tool("merge_constraints").merge(freezes) == [
        "dotted-name==1",
        'moved==1; python_version < "3.12"',
        'moved==2; python_version >= "3.12"',
        "only==2.13.0",
        "same==1",
        'twice==1; python_version < "3.12"',
        'twice==2; python_version >= "3.12" and python_version < "3.13"',
        'twice==3; python_version >= "3.13"',
    ]


def test_what_jax_a_python_gets() -> None:
    jax: Any = tool("tell_jax")
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    for minor in (11, 12, 13):
        pinned, _ = CHECK.pins(f"3.{minor}")
        assert jax.jax_of((3, minor), constraints) == pinned["jax"]
    pins = 'jax==1.0; python_version < "3.12"\njax==2.0; python_version >= "3.12"\njaxlib==3.0\n'
    old = list(jax.lines(".venv", (3, 11), pins))
    assert old[0] == "making .venv with Python 3.11, which gets jax 1.0"
    assert "on a CPU, bfloat16 saves memory only with jax 1.0" in old[-1]
    new = ["making .venv with Python 3.13, which gets jax 2.0"]
    assert list(jax.lines(".venv", (3, 13), pins)) == new
    assert list(jax.lines(".venv", (3, 13), "")) == ["making .venv with Python 3.13"]


@pytest.mark.process
def test_make_takes_the_newest_python_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    pythons = tmp_path / "bin"
    pythons.mkdir()
    for minor, works in ((13, False), (12, True), (11, True)):  # as pyenv's of another project
        made = pythons / f"python3.{minor}"
        made.write_text(f"#!/bin/sh\nexit {int(not works)}\n")
        made.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pythons}:{os.environ['PATH']}")
    monkeypatch.delenv("PYTHON", raising=False)

    def plan(*arguments: str) -> str:
        command = ["make", "-n", "env", *arguments]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout

    assert "python3.12 -m venv --clear .venv" in plan()
    assert "python3.11 -m venv --clear .venv" in plan("PYTHON=python3.11")
    monkeypatch.setenv("PYTHON", "python3.11")
    assert "python3.11 -m venv --clear .venv" in plan()
    # An environment that is here stays, whatever Python made it.
    monkeypatch.delenv("PYTHON")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    mine = tmp_path / ".venv/bin/python"
    mine.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    mine.chmod(0o755)
    here = f"{tmp_path} {sys.version_info[0]} {sys.version_info[1]}"
    (tmp_path / ".venv/.made_by").write_text(here)
    assert "-m venv" not in plan()
    (tmp_path / ".venv/.made_by").write_text(f"/elsewhere {here.split(' ', 1)[1]}")
    assert "python3.12 -m venv --clear .venv" in plan()


def test_what_a_wheel_lacks_is_reported() -> None:
    wheel: Any = tool("check_wheel")
    files = wheel.wanted()
    assert {"prompt_jax/py.typed", "prompt_jax/report/page.html.jinja"} < files
    assert any(name.startswith("prompt_jax/models/mini/") for name in files)
    held = {*files, "prompt_jax-0.1.0.dist-info/METADATA"}
    assert list(wheel.differences(held, files)) == []
    held = {*held - {"prompt_jax/report/page.css"}, "tests/toy.py"}
    assert list(wheel.differences(held, files)) == [
        "the wheel lacks prompt_jax/report/page.css",
        "the wheel holds tests/toy.py",
    ]
