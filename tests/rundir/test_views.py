"""All renderings draw from the rows and tables of the findings."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from prompt_jax import report
from prompt_jax.evaluation import Comparison, Verdict, summarise
from prompt_jax.recipes.outputs import RunResult
from prompt_jax.rundir import tables, views
from prompt_jax.rundir.findings import Findings, Row, find
from prompt_jax.rundir.folder import RunDirectory
from rundir.synthetic import METHODS, TARGETS, result


@pytest.fixture(scope="module")
def found(loaded) -> Findings:
    return find(loaded)


@pytest.mark.slow
def test_a_new_row_appears_in_every_rendering(found):
    """What is one more entry of the findings needs no change anywhere else."""
    values = {method: summarise([0.1234, 0.1234]) for method in METHODS}
    rows = [Row(k, "average", "median of medians", "", "made up", values) for k in found.run.shots]
    more = dataclasses.replace(found, rows=(*found.rows, *rows))
    table = views.tables(more)["results"]
    for form in tables.FORMATS:
        text = tables.render(table, form)
        assert "median of medians" in text
        assert text.count("12.3") == len(METHODS) * len(found.run.shots)
    assert "median of medians" in views.summary(more)
    assert "median of medians" in report.render(more)
    cells = [c for c in views.to_dict(more)["cells"] if c["target"] == "median of medians"]
    assert len(cells) == len(METHODS) * 2
    columns = views.results(more, "columns")
    assert [row[1] for row in columns.rows].count("median of medians") == 2


def test_results_have_methods_as_rows_or_columns(found):
    rows = views.results(found)
    assert rows.columns == (
        "",
        "method",
        "t/near (accuracy)",
        "mine/far (accuracy)",
        "macro average (2 targets)",
    )
    assert [row[:2] for row in rows.rows] == [
        (k, m) for k in ("k = 16", "all rows") for m in METHODS
    ]
    columns = views.results(found, "columns")
    assert columns.columns == ("", "target", "metric", *METHODS)
    assert [row[3:] for row in columns.rows[:3]] == list(
        zip(*(r[2:] for r in rows.rows[:3]), strict=True)
    )


def test_results_mark_the_highest_and_what_is_significant(found):
    table = views.results(found)
    for row, (shots, method, *_) in enumerate(table.rows):
        k = 16 if shots == "k = 16" else 0
        for column, target in enumerate(TARGETS, 2):
            marks = table.marks[row, column]
            contrast = found.contrast(method, target, k)
            ahead = contrast is not None and contrast.verdict.effect
            assert ("ahead" in marks) == ahead
            (line,) = (x for x in found.rows if (x.target, x.k) == (target, k))
            highest = max(s.mean for s in line.summaries.values())
            assert ("best" in marks) == (line.summaries[method].mean == highest)
        assert not table.marks[row, 4] & {"ahead", "behind"}


def test_contrasts_name_significance_and_minimum(found):
    table = views.contrasts(found)
    assert table.columns[-1] == "effect"
    assert "significant (p < 0.05) and at least 2 points" in table.note
    assert "8 tests" in table.note
    spot = next(row for row in table.rows if row[1:3] == ("t/near", "spot"))
    assert spot[-1] == "yes"


@pytest.mark.parametrize(
    ("p", "effect", "text"),
    [(0.01, True, "yes"), (0.01, False, "below minimum"), (0.2, False, "no")],
)
def test_effect(p, effect, text):
    verdict = Verdict(Comparison(0.01, 0.0, 0.02, p, 5, 10), p, effect)
    assert views.effect(verdict) == text


def test_lead_is_one_sentence(found):
    assert views.lead(found) == (
        "Significantly ahead of prompt_tuning: spot on 2 of 4 targets and amounts of data."
    )
    none = find(RunDirectory(path=None))  # type: ignore[arg-type]
    assert views.lead(none) == "There are no results yet."


def test_summary_has_the_tables(found):
    text = views.summary(found)
    assert text.startswith(f"# synthetic\n\n{views.lead(found)}\n")
    for name in ("results", "contrasts"):
        assert tables.markdown(views.tables(found)[name]) in text
    assert "- two rows skipped" in text


def test_json_has_all_numbers(found):
    made = views.to_dict(found)
    kinds = [cell["kind"] for cell in made["cells"]]
    assert (kinds.count("target"), kinds.count("average")) == (2 * 2 * 3, 2 * 3)
    assert {c["target"] for c in made["cells"]} == {*TARGETS, "macro average"}
    contrast = made["contrasts"][0]
    assert {"significant", "effect", "p_holm", "low"} <= set(contrast)
    assert made["minimum_effect"] == 0.02
    json.dumps(made, allow_nan=False)
    dead = dataclasses.replace(found.best[0], comparison=None, p=math.nan, cost=math.nan)
    best = views.to_dict(dataclasses.replace(found, best=(dead,)))["best"][0]
    assert best["comparison"] is None


def test_rows_of_tasks_say_what_was_truncated(found):
    table = views.rows_of_tasks(found.run)
    assert table.columns[:4] == ("task", "role", "data", "draws")
    assert ("t/near", "target", "k = 16", "5", "30", "10%", "20", "15%", "60", "5%") in table.rows


def test_rows_of_tasks_are_ranges_over_draws(loaded):
    run = RunDirectory(Path("run"), data={"a": [dict(loaded.data["s/one"][0]) for _ in range(2)]})
    run.data["a"][1]["rows"] = {"train": 1000, "dev": 0, "test": 60}
    (row,) = views.rows_of_tasks(run).rows
    assert (row[4], row[6], row[7]) == ("30 to 1,000", "0 to 20", "15%")


def test_costs_show_ratios_to_the_baseline(found):
    base, spot, _ = views.costs(found).rows[:3]
    assert base[:4] == ("k = 16", "prompt_tuning", "100 GFLOP", "1")
    assert spot[:6] == ("k = 16", "spot", "300 GFLOP", "3", "200", "100")


def test_a_missing_interval_is_said_everywhere(tmp_path):
    """One method is right on all rows of the first seed and on none of the second."""
    rows = [
        result(method, "t", 0, seed, float(seed == good), split=split)
        for method, good in (("base", 1), ("x", 0))
        for seed in (0, 1)
        for split in ("dev", "test")
    ]
    run = RunDirectory(
        tmp_path, rows=rows, methods=("base", "x"), targets=("t",), shots=(0,), seeds=(0, 1)
    )
    findings = find(run)
    table = views.contrasts(findings)
    assert table.rows[0][4] == "none: 2 seeds"
    assert "so few seeds cannot support one" in table.note
    entry = views.to_dict(findings)["contrasts"][0]
    assert math.isnan(entry["low"])
    (cell, _) = [c for c in views.to_dict(findings)["cells"] if c["kind"] == "target"]
    assert math.isnan(cell["low"])
    assert "none: 2 seeds" in tables.to_csv(table)
    assert "none: 2 seeds" in views.summary(findings)
    assert "none: 2 seeds" in tables.latex(table)


def test_chosen_learning_rates_stand_below_the_results(found):
    """In every rendering of the results, and one by one in the JSON."""
    assert views.chosen_rates(found.run) == ""
    assert views.to_dict(found)["rates"] == []
    rates = {0: 3.0, 1: 3.0}
    rows = [
        dataclasses.replace(row, rate=rates.get(row.seed, 1.0), learning_rate=0.3)
        if (row.method, row.k) == (METHODS[1], 16)
        else row
        for row in found.run.rows
    ]
    run = dataclasses.replace(found.run, rows=rows)
    more = dataclasses.replace(found, run=run)
    swept = {row.key: row.rate for row in rows if row.rate is not None}
    expected = (
        "Learning rates that the development set chose, as factors of the budget's:"
        f" {METHODS[1]}, k = 16: 1 (6 replicas), 3 (4 replicas)."
    )
    assert expected in views.results(more).note
    assert views.results(more, "columns").note == views.results(more).note
    assert expected in views.summary(more)
    assert len(views.to_dict(more)["rates"]) == len(swept)
    assert views.to_dict(more)["rates"][0]["rate"] in (1.0, 3.0)


def test_results_are_shown_in_one_line_and_as_a_table_in_a_notebook(found):
    size = f"{str(found.run.path)!r}, 3 methods, 2 targets, 5 seeds"
    assert repr(found.run) == f"RunDirectory({size})"
    assert repr(found) == f"Findings({size})"
    result = RunResult(found, [], [Path("a.safetensors")] * 40)
    assert repr(result) == f"RunResult({size}, 40 target prompts)"
    assert result._repr_markdown_() == tables.markdown(views.results(found))
    table = views.results(found)
    assert repr(table) == f"Table('results', {len(table.rows)} rows x {len(table.columns)} columns)"
    assert table._repr_markdown_() == f"**{table.title}**\n\n{tables.markdown(table)}"
