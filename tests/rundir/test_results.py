"""Result rows, the table and the contrasts."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from prompt_jax.errors import DataError
from prompt_jax.evaluation import statistics
from prompt_jax.rundir import results
from prompt_jax.rundir.results import ResultRow

PRIMARY = {"one": "accuracy", "two": "f1"}
METHODS = ("base", "x", "y")


def row(method, target, k, seed, value, metric=None, split="test"):
    metric = metric or PRIMARY[target]
    return ResultRow(method, target, k, seed, metric, split, value, 1, 2, 3, 4.5, 0.25, 6, 7, 8)


def test_rows_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row("base", "one", 4, s, s / 4) for s in range(3)]
    results.write_rows(path, rows)
    assert results.read_rows(path) == rows
    chose = [dataclasses.replace(rows[0], chosen=names) for names in (("a", "b"), ())]
    results.write_rows(path, chose)
    assert results.read_rows(path) == chose
    results.write_rows(path, [row("base", "one", 4, 0, math.nan)])
    assert '"value": null' in path.read_text()
    (back,) = results.read_rows(path)
    assert math.isnan(back.value)
    results.write_rows(path, [])
    assert results.read_rows(path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"method": 3},
        {"k": True},
        {"k": -1},
        {"seed": 1.0},
        {"value": 1.5},
        {"value": "x"},
        {"flops": None},
        {"flops": float("inf")},
        {"wall_s": -1},
        {"target": None},
        {"chosen": "a"},
        {"chosen": [1]},
    ],
)
def test_lines_that_are_no_rows(tmp_path, change):
    good = json.dumps(dataclasses.asdict(row("base", "one", 4, 0, 0.5)))
    bad = json.dumps({**json.loads(good), **change})
    assert results.parse_rows(f"{good}\n{bad}\n{good[:-9]}") == (
        [row("base", "one", 4, 0, 0.5)],
        [2, 3],
    )
    path = tmp_path / "results.jsonl"
    path.write_text(f"{good}\n{bad}\n")
    with pytest.raises(DataError, match="line 2 is no result row"):
        results.read_rows(path)


@pytest.mark.parametrize(
    ("metric", "value", "good"),
    [
        ("nll", 7.5, True),
        ("nll", 1e4, False),
        ("brier", 2.0, True),
        ("brier", 2.5, False),
        ("ece", 1.5, False),
    ],
)
def test_calibration_is_no_fraction(metric, value, good):
    made = dataclasses.replace(row("base", "one", 4, 0, 0.5), metric=metric, value=value)
    rows, bad = results.parse_rows(json.dumps(dataclasses.asdict(made)))
    assert (rows, bad) == (([made], []) if good else ([], [1]))
    # It is no primary metric: tables and contrasts do not see it.
    assert not results.cells(rows, PRIMARY)


def test_rows_of_older_files():
    facts = dataclasses.asdict(row("base", "one", 4, 0, 0.5))
    del facts["trials"], facts["chosen"]
    ((old,), bad) = results.parse_rows(json.dumps(facts))
    assert (old.trials, old.chosen, bad) == (1, None, [])


def test_items_come_back(tmp_path):
    items = {("m(a=1, b=2)", "t/x", 4, s): np.arange(5) / 5 for s in range(2)}
    results.write_items(tmp_path / "items.npz", items)
    found = results.read_items(tmp_path / "items.npz")
    assert set(found) == set(items)
    for key, scores in found.items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, items[key], rtol=1e-6)


@pytest.mark.parametrize("what", ["text", "cut", "key", "length", "nan", "objects", "array"])
def test_damaged_items(tmp_path, what):
    path = tmp_path / "items.npz"
    made: dict = {"m\tt\t0\t0": np.ones(4), "m\tt\t0\t1": np.ones(4)}
    made |= {
        "key": {"nothing": np.ones(4)},
        "length": {"m\tt\t0\t1": np.ones(5)},
        "nan": {"m\tt\t0\t1": np.full(4, np.nan)},
        "objects": {"m\tt\t0\t1": np.array([{}, 1, 2, 3], object)},
    }.get(what, {})
    np.savez_compressed(path, **made)
    if what == "text":
        path.write_text("PK no zip")
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif what == "array":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"items\.npz holds no per-item scores"):
        results.read_items(path)


def test_primary_metrics_are_those_of_the_development_set():
    rows = [
        row("base", "two", 0, 0, 0.3),
        row("base", "two", 0, 0, 0.3, split="dev"),
        row("base", "two", 0, 0, 0.4, "accuracy"),
    ]
    assert results.primary_metrics(rows) == {"two": "f1"}


def test_intervals_as_text():
    made = statistics.Comparison(-0.0001, -0.05, 0.0004, 0.5, 5, 10)
    assert results.interval_text(made) == "+0.0 [-5.0, +0.0]"
    assert results.interval_text(made._replace(low=math.nan, high=math.nan)) == "+0.0"


def test_cells_hold_the_primary_metric_of_the_test_rows():
    rows = [
        row("base", "one", 0, 0, 0.5),
        row("base", "one", 0, 1, 0.7),
        row("base", "one", 0, 0, 0.1, split="dev"),
        row("base", "one", 0, 0, 0.2, "macro_f1"),
        row("x", "two", 4, 0, 0.3),
        row("x", "two", 4, 0, 0.4, "accuracy"),
    ]
    cells = results.cells(rows, PRIMARY)
    assert cells == {("base", "one", 0): {0: 0.5, 1: 0.7}, ("x", "two", 4): {0: 0.3}}
    assert results.cells(rows, PRIMARY, "dev") == {("base", "one", 0): {0: 0.1}}
    table = results.summaries(cells)
    assert table["base", "one", 0].mean == pytest.approx(0.6)
    assert table["base", "one", 0].std == pytest.approx(np.std([0.5, 0.7], ddof=1))


def values_and_items(seeds=3, items=400, k=(4, 0), lift=0.4):
    """x is better than the baseline on target one, y is the baseline with other noise."""
    rng = np.random.default_rng(0)
    per_item = {}
    for shots in k:
        for seed in range(seeds):
            for method in METHODS:
                chance = 0.4 + (lift if method == "x" else 0.0)
                per_item[method, "one", shots, seed] = (rng.random(items) < chance) * 1.0
    values = {}
    for (method, target, shots, seed), scores in per_item.items():
        values.setdefault((method, target, shots), {})[seed] = float(scores.mean())
    for method in METHODS:
        values[method, "two", 0] = {s: 0.5 + 0.01 * s for s in range(seeds)}
    return values, per_item


def test_the_family_is_every_method_against_the_first():
    values, items = values_and_items()
    found = results.contrasts(METHODS, values, items)
    assert len(found) == 2 * 3  # methods x (one at two k, two at one)
    assert {c.baseline for c in found} == {"base"}
    raw = [c.verdict.comparison.p for c in found]
    np.testing.assert_allclose([c.verdict.p_holm for c in found], statistics.holm(raw))
    effects = {(c.method, c.target) for c in found if c.verdict.effect}
    assert effects == {("x", "one")}
    by_name = {(c.method, c.target, c.k): c.verdict.comparison for c in found}
    expected = statistics.paired_bootstrap(
        *(np.stack([items[m, "one", 4, s] for s in range(3)]) for m in ("x", "base"))
    )
    assert by_name["x", "one", 4] == expected
    assert by_name["x", "two", 0].items == 1  # by seeds alone: no items were given
    assert by_name["x", "two", 0].difference == 0


def test_seeds_that_died_or_are_missing_are_left_out_of_both():
    values, items = values_and_items(seeds=5, k=(0,))
    values["x", "one", 0][1] = math.nan
    del values["base", "one", 0][3]
    found = {
        (c.method, c.target): c.verdict.comparison
        for c in results.contrasts(METHODS, values, items)
    }
    assert found["x", "one"].seeds == 3
    assert found["y", "one"].seeds == 4
    keep = [0, 2, 4]
    difference = np.mean([values["x", "one", 0][s] - values["base", "one", 0][s] for s in keep])
    assert found["x", "one"].difference == pytest.approx(difference)


def test_nothing_to_compare():
    values, items = values_and_items(seeds=5, k=(0,))
    assert results.contrasts(("base",), {("base", "one", 0): {0: 0.5}}, {}) == []
    assert results.contrasts(("absent", "x"), {("x", "one", 0): {0: 0.5}}, {}) == []
    values["x", "one", 0] = dict.fromkeys(range(5), math.nan)
    pairs = {(c.method, c.target) for c in results.contrasts(METHODS, values, items)}
    assert ("x", "one") not in pairs


def test_table():
    values = {
        ("base", "one", 4): {0: 0.5, 1: 0.7},
        ("base", "one", 0): {0: 0.25},
        ("x", "one", 4): {0: 0.5, 1: math.nan},
        ("x", "two", 4): {0: math.nan},
    }
    text = results.markdown_table(
        ("base", "x"), ("one", "two"), (4, 0), results.summaries(values), PRIMARY
    )
    assert text.splitlines() == [
        "| | method | one (accuracy) | two (f1) |",
        "|-|-|-|-|",
        "| k = 4 | base | 60.0 ± 14.1 | - |",
        "| k = 4 | x | 50.0 (1 failed) | failed |",
        "| all rows | base | 25.0 | - |",
        "| all rows | x | - | - |",
    ]


def test_contrast_lines():
    values, items = values_and_items(k=(4,))
    lines = results.contrast_lines(results.contrasts(METHODS, values, items))
    assert len(lines) == 4
    assert lines[0].startswith("| k = 4 | one | x - base | +")
    assert lines[0].endswith("| yes |")
    assert lines[-1].startswith("| all rows | two | y - base | +0.0")
    assert lines[-1].endswith("| 1.000 | no |")
