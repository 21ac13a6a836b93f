"""`prompt-jax prompts`: show, convert through every format, compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts import (
    PromptRecord,
    SoftPrompt,
    from_npy,
    from_peft,
    nearest_words,
    publish,
    similarity,
)
from tests.cli.conftest import Invoke, World


@pytest.mark.slow
def test_show(invoke: Invoke, world: World) -> None:
    path = world.prompt("spot")
    prompt = SoftPrompt.load(path)
    result = invoke("prompts", "show", path)
    assert result.code == 0, result.err
    facts = dict(line.split(maxsplit=1) for line in result.out.splitlines()[1:])
    assert facts["shape"] == "4 tokens x 32"
    assert facts["norm"].startswith(f"{float(np.linalg.norm(prompt.embeddings)):.4g} ")
    assert prompt.record is not None
    assert facts["model_hash"] == prompt.record.model_hash
    assert json.loads(facts["config"])["experiment"] == "toy"


@pytest.mark.slow
def test_show_nearest_words_as_json(invoke: Invoke, world: World) -> None:
    path = world.prompt("prompt_tuning")
    result = invoke("prompts", "show", path, world.prompt("spot"), "--model", world.model, "--json")
    first, second = json.loads(result.out)
    assert (first["path"], second["path"]) == (path, world.prompt("spot"))
    expected = nearest_words(SoftPrompt.load(path), FrozenT5.from_pretrained(world.model))
    assert [[word for word, _ in near] for near in first["nearest_words"]] == [
        [word for word, _ in near] for near in expected
    ]
    assert first["record"]["task"] == "one"


@pytest.mark.slow
def test_show_words_of_another_model_fails(invoke: Invoke, world: World) -> None:
    result = invoke("prompts", "show", world.prompt("spot"), "--model", world.other_model)
    assert result.code == 2
    assert "was made for base model" in result.err


@pytest.mark.slow
def test_convert_round_trip(invoke: Invoke, world: World, tmp_path: Path) -> None:
    original = SoftPrompt.load(world.prompt("spot"))
    numbers = np.asarray(original.embeddings)
    npy, peft, back = tmp_path / "p.npy", tmp_path / "adapter", tmp_path / "back.safetensors"
    assert invoke("prompts", "convert", world.prompt("spot"), npy).out == f"{npy}: 4 tokens x 32\n"
    assert invoke("prompts", "convert", npy, peft).code == 0
    np.testing.assert_array_equal(from_npy(npy).embeddings, numbers)
    np.testing.assert_array_equal(from_peft(peft).embeddings, numbers)

    bare = invoke("prompts", "convert", peft, back)
    assert bare.code == 0
    assert "has no hash of its model's weights; --model NAME adds it." in bare.err
    stamped = invoke("prompts", "convert", peft, back, "--model", world.model)
    assert stamped.err == ""
    lm = FrozenT5.from_pretrained(world.model)
    loaded = SoftPrompt.load(back, model=lm)
    np.testing.assert_array_equal(loaded.embeddings, numbers)
    assert invoke("evaluate", world.model, back, "--task", world.tasks["one"]).err == ""


def test_convert_names_the_base_model(invoke: Invoke, tmp_path: Path) -> None:
    source, folder = tmp_path / "p.safetensors", tmp_path / "adapter"
    record = PromptRecord(task="glue/rte", model_name="of-a-folder")
    SoftPrompt(np.ones((2, 4), np.float32), record).save(source)
    without = invoke("prompts", "convert", source, folder)
    assert "does not name its base model" in without.err
    named = invoke("prompts", "convert", source, folder, "--base-model-name", "google/t5-small")
    assert (named.code, named.err) == (0, "")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google/t5-small"
    assert "entailment" in (folder / "README.md").read_text()
    refused = invoke("prompts", "convert", source, tmp_path / "p.npy", "--base-model-name", "x/y")
    assert (refused.code, refused.err) == (
        2,
        "prompt-jax: --base-model-name is for a PEFT folder.\n",
    )


def test_push_shows_what_it_would_send(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []

    def push(upload: publish.Upload, *, private: bool) -> str:
        sent.append(private)
        return f"https://hub/{upload.repository}"

    monkeypatch.setattr(publish, "push", push)
    source = tmp_path / "p.safetensors"
    record = PromptRecord(task="glue/rte", model_name="google/t5-small")
    SoftPrompt(np.ones((2, 4), np.float32), record).save(source)
    shown = invoke("prompts", "push", source, "owner/rte", "--dry-run")
    assert shown.code == 0
    head = "owner/rte (private if it is new), base model google/t5-small:"
    assert shown.out.splitlines()[0] == head
    for part in ("adapter_config.json", "prompt.safetensors", "# Soft prompt for glue/rte"):
        assert part in shown.out
    assert sent == []
    assert invoke("prompts", "push", source, "owner/rte").out == "https://hub/owner/rte\n"
    invoke("prompts", "push", source, "owner/rte", "--public")
    assert sent == [True, False]
    refused = invoke("prompts", "push", source, "rte", "--dry-run")
    assert (refused.code, refused.out) == (2, "")


def test_convert_array_of_npz(invoke: Invoke, tmp_path: Path) -> None:
    arrays = {name: np.full((2, 4), i, np.float32) for i, name in enumerate(("rte", "wic"))}
    np.savez(tmp_path / "all.npz", **arrays)
    source, target = tmp_path / "all.npz", tmp_path / "wic.safetensors"
    assert invoke("prompts", "convert", source, target, "--key", "wic").code == 0
    loaded = SoftPrompt.load(target)
    np.testing.assert_array_equal(loaded.embeddings, arrays["wic"])
    assert loaded.record is not None
    assert loaded.record.task == "wic"
    without = invoke("prompts", "convert", source, target)
    assert without.code == 2
    assert "It has: rte, wic." in without.err
    assert "--key" in without.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("p.bin", [], "OUT ends in .safetensors or .npy, or is a folder"),
        ("p.npy", ["--key", "x"], "contains a single prompt: omit --key."),
        ("p.npy", ["--model", "OTHER"], "was made for base model"),
    ],
)
def test_convert_errors(
    invoke: Invoke, world: World, tmp_path: Path, target: str, options: list[str], says: str
) -> None:
    options = [world.other_model if option == "OTHER" else option for option in options]
    result = invoke("prompts", "convert", world.prompt("spot"), tmp_path / target, *options)
    assert result.code == 2
    assert says in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_compare(invoke: Invoke, world: World) -> None:
    paths = [world.prompt("prompt_tuning"), world.prompt("spot"), world.prompt("spot", "two")]
    expected = similarity([SoftPrompt.load(path) for path in paths])
    found = json.loads(invoke("prompts", "compare", *paths, "--json").out)
    assert found["prompts"] == [
        "prompt_tuning/one-all-seed0",
        "spot/one-all-seed0",
        "two-all-seed0",
    ]
    np.testing.assert_allclose(found["similarity"], expected)
    table = invoke("prompts", "compare", *paths).out.splitlines()
    assert table[0].split() == ["0", "1", "2"]
    assert table[2].split() == [
        "0",
        "prompt_tuning/one-all-seed0",
        *(f"{value:.3f}" for value in expected[0]),
    ]
    wrong = invoke("prompts", "compare", *paths, "--metric", "cosin")
    assert wrong.code == 2
    assert "Did you mean 'cosine'?" in wrong.err


def test_prompts_without_command_prints_help(invoke: Invoke) -> None:
    result = invoke("prompts")
    assert result.code == 0
    assert "\n  convert  " in result.out
