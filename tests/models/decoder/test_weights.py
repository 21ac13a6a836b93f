"""Checkpoints of decoder-only models: read, refused, written."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_jax import models
from prompt_jax.errors import ModelError
from prompt_jax.models.decoder import FrozenDecoder

from .conftest import FIXTURES, Case


def edited(case: str, tmp_path, change) -> None:
    """A copy of a fixture with other tensors."""
    tensors = load_file(FIXTURES / case / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(FIXTURES / case / "config.json", tmp_path)


def test_the_class_follows_from_the_configuration(qwen3: Case) -> None:
    lm = models.load(qwen3.path)
    assert isinstance(lm, FrozenDecoder)
    assert lm.weights_hash == qwen3.lm.weights_hash
    assert lm.name == "qwen3"


def test_shards_hold_the_same_model(qwen3: Case, tmp_path) -> None:
    tensors = load_file(qwen3.path / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(qwen3.path / "config.json", tmp_path)
    assert models.load(tmp_path).weights_hash == qwen3.lm.weights_hash


def test_a_missing_tensor_is_named(tmp_path) -> None:
    edited("qwen3", tmp_path, lambda t: t.pop("model.layers.1.self_attn.k_norm.weight"))
    with pytest.raises(ModelError, match=r"no tensor 'model\.layers\.1\.self_attn\.k_norm"):
        models.load(tmp_path)


def test_an_unknown_tensor_is_named(tmp_path) -> None:
    """A bias that the configuration does not have would silently be left out."""

    def change(tensors):
        tensors["model.layers.0.mlp.up_proj.bias"] = np.ones(24, np.float32)

    edited("llama", tmp_path, change)
    with pytest.raises(ModelError, match=r"the tensor 'model\.layers\.0\.mlp\.up_proj\.bias'"):
        models.load(tmp_path)


def test_tables_that_follow_from_the_configuration_are_no_weights(tmp_path) -> None:
    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)

    edited("llama", tmp_path, change)
    models.load(tmp_path)


@pytest.mark.parametrize("same", [True, False])
def test_a_head_beside_a_tied_table_must_equal_it(tmp_path, same) -> None:
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + (not same)

    edited("llama", tmp_path, change)
    if same:
        models.load(tmp_path)
    else:
        with pytest.raises(ModelError, match=r"differs from 'model\.embed_tokens\.weight'"):
            models.load(tmp_path)


def test_another_shape_is_named(tmp_path) -> None:
    def change(tensors):
        tensors["model.norm.weight"] = np.ones(8, np.float32)

    edited("llama", tmp_path, change)
    with pytest.raises(ModelError, match=r"'model\.norm\.weight' has shape \[8\]"):
        models.load(tmp_path)


def test_integers_are_no_weights(tmp_path) -> None:
    def change(tensors):
        tensors["model.norm.weight"] = np.ones(16, np.int8)

    edited("llama", tmp_path, change)
    with pytest.raises(ModelError, match="holds int8"):
        models.load(tmp_path)


def test_more_layers_than_tensors_are_refused_before_their_names_are_listed(tmp_path) -> None:
    edited("llama", tmp_path, lambda tensors: None)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**content, "num_hidden_layers": 10**9}), "utf-8")
    with pytest.raises(ModelError, match="tensors, but its configuration has 1000000000 layers"):
        models.load(tmp_path)


def test_a_directory_without_weights(tmp_path) -> None:
    shutil.copy(FIXTURES / "llama" / "config.json", tmp_path)
    with pytest.raises(ModelError, match="holds no weights"):
        models.load(tmp_path)


def test_saved_and_read_again(case: Case, tmp_path) -> None:
    case.lm.save_pretrained(tmp_path)
    again = models.load(tmp_path)
    assert again.weights_hash == case.lm.weights_hash
    assert again.model_config == case.lm.model_config


def test_random_weights_are_the_same_for_the_same_seed(qwen3: Case) -> None:
    one, two, other = (FrozenDecoder.from_config(qwen3.lm.config, seed) for seed in (1, 1, 2))
    assert one.weights_hash == two.weights_hash != other.weights_hash


def test_the_abstract_model_has_the_shapes_of_the_loaded_one(qwen3: Case) -> None:

    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), qwen3.lm.params)
    abstract = FrozenDecoder.abstract(qwen3.lm.config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract.params) == shapes
    assert models.abstract("HuggingFaceTB/SmolLM2-135M").d_model == 576
