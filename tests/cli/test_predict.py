"""`prompt-jax predict`: lines and JSON rows, several prompts in one batch, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompt_jax.cli import predict
from prompt_jax.data import Example, registry
from prompt_jax.data.batching import EvalRows
from prompt_jax.evaluation import predictions
from prompt_jax.methods import trained
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import SoftPrompt
from tests.cli.conftest import Invoke, Rowwise, World

TEXTS = ("the dog eats bread", "a cat sees saws", "my horse likes spades")


def lines(*rows: Any) -> bytes:
    """Rows as JSON lines, texts as they are."""
    return "".join(
        (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows
    ).encode()


def read(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.slow
def test_lines_are_ranked_as_the_model_ranks_them(invoke: Invoke, world: World) -> None:
    result = invoke(
        "predict",
        world.model,
        "--prompt",
        world.prompt("spot"),
        "--task",
        world.tasks["one"],
        "--json",
        stdin=lines(*TEXTS),
    )
    assert result.code == 0, result.err
    lm = FrozenT5.from_pretrained(world.model)
    prompt = SoftPrompt.load(world.prompt("spot"))
    labels = np.asarray(lm.tokenizer.encode(["food", "tool"]), np.int32)
    ids = np.asarray(lm.tokenizer.encode([f"sentence: {text}" for text in TEXTS]), np.int32)
    nll, tokens = lm.rank(ids, np.ones_like(ids), labels, prompt)
    expected = np.asarray(nll) / np.asarray(tokens)
    for number, (row, scores) in enumerate(zip(read(result.out), expected, strict=True), start=1):
        assert (row["line"], row["prompt"]) == (number, "one-all-seed0")
        assert list(row["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-5)
        assert row["answer"] == ("food", "tool")[int(scores.argmin())]
    in_python = predictions.predict(lm, TEXTS, prompt, task=world.tasks["one"])
    assert [list(answer.nll.values()) for answer in in_python] == [
        list(row["scores"].values()) for row in read(result.out)
    ]


def test_an_answer_is_shown_with_the_label_that_it_stands_for() -> None:
    task = registry.get("sandbox/sentiment_talk")

    def shown(text: str, task: Any, candidates: tuple[str, ...]) -> str:
        row = predict.Row(1, Example("a", "b", candidates=candidates), (0,), task)
        return predict._shown(row, predict.Answer(text, None))

    assert shown("lamp", task, ("stone", "lamp")) == "lamp (positive)"
    assert shown("lamp", None, ()) == "lamp"
    same = registry.get("sandbox/acceptability")
    assert shown("right", same, ("wrong", "right")) == "right"
    assert shown("two\n lines", registry.get("sandbox/giver"), ()) == "two lines"


@pytest.mark.slow
def test_a_trained_row_wise_method_answers_each_row_with_its_own_prompt(
    invoke: Invoke, world: World, rowwise: Rowwise
) -> None:
    arguments = ("predict", world.model, "--prompt", rowwise.file, "--prompt", world.prompt("spot"))
    result = invoke(*arguments, "--task", world.tasks["one"], "--json", stdin=lines(*TEXTS))
    assert result.code == 0, result.err
    answers = read(result.out)[::2]
    lm = FrozenT5.from_pretrained(world.model)
    method = trained.load(rowwise.file, model=lm)
    labels = np.asarray(lm.tokenizer.encode(["food", "tool"]), np.int32)
    prompts = []
    for row, text in zip(answers, TEXTS, strict=True):
        ids = np.asarray(lm.tokenizer.encode([f"sentence: {text}"]), np.int32)
        zero = np.zeros(1, np.int32)
        one = EvalRows(ids, np.ones_like(ids), zero, zero, lm.embed(ids))
        prompts.append(np.asarray(method.prompt_fn(method.state(lm).state, zero, one))[0])
        nll, tokens = lm.rank(ids, np.ones_like(ids), labels, SoftPrompt(prompts[-1]))
        scores = (np.asarray(nll) / np.asarray(tokens))[0]
        assert list(row["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-5)
        assert row["answer"] == ("food", "tool")[int(scores.argmin())]
    assert not np.array_equal(prompts[0], prompts[1])
    generated = invoke(*arguments, "--max-new-tokens", 3, stdin=lines(*TEXTS))
    assert generated.code == 0, generated.err
    assert all("\t" in line for line in generated.out.splitlines())


@pytest.mark.slow
def test_generation_is_the_models_own(invoke: Invoke, world: World) -> None:
    result = invoke(
        "predict",
        world.model,
        "--prompt",
        world.prompt("spot"),
        "--max-new-tokens",
        4,
        stdin=lines(*TEXTS),
    )
    lm = FrozenT5.from_pretrained(world.model)
    prompt = SoftPrompt.load(world.prompt("spot"))
    ids = np.asarray(lm.tokenizer.encode(TEXTS), np.int32)
    answers = lm.generate(ids, np.ones_like(ids), prompt, max_new_tokens=4)
    expected = lm.tokenizer.decode_batch(np.asarray(answers).tolist())
    assert result.out.splitlines() == [" ".join(text.split()) for text in expected]
    assert "one-all-seed0 is for the task 'one', but the texts are the model's input" in result.err


@pytest.mark.slow
def test_rows_name_their_prompts(invoke: Invoke, world: World) -> None:
    prompts = [world.prompt("spot", "one"), world.prompt("prompt_tuning", "two", "k4")]
    options = [part for path in prompts for part in ("--prompt", path)]
    options += ["--task", world.tasks["one"], "--json"]
    alone = [
        read(
            invoke(
                "predict",
                world.model,
                "--prompt",
                path,
                "--task",
                world.tasks["one"],
                "--json",
                stdin=lines(*TEXTS),
            ).out
        )
        for path in prompts
    ]
    rows = lines(
        {"text": TEXTS[0], "prompt": "two-k4-seed0"},
        {"text": TEXTS[1], "prompt": 0},
        {"text": TEXTS[2]},
    )
    result = invoke("predict", world.model, *options, "--jsonl", stdin=rows)
    assert result.code == 0, result.err
    found = read(result.out)
    assert [(row["line"], row["prompt"]) for row in found] == [
        (1, "two-k4-seed0"),
        (2, "one-all-seed0"),
        (3, "one-all-seed0"),
        (3, "two-k4-seed0"),
    ]
    for row, expected in zip(
        found, (alone[1][0], alone[0][1], alone[0][2], alone[1][2]), strict=True
    ):
        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-5)
        assert row["answer"] == expected["answer"]


@pytest.mark.slow
def test_a_line_for_all_prompts_has_an_answer_of_each(
    invoke: Invoke, world: World, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines({"text": TEXTS[0]}, {"text": TEXTS[1], "prompt": 1}))
    result = invoke(
        "predict",
        world.model,
        path,
        "--prompt",
        world.prompt("spot", "one"),
        "--prompt",
        world.prompt("spot", "two"),
        "--task",
        world.tasks["one"],
        "--template",
        "short",
    )
    assert result.code == 0, result.err
    first, second = result.out.splitlines()
    assert set(first.split("\t")) <= {"food", "tool"}
    assert first.count("\t") == 1
    assert second in ("food", "tool")


@pytest.mark.slow
def test_a_run_of_spt_answers_rows_of_many_tasks_in_one_batch(
    invoke: Invoke, world: World, tmp_path: Path
) -> None:
    """`predict` under the prompts that a bank leaves says what the run's own test said."""
    folder = tmp_path / "spt"
    made = invoke(
        "run",
        world.config,
        f"out={folder}",
        "methods=spt(slots=6,tokens=1,transfer=zero_shot)",
        "shots=[4]",
        "data.templates=cycle",
        "data.test_templates=all",
    )
    assert made.code == 0, made.err
    prompts = sorted(folder.glob("prompts/*/*.safetensors"))
    assert len(prompts) == 4
    rows, gold = [], []
    for task in ("one", "two"):
        for row in read((world.root / task / "validation.jsonl").read_text()):
            for template in ("plain", "short"):
                rows.append({"task": world.tasks[task], "template": template, "text": row["text"]})
                gold.append((task, template, row["label"]))
    options = [part for path in prompts for part in ("--prompt", str(path))]
    result = invoke("predict", world.model, *options, "--jsonl", "--json", stdin=lines(*rows))
    assert result.code == 0, result.err
    found = read(result.out)
    assert len({row["prompt"] for row in found}) == 4
    right: dict[str, list[bool]] = {}
    for row, (task, template, label) in zip(found, gold, strict=True):
        assert row["prompt"].endswith(f"-{template}")
        right.setdefault(task, []).append(row["answer"] == label)
    said = {
        Path(row["task"]).stem: row["value"]
        for row in read((folder / "results.jsonl").read_text())
        if row["split"] == "test" and row["metric"] == "accuracy"
    }
    # Both templates have as many rows, so the mean over them is the mean over all.
    assert said == pytest.approx({t: sum(a) / len(a) for t, a in right.items()})
    # `evaluate` renders the rows of each prompt under its own template.
    mine = [path for path in prompts if path.name.startswith("one-")]
    scored = invoke("evaluate", world.model, *mine, "--task", world.tasks["one"], "--json")
    assert scored.code == 0, scored.err
    template_prompts = [entry["metrics"]["accuracy"] for entry in json.loads(scored.out)]
    assert sum(template_prompts) / 2 == pytest.approx(said["one"])
    for entry, template in zip(template_prompts, ("plain", "short"), strict=True):
        under = [
            row["answer"] == label
            for row, (task, t, label) in zip(found, gold, strict=True)
            if (task, t) == ("one", template)
        ]
        assert entry == pytest.approx(sum(under) / len(under))
    for template, warned in (("short", True), ("plain", False)):
        asked = invoke(
            "predict",
            world.model,
            "--prompt",
            mine[0],
            "--task",
            world.tasks["one"],
            "--template",
            template,
            stdin=lines(TEXTS[0]),
        )
        assert asked.code == 0
        assert ("is for template 'plain', not 'short'" in asked.err) == warned


@pytest.mark.slow
def test_rows_of_many_tasks_under_their_own_prompts(
    invoke: Invoke, world: World, tmp_path: Path
) -> None:
    """As SPT leaves them: one prompt for each task and template, all in one batch."""
    paths = []
    for task, template, method in (
        ("one", "plain", "spot"),
        ("one", "short", "prompt_tuning"),
        ("two", "plain", "spot"),
    ):
        prompt = SoftPrompt.load(world.prompt(method, task))
        assert prompt.record is not None
        config = {**prompt.record.config, "template": template}
        paths.append(tmp_path / f"{task}-{template}.safetensors")
        prompt.save(paths[-1], dataclasses.replace(prompt.record, config=config))
    asked = [(t, world.tasks[t], p) for t in ("one", "two") for p in ("plain", "short")][:3]
    rows = [{"task": path, "template": p, "text": TEXTS[0]} for _, path, p in asked]
    rows.append({"task": world.tasks["two"], "text": TEXTS[1]})  # its first template
    options = [part for path in paths for part in ("--prompt", path)]
    result = invoke("predict", world.model, *options, "--jsonl", "--json", stdin=lines(*rows))
    assert result.code == 0, result.err
    found = read(result.out)
    assert [row["prompt"] for row in found] == ["one-plain", "one-short", "two-plain", "two-plain"]
    for row, given, path in zip(found, rows, (*paths, paths[2]), strict=True):
        alone = invoke(
            "predict",
            world.model,
            "--prompt",
            path,
            "--task",
            given["task"],
            "--template",
            given.get("template", "plain"),
            "--json",
            stdin=lines(given["text"]),
        )
        assert row["scores"] == pytest.approx(read(alone.out)[0]["scores"], abs=1e-5)
    lost = {"task": world.tasks["two"], "template": "short", "text": TEXTS[0]}
    refused = invoke("predict", world.model, *options, "--jsonl", stdin=lines(lost))
    assert refused.code == 2
    assert "line 1 is of task 'two', template 'short', for which no prompt" in refused.err
    named = invoke(
        "predict",
        world.model,
        *options,
        "--jsonl",
        "--json",
        stdin=lines({**lost, "prompt": "one-plain"}),
    )
    assert [row["prompt"] for row in read(named.out)] == ["one-plain"]


@pytest.mark.slow
def test_long_texts_are_cut_and_counted(invoke: Invoke, world: World) -> None:
    text = " ".join(TEXTS)  # more than the 8 tokens of the prompt's training
    result = invoke(
        "predict",
        world.model,
        "--prompt",
        world.prompt("spot"),
        "--task",
        world.tasks["one"],
        stdin=lines(text, *TEXTS),
    )
    assert result.code == 0
    assert result.out.count("\n") == 4
    assert result.err == "prompt-jax: 1 of 4 inputs were too long and were truncated.\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stdin", "options", "says"),
    [
        (b"", [], "the input has no lines."),
        (b"a\n\nb\n", [], "line 2 of the input is empty"),
        (b"a\n \nb", [], "line 2 of the input is empty"),
        (b"a\nb\xff\n", [], "line 2 of the input is not UTF-8"),
        (b"{'a': 1}\n", ["--jsonl"], "line 1 of the input is not valid JSON"),
        (b"[1]\n", ["--jsonl"], "line 1 of the input is not a JSON object: JSONL"),
        (b'{"text": "a"}\n', ["--jsonl"], 'line 1 of the input needs {"input": TEXT}'),
        (b'{"input": 3}\n', ["--jsonl"], 'line 1 of the input needs {"input": TEXT}'),
        (b'{"input": "a", "prompt": 1}\n', ["--jsonl"], "unknown prompt 1. Known: one-all"),
        (b'{"input": "a", "prompt": true}\n', ["--jsonl"], "unknown prompt True"),
        (
            b'{"input": "a", "prompt": "one-al-seed0"}\n',
            ["--jsonl"],
            "Did you mean 'one-all-seed0'?",
        ),
        (b"a\n", ["--task", "glue/rte"], "has the fields sentence1, sentence2: give JSON"),
        (b'{"sentence1": "a"}\n', ["--jsonl", "--task", "glue/rte"], "has no field 'sentence2'"),
        (
            b'{"task": 3, "text": "a"}\n',
            ["--jsonl"],
            "line 1 of the input: 'task' must be a name, not 3.",
        ),
        (b'{"task": "mrr", "text": "a"}\n', ["--jsonl"], "unknown task 'mrr'"),
        (b"a\n", ["--task", "mr", "--template", "plan"], "unknown template 'plan'. Did you mean"),
        (b"a\n", ["--template", "plain"], "--template needs --task."),
        (b"a\n", ["--max-input-tokens", "1"], "rows need at least 2 tokens"),
    ],
)
def test_what_cannot_be_answered(
    invoke: Invoke, world: World, stdin: bytes, options: list[str], says: str
) -> None:
    result = invoke("predict", world.model, "--prompt", world.prompt("spot"), *options, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("prompt-jax: ")
    assert says in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_a_missing_file_and_a_prompt_of_another_model(invoke: Invoke, world: World) -> None:
    options = ("--prompt", world.prompt("spot"))
    result = invoke("predict", world.model, "nowhere.txt", *options)
    assert (result.code, result.err) == (
        2,
        "prompt-jax: nowhere.txt cannot be read: No such file or directory.\n",
    )
    other = invoke("predict", world.other_model, *options, stdin=b"a\n")
    assert other.code == 2
    assert "A prompt only works with the weights it was trained on." in other.err
