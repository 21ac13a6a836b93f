"""The entry point: usage errors, versions, interruptions, and what an import costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import prompt_jax
from prompt_jax.cli import main
from prompt_jax.errors import StoppedError
from tests.cli.conftest import Invoke

ROOT = Path(__file__).resolve().parents[2]


def fresh(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a Python program in a new interpreter, away from the checkout's directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"prompt-jax {prompt_jax.__version__}\n", "")


def test_help_lists_every_command(invoke: Invoke) -> None:
    asked, alone = invoke("--help"), invoke()
    assert asked == alone
    assert asked.code == 0
    for command in ("run", "evaluate", "predict", "prompts", "tasks", "info"):
        assert f"\n  {command}  " in asked.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rn"], "no such command 'rn'. Did you mean 'run'? See prompt-jax --help."),
        (["run"], "missing argument 'CONFIG'. See prompt-jax run --help."),
        (["run", "x", "--dryrun"], "unknown option '--dryrun'. Did you mean '--dry-run'?"),
        (
            ["run", "x", "--model", "m"],
            "unknown option '--model'. Write model=m. See prompt-jax run",
        ),
        (["run", "x", "--seeds=3"], "unknown option '--seeds'. Write seeds=3. See"),
        (["run", "x", "--model"], "unknown option '--model'. Write model=.... See"),
        (["run", "x", "--output-dir", "o"], "unknown option '--output-dir'. Write out=o. See"),
        (["oracle", "x", "--seed", "3"], "unknown option '--seed'. Write seeds=3 or first_seed=3."),
        (["run", "x", "--config", "c"], "unknown option '--config'. See prompt-jax run --help."),
        (["run", "x", "--overrides", "c"], "unknown option '--overrides'. See prompt-jax run"),
        (["tune", "x", "--modle", "m"], "unknown option '--modle'. Did you mean '--model'?"),
        (["tune", "x", "--seeds", "3"], "unknown option '--seeds'. Write seeds=3. See"),
        (["predict", "x", "--beans", "2"], "unknown option '--beans'. Did you mean '--beams'?"),
        (["predict", "x"], "missing option '--prompt'. See prompt-jax predict --help."),
        (["predict", "x", "--prompt", "p", "--beams", "0"], "invalid value for '--beams'"),
        (["predict", "x", "--prompt", "p", "--beams", "two"], "invalid value for '--beams'"),
        (["tasks", "shw"], "no such command 'shw'. Did you mean 'show'?"),
    ],
)
def test_usage_error_is_one_line(invoke: Invoke, arguments: list[str], says: str) -> None:
    result = invoke(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"prompt-jax: {says}")
    assert result.err.count("\n") == 1


def test_interrupt_is_one_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prompt_jax.config.load_config", interrupt)
    assert invoke("run", "few_shot") == (130, "", "prompt-jax: interrupted.\n")


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 2)])
def test_exit_code_after_a_signal(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, interrupted: bool, code: int
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise StoppedError("checkpoint saved", interrupted=interrupted)

    monkeypatch.setattr("prompt_jax.config.load_config", stop)
    assert invoke("run", "few_shot") == (code, "", "prompt-jax: checkpoint saved\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "data/x"), "data/x: Permission denied."),
        (OSError(28, "No space left on device", "runs/y"), "runs/y: No space left on device."),
        (MemoryError(), "the memory of this machine is used up."),
    ],
)
def test_system_errors_are_one_line(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: BaseException, says: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("prompt_jax.config.load_config", fail)
    result = invoke("run", "few_shot")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"prompt-jax: {says}")


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("a bug")])
def test_unexpected_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("prompt_jax.config.load_config", broken)
    monkeypatch.setattr("sys.warnoptions", ["error"])
    with pytest.raises(type(error), match="a bug"):
        main(["run", "few_shot"])


@pytest.mark.process
def test_command_line_imports_no_heavy_modules() -> None:
    program = "import json, sys, prompt_jax.cli\nprint(json.dumps(sorted(sys.modules)))"
    done = fresh("-c", program)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    for name in ("jax", "flax", "numpy", "rich.console", "tokenizers", "prompt_jax.recipes"):
        assert name not in modules


@pytest.mark.process
def test_python_m_prompt_jax_exit_code() -> None:
    done = fresh("-m", "prompt_jax", "tasks", "show", "glue/rt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("prompt-jax: unknown task 'glue/rt'. Did you mean 'glue/rte'?")
    assert "Traceback" not in done.stderr
