"""Figures of the results, and the tables of prompts, commands and provenance."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from rundir.synthetic import METHODS

from prompt_jax.report import charts, svg, tables
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import RunDirectory
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


def test_scores_hold_every_seed(loaded, found):
    with svg.drawing():
        drawn = charts.scores(found)
    assert [figure.title for figure in drawn] == ["t/near", "mine/far"]
    assert drawn[0].svg.count("<use") == 2 * 3 * 5


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
    bare = RunDirectory(Path("run"))
    assert tables.commands(bare) == [("Write this page again", "prompt-jax report run")]
    assert tables.python(bare) == ""


def test_provenance(loaded):
    known = dict(tables.provenance(loaded))
    assert known["model.weights_sha256"] == "ab" * 32
    assert known["seeds"] == "0, 1, 2, 3, 4"
    assert "suite" not in known
    rows = [dataclasses.replace(row, suite="f00d") for row in loaded.rows]
    assert tables.provenance(RunDirectory(Path("run"), rows=rows)) == [("suite", "f00d")]


def test_flat():
    tree = {"a": {"b": 1, "c": {"d": "x"}}, "e": [1, None], "f": {}}
    assert list(tables.flat(tree)) == [("a.b", "1"), ("a.c.d", "x"), ("e", "[1, null]")]
