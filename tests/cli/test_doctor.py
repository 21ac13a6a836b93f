"""`prompt-jax doctor`: what it prints, and its exit code."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prompt_jax.cli import loading
from prompt_jax.recipes import doctor
from prompt_jax.recipes.doctor import Check
from tests.cli.conftest import Invoke

GOOD = Check("padding changes nothing", True, 1e-6, 1e-3, "the loss moves by 1e-06", 2.4)
BAD = Check("the prompt changes the output", False, float("nan"), 1e-6, "the loss is not finite")


@pytest.mark.parametrize(("checks", "code"), [([GOOD], 0), ([GOOD, BAD], 1)])
def test_lines_json_and_exit_code(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, checks: list[Check], code: int
) -> None:
    def examine(lm: Any, *, seconds: float, report: Any) -> list[Check]:
        assert seconds == 5
        for check in checks:
            report(check)
        return checks

    lm = SimpleNamespace(name="toy", dtype=np.dtype(np.float32), weights_hash="ab")
    monkeypatch.setattr(loading, "load_model", lambda name, dtype: lm)
    monkeypatch.setattr(doctor, "examine", examine)
    made = invoke("doctor", "toy", "--seconds", 5)
    lines = made.out.splitlines()
    assert lines[:2] == [
        "toy, float32",
        "ok     padding changes nothing: the loss moves by 1e-06 (2 s)",
    ]
    assert made.code == code
    assert ("1 of 2 checks failed" in made.err) == bool(code)
    if code:
        assert lines[2] == "FAILED the prompt changes the output: the loss is not finite (0 s)"
    told = invoke("doctor", "toy", "--seconds", 5, "--json")
    assert (told.code, told.err) == (code, "")
    found = json.loads(told.out)
    assert (found["model"], found["passed"]) == ("toy", not code)
    assert [check["value"] for check in found["checks"]] == [1e-6, None][: len(checks)]
