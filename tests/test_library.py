"""A compressed library of prompts: what its bits mean, its file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_jax import store
from prompt_jax import task_vectors as tv
from prompt_jax.errors import PromptError
from prompt_jax.prompts import PromptRecord, SoftPrompt, init_id

L, D = 3, 5
START = np.random.default_rng(0).normal(size=(L, D)).astype(np.float32)
RECORD = PromptRecord(
    model_hash="a" * 64,
    init_id=init_id(START),
    model_config={"layers": 2},
    scores={"accuracy": 0.9},
)


def prompts(count=3):
    rng = np.random.default_rng(1)
    return {
        f"run/{name}": SoftPrompt(
            START + rng.normal(size=(L, D)).astype(np.float32), RECORD.replace(task=name)
        )
        for name in ("rte", "mr", "trec")[:count]
    }


def vectors(given):
    return np.stack([np.asarray(prompt.embeddings) - START for prompt in given.values()])


@pytest.mark.parametrize("threshold", [0.2, 1.0])
def test_tall_masks_choose_from_the_sum(threshold):
    given = prompts()
    true = vectors(given)
    total = true.sum(0)
    made = tv.pack_prompts(given, SoftPrompt(START), code="tall", threshold=threshold)
    for place, name in enumerate(given):
        expected = np.where(
            np.abs(true[place]) > threshold * np.abs(total - true[place]), total, 0.0
        )
        np.testing.assert_allclose(made[name].embeddings, START + expected, rtol=1e-5, atol=1e-6)
        error = np.linalg.norm(expected - true[place]) / np.linalg.norm(true[place])
        assert made.errors[place] == pytest.approx(error, rel=1e-4)


def test_signs_have_the_nearest_size_of_each_token():
    given = prompts()
    true = vectors(given)
    made = tv.pack_prompts(given, SoftPrompt(START))  # the default
    for place, name in enumerate(given):
        expected = np.sign(true[place]) * np.abs(true[place]).mean(1, keepdims=True)
        np.testing.assert_allclose(made[name].embeddings, START + expected, rtol=1e-5, atol=1e-6)
        for factor in (0.9, 1.1):
            further = np.linalg.norm(factor * expected - true[place])
            assert made.errors[place] * np.linalg.norm(true[place]) < further


@pytest.mark.parametrize("code", ["tall", "sign"])
def test_a_library_is_read_as_it_was_written(code, tmp_path):
    given = prompts()
    made = tv.pack_prompts(given, SoftPrompt(START, RECORD), code=code)
    size = made.save(tmp_path / "all.safetensors")
    assert size == (tmp_path / "all.safetensors").stat().st_size
    read = tv.PromptLibrary.load(tmp_path / "all.safetensors")
    assert (read.names, read.records, read.errors) == (made.names, made.records, made.errors)
    assert read.initial.record == RECORD
    for place, name in enumerate(given):
        np.testing.assert_array_equal(read[name].embeddings, made[name].embeddings)
        record = read[name].record
        assert (record.task, record.scores) == (given[name].record.task, {})
        packed = {"code": code, "error": made.errors[place], "scores": {"accuracy": 0.9}}
        assert record.config["library"] == packed
    # One bit a number: 15 of them in two bytes.
    arrays = store.unpack((tmp_path / "all.safetensors").read_bytes())[1]
    assert arrays["masks"].shape == (3, 2)
    with pytest.raises(PromptError, match="prompts unpack"):
        SoftPrompt.load(tmp_path / "all.safetensors")


def test_one_prompt_alone_is_kept_whole():
    made = tv.pack_prompts(prompts(1), SoftPrompt(START), code="tall")
    assert made.errors == (0.0,)


def other(**changes):
    given = prompts(2)
    name, prompt = given.popitem()
    changed = SoftPrompt(prompt.embeddings, prompt.record.replace(**changes))
    return {**given, name: changed}


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        ({}, {}, "at least one prompt"),
        (prompts(), {"code": "half"}, "code is tall or sign, not 'half'"),
        (
            {"x": SoftPrompt(START[:2])},
            {},
            r"x has shape \[2, 5\], and the initialisation \[3, 5\]",
        ),
        (other(init_id="0" * 12), {}, "run/mr was trained from initialisation 000000000000, not"),
        (other(model_hash="b" * 64), {}, "of different models"),
    ],
)
def test_what_cannot_be_packed_is_refused(given, options, says):
    with pytest.raises(PromptError, match=says):
        tv.pack_prompts(given, SoftPrompt(START), **options)


def test_other_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "all.safetensors"
    prompts()["run/mr"].save(path)
    with pytest.raises(PromptError, match="is no prompt library"):
        tv.PromptLibrary.load(path)
    made = tv.pack_prompts(prompts(), SoftPrompt(START))
    with pytest.raises(PromptError, match=r"no prompt 'run/mx'.*Did you mean 'run/mr'"):
        made["run/mx"]
    made.save(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(PromptError, match="is damaged"):
        tv.PromptLibrary.load(path)
