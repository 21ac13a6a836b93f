"""Several runs of one protocol side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prompt_jax import report
from prompt_jax.errors import DataError
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import read
from prompt_jax.rundir.join import join
from rundir.synthetic import METHODS, write_run


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A run of the same protocol with the baseline and a method of its own."""
    methods = ("prompt_tuning", "task_prompt_vectors")
    return write_run(tmp_path / "other", methods=methods, title="other")


def change(path: Path, file: str, **values: object) -> None:
    facts = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(facts | values))


@pytest.mark.slow
def test_methods_of_all_runs_in_one_table(made, other):
    joined = join([read(made), read(other)])
    assert joined.methods == (*METHODS, "task_prompt_vectors")
    assert joined.config["name"] == "synthetic + other"
    found = find(joined)
    assert [r.summaries.keys() for r in found.rows] == [set(joined.methods)] * 6
    one = find(read(made))
    for row, mine in zip(found.rows, one.rows, strict=True):
        for method in METHODS:
            assert row.summaries[method] == mine.summaries[method]
    text = report.render(found)
    assert "task_prompt_vectors" in text
    assert str(made) in text


def test_equal_results_of_one_method_are_no_problem(made, copy):
    assert join([read(made), read(copy)]).problems == []


def test_different_results_of_one_method_are_named(made, other):
    (problem,) = join([read(made), read(other)]).problems
    assert problem.startswith(f"prompt_tuning is in {made} and in {other} with different")


def test_one_run_is_itself(loaded):
    assert join([loaded]) is loaded


def test_another_protocol_is_refused_with_what_differs(made, other):
    change(other, "config.json", seeds=7, prompt={"tokens": 9}, out="x", name="y")
    with pytest.raises(DataError) as error:
        join([read(made), read(other)])
    text = str(error.value)
    assert "prompt.tokens: 4 -> 9" in text
    assert "seeds: 5 -> 7" in text
    assert "out" not in text.replace(str(other), "")


def test_sources_count_where_both_have_some(made, other):
    change(other, "config.json", sources=[])
    join([read(made), read(other)])
    change(other, "config.json", sources=["s/one"])
    with pytest.raises(DataError, match="sources: "):
        join([read(made), read(other)])


def test_another_model_or_suite_is_refused(made, other, tmp_path):
    lines = (other / "results.jsonl").read_text()
    (other / "results.jsonl").write_text(lines.replace('"suite": ""', '"suite": "h"'))
    joined = join([read(made), read(other)])  # one of them is of text
    assert joined.suites == {"h"}
    again = write_run(tmp_path / "again", methods=("prompt_tuning",))
    lines = (again / "results.jsonl").read_text()
    (again / "results.jsonl").write_text(lines.replace('"suite": ""', '"suite": "other"'))
    with pytest.raises(DataError, match="different editions"):
        join([read(other), read(again)])
    change(other, "provenance.json", model={"weights_sha256": "cd"})
    with pytest.raises(DataError, match="weights_sha256"):
        join([read(made), read(other)])


def test_the_same_weights_under_another_configuration_are_refused(made, other):
    weights = {"weights_sha256": "ab" * 32}
    change(other, "provenance.json", model={**weights, "config": {"d_ff": 8, "epsilon": 1e-6}})
    join([read(made), read(other)])  # one of them is of an earlier version
    change(made, "provenance.json", model={**weights, "config": {"epsilon": 1e-5}})
    with pytest.raises(DataError, match="configuration of the model: epsilon: 1e-05 -> 1e-06"):
        join([read(made), read(other)])
