"""Published numbers: the data file, and where a run stands beside them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from prompt_jax import published
from prompt_jax.data import registry
from prompt_jax.methods import REGISTRY
from prompt_jax.rundir import published as beside
from prompt_jax.rundir.folder import RunDirectory

from .synthetic import result

ROOT = Path(__file__).resolve().parents[2]
PLANNED = {"attempt", "mpt"}  # methods of the papers that are not written yet
TARGETS = ("glue/cola", "super_glue/cb", "mr")


def run(metric: str = "matthews", data=None, shots=(0,), **config) -> RunDirectory:
    data = {"protocol": "attempt", **(data or {})}
    methods = ("prompt_tuning", "spot", "spot(keys=final)")
    rows = [
        result(method, target, k, seed, value + seed / 100, metric=metric)
        for target in TARGETS
        for method, value in (("prompt_tuning", 0.5), ("spot", 0.6))
        for k in shots
        for seed in (0, 1)
    ]
    return RunDirectory(
        Path("run"),
        config={"model": "t5-base", "target": {"steps": 30_000}, "data": data, **config},
        rows=rows,
        methods=methods,
        targets=TARGETS,
        shots=shots,
        seeds=(0, 1),
    )


def test_the_file_names_tasks_metrics_and_methods_that_exist():
    tables = published.tables()
    assert len({table.name for table in tables}) == len(tables) == 7
    for table in tables:
        assert table.source
        assert table.model == "t5-base"
        for column, (task, metric) in table.targets.items():
            assert registry.get(task).name == task
            known = registry.get(task).metrics
            assert metric in (*known, "") or table.name == "tpv_few_shot", column
        for row in table.rows:
            assert set(row.values) <= set(table.targets)
            assert set(row.std) <= set(row.values)
            assert all(-5 <= value <= 100 for value in row.values.values())
            assert row.spec in {"", *REGISTRY, *PLANNED}


@pytest.mark.parametrize(
    ("table", "method", "column", "text"),
    [
        ("glue_superglue", "Prompt tuning, replicated by ULPT", "CoLA", "59.5"),
        ("glue_superglue", "SPoT", "CB", "46.4"),
        ("glue_superglue", "ATTEMPT", "RTE", "74.3"),
        ("mrqa_others", "Prompt tuning, replicated by ULPT", "PAWS", "57.9"),
        ("dept_released", "DePT, one run", "MultiRC", "74.3"),
        ("dtvg", "DTVG", "CB", "97.6"),
        ("tpv_cross_origin", "Vector on another initialisation", "TREC", "26.5 ± 18.2"),
        ("tpv_few_shot", "Prompt tuning from a random start", "SciTail", "75.6 ± 0.5"),
    ],
)
def test_cells(table, method, column, text):
    (found,) = (t for t in published.tables() if t.name == table)
    (row,) = (r for r in found.rows if r.method == method)
    assert row.cell(column) == text
    assert row.cell("nothing") == "-"


def test_the_page_is_made_from_the_file():
    path = ROOT / "tools" / "published_page.py"
    spec = importlib.util.spec_from_file_location("published_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page()
    assert "0.78" in module.page()  # of the same task's vectors from other initialisations


def test_a_run_stands_beside_published_cells_of_its_metric():
    tables = {table.name: table for table in beside.tables(run())}
    assert set(tables) == {"published_glue_superglue", "published_dept_released", "published_dtvg"}
    rows = tables["published_glue_superglue"].rows
    assert {row[1:3] for row in rows} == {("glue/cola", "matthews")}  # CB's metric is accuracy
    assert ("all rows", "glue/cola", "matthews", "SPoT", "57.1", "spot", "60.5 ± 0.7") in rows
    tuned = "Prompt tuning, replicated by ULPT"
    assert [row[4:] for row in rows if row[3] == tuned] == [("59.5", "prompt_tuning", "50.5 ± 0.7")]
    assert ("all rows", "glue/cola", "matthews", "MPT", "62.4", "-", "-") in rows
    note = tables["published_glue_superglue"].note
    for text in (
        "measured by others, not by this run, and part of no contrast",
        "ULPT",
        "T5 v1.0",
        "answers: theirs generated digits, ours ranked words",
        "dropout: theirs 0.1 (inferred from the code), ours 0",
        "steps on the target: theirs not read, ours 30,000",
    ):
        assert text in note


def test_what_agrees_is_not_said_to_differ():
    made = run(data={"answers": "digits"}, prompt={"tokens": 100}, model="hub/T5-base/")
    note = beside.tables(made)[0].note
    assert "answers:" not in note
    assert "prompt tokens" not in note


@pytest.mark.parametrize(
    ("metric", "data", "change"),
    [
        ("matthews", {"protocol": "development"}, {}),
        ("matthews", {"protocol": "task_prompt_vectors"}, {}),
        ("matthews", {"train_rows": 100}, {}),
        ("matthews", {"test_rows": 100}, {}),
        ("matthews", {}, {"model": "t5-small"}),
        ("matthews", {}, {"shots": (16,)}),
        ("f1", {}, {}),
    ],
)
def test_a_run_of_another_protocol_stands_beside_none(metric, data, change):
    assert beside.tables(run(metric, data, **change)) == []


@pytest.mark.parametrize("config", [{}, {"data": 3}, {"data": {"protocol": [1]}}, {"model": 5}])
def test_a_damaged_config_stands_beside_none(config):
    made = run()
    made.config = config
    assert beside.tables(made) == []


def test_shots_are_rows_in_all():
    data = {"protocol": "task_prompt_vectors", "shots_count": "total"}
    made = dataclasses.replace(
        run(),
        config={"model": "t5-base", "data": data},
        rows=[result("prompt_tuning", "imdb", 100, 0, 0.9, metric="f1")],
        targets=("imdb",),
        shots=(100,),
    )
    (table,) = beside.tables(made)
    assert table.rows[0] == (
        "k = 100",
        "imdb",
        "f1",
        "Prompt tuning from a random start",
        "89.4 ± 0.4",
        "prompt_tuning",
        "90.0",
    )
    made.config["data"]["shots_count"] = "per_class"
    assert beside.tables(made) == []


def test_json_is_plain():
    text = (Path(published.__file__).parent / "numbers.json").read_text("utf-8")
    assert json.loads(text)["tables"]
