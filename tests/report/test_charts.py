"""Figures of the results, and the tables of prompts, commands and provenance."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from rundir.synthetic import METHODS

from prompt_jax.evaluation import Comparison, Verdict
from prompt_jax.report import charts, svg, tables
from prompt_jax.rundir.findings import Answer, find
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.questions import Question
from prompt_jax.rundir.tables import interval_text


@pytest.fixture(scope="module")
def found(loaded):
    return find(loaded)


def test_forests_hold_every_comparison(loaded, found):
    with svg.drawing():
        drawn = charts.forests(found)
    assert [figure.title for figure in drawn] == ["spot", "full_fine_tuning"]
    for figure in drawn:
        mine = [c for c in found.contrasts if c.method == figure.title]
        assert len(mine) == 4
        for c in mine:
            assert interval_text(c.verdict.comparison) in figure.svg


def test_the_primary_question_stands_first(loaded, found):
    question = Question("spot", "prompt_tuning", role="primary")
    verdict = Verdict(Comparison(0.1, 0.05, 0.15, 0.01, 5, 60), 0.01, True)
    answer = Answer(question, 16, loaded.targets, verdict)
    with svg.drawing():
        spot, full = charts.forests(dataclasses.replace(found, answer=answer))
    assert spot.svg.index("mean of 2 targets: +10.0 [+5.0, +15.0]; t/near") > 0
    assert "mean of" not in full.svg
    # Of two other methods it is no comparison with the baseline.
    answer = dataclasses.replace(answer, question=Question("spot", "full_fine_tuning"))
    with svg.drawing():
        drawn = charts.forests(dataclasses.replace(found, answer=answer))
    assert "mean of" not in "".join(figure.svg for figure in drawn)


def test_scores_hold_every_seed(loaded, found):
    with svg.drawing():
        drawn = charts.scores(found)
    assert [figure.title for figure in drawn] == ["t/near", "mine/far"]
    assert drawn[0].svg.count("<use") == 2 * 3 * 5


def test_no_axis_of_scores_goes_beyond_the_metric(found):
    ranges = dict.fromkeys(found.run.targets, (0.0, 1.0))
    scores = dataclasses.replace(found.scores, ranges=ranges)
    found = dataclasses.replace(found, scores=scores)
    assert charts._within((97.5, 102.5), found) == (97.5, 100.1)
    assert charts._within((-2.0, 50.0), found) == (-1.04, 50.0)
    unknown = dataclasses.replace(found, scores=dataclasses.replace(scores, ranges={}))
    assert charts._within((-2.0, 50.0), unknown) == (-2.0, 50.0)


def test_learning_curves(loaded):
    with svg.drawing():
        drawn = charts.learning(loaded)
    assert [figure.title for figure in drawn] == [
        "t/near, k = 16",
        "mine/far, k = 16",
        "t/near, all rows",
        "mine/far, all rows",
    ]
    # Three methods, five seeds and a mean each: 0.4 + 100/500 + 2/100.
    assert "18 lines over 100 steps; means end at 62, 62, 62" in drawn[0].svg


def test_losses_of_every_stage(loaded):
    with svg.drawing():
        drawn = charts.losses(loaded)
    titles = {figure.title for figure in drawn}
    assert len(titles) == len(drawn) == 7
    assert "prompt_tuning: sources" in titles
    empty = RunDirectory(Path("run"))
    assert charts.losses(empty) == charts.learning(empty) == []


def test_the_legend_has_the_colours_of_the_lines(loaded):
    keys = charts.keys(loaded)
    assert [name for name, _, _ in keys] == list(METHODS)
    assert [role for _, role, _ in keys] == ["c0", "c1", "c2"]
    assert [dashes for _, _, dashes in keys] == ["", "", "10 4"]


def test_the_prompt_is_picked_on_the_development_set(loaded):
    picked = tables.picked(loaded)
    assert [(task, data) for task, data, _ in picked] == [
        ("t/near", "k = 16"),
        ("t/near", "all rows"),
        ("mine/far", "k = 16"),
        ("mine/far", "all rows"),
    ]
    for task, _, prompt in picked:
        others = [p.dev for p in loaded.prompts if p.record.task == task and not p.is_source]
        assert prompt.dev == max(others) == 0.54


def test_commands_can_be_copied(loaded):
    commands = [shlex.split(command) for _, command in tables.commands(loaded)]
    assert [command[1] for command in commands] == [
        "evaluate",
        "predict",
        "prompts",
        "prompts",
        "report",
    ]
    evaluate = commands[0]
    assert evaluate[2] == "models/tiny"
    assert Path(evaluate[3]).is_file()
    assert evaluate[4:] == ["--task", "t/near", "--root", "my data"]
    assert commands[-1][2] == str(loaded.path)
    code = tables.python(loaded)
    compile(code, "page", "exec")
    assert repr(evaluate[3]) in code
    assert code.endswith("print(pj.predict(lm, ['...'], prompt))\n")
    bare = RunDirectory(Path("run"))
    assert tables.commands(bare) == [("Write this page again", "prompt-jax report run")]
    assert tables.python(bare) == ""


def test_provenance(loaded):
    known = dict(tables.provenance(loaded))
    assert list(known) == [
        "command",
        "started",
        "duration",
        "versions",
        "device",
        "model",
        "sha256 of the weights",
        "seeds",
    ]
    assert known["sha256 of the weights"] == "ab" * 32
    assert known["seeds"] == "0, 1, 2, 3, 4"
    rows = [dataclasses.replace(row, suite="f00d") for row in loaded.rows]
    bare = tables.provenance(RunDirectory(Path("run"), rows=rows))
    assert bare == [("sha256 of the generated suite", "f00d")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (190, "3 min 10 s"),
        (7260, "2 h 1 min"),
        (1e6, "277 h 46 min"),
    ]
    + [(x, "") for x in (None, -1, "9", float("nan"), 1e12)],
)
def test_duration(seconds, text):
    run = RunDirectory(Path("run"), provenance={"seconds": seconds})
    assert tables.duration(run) == text


def test_provenance_of_any_form():
    wrong = {"command": 3, "versions": "1", "model": [], "python": None, "device": {}}
    assert tables.provenance(RunDirectory(Path("run"), provenance=wrong)) == []
