"""Grouping the log."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.run_key import RunKey
from prompt_jax.rundir import curves
from prompt_jax.rundir.curves import Group
from prompt_jax.rundir.folder import RunDirectory


def log(*lines: tuple[RunKey, int, object], key: str = "dev") -> RunDirectory:
    made = RunDirectory(Path("run"))
    made.metrics = [{**run.fields(), "step": n, key: v} for run, n, v in lines]
    return made


def test_runs_are_grouped_by_their_keys():
    found = curves.collect(
        log(
            (RunKey("spot", "target", "glue/rte", 16, 3), 0, 0.5),
            (RunKey("spot", "target", "glue/rte", 16, 3, 2), 0, 0.6),
            (RunKey("spot", "target", "my task k=4 of it", 16, 0), 0, 0.7),
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
    assert [group.label for group in found][1:3] == [
        "spot: target, k = 16",
        "prompt_tuning: sources",
    ]


def test_a_stage_that_began_again_counts_once():
    key = RunKey("m", "s", "a")
    found = curves.collect(log((key, 0, 0.1), (key, 10, 0.2), (key, 0, 0.3)), "dev")
    assert found == {Group("m", "s", "a", None): {(0, 0): {0: 0.3, 10: 0.2}}}
    assert curves.collect(log((key, 0, 0.1)), "loss") == {}


def test_the_last_stage_of_a_target():
    found = curves.collect(
        log(
            (RunKey("prompt_tuning", "probe", "a", 16), 0, 0.1),
            (RunKey("prompt_tuning", "target", "a", 16), 0, 0.2),
            (RunKey("prompt_tuning", "target", "a", 0), 0, 0.3),
            (RunKey("a plug-in", "target", "a", 0), 0, 0.4),
        ),
        "dev",
    )
    assert curves.of_target(found, "a plug-in", "a", 0) == {(0, 0): {0: 0.4}}
    assert curves.of_target(found, "prompt_tuning", "a", 16) == {(0, 0): {0: 0.2}}
    assert curves.of_target(found, "prompt_tuning", "a", 0) == {(0, 0): {0: 0.3}}
    assert curves.of_target(found, "spot", "a", 0) == {}


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
