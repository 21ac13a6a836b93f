"""The sealed container under prompts, tokenised rows, trained replicas and test results."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_jax import store

FACTS = {"é": [1, None, 0.1], "name": "a/b", "nan": float("nan")}
ARRAYS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/b": np.asarray([True, False]),
    "empty": np.zeros((0, 4), np.int64),
    "number": np.asarray(3, np.uint8),
    "low": np.asarray([1.5, -2], ml_dtypes.bfloat16),
    "strided": np.arange(6, dtype=np.int32)[::2],
}


@pytest.mark.parametrize("arrays", [ARRAYS, {}])
def test_a_file_comes_back(tmp_path, arrays):
    path = tmp_path / "deep" / "file"
    assert store.read(path) is None
    store.write(path, FACTS, arrays)
    facts, again = store.read(path)
    assert json.dumps(facts) == json.dumps(FACTS)
    assert sorted(again) == sorted(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)
    store.write(tmp_path / "other", {}, {})
    assert store.read(tmp_path / "other") == ({}, {})


def test_equal_content_is_an_equal_file():
    backwards = dict(reversed(ARRAYS.items()))
    assert store.pack(FACTS, ARRAYS) == store.pack(FACTS, backwards)


def test_every_damage_is_reported_and_not_used(tmp_path, caplog):
    path = tmp_path / "file"
    store.write(path, FACTS, ARRAYS)
    whole = path.read_bytes()
    damages = [whole[:size] for size in (0, 1, 8, 100, len(whole) - 1)] + [whole + b"x"]
    for at in range(len(whole)):
        damages.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for number, damage in enumerate(damages, 1):
        path.write_bytes(damage)
        assert store.read(path) is None
        assert len(caplog.records) == number
    assert all(str(path) in record.getMessage() for record in caplog.records)
    path.write_bytes(whole)
    assert store.read(path) is not None


def test_swapped_content_is_damage(tmp_path):
    """Facts of one file, or two arrays under each other's names, in another one's seal."""
    arrays = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    store.write(tmp_path / "file", {"x": 1}, arrays)
    metadata = store.parse_safetensors((tmp_path / "file").read_bytes())[1]
    save_file({"a": arrays["b"], "b": arrays["a"]}, tmp_path / "swapped", metadata)
    save_file(arrays, tmp_path / "same", metadata)
    assert store.read(tmp_path / "swapped") is None
    assert store.read(tmp_path / "same") is not None
    sealed = metadata[store.KEY].replace('"x": 1', '"x": 2')
    save_file(arrays, tmp_path / "facts", {store.KEY: sealed})
    assert store.read(tmp_path / "facts") is None


def test_a_foreign_file_is_told_apart(tmp_path):
    save_file({"lora": np.ones(2, np.float32)}, tmp_path / "file")
    raw = (tmp_path / "file").read_bytes()
    with pytest.raises(store.UnsealedError, match="it holds lora"):
        store.unpack(raw)
    assert list(load_file(tmp_path / "file")) == ["lora"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(tmp_path / "file", FACTS, ARRAYS)
    assert not list(tmp_path.iterdir())


def test_facts_that_json_cannot_hold():
    with pytest.raises(TypeError):
        store.pack({"x": object()}, {})
