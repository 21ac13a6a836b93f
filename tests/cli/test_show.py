"""What a run prints at its end, from a run directory that no experiment had to make."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from rundir.synthetic import write_run

from prompt_jax.cli import show
from prompt_jax.recipes import ExperimentConfig, RunResult
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import RunDirectory, read


def test_the_best_prompt_of_the_first_target_is_tried_next(tmp_path: Path) -> None:
    findings = find(read(write_run(tmp_path / "run", shots=(4,), seeds=3)))
    worst = findings.run.prompts[0].file
    stored = show._best_prompt(RunResult(findings, [], [worst]))
    assert stored is not None
    assert (stored.record.task, stored.dev) == ("t/near", 0.52)
    empty = dataclasses.replace(findings, run=RunDirectory(tmp_path))
    nothing = RunResult(empty, [], [])
    assert show._best_prompt(nothing) is None
    assert show.next_commands(nothing, ExperimentConfig(sources=("mr",), targets=("subj",))) == []


def test_no_command_to_try_next_needs_a_file_or_the_network() -> None:
    for command in show._onwards("prompt-jax"):
        words = shlex.split(command, comments=True)
        assert {"--help", "--dry-run"} & set(words), command
