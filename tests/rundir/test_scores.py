"""Scores by cell, macro averages, and paired comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prompt_jax.evaluation import paired_bootstrap, sign_flip
from prompt_jax.rundir.scores import Cell, Scores, primary_metrics, scores
from rundir.synthetic import result

PRIMARY = {"one": "accuracy", "two": "f1"}


def row(method, target, k, seed, value, metric=None, split="test"):
    return result(method, target, k, seed, value, metric or PRIMARY[target], split)


def test_primary_metrics_are_those_of_the_development_set():
    rows = [
        row("base", "two", 0, 0, 0.3),
        row("base", "two", 0, 0, 0.3, split="dev"),
        row("base", "two", 0, 0, 0.4, "accuracy"),
    ]
    assert primary_metrics(rows) == {"two": "f1"}


def test_cells_hold_the_primary_metric_of_the_test_rows():
    rows = [
        row("base", "one", 0, 0, 0.5),
        row("base", "one", 0, 1, 0.7),
        row("base", "one", 0, 0, 0.1, split="dev"),
        row("base", "one", 0, 0, 0.2, "nll"),
        row("x", "two", 4, 0, 0.3),
        row("x", "two", 4, 0, 0.4, "accuracy"),
    ]
    values = scores(rows, PRIMARY).values
    assert values == {("base", "one", 0): {0: 0.5, 1: 0.7}, ("x", "two", 4): {0: 0.3}}
    assert scores(rows, PRIMARY, split="dev").values == {("base", "one", 0): {0: 0.1}}


def test_items_are_those_of_the_row():
    rows = [row("base", "one", 4, seed, 0.5) for seed in (0, 1)]
    items = {rows[1].key: np.ones(3)}
    made = scores(rows, PRIMARY, items)
    assert list(made.items[Cell("base", "one", 4)]) == [1]


def test_macro_average_is_the_mean_over_targets_by_seed():
    values = {
        Cell("x", "one", 4): {0: 0.2, 1: 0.4},
        Cell("x", "two", 4): {0: 0.6, 1: math.nan, 2: 0.5},
    }
    macro = Scores(values, {}).macro("x", ("one", "two"), 4)
    assert macro[0] == pytest.approx(0.4)
    assert math.isnan(macro[1])
    assert math.isnan(macro[2])  # the first target lacks it
    assert Scores(values, {}).macro("x", ("one", "three"), 4) == {}


def table(seed, seeds=5, items=60):
    rng = np.random.default_rng(seed)
    return dict(enumerate((rng.random((seeds, items)) < 0.5) * 1.0))


def of_items(cells) -> Scores:
    values = {cell: {s: float(x.mean()) for s, x in by.items()} for cell, by in cells.items()}
    return Scores(values, cells)


def test_one_target_is_compared_by_the_paired_bootstrap():
    a, b = Cell("a", "t", 4), Cell("b", "t", 4)
    made = of_items({a: table(0), b: table(1)})
    expected = paired_bootstrap(*(np.stack(list(made.items[cell].values())) for cell in (a, b)))
    assert made.compare([a], [b]) == expected


def test_targets_of_other_sizes_count_alike():
    cells = {
        Cell(m, t, 4): table(i, items=n)
        for i, (m, t, n) in enumerate((m, t, n) for m in "ab" for t, n in (("s", 20), ("t", 200)))
    }
    made = of_items(cells)
    a, b = ([Cell(m, t, 4) for t in "st"] for m in "ab")
    found = made.compare(a, b)
    assert found is not None
    differences = [
        np.mean([made.values[x][s] - made.values[y][s] for s in range(5)])
        for x, y in zip(a, b, strict=True)
    ]
    assert found.difference == pytest.approx(np.mean(differences))


def test_seeds_that_died_or_are_missing_are_left_out_of_both():
    a, b = Cell("a", "t", 4), Cell("b", "t", 4)
    made = of_items({a: table(0), b: table(1)})
    made.values[a][1] = math.nan
    del made.items[a][1]  # of a run that died nothing is kept
    del made.values[b][3], made.items[b][3]
    found = made.compare([a], [b])
    assert found is not None
    assert found.seeds == 3
    assert found.items == 60
    difference = np.mean([made.values[a][s] - made.values[b][s] for s in (0, 2, 4)])
    assert found.difference == pytest.approx(difference)
    made.values[a] = dict.fromkeys(range(5), math.nan)
    assert made.compare([a], [b]) is None


def test_without_items_signs_are_flipped():
    a, b = Cell("a", "t", 4), Cell("b", "t", 4)
    made = of_items({a: table(0), b: table(1)})
    del made.items[b]
    values = [[made.values[cell][s] for s in range(5)] for cell in (a, b)]
    assert made.compare([a], [b]) == sign_flip(*values)


def test_no_interval_leaves_the_range_of_the_metric():
    """Two seeds whose differences are +40 and -60 points: Student's interval is +-635 points."""
    a, b = Cell("a", "t", 4), Cell("b", "t", 4)
    values = {a: {0: 0.7, 1: 0.2}, b: {0: 0.3, 1: 0.8}}
    found = Scores(values, {}, {"t": (0.0, 1.0)}).compare([a], [b])
    assert found.difference == pytest.approx(-0.1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.p == sign_flip([0.7, 0.2], [0.3, 0.8]).p
    # -0.84 +- 1.14: the far end is cut, the near one stays
    values = {a: {0: 0.1, 1: 0.0}, b: {0: 0.85, 1: 0.93}}
    raw = sign_flip([0.1, 0.0], [0.85, 0.93])
    found = Scores(values, {}, {"t": (0.0, 1.0)}).compare([a], [b])
    assert raw.low < -1.0
    assert (found.low, found.high, found.p) == (-1.0, raw.high, raw.p)
    # a correlation can be anything from -1 to 1, and the mean of both kinds lies between
    matthews = Scores(values, {}, {"t": (-1.0, 1.0)}).compare([a], [b])
    assert matthews.low == raw.low
    assert Scores({}, {}, {"t": (0.0, 1.0), "u": (-1.0, 1.0)}).range(["t", "u"]) == (-0.5, 1.0)


def test_intervals_of_items_are_bounded():
    a, b = Cell("a", "t", 4), Cell("b", "t", 4)
    ones, zeros = np.ones(4), np.zeros(4)
    made = of_items({a: {0: ones, 1: zeros}, b: {0: zeros, 1: ones}})
    raw = paired_bootstrap(np.stack([ones, zeros]), np.stack([zeros, ones]))
    assert raw.low < -1.0
    found = made.compare([a], [b])
    assert math.isnan(found.low)
    assert found.p == raw.p


def test_scores_know_the_range_of_their_metric():
    rows = [row("x", "one", 0, 0, 0.5), row("x", "two", 0, 0, 0.5)]
    assert scores(rows, {"one": "accuracy", "two": "matthews"}).ranges == {
        "one": (0.0, 1.0),
        "two": (-1.0, 1.0),
    }
