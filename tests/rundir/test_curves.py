"""Grouping the log."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.run_key import RunKey
from prompt_jax.rundir import curves
from prompt_jax.rundir.curves import Group
from prompt_jax.rundir.folder import LogLine, RunDirectory


def log(*lines: tuple[RunKey, int, object], name: str = "dev") -> RunDirectory:
    made = RunDirectory(Path("run"))
    made.metrics = [LogLine(key, step, {name: value}) for key, step, value in lines]
    return made


def test_lines_are_grouped_by_the_key():
    target = RunKey("spot", "target", "glue/rte", 16, 3)
    found = curves.collect(
        log(
            (target, 0, 0.5),
            (replace(target, trial=2), 0, 0.6),
            (replace(target, task="my task k=4 of it", seed=0), 0, 0.7),
            (RunKey("prompt_tuning", "sources", "snli", None, 1), 0, 0.8),
            (RunKey("spot", "mixture", "", None, 1), 5, 0.9),
        ),
        "dev",
    )
    assert found == {
        Group("spot", "target", "glue/rte", 16): {(3, 0): {0: 0.5}, (3, 2): {0: 0.6}},
        Group("spot", "target", "my task k=4 of it", 16): {(0, 0): {0: 0.7}},
        Group("prompt_tuning", "sources", "snli", None): {(1, 0): {0: 0.8}},
        Group("spot", "mixture", "", None): {(1, 0): {5: 0.9}},
    }
    labels = [group.label for group in found]
    assert labels[0] == "spot: target, k = 16"
    assert labels[2:] == ["prompt_tuning: sources", "spot: mixture"]


def test_a_stage_that_began_again_counts_once():
    key = RunKey("m", "s", "a", 0)
    found = curves.collect(log((key, 0, 0.1), (key, 10, 0.2), (key, 0, 0.3)), "dev")
    assert found == {Group("m", "s", "a", 0): {(0, 0): {0: 0.3, 10: 0.2}}}
    assert curves.collect(log((key, 0, 0.1)), "loss") == {}


def test_numbers_are_finite_and_in_order():
    lines = {(1, 0): {10: 0.2, 0: 0.1, 20: None, 30: math.nan, 40: "x"}, (0, 0): {0: None}}
    assert curves.numbers(lines, 100.0) == [([0, 10], [10.0, 20.0])]


def test_arrays_are_averaged_over_seeds():
    lines = {
        (0, 0): {0: [True, False], 10: [1.0, None]},
        (1, 0): {0: [True, True], 10: [3.0, None], 20: [0, 0]},
    }
    steps, mean = curves.arrays(lines, 1)
    assert steps == [0, 10]
    np.testing.assert_array_equal(mean, [[1.0, 0.5], [2.0, np.nan]])
    assert curves.arrays(lines, 2) is None


@pytest.mark.parametrize(
    "value", [[[1.0], [1.0, 2.0]], "text", {"a": 1}, [None], [10**400], ["1", "x"], []]
)
def test_arrays_of_something_else(value):
    assert curves.arrays({(0, 0): {0: value}}, 1) is None


def test_arrays_of_different_shapes():
    assert curves.arrays({(0, 0): {0: [1.0]}, (1, 0): {0: [1.0, 2.0]}}, 1) is None
