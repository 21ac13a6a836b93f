"""`prompt-jax tune`: from a table to a prompt and back to an answer."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import toy
from world import sentences

import prompt_jax as pj
from prompt_jax.data import registry
from tests.cli.conftest import Invoke, World

# The shapes of the other tests of this folder: no program is compiled for this one alone.
SMALL = (
    "methods=prompt_tuning(rates=[1,3])",
    f"prompt.tokens={toy.L}",
    "prompt.init=vocab:20",
    "data.max_input_tokens=8",
    "data.max_target_tokens=4",
    "data.dev_rows=8",
    "target.steps=3",
    f"target.batch_size={toy.B}",
    "target.eval_every=1",
    f"target.micro_batch_tokens={toy.MICRO_TOKENS}",
)


def write_table(folder: Path, count: int = 42) -> Path:
    """Different sentences, the last two rows as the first two in other letters."""
    rows = dict(sentences(300, 0))
    lines = [f"{text},{label}" for text, label in list(rows.items())[: count - 2]]
    lines += [line[:1].upper() + line[1:] for line in lines[:2]]
    path = folder / "Things seen.csv"
    path.write_text("\n".join(["Sentence,Kind of thing", *lines]) + "\n")
    return path


@pytest.mark.slow
def test_from_a_table_to_an_answer(invoke: Invoke, files: World, tmp_path: Path) -> None:
    table = write_table(tmp_path)
    out = tmp_path / "run"
    arguments = ("tune", table, "--model", files.model, "--out", out, *SMALL)
    arguments += (f"data.cache={tmp_path / 'cache'}",)
    plan = invoke(*arguments, "--dry-run")
    assert (plan.code, plan.err) == (0, "")
    assert not out.exists()

    result = invoke(*arguments)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert (
        lines[0] == "answer: column 'Kind of thing', for no other column has few different values."
    )
    assert lines[1] == "input: column 'Sentence', for it is named like a text."
    assert (
        "rows: 25 to train, 8 to choose the learning rate and the step, 9 to test at the end."
        in (lines)
        or any(line.startswith("rows: ") for line in lines)
    )
    assert any(
        line.startswith("rows: 2 of 42 rows repeat the text of another row") for line in lines
    )
    assert "label words: the model answers 'food' for food, 'tool' for tool." in lines

    # An ordinary run directory: it is resumed, and another reading does not touch it.
    (prompt,) = (out / "prompts").rglob("*.safetensors")
    config = json.loads((out / "config.json").read_text())
    assert config["targets"] == [str(out / "task" / "Things_seen.toml")]
    assert (out / "task" / table.name).read_bytes() == table.read_bytes()
    again = invoke(*arguments, "--json")
    assert again.code == 0, again.err
    reused = json.loads(again.out)["reused"]
    assert all(stage["reused"] == stage["runs"] for stage in reused)
    plan = invoke(*arguments, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    other = invoke(*arguments, "--holdout", "0.3")
    assert other.code == 2
    assert "holds a run of another reading of the rows" in other.err

    # What is printed at the end works as it stands.
    start = next(i for i, line in enumerate(lines) if line.startswith("Use the prompt"))
    assert lines[start] == f"Use the prompt, {prompt}"
    text, _, predict = lines[start + 1].strip().removeprefix("echo ").partition(" | prompt-jax ")
    answer = invoke(*predict.split(), stdin=text.strip("'").encode() + b"\n")
    assert answer.code == 0, answer.err
    said = answer.out.split()[0]
    assert said in ("food", "tool")
    tree = ast.parse("\n".join(line.strip() for line in lines[start + 2 :]))
    imported, assigned, printed = tree.body
    assert ast.unparse(imported) == "import prompt_jax as pj"
    assert isinstance(assigned, ast.Assign)
    assert isinstance(assigned.value, ast.Tuple)
    load, read = assigned.value.elts
    assert [ast.unparse(each.func) for each in (load, read)] == [  # type: ignore[attr-defined]
        "pj.from_pretrained",
        "pj.SoftPrompt.load",
    ]
    lm = pj.from_pretrained(ast.literal_eval(load.args[0]))  # type: ignore[attr-defined]
    soft = pj.SoftPrompt.load(ast.literal_eval(read.args[0]))  # type: ignore[attr-defined]
    call = printed.value.args[0]  # type: ignore[attr-defined]
    assert ast.unparse(call).startswith("pj.predict(lm, [")
    (found,) = pj.predict(lm, ast.literal_eval(call.args[1]), soft)
    assert found.label == said


def test_what_is_refused(invoke: Invoke, files: World, tmp_path: Path) -> None:
    table = write_table(tmp_path)
    out = tmp_path / "run"
    for arguments, says in (
        (("--label", "Kind thing"), "no column 'Kind thing'. Did you mean 'Kind of thing'?"),
        (("--kind", "regression"), "'Kind of thing' has 'food', which is not a number."),
        (("--holdout", "1"), "invalid value for '--holdout'"),
        (("--out", "memory://run"), "out must be a directory of this machine"),
        (("--model", "nowhere/at/all"), "There is no directory nowhere/at/all."),
        (("steps=3",), "unknown option 'steps' in overrides. Did you mean one of these"),
        (("model=t5-base",), "override 'model=t5-base': use --model (model=) instead"),
        (("out=x",), "override 'out=x': use --out (out=) instead"),
        (
            ("dtype=float16",),
            "option 'dtype' must be one of float32, bfloat16, auto, not 'float16'",
        ),
        (("--lr", "3"), "unknown option '--lr'. Write source.optimizer.learning_rate=3"),
    ):
        command = ("tune", table, "--out", out, "--model", files.model, *arguments)
        result = invoke(*command, "--dry-run")
        assert result.code == 2, arguments
        assert says in result.err
        assert not out.exists()
    (tmp_path / "rows.xlsx").touch()
    other = invoke("tune", tmp_path / "rows.xlsx")
    assert other.code == 2
    assert "rows.xlsx: unknown file format; use one of .jsonl" in other.err
    missing = invoke("tune", tmp_path / "none.csv")
    assert missing.code == 2
    assert "none.csv cannot be read" in missing.err


def test_a_task_is_tuned_too(
    invoke: Invoke, files: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = []

    def execute(loaded: object, *_: object, **__: object) -> None:
        got.append(loaded)

    monkeypatch.setattr("prompt_jax.cli.run.execute", execute)
    result = invoke("tune", files.tasks["one"], "--model", files.model, "--seed", "4", "--json")
    assert result.code == 0, result.err
    (config,) = got
    assert config.targets == (files.tasks["one"],)
    assert (config.name, config.first_seed) == (registry.get(files.tasks["one"]).name, 4)


def test_the_default_model_is_said_to_be_a_toy(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prompt_jax.errors import ModelError

    def load(*_: object, **__: object) -> None:
        raise ModelError("enough.")

    monkeypatch.setattr("prompt_jax.models.load", load)
    result = invoke("tune", write_table(tmp_path))
    assert result.err.splitlines()[0].startswith("prompt-jax: mini is a toy that reads a small")
    assert result.err.splitlines()[1] == "prompt-jax: enough."
