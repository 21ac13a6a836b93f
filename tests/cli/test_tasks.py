"""`prompt-jax tasks`: the registry as a table, one task, fetching."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import sentences

from prompt_jax.cli.tasks import placeholder_row
from prompt_jax.data import Task, registry
from prompt_jax.data.render import render
from prompt_jax.errors import DataError
from prompt_jax.models.tokenizers import BaseTokenizer
from tests.cli.conftest import Invoke, World


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


def test_show_prints_the_row_as_a_model_reads_it(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Continuing(BaseTokenizer):
        """One id a character; answers follow a cue."""

        def _tokens(self, texts):
            return [[ord(letter) for letter in text] for text in texts]

        def input_text(self, text, cue):
            return f"{text} {cue} ="

        def input_tail(self, cue):
            return len(cue) + 3

        def answer_text(self, text):
            return " " + text

        def encode_inputs(self, texts):
            return self.encode(texts, add_eos=False)

        def encode_answers(self, texts):
            return self.encode([self.answer_text(text) for text in texts])

    class Model:
        tokenizer = Continuing("letters", 0, 1, 2**20)

    monkeypatch.setattr("prompt_jax.cli.loading.load_model", lambda name: Model())
    arguments = ("tasks", "show", "glue/rte", "--template", "t5", "--model", "tiny")
    read = json.loads(invoke(*arguments, "--json").out)["example"]["model"]
    assert read["input"] == "rte sentence2: [sentence2] sentence1: [sentence1] Answer ="
    assert read["target"] == " entailment"
    assert "".join(map(chr, read["target_ids"])) == " entailment\x01"
    assert "".join(map(chr, read["input_ids"])) == read["input"]
    shown = invoke(*arguments).out
    assert "As tiny reads it" in shown
    assert "' entailment'" in shown


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


def own_task(folder: Path, train: str, validation: str) -> Path:
    rows = (("train.csv", train), ("validation.csv", validation))
    for name, text in rows:
        (folder / name).write_text("text,label\n" + text)
    path = folder / "mood.toml"
    path.write_text(
        'name = "mood"\nkind = "classification"\nfields = ["text"]\nlabels = ["low", "high"]\n'
        '[[templates]]\ntext = "{text}"\n'
        '[files]\ntrain = "train.csv"\nvalidation = "validation.csv"\n'
    )
    return path


def test_show_counts_rows_that_are_in_both_files(invoke: Invoke, tmp_path: Path) -> None:
    path = own_task(tmp_path, "a,low\nb,high\nc,low\n", "b,high\nd,low\nc,high\n")
    result = invoke("tasks", "show", path)
    assert result.code == 0, result.err
    assert "rows     train 3, validation 3" in result.out
    shared = "1 of 3 validation rows are training rows too, and 1 with another answer"
    assert f"warning  {shared}" in result.out
    as_json = json.loads(invoke("tasks", "show", path, "--json").out)
    assert as_json["rows"] == {"train": 3, "validation": 3}
    assert as_json["overlap"] == {"same": 1, "other": 1, "rows": 3}


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ("a,low\nb,high\n", "b,high\na,low\n", "train and validation are the same 2 rows"),
        ("a,low\nb,hi\n", "c,low\n", "row 2 of train.csv has label 'hi'"),
        ("a,low\nb,high\n", "", "its validation split has no rows"),
    ],
)
def test_show_refuses_rows_that_cannot_be_used(
    invoke: Invoke, tmp_path: Path, train: str, validation: str, message: str
) -> None:
    result = invoke("tasks", "show", own_task(tmp_path, train, validation))
    assert result.code == 2
    assert message in result.err


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
    result = invoke("tasks", "fetch", "glue_rte", "mr", "glue/rte")
    assert result.out == f"glue/rte: {tmp_path / 'glue_rte'}\nmr: {tmp_path / 'mr'}\n"
    monkeypatch.undo()
    without = invoke("tasks", "fetch", "mr")
    assert without.code == 2
    assert "has no public source to fetch" in without.err
    nothing = invoke("tasks", "fetch")
    assert nothing.code == 2
    assert "name tasks to fetch" in nothing.err


def test_fetch_goes_on_after_a_task_that_cannot_be_fetched(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download(task: Task) -> Path:
        if task.name != "trec":
            raise DataError(f"{task.name} cannot be reached")
        return tmp_path

    monkeypatch.setattr("prompt_jax.data.fetch", download)
    result = invoke("tasks", "fetch", "mr", "trec", "glue/rte")
    assert (result.code, result.out) == (2, f"trec: {tmp_path}\n")
    assert "mr cannot be reached\nglue/rte cannot be reached" in result.err


def test_fetch_for_a_config(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr("prompt_jax.data.fetch", lambda task: tmp_path / task.folder)
    args = ["tasks", "fetch", "--for", "few_shot", f"data.root={tmp_path}"]
    (tmp_path / "glue_cola").mkdir()
    changes = ["sources=glue/cola,sandbox/topic,glue/qnli", "targets=glue/rte"]
    result = invoke(*args, *changes)
    lines = [f"{name}: {tmp_path / name.replace('/', '_')}" for name in ("glue/qnli", "glue/rte")]
    assert result.out.splitlines() == lines, result.err
    assert invoke(*args, *changes, "mr").out.splitlines() == [f"mr: {tmp_path / 'mr'}", *lines]
    here = invoke(*args, "sources=glue/cola", "targets=sandbox/topic")
    assert "the data of all tasks of few_shot is on this machine" in here.out


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
