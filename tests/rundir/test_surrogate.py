"""Choices of surrogate models: their table, their JSON, and how the oracle ranks them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.evaluation.surrogate import Surrogate, random_subsets
from prompt_jax.rundir.surrogate import (
    Judgement,
    Selection,
    SurrogateCell,
    SurrogateReport,
    judge,
    read_oracle,
)

MODEL = Surrogate(0.4, np.array([0.1, -0.2]), 0.75)
ORACLE = {
    "target": "rte",
    "k": 16,
    "seeds": [0, 3],
    "subsets": [
        {"sources": [], "test": [0.4, 0.5]},
        {"sources": ["a"], "test": [0.6, 0.4]},
        {"sources": ["b"], "test": [0.1, None]},
        {"sources": ["a", "b"], "test": [0.3, 0.3]},
    ],
}


def report(*judged: Judgement | None) -> SurrogateReport:
    dev = np.array([0.4, 0.5, np.nan])
    ones = tuple(
        Selection(seed, dev, MODEL, (0.4, 0.6 + seed / 10, np.nan), one)
        for seed, one in enumerate(judged)
    )
    cell = SurrogateCell("rte", 16, "accuracy", ones)
    groups = random_subsets(2, 1, 2)
    return SurrogateReport(Path("run"), "toy", "dtvg", False, ("a", "b"), groups, (cell,))


def test_the_table_has_means_over_seeds_and_the_rank_where_the_oracle_is_known():
    table = report(Judgement(1.0, 100.0, 0.8), Judgement(2.0, 50.0, 0.4)).table()
    (row,) = table.rows
    found = dict(zip(table.columns, row, strict=True))
    assert found[""] == "k = 16"
    assert found["chosen most often"] == "a (2 of 2)"
    assert found["explained"].startswith("75.0")
    assert found["chosen"].startswith("65.0 ±")
    assert found["all"] == "failed"
    assert (found["rank"], found["percentile"], found["correlation"]) == ("1.5", "75", "0.60")
    assert "by 2 random subsets of 1" in table.title
    unknown = report(None, None)
    assert unknown.table().rows[0][-3:] == ("", "", "")
    assert "| k = 16 | rte | accuracy | a (2 of 2) |" in unknown.markdown()


def test_json_has_every_number_and_no_nan():
    text = json.dumps(report(Judgement(1.0, 100.0, float("nan")), None).to_dict())
    assert "NaN" not in text
    made = json.loads(text)
    assert made["subsets"] == [[], ["a"], ["b"]]
    first, second = made["cells"][0]["selections"]
    assert first["dev"] == [0.4, 0.5, None]
    assert first["effects"] == {"a": 0.1, "b": -0.2}
    assert first["chosen"] == ["a"]
    assert first["test"] == {"none": 0.4, "chosen": 0.6, "all": None}
    assert first["oracle"] == {"rank": 1.0, "percentile": 100.0, "correlation": None}
    assert second["oracle"] is None


def test_a_choice_is_ranked_among_all_subsets():
    """Predicted: 0.4, 0.5, 0.2, 0.3; a subset without a score is the worst."""
    assert judge(MODEL, ("a", "b"), ORACLE, 0) == Judgement(1.0, 100.0, pytest.approx(1.0))
    found = judge(MODEL, ("a", "b"), ORACLE, 3)
    assert found == Judgement(2.0, pytest.approx(200 / 3), pytest.approx(0.8))
    assert judge(MODEL, ("a", "b"), ORACLE, 1) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "oracle.json is not there: prompt-jax oracle makes it"),
        ("{", "oracle.json cannot be read"),
        ("[]", "oracle.json cannot be read"),
        ('{"cells": [], "base": "dtvg"}', "oracle.json cannot be read"),
        (
            '{"cells": [], "base": "dtvg", "sources": ["b", "a"]}',
            "oracle.json is of dtvg and the sources b, a",
        ),
    ],
)
def test_why_there_is_no_oracle(tmp_path, text, says):
    if text is not None:
        (tmp_path / "oracle.json").write_text(text)
    assert read_oracle(tmp_path, "dtvg", False, ("a", "b")) == ({}, says)


def test_the_oracle_of_tuned_prompts_is_another_file(tmp_path):
    found = {"cells": [ORACLE], "base": "dtvg", "sources": ["a", "b"]}
    (tmp_path / "oracle_tuned.json").write_text(json.dumps(found))
    assert read_oracle(tmp_path, "dtvg", True, ("a", "b")) == ({("rte", 16): ORACLE}, "")
    assert read_oracle(tmp_path, "dtvg", False, ("a", "b"))[0] == {}
