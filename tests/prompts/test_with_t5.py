"""Prompts on the real model floor."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import PromptError
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.prompts import SoftPrompt, nearest_words, parse

CONFIG = T5Config(
    vocab_size=96, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2
)


@pytest.fixture(scope="module")
def t5() -> FrozenT5:
    return FrozenT5.from_config(CONFIG, seed=0, name="tiny")


@pytest.fixture(scope="module")
def mini(shared_dir) -> FrozenT5:
    return FrozenT5.from_pretrained(shared_dir / "models" / "mini-t5")


def batch() -> dict[str, np.ndarray]:
    ids = np.array([[5, 9, 22, 1], [7, 1, 0, 0]], np.int32)
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int32),
        "labels": np.array([[4, 11, 1], [8, 1, -100]], np.int32),
    }


@pytest.mark.slow
def test_prompt_steers_the_model_and_takes_gradients(t5):
    prompt = parse("vocab:50")(t5, 3, 0)
    bare, steered = t5.score(**batch()).nll, t5.score(**batch(), prompt=prompt).nll
    np.testing.assert_array_equal(steered, t5.score(**batch(), prompt=prompt.embeddings).nll)
    assert float(jnp.abs(steered - bare).max()) > 1e-4
    gradient = jax.grad(lambda p: t5.score(**batch(), prompt=p).nll.sum())(prompt)
    assert isinstance(gradient, SoftPrompt)
    assert float(jnp.abs(gradient.embeddings).max()) > 0


@pytest.mark.slow
def test_prompt_of_rows_is_the_input_with_these_rows_in_front(t5):
    """Independent oracle: a prompt of embeddings is the same as their ids before the input."""
    prompt = parse("vocab:50")(t5, 3, 4)
    table = np.asarray(t5.embed(np.arange(96, dtype=np.int32)))
    rows = np.asarray(prompt.embeddings)
    ids = [int(np.flatnonzero((table == row).all(axis=1))[0]) for row in rows]
    longer = batch()
    longer["input_ids"] = np.concatenate(
        [np.tile(np.array(ids, np.int32), (2, 1)), longer["input_ids"]], axis=1
    )
    longer["attention_mask"] = np.concatenate(
        [np.ones((2, 3), np.int32), longer["attention_mask"]], axis=1
    )
    np.testing.assert_allclose(
        t5.score(**batch(), prompt=prompt).nll, t5.score(**longer).nll, rtol=1e-5
    )


def test_file_knows_its_model(t5, tmp_path):
    prompt = parse("uniform:0.5:relative")(t5, 3, 0)
    prompt.save(tmp_path / "p")
    assert SoftPrompt.load(tmp_path / "p", model=t5).record.model_hash == t5.weights_hash
    retrained = jax.tree.map(lambda x: x + 1, t5.params)
    spec = dataclasses.replace(t5.spec, weights_hash="", name="other")
    other = FrozenT5(retrained, spec)
    with pytest.raises(PromptError, match=r"\(tiny\); this model is .* \(other\)"):
        SoftPrompt.load(tmp_path / "p", model=other)


def test_scale_relative_to_the_table(t5):
    values = np.asarray(parse("uniform:0.5:relative")(t5, 90, 0).embeddings)
    rms = float(t5.embedding_rms())
    assert np.abs(values).max() == pytest.approx(0.5 * rms, rel=1e-2)


def test_words_of_a_real_vocabulary(mini):
    prompt = parse("labels:positive|negative")(mini, 6, 0)
    words = nearest_words(prompt, mini, top=2)
    ids = mini.tokenizer.encode(["positive", "negative"], add_eos=False)
    for row, label in zip(ids, words, strict=False):
        if len(row) == 1:
            assert label[0] == (mini.tokenizer.decode(row), pytest.approx(1.0, abs=1e-4))
    text = "is this review positive"
    prompt = parse(f"text:{text}")(mini, 4, 0)
    (ids,) = mini.tokenizer.encode([text], add_eos=False)
    best = [row[0][0] for row in nearest_words(prompt, mini, top=1)]
    assert best == [mini.tokenizer.decode([i]) or f"<{i}>" for i in np.resize(ids, 4)]
