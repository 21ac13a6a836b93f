from __future__ import annotations

import json

import pytest

from prompt_jax.errors import ConfigError, ModelError
from prompt_jax.models.t5 import KNOWN, T5Config, flops

RAW = {
    "model_type": "t5",
    "vocab_size": 100,
    "d_model": 8,
    "d_kv": 2,
    "d_ff": 16,
    "num_layers": 2,
    "num_heads": 3,
}


def test_defaults_of_an_old_config_are_those_of_t5_1_0():
    config = T5Config.from_hf_json(RAW)
    assert config.num_decoder_layers == 2
    assert (config.activation, config.gated) == ("relu", False)
    assert config.tied_head
    assert config.scale_decoder_outputs
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)


@pytest.mark.parametrize(
    ("keys", "scaled"),
    [
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),  # transformers 5
        ({"tie_word_embeddings": False, "scale_decoder_outputs": True}, True),
    ],
)
def test_scale_is_its_own_key_or_follows_the_tie(keys, scaled):
    assert T5Config.from_hf_json({**RAW, **keys}).scale_decoder_outputs is scaled


V4, V5 = {"transformers_version": "4.57.1"}, {"transformers_version": "5.23.0"}


@pytest.mark.parametrize(
    ("keys", "head", "tied", "scaled"),
    [
        ({"tie_word_embeddings": False, **V4}, "own", False, False),  # as published
        ({"tie_word_embeddings": True}, "own", False, False),  # saved again by transformers 5
        ({"tie_word_embeddings": True, **V5}, "own", False, False),
        ({"tie_word_embeddings": True, **V5}, "none", True, False),
        ({"tie_word_embeddings": True, **V4}, "none", True, True),
        ({"tie_word_embeddings": True, **V4}, "table", True, True),
        ({}, "own", False, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, "none", True, False),
    ],
)
def test_scale_of_an_mt5_depends_on_the_writer(keys, head, tied, scaled):
    config = T5Config.from_hf_json({**RAW, "model_type": "mt5", **keys}, head)
    assert (config.tied_head, config.scale_decoder_outputs) == (tied, scaled)
    assert (config.activation, config.gated) == ("gelu_new", True)


@pytest.mark.parametrize(
    ("keys", "head", "message"),
    [
        (
            {"model_type": "mt5", "tie_word_embeddings": True},
            "none",
            "does not say which one wrote",
        ),
        ({"model_type": "mt5", "scale_decoder_outputs": True}, "own", "never scaled by"),
        ({"tie_word_embeddings": True, **V4}, "own", "differs from it: set one of the two right"),
        ({"tie_word_embeddings": False}, "none", "the weights have no 'lm_head.weight'"),
    ],
)
def test_a_head_that_contradicts_the_configuration_is_refused(keys, head, message):
    with pytest.raises(ModelError, match=message):
        T5Config.from_hf_json({**RAW, **keys}, head)


def test_the_class_tells_an_mt5_where_model_type_is_missing():
    raw = {key: value for key, value in RAW.items() if key != "model_type"}
    config = T5Config.from_hf_json({**raw, "architectures": ["MT5ForConditionalGeneration"]})
    assert (config.activation, config.scale_decoder_outputs) == ("gelu_new", False)
    with pytest.raises(ModelError, match="'umt5' is not supported"):
        T5Config.from_hf_json({**raw, "architectures": ["UMT5ForConditionalGeneration"]})


@pytest.mark.parametrize(
    "changes",
    [
        {"d_model": None},
        {"num_heads": True},
        {"d_ff": 16.0},
        {"num_decoder_layers": "6"},
        {"relative_attention_num_buckets": [32]},
        {"relative_attention_max_distance": None},
        {"layer_norm_epsilon": None},
        {"layer_norm_epsilon": "1e-6"},
        {"layer_norm_epsilon": float("nan")},
        {"feed_forward_proj": None},
        {"feed_forward_proj": ["relu"]},
        {"dense_act_fn": 3},
        {"is_gated_act": "true"},
        {"tie_word_embeddings": None},
        {"scale_decoder_outputs": 1},
        {"pad_token_id": "x"},
        {"eos_token_id": [1, 2]},
        {"decoder_start_token_id": [0.0]},
        {"model_type": ["t5"]},
        {"transformers_version": 5},
        {"quantization_config": {"quant_method": "fp8"}},
    ],
    ids=str,
)
def test_values_of_another_type_are_named_with_the_file(changes, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**RAW, **changes}))
    with pytest.raises(ModelError, match=rf"config\.json: .*'{next(iter(changes))}'"):
        T5Config.from_hf_json(tmp_path / "config.json")


def test_null_where_it_has_a_meaning():
    keys = ("num_decoder_layers", "decoder_start_token_id", "eos_token_id", "dense_act_fn")
    assert T5Config.from_hf_json(RAW | dict.fromkeys(keys)) == T5Config.from_hf_json(RAW)
    assert T5Config.from_hf_json({**RAW, "eos_token_id": [2]}).eos_token_id == 2


def test_a_key_that_stands_twice_is_refused(tmp_path):
    text = json.dumps(RAW).replace("{", '{"d_ff": 12, ', 1)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="'d_ff' stands in it twice"):
        T5Config.from_hf_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("keys", "activation", "gated"),
    [
        ({"feed_forward_proj": "relu"}, "relu", False),
        ({"feed_forward_proj": "gated-gelu"}, "gelu_new", True),
        ({"feed_forward_proj": "gated-silu"}, "silu", True),
        ({"feed_forward_proj": "gelu"}, "gelu", False),
        ({"feed_forward_proj": "swish"}, "silu", False),
    ],
)
def test_feed_forward_forms(keys, activation, gated):
    config = T5Config.from_hf_json({**RAW, **keys})
    assert (config.activation, config.gated) == (activation, gated)


def test_hf_dict_is_read_back_as_the_same_shape():
    for config in {*KNOWN.values(), T5Config(activation="silu", gated=True, dropout_rate=0.0)}:
        again = T5Config.from_hf_json(json.loads(json.dumps(config.to_hf_dict())))
        # The head is for the weights to say; the dictionary speaks of the scale.
        assert again.replace(tied_head=config.tied_head) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "'bart' is not supported"),
        ({"model_type": "umt5"}, "'umt5' is not supported"),
        ({"d_model": "8"}, "'d_model' must be an integer"),
        ({"d_ff": 0}, "d_ff must be at least 1"),
        ({"d_model": 10**19}, "d_model is 10000000000000000000: no model is as large"),
        ({"relative_attention_num_buckets": 3}, "of at least 4, .* not 3 and 128"),
        ({"relative_attention_max_distance": 16}, "above its half, not 32 and 16"),
        ({"feed_forward_proj": "fancy-relu"}, "'fancy-relu' is not supported"),
        ({"feed_forward_proj": "tanh"}, "Unknown activation 'tanh'"),
        ({"eos_token_id": 100}, "outside the vocabulary"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        T5Config.from_hf_json({**RAW, **changes})


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ModelError, match="lacks 'd_kv'"):
        T5Config.from_hf_json({k: v for k, v in RAW.items() if k != "d_kv"})
    with pytest.raises(ModelError, match=r"config\.json"):
        T5Config.from_hf_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        T5Config.from_hf_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="must hold a JSON object"):
        T5Config.from_hf_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # as published, in millions of parameters
        ("t5-small", 60.506624),
        ("t5-base", 222.903552),
        ("t5-large", 737.668096),
        ("google/flan-t5-small", 76.961152),
        ("google/t5-base-lm-adapt", 247.577856),
        ("google/flan-t5-xl", 2849.757184),
        ("google/t5-v1_1-xxl", 11135.332352),
        ("google/mt5-small", 300.176768),
        ("google/byt5-small", 299.637760),
        ("google-t5/t5-3b", 2851.598336),
        ("google/mt5-xxl", 12921.057280),
        ("google/byt5-large", 1228.183552),
        ("google/byt5-xxl", 12906.899328),
        ("bigscience/T0_3B", 2849.757184),
    ],
)
def test_published_sizes(name, millions):
    assert T5Config.known(name).parameter_count == round(millions * 1e6)


def test_unknown_shape_names_the_nearest():
    with pytest.raises(ModelError, match="Did you mean 'google/flan-t5-base'"):
        T5Config.known("google/flan-t5-bsae")
    assert T5Config.known("google-t5/t5-small") == KNOWN["t5-small"]


def test_configs_are_hashable_and_checked():
    assert len({T5Config(), T5Config(), T5Config(d_ff=1)}) == 2
    with pytest.raises(ModelError, match="dropout_rate"):
        T5Config(dropout_rate=1.0)


def test_backward_must_be_known():
    with pytest.raises(ConfigError, match="'half'"):
        flops(T5Config(), 1, 1, 1, "half")
