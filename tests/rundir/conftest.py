"""One synthetic run directory, and copies of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  # lists fonts with a process, before any test
import pytest

from prompt_jax.rundir.folder import RunDirectory, read

from .synthetic import write_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory; not to be changed."""
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture(scope="session")
def loaded(made: Path) -> RunDirectory:
    """What it holds."""
    return read(made)
