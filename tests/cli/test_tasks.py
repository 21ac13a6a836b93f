"""`prompt-jax tasks`: the registry as a table, one task, fetching."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prompt_jax.cli.tasks import placeholder_row
from prompt_jax.data import registry
from prompt_jax.data.render import render
from tests.cli.conftest import Invoke, World, sentences


def test_list_shows_every_task(invoke: Invoke) -> None:
    result = invoke("tasks", "list")
    assert result.code == 0
    rows = [line.split() for line in result.out.splitlines()]
    assert {row[0] for row in rows if row} >= set(registry.names())
    assert ["glue/rte", "classification", "accuracy", "2,490", "277"] in rows
    assert invoke("tasks") == result


def test_list_family_as_json(invoke: Invoke) -> None:
    result = invoke("tasks", "list", "--family", "superglue", "--json")
    entries = json.loads(result.out)
    assert [entry["name"] for entry in entries] == [
        task.name for task in registry.families()["SuperGLUE"]
    ]
    assert entries[1]["sizes"]["validation"] == 56
    wrong = invoke("tasks", "list", "--family", "glues")
    assert wrong.code == 2
    assert "unknown family 'glues'. Did you mean 'glue'?" in wrong.err


@pytest.mark.parametrize("name", registry.names())
def test_placeholder_row_of_every_task(name: str) -> None:
    task = registry.get(name)
    for template in task.templates:
        example = render(task, template, placeholder_row(task))
        assert example.input
        assert example.target


def test_show_without_data_uses_a_placeholder_row(invoke: Invoke) -> None:
    result = invoke("tasks", "show", "glue/rte", "--template", "t5")
    assert result.code == 0
    assert "Placeholder row (no data on this machine), under 't5'" in result.out
    assert "input    rte sentence2: [sentence2] sentence1: [sentence1]" in result.out
    assert "answers  entailment | not_entailment" in result.out
    for word in ("metrics   accuracy", "rows      train 2,490", "licence", "* t5"):
        assert word in result.out


def test_show_says_what_label_words_stand_for(invoke: Invoke) -> None:
    plain = invoke("tasks", "show", "glue/rte").out
    assert "answers  yes (entailment) | no (not_entailment)" in plain
    code_words = invoke("tasks", "show", "sandbox/sentiment_talk").out
    assert "labels    negative, positive" in code_words
    assert "* plain    {text}  [stone, lamp]" in code_words
    assert "target   lamp (positive)" in code_words


def test_show_user_task(invoke: Invoke, files: World) -> None:
    result = invoke("tasks", "show", files.tasks["one"])
    first = json.loads((files.root / "one" / "validation.jsonl").read_text().splitlines()[0])
    assert result.code == 0, result.err
    assert f"input    sentence: {first['text']}" in result.out
    assert "First row 1 of validation.jsonl, under 'plain'" in result.out
    as_json = json.loads(invoke("tasks", "show", files.tasks["one"], "--json").out)
    assert as_json["example"]["target"] == first["label"]
    assert as_json["example"]["made_up"] is False


def test_show_with_root_without_data_fails(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("tasks", "show", "mr", "--root", tmp_path)
    assert result.code == 2
    assert "'mr' needs data that is not on this machine" in result.err


def test_show_unknown_template_fails(invoke: Invoke) -> None:
    result = invoke("tasks", "show", "mr", "--template", "plan")
    assert result.code == 2
    assert "unknown template 'plan'. Did you mean 'plain'?" in result.err


def test_fetch(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("prompt_jax.data.fetch", lambda task: tmp_path / task.folder)
    assert invoke("tasks", "fetch", "glue_rte").out == f"glue/rte: {tmp_path / 'glue_rte'}\n"
    monkeypatch.undo()
    without = invoke("tasks", "fetch", "mr")
    assert without.code == 2
    assert "has no public source to fetch" in without.err


# --- a new task file -----------------------------------------------------------------------------


def write_table(folder: Path, name: str = "tickets.csv") -> Path:
    rows = [f'"{text}",{team}' for text, team in sentences(40, 0)]
    path = folder / name
    path.write_text("\n".join(["Ticket text,Team", *rows]) + "\n")
    return path


def test_new_writes_a_task_that_can_be_used(invoke: Invoke, tmp_path: Path) -> None:
    path = write_table(tmp_path)
    result = invoke("tasks", "new", path, "--holdout", "0.25", "--seed", "3")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "answer: column 'Team', for no other column has few different values."
    toml = tmp_path / "tickets.toml"
    assert lines[-1] == f"{toml}: look at it with prompt-jax tasks show {toml}"
    shown = invoke("tasks", "show", toml)
    assert shown.code == 0, shown.err
    assert f"data     {path} (25% are test rows, seed 3)" in shown.out
    assert "answers  food | tool" in shown.out
    again = invoke("tasks", "new", path)
    assert (again.code, again.out) == (2, "")
    assert f"{toml} is there already" in again.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--label", "team"), "has no column 'team'. Did you mean 'Team'?"),
        (("--text", "Team", "--label", "Team"), "column 'Team' is named as text and as label."),
        (("--kind", "regression"), "'Team' has 'food', which is not a number."),
        (("--out", "task.json"), "--out must end in .toml, not be task.json."),
        (("--out", "/proc/t.toml"), "must lie in the folder of"),
        (("--holdout", "2"), "invalid value for '--holdout'"),
    ],
)
def test_new_refuses(invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    path = write_table(tmp_path)
    result = invoke("tasks", "new", path, *arguments)
    assert result.code == 2
    assert says in result.err
    assert [each.name for each in tmp_path.iterdir()] == ["tickets.csv"]
