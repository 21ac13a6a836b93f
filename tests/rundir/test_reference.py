"""Reference lines and doubts: in the file, the findings and every rendering."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from prompt_jax.run_key import RunKey
from prompt_jax.rundir import archive, contrasts, folder, join, reference, tables, views
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.questions import Question
from prompt_jax.rundir.reference import Line, Reference, TestedRun
from prompt_jax.rundir.results import write_rows
from rundir.synthetic import result

TestedRun.__test__ = False
METHODS, TARGETS, SEEDS = ("base", "x"), ("t/one", "t/two"), (0, 1, 2)
# Method x is below the majority class on the second target.
VALUES = {
    ("base", "t/one"): 0.7,
    ("base", "t/two"): 0.6,
    ("x", "t/one"): 0.9,
    ("x", "t/two"): 0.4,
}
LINES = [
    Line("majority", "t/one", {"accuracy": 0.5, "f1": math.nan}, "yes"),
    Line("no_prompt", "t/one", {"accuracy": 0.25}),
    Line("majority", "t/two", {"accuracy": 0.55}, "no"),
    Line("no_prompt", "t/two", {"accuracy": 0.35}),
]


def run_of(method: str, target: str, seed: int) -> TestedRun:
    """Method x is still rising on the first target, and answers one class on the second."""
    key = RunKey(method, "target", target, 16, seed)
    last = 0.8 if (method, target) == ("x", "t/one") else 0.6
    share = 0.98 if (method, target) == ("x", "t/two") else 0.5
    return TestedRun(key, ((0, 0.5), (10, 0.6), (20, last)), "no", share, 0.55, 0)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    config = {
        "name": "toy",
        "methods": list(METHODS),
        "targets": list(TARGETS),
        "shots": [16],
        "sources": [],
    }
    (made / "config.json").write_text(json.dumps(config))
    rows = [
        result(m, t, 16, seed, value, split=split)
        for (m, t), value in VALUES.items()
        for seed in SEEDS
        for split in ("dev", "test")
    ]
    write_rows(made / "results.jsonl", rows)
    runs = [run_of(m, t, s) for m, t in VALUES for s in SEEDS]
    reference.write(made, Reference(LINES, runs))
    return made


def test_what_is_written_is_read(run_folder: Path) -> None:
    read = folder.read(run_folder).reference
    assert math.isnan(read.lines[0].metrics["f1"])
    assert [line.kind for line in read.lines] == [line.kind for line in LINES]
    assert [line.answer for line in read.lines] == ["yes", "", "no", ""]
    assert read.runs == [run_of(m, t, s) for m, t in VALUES for s in SEEDS]
    assert read.values("t/one", "accuracy") == {"majority": 0.5, "no_prompt": 0.25}
    assert read.values("t/one", "f1") == {}


def test_lines_stand_in_every_rendering(run_folder: Path) -> None:
    found = find(folder.read(run_folder))
    by_name = {row.name: row.reference for row in found.rows}
    assert by_name["macro average"] == pytest.approx({"majority": 0.525, "no_prompt": 0.3})
    by_rows, by_columns = views.results(found), views.results(found, "columns")
    assert by_rows.rows[-2:] == (
        ("k = 16", "majority class", "50.0", "55.0", "52.5"),
        ("k = 16", "no prompt", "25.0", "35.0", "30.0"),
    )
    assert by_columns.columns[-2:] == ("majority class", "no prompt")
    assert [row[-2:] for row in by_columns.rows] == [
        ("50.0", "25.0"),
        ("55.0", "35.0"),
        ("52.5", "30.0"),
    ]
    assert by_rows.rows[0][2:] == ("70.0 ± 0.0", "60.0 ± 0.0", "65.0 ± 0.0")  # as without them
    assert "(t/one: yes; t/two: no)" in by_rows.note
    for text in (tables.to_csv(by_rows), tables.latex(by_rows), views.summary(found)):
        assert "majority class" in text
        assert "no prompt" in text
    made = views.to_dict(found)["reference"]
    assert made[0] == {
        "kind": "target",
        "target": "t/one",
        "k": 16,
        "metric": "accuracy",
        "line": "majority class",
        "value": 0.5,
        "answer": "yes",
    }
    assert (made[-1]["target"], made[-1]["line"]) == ("macro average", "no prompt")
    assert {cell["method"] for cell in views.to_dict(found)["cells"]} == set(METHODS)


def test_doubts(run_folder: Path) -> None:
    found = find(folder.read(run_folder))
    doubts = [line for line in found.warnings if line.startswith(("x,", "base,"))]
    assert doubts == [
        "x, k = 16: the development metric was still rising at the last evaluation on t/one (3 of 3"
        " seeds): train longer.",
        "x, k = 16: nearly all answers are one class only on t/two (3 of 3 seeds).",
        "x, k = 16: below the majority class on t/two (40.0 < 55.0).",
    ]
    assert all(line in views.to_dict(found)["warnings"] for line in doubts)
    assert all(line in views.summary(found) for line in doubts)


@pytest.mark.parametrize(
    ("values", "rising"),
    [
        ([0.2, 0.4, 0.6], True),
        ([0.27, 0.29, 0.44, 0.77], True),
        ([0.6, 0.6, 0.6], False),
        ([0.6, 0.605], False),  # not clearly
        ([0.2, 0.8, 0.7], False),
        ([0.9, 1.0], False),  # nothing is left to rise to
        ([0.6], False),
        ([math.nan, 0.6], False),
        ([], False),
    ],
)
def test_still_rising(values: list[float], rising: bool) -> None:
    history = tuple(enumerate(values))
    assert TestedRun(RunKey(), history).still_rising == rising


def test_one_class_is_one_that_the_rows_do_not_have_as_often() -> None:
    assert TestedRun(RunKey(), answer="a", share=0.97, gold=0.5).one_class
    assert not TestedRun(RunKey(), answer="a", share=0.97, gold=0.95).one_class
    assert not TestedRun(RunKey(), answer="a", share=0.9, gold=0.5).one_class


def test_averages_of_classifications_and_choices() -> None:
    both = [{"majority": 0.6, "no_prompt": 0.2}, {"chance": 0.5, "no_prompt": 0.4}]
    assert reference.average(both) == pytest.approx({"chance": 0.55, "no_prompt": 0.3})
    assert reference.average([{"majority": 0.6, "no_prompt": 0.2}, {"no_prompt": 0.4}]) == {
        "no_prompt": pytest.approx(0.3)
    }
    assert reference.average([]) == {}


def test_runs_without_the_file_and_damaged_ones(run_folder: Path) -> None:
    path = run_folder / reference.NAME
    good = json.loads(path.read_text())
    for change in (
        {"lines": [{**good["lines"][0], "kind": "best"}, *good["lines"][1:]]},
        {"lines": [{**good["lines"][0], "metrics": {"accuracy": 7}}, *good["lines"][1:]]},
        {"runs": [{**good["runs"][0], "share": "all"}, *good["runs"][1:]]},
        {"runs": 3},
    ):
        path.write_text(json.dumps(good | change))
        run = folder.read(run_folder)
        assert "reference.json is damaged: some of its entries were left out." in run.problems
        find(run)
    path.write_text("[")
    assert sum("reference.json" in line for line in folder.read(run_folder).problems) == 1
    path.unlink()
    run = folder.read(run_folder)
    assert not any("reference" in line for line in run.problems)
    assert len(views.results(find(run)).rows) == 2


def test_lines_survive_archives_and_joins(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "provenance.json").write_text("{}")
    import numpy as np

    np.savez(run_folder / "items.npz")
    (read,) = archive.read([archive.pack(run_folder, tmp_path / "archives")])
    assert read.reference.lines == folder.read(run_folder).reference.lines or len(
        read.reference.lines
    ) == len(LINES)
    first, second = folder.read(run_folder), folder.read(run_folder)
    first.methods, second.methods = ("base",), ("x",)
    first.rows = [row for row in first.rows if row.method == "base"]
    joined = join.join([first, second])
    assert len(joined.reference.lines) == len(LINES)
    assert {run.key.method for run in joined.reference.runs} >= {"x"}


def test_lines_stand_beside_the_means_of_declared_questions(run_folder: Path) -> None:
    asked = Question("x", "base", TARGETS, role="primary")
    means = contrasts.answer([folder.read(run_folder)], [asked]).means
    assert means.rows[-2:] == (("majority class", "52.5"), ("no prompt", "30.0"))
    assert [row[0] for row in means.rows] == [*METHODS, "majority class", "no prompt"]
