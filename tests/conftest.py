"""Strict JAX settings, tiers, virtual devices and shared fixtures for every test."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # joblib would start a process to count cores
# What the library and the commands store by default goes to a folder of the process, not to the
# home of whoever runs the tests, whose speeds and runs it would mix with.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="prompt_jax-tests-")
os.environ.setdefault(
    "MPLCONFIGDIR", str(Path(__file__).resolve().parents[1] / ".cache" / "matplotlib")
)
# Compiling is most of the time that the tests take. Programs are kept between test runs, and are
# shared by all workers (they inherit the variables); `make clean` removes them.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# More than half of a cold test run is compiling, and without LLVM's optimizations that takes a
# quarter less. Processes that a test starts inherit it, so that they compute the same bits.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's older way to compile a fusion takes half as long. Later versions have it no more, and end at
# a flag that they do not know.
if metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import hypothesis
import jax
import pytest

if TYPE_CHECKING:
    from world import Ran, World

atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# A loaded machine makes an example slow, not wrong.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(__file__).resolve().parents[2] / "shared"
DEVICES = 8  # virtual devices of the tier `multidevice`
MULTIDEVICE = "multidevice"


def pytest_configure(config: pytest.Config) -> None:
    """`-m multidevice` gives every worker virtual devices: before the first program is compiled."""
    if config.option.markexpr == MULTIDEVICE:
        flag = f"--xla_force_host_platform_device_count={DEVICES}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a mesh skip where there is none."""
    if config.option.markexpr == MULTIDEVICE:
        return
    skip = pytest.mark.skip(reason=f"needs {DEVICES} devices: pytest -m {MULTIDEVICE}")
    for item in items:
        if item.get_closest_marker(MULTIDEVICE):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def only_marked_tests_start_processes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps the tier `process` honest: elsewhere, starting a Python is an error."""
    if request.node.get_closest_marker("process"):
        return
    start = subprocess.Popen.__init__

    def refuse_python(self: Any, args: Any, *others: Any, **options: Any) -> None:
        command = [args] if isinstance(args, str | Path) else list(args)
        assert sys.executable not in map(str, command), (
            "this test starts a process: mark it with pytest.mark.process"
        )
        start(self, args, *others, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse_python)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder ../shared/data with real data sets is not here")
    return SHARED


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Model, tasks and config of a tiny experiment; nothing has been run."""
    from world import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def ran(files: World) -> Ran:
    """The one experiment that a test run executes for tests of what it prints and writes."""
    from world import Ran, call

    options = ("--tensorboard", "--profile", "2:4", "--log-seconds", "0")
    return Ran(files, call([*files.arguments, *options]))
