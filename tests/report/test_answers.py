"""Confusion matrices, samples and calibration of the page."""

from __future__ import annotations

import dataclasses

import pytest
from rundir.synthetic import result

from prompt_jax.report import answers, svg
from prompt_jax.rundir.findings import find


@pytest.fixture(scope="module")
def found(loaded):
    return find(loaded)


def test_each_target_shows_its_best_method(found):
    assert [(e.target, e.k) for e in answers.shown(found)] == [(b.target, b.k) for b in found.best]
    assert [e.method for e in answers.shown(found)] == [b.method for b in found.best]
    assert answers.shown(found)[0].method == "spot"


def test_shares_are_of_the_rows_of_a_label(found):
    with svg.drawing():
        drawn = answers.confusions(found)
    assert [figure.title for figure in drawn][:2] == [
        "t/near, k = 16: spot",
        f"mine/far, k = 16: {found.best[1].method}",
    ]
    assert "bad: bad 67, good 33; good: bad 0, good 100" in drawn[0].svg


def test_wrong_answers_come_first(found):
    title, table = answers.samples(found)[0]
    assert title == "t/near, k = 16: spot, seed 0"
    assert table.rows == (
        ("wrong", "a text 0", "no (bad)", "yes (good)"),
        ("right", "a text 1", "no (bad)", "no (bad)"),
    )


def test_calibration_is_a_mean_over_targets_and_seeds(found, loaded):
    assert answers.calibration(found).rows == ()
    values = {("spot", 0): 0.2, ("spot", 1): 0.4, ("prompt_tuning", 0): 0.5}
    ranked = [
        result(method, "t/near", 16, seed, value, metric=name)
        for (method, seed), value in values.items()
        for name in ("nll", "brier", "ece")
    ]
    run = dataclasses.replace(loaded, rows=[*loaded.rows, *ranked])
    table = answers.calibration(dataclasses.replace(found, run=run))
    assert table.rows == (
        ("k = 16", "prompt_tuning", "0.500", "0.500", "0.500"),
        ("k = 16", "spot", "0.300", "0.300", "0.300"),
    )
    assert table.title == "Means over all seeds of t/near; less is better"
