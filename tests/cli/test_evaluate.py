"""`prompt-jax evaluate`: the numbers of the run, other formats, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.cli import loading
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import PromptRecord, SoftPrompt, to_npy, to_peft
from tests.cli.conftest import Invoke, Rowwise, World


def results(world: World) -> dict[tuple[str, int, str], float]:
    """(method, k, split) -> accuracy on task `one`, as the run wrote it."""
    lines = (world.folder / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        (row["method"], row["k"], row["split"]): row["value"]
        for row in rows
        if (row["task"], row["metric"], row["seed"]) == (world.tasks["one"], "accuracy", 0)
    }


@pytest.mark.slow
def test_prompts_score_what_the_run_said(invoke: Invoke, world: World) -> None:
    asked = [("prompt_tuning", "all"), ("spot", "k4")]
    paths = [world.prompt(method, "one", shots) for method, shots in asked]
    for split in ("test", "dev"):
        result = invoke(
            "evaluate",
            world.model,
            *paths,
            "--task",
            world.tasks["one"],
            "--split",
            split,
            "--json",
        )
        assert result.code == 0, result.err
        found = json.loads(result.out)
        expected = [
            results(world)[method, 4 if shots == "k4" else 0, split] for method, shots in asked
        ]
        assert [entry["metrics"]["accuracy"] for entry in found] == pytest.approx(expected)
        # few-shot runs choose on k rows per class, as they were drawn
        assert [entry["rows"] for entry in found] == 2 * [24 if split == "test" else 8]


@pytest.mark.slow
def test_a_trained_row_wise_method_scores_what_the_run_said(
    invoke: Invoke, world: World, rowwise: Rowwise
) -> None:
    lines = (rowwise.folder / "results.jsonl").read_text().splitlines()
    rows = {row["split"]: row for row in map(json.loads, lines) if row["metric"] == "accuracy"}
    for split in ("test", "dev"):
        result = invoke(
            "evaluate",
            world.model,
            rowwise.file,
            world.prompt("spot"),  # beside a prompt of the same length
            "--task",
            world.tasks["one"],
            "--split",
            split,
            "--json",
        )
        assert result.code == 0, result.err
        method, spot = json.loads(result.out)
        assert method["metrics"]["accuracy"] == rows[split]["value"]
        assert spot["metrics"]["accuracy"] == pytest.approx(results(world)["spot", 0, split])


@pytest.mark.slow
def test_a_trained_method_of_another_model_or_a_damaged_one_is_refused(
    invoke: Invoke, world: World, rowwise: Rowwise, tmp_path: Path
) -> None:
    result = invoke("evaluate", world.other_model, rowwise.file, "--task", world.tasks["one"])
    assert result.code == 2
    assert "was made for base model" in result.err
    raw = bytearray(Path(rowwise.file).read_bytes())
    raw[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(raw)
    result = invoke(
        "evaluate", world.model, tmp_path / "damaged.safetensors", "--task", world.tasks["one"]
    )
    assert result.code == 2
    assert "damaged.safetensors is damaged" in result.err


@pytest.mark.slow
def test_the_table_and_its_options(invoke: Invoke, world: World) -> None:
    paths = [world.prompt("prompt_tuning"), world.prompt("spot")]
    result = invoke(
        "evaluate",
        world.model,
        *paths,
        "--task",
        world.tasks["one"],
        "--max-rows",
        7,
        "--metrics",
        "macro_f1,accuracy",
    )
    assert result.code == 0, result.err
    head, columns, _, first, second = result.out.splitlines()
    assert head == "one, test rows, in points, on tiny"
    assert columns.split() == ["prompt", "rows", "macro_f1", "accuracy"]
    assert first.split()[:2] == ["prompt_tuning/one-all-seed0", "7"]
    assert second.split()[:2] == ["spot/one-all-seed0", "7"]


@pytest.mark.slow
def test_cut_inputs_are_counted(invoke: Invoke, world: World) -> None:
    paths = [world.prompt("prompt_tuning"), world.prompt("spot")]
    result = invoke(
        "evaluate", world.model, *paths, "--task", world.tasks["one"], "--max-input-tokens", 4
    )
    assert result.code == 0
    assert result.err == "prompt-jax: 24 inputs were too long and were truncated.\n"


@pytest.mark.slow
def test_formats_that_do_not_name_their_weights(
    invoke: Invoke, world: World, tmp_path: Path
) -> None:
    prompt = SoftPrompt.load(world.prompt("spot"))
    shorter = SoftPrompt(np.asarray(prompt.embeddings)[:2])
    to_peft(prompt, tmp_path / "adapter")
    to_npy(shorter, tmp_path / "short.npy")  # another length: another population
    result = invoke(
        "evaluate",
        world.model,
        tmp_path / "adapter",
        tmp_path / "short.npy",
        world.prompt("spot"),
        "--task",
        world.tasks["one"],
        "--json",
    )
    assert result.code == 0, result.err
    adapter, short, original = json.loads(result.out)
    assert adapter["metrics"] == original["metrics"]
    assert short["rows"] == 24
    warnings = result.err.splitlines()
    assert len(warnings) == 2
    assert f"(model name: {world.model}); assumed: tiny." in warnings[0]
    assert "short.npy has no hash of its model's weights" in warnings[1]


@pytest.mark.slow
def test_a_prompt_of_another_model_is_refused(invoke: Invoke, world: World) -> None:
    arguments = ["evaluate", world.other_model, world.prompt("spot"), "--task", world.tasks["one"]]
    result = invoke(*arguments)
    assert result.code == 2
    ours, theirs = (
        FrozenT5.from_pretrained(path).weights_hash for path in (world.model, world.other_model)
    )
    assert f"was made for base model {ours[:4]}" in result.err
    assert f"this model is {theirs[:4]}" in result.err
    other = FrozenT5.from_pretrained(world.other_model)
    (named,) = loading.load_prompts([world.prompt("spot")], other, allow_other_model=True)
    assert named.name == "one-all-seed0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "train"], "--split must be one of test, dev, not 'train'."),
        (["--metrics", "acuracy"], "unknown metric 'acuracy'"),
        (["--task", "nothing.toml"], "task file nothing.toml cannot be read"),
        (["--dtype", "float16"], "float16"),
        (["--max-rows", "-1"], "invalid value for '--max-rows'"),
    ],
)
def test_wrong_options(invoke: Invoke, world: World, options: list[str], says: str) -> None:
    task = [] if "--task" in options else ["--task", world.tasks["one"]]
    result = invoke("evaluate", world.model, world.prompt("spot"), *task, *options)
    assert result.code == 2
    assert says in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_unusable_prompt_files(invoke: Invoke, world: World, tmp_path: Path) -> None:
    raw = bytearray(Path(world.prompt("spot")).read_bytes())
    raw[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(raw)
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("damaged.safetensors", "does not match its sha256"),
        ("text.safetensors", "truncated, damaged or not a safetensors file"),
        ("missing.safetensors", "there is no file"),
        ("empty", "adapter_config.json"),
    ):
        result = invoke("evaluate", world.model, tmp_path / name, "--task", world.tasks["one"])
        assert (result.code, result.out) == (2, "")
        assert says in result.err, name
        assert "Traceback" not in result.err


def write_pairs(folder: Path) -> str:
    """A choice task of sentences that differ in their last word, each pair both ways round."""
    good, bad = "the dog eats bread", "the dog eats saws"
    rows = [{"good": good, "bad": bad, "label": 0}, {"good": bad, "bad": good, "label": 0}]
    rows = [row | {"text": text} for row in rows for text in ("a cat", "one bird")]
    (folder / "pairs").mkdir()
    for split, more in (("train", "that cow"), ("validation", "")):
        path = folder / "pairs" / f"{split}.jsonl"
        lines = [json.dumps(row | {"text": row["text"] + " " + more}) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
    path = folder / "pairs.toml"
    path.write_text(
        """name = "pairs"
kind = "choice"
fields = ["text", "good", "bad"]
choices = ["good", "bad"]
description = "Pairs."
[[templates]]
name = "plain"
text = "{text}"
choice_answers = "text"
[files]
train = "pairs/train.jsonl"
validation = "pairs/validation.jsonl"
"""
    )
    return str(path)


@pytest.mark.slow
def test_the_target_length_of_a_prompt_decides_nothing_on_another_task(
    invoke: Invoke, files: World, tmp_path: Path
) -> None:
    """Cut to four tokens both choices of a pair are the same; the right one comes first in all."""
    lm = FrozenT5.from_pretrained(files.model)
    prompt = SoftPrompt(np.zeros((4, 32), np.float32) + 0.1)
    record = PromptRecord(
        model_hash=lm.weights_hash,
        model_config=lm.model_config,
        d_model=32,
        tokens=4,
        config={"max_target_tokens": 4},
    )
    prompt.save(tmp_path / "other.safetensors", record)
    prompt.save(tmp_path / "own.safetensors", dataclasses.replace(record, task="pairs"))
    task = write_pairs(tmp_path)
    made = invoke(
        "evaluate",
        files.model,
        tmp_path / "other.safetensors",
        tmp_path / "own.safetensors",
        "--task",
        task,
        "--json",
    )
    assert made.code == 0, made.err
    other, own = json.loads(made.out)
    assert (other["ties"], other["cut_answers"]) == (0, 0)
    assert (own["ties"], own["cut_answers"]) == (4, 4)
    for entry in (other, own):  # nothing can be better: the pairs are the same both ways round
        assert entry["metrics"]["accuracy"] == 0.5
    warnings = made.err.splitlines()
    assert len(warnings) == 2
    assert "the answers of 4 rows were longer than 4 tokens and were truncated" in warnings[0]
    assert "4 rows have several candidates with the best score" in warnings[1]
    whole = invoke(
        "evaluate",
        files.model,
        tmp_path / "own.safetensors",
        "--task",
        task,
        "--max-target-tokens",
        8,
    )
    assert (whole.code, whole.err) == (0, "")
