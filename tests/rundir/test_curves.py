"""Grouping the log."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.rundir import curves
from prompt_jax.rundir.curves import Group
from prompt_jax.rundir.folder import RunDirectory


def log(*lines: tuple[str, str, int, object], key: str = "dev") -> RunDirectory:
    made = RunDirectory(Path("run"))
    made.metrics = [{"stage": s, "run": r, "step": n, key: v} for s, r, n, v in lines]
    return made


def test_runs_are_told_apart_by_their_labels():
    stage = "spot: target, k = 16"
    found = curves.collect(
        log(
            (stage, "glue/rte k=16 seed=3", 0, 0.5),
            (stage, "glue/rte k=16 seed=3 trial=2", 0, 0.6),
            (stage, "my task k=4 of it k=16 seed=0", 0, 0.7),
            ("prompt_tuning: sources", "snli seed=1", 0, 0.8),
            ("spot: mixture", "mixture seed=1", 5, 0.9),
            ("other", "anything", 5, 1.0),
        ),
        "dev",
    )
    assert found == {
        Group(stage, "glue/rte", 16): {(3, 0): {0: 0.5}, (3, 2): {0: 0.6}},
        Group(stage, "my task k=4 of it", 16): {(0, 0): {0: 0.7}},
        Group("prompt_tuning: sources", "snli", 0): {(1, 0): {0: 0.8}},
        Group("spot: mixture", "mixture", 0): {(1, 0): {5: 0.9}},
        Group("other", "anything", 0): {(0, 0): {5: 1.0}},
    }


def test_a_stage_that_began_again_counts_once():
    found = curves.collect(
        log(("s", "a seed=0", 0, 0.1), ("s", "a seed=0", 10, 0.2), ("s", "a seed=0", 0, 0.3)), "dev"
    )
    assert found == {Group("s", "a", 0): {(0, 0): {0: 0.3, 10: 0.2}}}
    assert curves.collect(log(("s", "a seed=0", 0, 0.1)), "loss") == {}


def test_the_last_stage_of_a_target():
    found = curves.collect(
        log(
            ("prompt_tuning: probe", "a k=16 seed=0", 0, 0.1),
            ("prompt_tuning: target, k = 16", "a k=16 seed=0", 0, 0.2),
            ("prompt_tuning: target, all rows", "a seed=0", 0, 0.3),
        ),
        "dev",
    )
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
