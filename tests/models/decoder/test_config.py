"""What a config.json means, and what is refused before any weight is read."""

from __future__ import annotations

import json

import jax
import pytest

from prompt_jax import models
from prompt_jax.errors import ModelError
from prompt_jax.models.decoder import KNOWN, DecoderConfig, FrozenDecoder, Llama3Scaling

from .conftest import FIXTURES

LLAMA = json.loads((FIXTURES / "llama" / "config.json").read_text())
QWEN2 = json.loads((FIXTURES / "qwen2" / "config.json").read_text())
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(base: dict, **changes: object) -> DecoderConfig:
    raw = {key: value for key, value in {**base, **changes}.items() if value != "absent"}
    return DecoderConfig.from_hf_json(raw)


def test_the_older_keys_of_rotary_positions_mean_the_same() -> None:
    old = {"rope_parameters": "absent", "rope_theta": 500000.0, "rope_scaling": LLAMA3}
    new = {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}}
    config = read(LLAMA, **old)
    assert config == read(LLAMA, **new)
    assert config.rope_theta == 500000.0
    assert config.rope_scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)


def test_defaults_are_those_of_the_architecture() -> None:
    """What transformers assumes where a key is missing."""
    bare = dict.fromkeys(("head_dim", "num_key_value_heads", "tie_word_embeddings"), "absent")
    config = read(LLAMA, **bare)
    assert (config.head_dim, config.num_kv_heads, config.tied_head) == (4, 4, False)
    assert read(QWEN2).qkv_bias
    assert not read(QWEN2).o_bias
    assert read(LLAMA, attention_bias=True).o_bias


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral' is not supported"),
        ({"model_type": "llma"}, "Did you mean 'llama'"),
        ({"num_local_experts": 8}, "mixtures of experts"),
        ({"sliding_window": 128}, "sliding window"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
        ({"mlp_bias": True}, "'mlp_bias'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        (
            {"rope_parameters": "absent", "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope type 'linear'",
        ),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "'low_freq_factor'"),
        ({"rope_parameters": 3}, "must be an object"),
        ({"hidden_size": "absent"}, "lacks 'hidden_size'"),
        ({"hidden_size": "16"}, "must be an integer"),
        ({"tie_word_embeddings": "false"}, "must be true or false"),
        ({"rms_norm_eps": "small"}, "must be a number"),
        ({"rms_norm_eps": 0.0}, "above 0"),
        ({"hidden_act": "mish"}, "Unknown activation 'mish'"),
        ({"num_key_value_heads": 3}, "cannot share 3"),
        ({"head_dim": 5}, "even head_dim"),
        ({"num_hidden_layers": 0}, "at least 1"),
        ({"eos_token_id": None}, "no end of sequence"),
        ({"eos_token_id": 64}, "outside the vocabulary"),
        ({"eos_token_id": "2"}, "must be a token id"),
    ],
)
def test_what_is_not_implemented_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(LLAMA, **changes)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"use_sliding_window": False, "sliding_window": 4096, "layer_types": "absent"}, False),
        ({"use_sliding_window": True, "max_window_layers": 2, "layer_types": "absent"}, False),
        ({"use_sliding_window": True, "max_window_layers": 1, "layer_types": "absent"}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, True),
    ],
)
def test_sliding_windows_are_refused_where_a_layer_uses_one(changes: dict, refused: bool) -> None:
    if refused:
        with pytest.raises(ModelError, match="sliding window"):
            read(QWEN2, **changes)
    else:
        assert read(QWEN2, **changes) == read(QWEN2)


def test_a_refused_architecture_is_refused_before_its_weights_are_read(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "num_experts": 4}))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="mixtures of experts"):
        models.load(tmp_path)


def test_sizes_of_published_models() -> None:
    """Parameters as their model cards give them (a tied head counted once)."""
    counts = {name: config.parameter_count for name, config in KNOWN.items()}
    assert counts["HuggingFaceTB/SmolLM2-135M"] == 134_515_008
    assert counts["meta-llama/Llama-3.2-1B"] == 1_235_814_400
    assert counts["meta-llama/Llama-3.2-3B"] == 3_212_749_824
    assert counts["Qwen/Qwen2.5-0.5B"] == 494_032_768
    assert counts["Qwen/Qwen3-0.6B"] == 596_049_920
    assert counts["Qwen/Qwen3-8B"] == 8_190_735_360


def test_the_parameter_count_is_that_of_the_tree() -> None:
    for case in ("llama3", "qwen2", "qwen3"):
        config = DecoderConfig.from_hf_json(FIXTURES / case / "config.json")
        lm = FrozenDecoder.abstract(config)

        assert sum(leaf.size for leaf in jax.tree.leaves(lm.params)) == config.parameter_count


@pytest.mark.parametrize("case", ["llama", "llama3", "qwen2", "qwen3"])
def test_the_written_configuration_is_read_as_the_same(case: str) -> None:
    config = DecoderConfig.from_hf_json(FIXTURES / case / "config.json")
    assert DecoderConfig.from_hf_json(config.to_hf_dict()) == config
