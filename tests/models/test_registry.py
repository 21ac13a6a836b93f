"""Families: the protocol is complete, and names find their class."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import models
from prompt_jax.errors import ConfigError, ModelError
from prompt_jax.models import registry
from prompt_jax.models.base import LanguageModel
from prompt_jax.models.t5 import FrozenT5, T5Config

from .conftest import FIXTURES, load_case

MEMBERS = [name for name in vars(LanguageModel) if not name.startswith("_")]


@pytest.mark.parametrize("family", registry.FAMILIES, ids=lambda family: family.class_name)
def test_a_family_offers_every_member_of_the_protocol(family: registry.Family) -> None:
    assert {"params", "score", "partition_rules", "row_tokens", "tokenizer"} <= set(MEMBERS)
    cls = family.load_class()
    known = {*dir(cls), *(field.name for field in dataclasses.fields(cls))}
    assert [name for name in (*MEMBERS, "SHAPES", "from_pretrained") if name not in known] == []
    hash(next(iter(cls.SHAPES.values())))
    lm = models.abstract(next(iter(cls.SHAPES)))
    hash(lm.partition_rules)  # part of the key of compiled programs


def test_load_picks_the_family_and_passes_everything_on() -> None:
    path = FIXTURES / "v1_1"
    lm = models.load(path, "bfloat16", remat=True)
    assert isinstance(lm, FrozenT5)
    assert lm.spec == FrozenT5.from_pretrained(path, jnp.bfloat16, remat=True).spec
    assert lm.name == "v1_1"
    assert models.load(str(path)).weights_hash == load_case("v1_1").lm.weights_hash
    assert models.load("mini").name == "mini"


def test_load_reads_the_hub_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(repo: str, **_: object) -> str:
        asked.append(repo)
        return str(FIXTURES / "v1_1")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert models.load("someone/model").name == "someone/model"
    assert asked == ["someone/model"]


def test_load_takes_a_configuration_without_a_model_type(tmp_path) -> None:
    shutil.copytree(FIXTURES / "v1_1", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text("utf-8"))
    content.pop("model_type")
    file.write_text(json.dumps(content), "utf-8")
    assert isinstance(models.load(tmp_path / "model"), FrozenT5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2"}', "'gpt2' is not supported.* Supported are t5, mt5, byt5"),
        ('{"model_type": "umt5"}', "'umt5' is not supported"),
        ("{", "Cannot read"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_load_refuses_other_families_and_damage(tmp_path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    with pytest.raises(ModelError, match=message):
        models.load(tmp_path)


def test_abstract_has_the_shapes_of_a_published_model() -> None:
    lm = models.abstract("google/flan-t5-small", "bfloat16", remat=True)
    assert (lm.d_model, lm.name, lm.dtype) == (512, "google/flan-t5-small", jnp.bfloat16)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(lm))
    assert isinstance(lm, FrozenT5)
    assert lm.spec.remat
    assert models.has_known_shape("t5-11b")
    assert not models.has_known_shape("t5-12b")
    with pytest.raises(ModelError, match=r"'t5-smal' is not known offline.*t5-small"):
        models.abstract("t5-smal")


@pytest.mark.parametrize(
    ("name", "parameters"),  # as their model cards have them, in millions
    [
        ("SmolLM2-135M", 134.5),
        ("SmolLM2-360M", 361.8),
        ("SmolLM2-1.7B", 1711.4),
        ("Llama-3.2-1B", 1235.8),
        ("Llama-3.2-3B", 3212.7),
        ("Qwen2.5-0.5B", 494.0),
        ("Qwen3-0.6B", 596.0),
        ("Qwen3-8B", 8190.7),
    ],
)
def test_shapes_of_decoder_only_models_are_known(name: str, parameters: float) -> None:
    """Also without the organisation; a name that two organisations share would need it."""
    lm = models.abstract(name)
    assert lm.name.endswith(f"/{name}")
    assert sum(x.size for x in jax.tree.leaves(lm)) == pytest.approx(1e6 * parameters, rel=1e-3)
    assert models.abstract(lm.name).spec == lm.spec
    assert not models.has_known_shape(name[1:])


@pytest.mark.slow
def test_what_plans_use() -> None:
    config = T5Config.known("t5-base")
    lm = FrozenT5.abstract(config, jnp.bfloat16, name="t5-base")
    assert lm.row_tokens(64, 8, 20) == 84
    assert lm.feed_forward_shape == (768, 3072)
    one = FrozenT5.abstract(config.replace(num_layers=1, num_decoder_layers=1))
    count = one.flops(2, 84, 8, backward="prompt")
    assert lm.flops(2, 84, 8, backward="prompt", one_layer=True) == count
    assert count < lm.flops(2, 84, 8, backward="prompt")
    with pytest.raises(ConfigError, match="backward"):
        lm.flops(1, 1, 1, backward="half")
    part = lm.on_device(4)
    assert (part.name, part.dtype, part.config.num_heads) == ("t5-base", jnp.bfloat16, 3)
    assert lm.on_device(1, jnp.float32).dtype == np.float32
    assert lm.model_config["num_heads"] == 12
    assert not lm.has_tokenizer
