"""Tables and JSON of what the oracle found, on numbers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from prompt_jax.evaluation import Comparison, Verdict
from prompt_jax.evaluation.subsets import CrossFitEstimate, SubsetScores, subsets
from prompt_jax.rundir.oracle import Choice, OracleCell, OracleReport


def land(seed: int, test: list[float]) -> SubsetScores:
    values = np.asarray(test)
    return SubsetScores(
        seed, np.ones(4), values / 2, values, np.stack([values, values]), np.ones(6, bool)
    )


def report(*choices: Choice) -> OracleReport:
    lands = (land(0, [0.4, 0.5, 0.6, 0.7]), land(3, [0.2, np.nan, 0.6, 0.5]))
    cell = OracleCell(
        "rte",
        16,
        "accuracy",
        0.02,
        lands,
        (CrossFitEstimate((3, 3), 0.65, None), CrossFitEstimate((2, 3), 0.55, None)),
        (CrossFitEstimate((2, 2), 0.6, None), CrossFitEstimate((2, 0), 0.4, None)),
        Verdict(Comparison(0.1, -0.05, 0.25, 0.2, 2, 1), 0.4, False),
        choices,
    )
    return OracleReport(Path("run"), "toy", "dtvg", False, ("a", "b"), subsets(2), (cell,))


def test_the_table_has_means_over_seeds_in_points():
    table = report().table()
    (row,) = table.rows
    found = dict(zip(table.columns, row, strict=True))
    assert (found[""], found["target"], found["metric"]) == ("k = 16", "rte", "accuracy")
    assert found["none"].startswith("30.0 ±")
    assert found["all"].startswith("60.0 ±")
    assert found["best of none, one, all"].startswith("50.0 ±")
    assert found["best of all subsets"].startswith("60.0 ±")
    assert found["difference [95 %]"] == "+10.0 [-5.0, +25.0]"
    assert (found["p"], found["effect"]) == ("0.400", "no")
    # The best on its own items: a subset that died is not it.
    assert found["same items"].startswith("65.0 ±")


def test_choices_are_averaged_by_method():
    made = report(
        Choice("dtvg", 0, 3, 0.7, 1.0, 100.0, 0.8),
        Choice("dtvg", 3, 3, 0.5, 2.0, 50.0, 0.8),
        Choice("spot", 0, 0, 0.4, 4.0, 0.0, 0.9),
    )
    table = made.choice_table()
    rows = table.rows
    assert table.columns[2:4] == ("method", "most often")
    assert [row[2] for row in rows] == ["dtvg", "spot"]
    assert rows[0][3] == "a + b (2 of 2)"
    assert rows[0][5:] == ("1.5 of 4", "75")
    assert rows[1][3:] == ("none (1 of 1)", "40.0", "4.0 of 4", "0")
    assert "| k = 16 | rte | spot | none (1 of 1) |" in made.markdown()


def test_without_choices_there_is_one_table():
    assert report().choice_table().rows == ()
    text = report().markdown()
    assert text.startswith("# toy: all subsets of 2 sources\n")
    assert "percentile" not in text


def test_json_has_every_subset_and_no_nan():
    text = json.dumps(report(Choice("spot", 3, 1, float("nan"), 4.0, 0.0, 0.9)).to_dict())
    assert "NaN" not in text
    (cell,) = json.loads(text)["cells"]
    assert cell["seeds"] == [0, 3]
    assert [s["sources"] for s in cell["subsets"]] == [[], ["a"], ["b"], ["a", "b"]]
    assert cell["subsets"][1]["test"] == [0.5, None]
    assert cell["subsets"][1]["halves"] == [[0.5, 0.5], [None, None]]
    assert cell["subsets"][2]["dev"] == [0.3, 0.3]
    assert cell["best_of_all"][1] == {"value": 0.55, "chosen": [["b"], ["a", "b"]]}
    assert cell["contrast"]["p_holm"] == 0.4
    assert cell["choices"][0]["test"] is None
    assert cell["optimistic"] == [0.7, 0.6]
