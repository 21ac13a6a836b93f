"""The Python of the README runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from prompt_jax import FrozenT5, SoftPrompt

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, folder: Path) -> str:
    """What the code prints, run as a user's file."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_of_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert re.findall(r'from_pretrained\("([^"]+)"\)', code) == ["mini"]
    (prompt,) = re.findall(r'SoftPrompt\.load\("([^"]+)"', code)
    width = FrozenT5.from_pretrained("mini").d_model
    (tmp_path / prompt).parent.mkdir(parents=True, exist_ok=True)
    SoftPrompt(jnp.ones((3, width), jnp.float32)).save(tmp_path / prompt)

    assert run_python(code, tmp_path).endswith("\n"), "the example prints an answer"


def test_python_of_the_training_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/training.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    assert "steps=150" in code
    printed = run_python(code.replace("steps=150", "steps=2"), tmp_path).splitlines()
    names = [["sandbox/topic", f"seed={seed}"] for seed in range(3)]
    assert [line.split()[:2] for line in printed] == names
    assert all(line.endswith("(10, 128)") for line in printed)


def test_stages_of_the_training_page(tmp_path: Path) -> None:
    """A source, and a target that starts from its prompt; what the steps store is found again."""
    page = (ROOT / "docs/training.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert "steps=100" in code
    printed = run_python(code.replace("steps=100", "steps=2"), tmp_path).splitlines()
    names = [f"sandbox/sentiment_talk k=16 seed={seed}" for seed in (0, 1)]
    assert [line.partition(" {'accuracy': ")[0] for line in printed] == names
    stored = sorted(path.name for path in (tmp_path / "stages").iterdir())
    assert len(stored) == 2 + 2 + 2
    assert sum(name.endswith(".test.safetensors") for name in stored) == 2
