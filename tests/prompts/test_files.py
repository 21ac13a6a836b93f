from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_jax.errors import PromptError
from prompt_jax.prompts import (
    PromptRecord,
    SoftPrompt,
    TaskVector,
    files,
    load_particles,
    save_particles,
)


def test_file_is_plain_safetensors(prompt, tmp_path):
    path = tmp_path / "new" / "folder" / "p.safetensors"
    prompt.save(path)
    tensors = load_file(path)
    assert list(tensors) == ["prompt"]
    assert tensors["prompt"].dtype == np.float32
    np.testing.assert_array_equal(tensors["prompt"], np.asarray(prompt.embeddings))
    assert os.listdir(path.parent) == ["p.safetensors"]


def test_equal_prompts_are_equal_files(prompt, tmp_path):
    for name in "abcd":
        prompt.save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_a_file_read_and_written_by_others_is_still_good(prompt, record, tmp_path):
    """The seal covers the content, not the layout of the header."""
    from safetensors import safe_open

    prompt.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        tensors, metadata = {"prompt": file.get_tensor("prompt")}, file.metadata()
    save_file(tensors, tmp_path / "b", {"zzz": "by another tool", **metadata})
    assert SoftPrompt.load(tmp_path / "b").record == record


def test_damage_is_never_silent(prompt, tmp_path):
    """200 flipped bits, changed bytes and truncations anywhere in the file."""
    path = tmp_path / "p.safetensors"
    prompt.save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(200):
        raw = bytearray(good)
        where = int(rng.integers(len(raw)))
        if trial % 4 == 0:
            raw = raw[:where]
        elif trial % 4 == 1:
            raw[where] = (raw[where] + int(rng.integers(1, 256))) % 256
        else:
            raw[where] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with pytest.raises(PromptError, match=r"p\.safetensors"):
            SoftPrompt.load(path)


def test_every_bit_of_the_header_is_guarded(tmp_path):
    path = tmp_path / "p.safetensors"
    SoftPrompt(np.ones((1, 2), np.float32), PromptRecord(task="\u00e9\u001b")).save(path)
    good = path.read_bytes()
    for where in range(len(good)):
        for bit in range(8) if where < 8 else (where % 8,):
            raw = bytearray(good)
            raw[where] ^= 1 << bit
            path.write_bytes(raw)
            with pytest.raises(PromptError):
                SoftPrompt.load(path)


def test_trailing_bytes(prompt, tmp_path):
    path = tmp_path / "p"
    prompt.save(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(PromptError, match="damaged"):
        SoftPrompt.load(path)


def test_interrupted_write_leaves_the_old_file(prompt, tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    prompt.save(path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PromptError, match="disk full"):
        SoftPrompt(prompt.embeddings + 1.0).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["p.safetensors"]


def test_particles(record, tmp_path):
    particles = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    save_particles(tmp_path / "m", jnp.asarray(particles), record)
    again, told = load_particles(tmp_path / "m")
    np.testing.assert_array_equal(again, particles)
    assert told == record
    with pytest.raises(PromptError, match=r"holds 'particles', not 'prompt'.*load_particles"):
        SoftPrompt.load(tmp_path / "m")


def test_vector_file(prompt, tmp_path):
    tau = TaskVector(prompt.embeddings, init_id="17", name="mnli")
    tau.save(tmp_path / "v")
    again = TaskVector.load(tmp_path / "v")
    assert (again.init_id, again.name) == ("17", "mnli")
    np.testing.assert_array_equal(again.values, tau.values)
    with pytest.raises(PromptError, match=r"TaskVector\.load"):
        SoftPrompt.load(tmp_path / "v")


def test_bfloat16_is_stored_as_float32(tmp_path):
    values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.bfloat16)
    files.write(tmp_path / "p", "prompt", values, PromptRecord())
    stored = files.read(tmp_path / "p", "prompt")
    assert stored.array.dtype == np.float32
    np.testing.assert_array_equal(stored.array, np.asarray(values.astype(jnp.float32)))
    assert (stored.record.tokens, stored.record.d_model) == (2, 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), r"shape \[L, D\], not \[2, 3, 4\]"),
        (np.zeros(4, np.float32), r"shape \[L, D\], not \[4\]"),
        (np.zeros((0, 4), np.float32), r"not \[0, 4\]"),
        (np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32), "2 values of 4 that are NaN"),
        (np.zeros((2, 2), np.int32), "floating-point numbers, not int32"),
        (np.zeros((2, 2), "U1"), "floating-point numbers"),
    ],
)
def test_unusable_arrays_are_refused_before_writing(array, message, tmp_path):
    with pytest.raises(PromptError, match=message):
        files.write(tmp_path / "p", "prompt", array, PromptRecord())
    assert os.listdir(tmp_path) == []


def test_record_of_another_shape(prompt, record, tmp_path):
    with pytest.raises(PromptError, match="says tokens = 7, but the prompt has 5"):
        prompt.save(tmp_path / "p", record.replace(tokens=7))


def test_nan_in_a_sealed_file(prompt, tmp_path, monkeypatch):
    """Somebody else's writer may not have checked."""
    monkeypatch.setattr(files, "check_array", lambda a, **_: np.asarray(a, np.float32))
    bad = np.full((2, 2), np.nan, np.float32)
    files.write(tmp_path / "p", "prompt", bad, PromptRecord())
    monkeypatch.undo()
    with pytest.raises(PromptError, match="NaN or infinite"):
        SoftPrompt.load(tmp_path / "p")


def test_missing_file_names_its_neighbour(prompt, tmp_path):
    prompt.save(tmp_path / "mrpc.safetensors")
    with pytest.raises(PromptError, match=r"Did you mean 'mrpc\.safetensors'"):
        SoftPrompt.load(tmp_path / "mprc.safetensors")
    with pytest.raises(PromptError, match=r"folder .* does not exist"):
        SoftPrompt.load(tmp_path / "no" / "x")


@pytest.mark.parametrize("raw", [b"", b"x", b"PK\x03\x04" * 50, b"\x93NUMPY" + b"\0" * 200])
def test_foreign_files(raw, tmp_path):
    (tmp_path / "p").write_bytes(raw)
    with pytest.raises(PromptError, match="not a safetensors file"):
        SoftPrompt.load(tmp_path / "p")


def test_foreign_safetensors(tmp_path):
    save_file({"lora_A": np.zeros((2, 2), np.float32)}, tmp_path / "p")
    with pytest.raises(PromptError, match=r"not a prompt of prompt_jax.*lora_A"):
        SoftPrompt.load(tmp_path / "p")


def test_tensor_of_whole_numbers(tmp_path):
    save_file({"prompt": np.zeros((2, 2), np.int32)}, tmp_path / "p")
    with pytest.raises(PromptError, match="dtype int32"):
        SoftPrompt.load(tmp_path / "p")


def test_folder_in_place_of_a_file(tmp_path, prompt):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(PromptError, match=r"folder.*from_peft"):
        SoftPrompt.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PromptError, match="cannot be written"):
        prompt.save(tmp_path / "file" / "p")


def test_url(prompt, record):
    prompt.save("memory://bucket/run/p.safetensors")
    again = SoftPrompt.load("memory://bucket/run/p.safetensors")
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    assert again.record == record
    with pytest.raises(PromptError, match="there is no file memory://bucket/none"):
        SoftPrompt.load("memory://bucket/none")
