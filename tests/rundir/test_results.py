"""Result rows and items: written, read back, damaged, and in the earlier form."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from prompt_jax.errors import DataError
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import results
from rundir.synthetic import result


def row(method, target, k, seed, value, **facts):
    return result(method, target, k, seed, value, **facts)


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
        {"task": None},
        {"k": None},
        {"trial": "1"},
        {"stage": 2},
        {"chosen": "a"},
        {"chosen": [1]},
    ],
)
def test_lines_that_are_no_rows(tmp_path, change):
    good = json.dumps(row("base", "one", 4, 0, 0.5).record())
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
    rows, bad = results.parse_rows(json.dumps(made.record()))
    assert (rows, bad) == (([made], []) if good else ([], [1]))


def test_a_line_has_the_fields_of_the_key_by_name():
    line = row("spot", "glue/rte", 16, 3, 0.5).record()
    key = {"method": "spot", "stage": "target", "task": "glue/rte", "k": 16, "seed": 3, "trial": 0}
    assert {name: line[name] for name in key} == key
    assert "target" not in line


def test_a_line_without_a_part_of_the_key_is_none():
    line = row("spot", "glue/rte", 16, 3, 0.5).record()
    for name in ("method", "task", "k", "seed"):
        short = {key: value for key, value in line.items() if key != name}
        assert results.parse_rows(json.dumps(short)) == ([], [1])


def test_rows_of_the_earlier_form():
    facts = row("base", "one", 4, 7, 0.5).record()
    facts["target"] = facts.pop("task")
    for name in ("stage", "trial", "trials", "chosen"):
        del facts[name]
    ((old,), bad) = results.parse_rows(json.dumps(facts))
    assert (old.key, bad) == (RunKey(method="base", task="one", k=4, seed=7), [])
    assert (old.target, old.trials, old.chosen) == ("one", 1, None)


def test_items_of_the_earlier_form(tmp_path):
    np.savez_compressed(tmp_path / "items.npz", **{"m(a=1, b=2)\tt/x\t4\t1": np.ones(3)})
    (key,) = results.read_items(tmp_path / "items.npz")
    assert key == RunKey(method="m(a=1, b=2)", task="t/x", k=4, seed=1)


def test_items_come_back(tmp_path):
    keys = [RunKey("m(a=1, b=2)", "target\tx", "t/x", 4, s, s) for s in range(2)]
    items = {key: np.arange(5) / 5 for key in keys}
    results.write_items(tmp_path / "items.npz", items)
    found = results.read_items(tmp_path / "items.npz")
    assert set(found) == set(items)
    for key, scores in found.items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, items[key], rtol=1e-6)
    results.write_items(tmp_path / "items.npz", {})
    assert results.read_items(tmp_path / "items.npz") == {}


@pytest.mark.parametrize(
    "keys", [b"", b"[1]", b"[{}, {}]", b'[{"task": 3}]', b"[" * 100_000], ids=range(5)
)
def test_damaged_keys_of_items(tmp_path, keys):
    arrays = {"0": np.ones(3), "keys": np.frombuffer(keys, np.uint8)}
    np.savez_compressed(tmp_path / "items.npz", **arrays)
    with pytest.raises(DataError, match=r"items\.npz holds no per-item scores"):
        results.read_items(tmp_path / "items.npz")


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
