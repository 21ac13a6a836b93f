from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import streams
from prompt_jax.errors import PromptError
from prompt_jax.prompts import (
    ClassLabels,
    FromFile,
    SampledVocabulary,
    SoftPrompt,
    Text,
    Uniform,
    init_id,
    parse,
)

SPECS = ["vocab:50", "labels:good|bad", "text:review good", "uniform:0.5", "uniform:0.2:relative"]


def rows_of(prompt: SoftPrompt, lm) -> list[int]:
    """The id whose embedding each token is."""
    found = []
    for token in np.asarray(prompt.embeddings):
        (ids,) = np.nonzero((lm.table == token).all(axis=1))
        assert len(ids) == 1
        found.append(int(ids[0]))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_conformance(spec, lm):
    how = parse(spec)
    assert how.spec == spec
    assert parse(how.spec) == how
    assert hash(how) == hash(parse(spec))
    prompt = how(lm, 6, 3)
    assert prompt.embeddings.shape == (6, 8)
    assert prompt.embeddings.dtype == jnp.float32
    record = prompt.record
    assert (record.method, record.init, record.seed) == ("init", spec, 3)
    assert (record.model_hash, record.model_name) == (lm.weights_hash, "fake")
    assert (record.tokens, record.d_model) == (6, 8)
    again = how(lm, 6, 3)
    np.testing.assert_array_equal(again.embeddings, prompt.embeddings)
    assert again.record == record
    assert record.init_id == init_id(prompt.embeddings)


@pytest.mark.parametrize("spec", ["vocab:50", "labels:good|bad", "uniform:0.5"])
def test_seeds_give_different_starts(spec, lm):
    ids = {parse(spec)(lm, 6, seed).record.init_id for seed in range(5)}
    assert len(ids) == 5


def test_defaults():
    assert parse("vocab") == parse("vocab:") == SampledVocabulary(5000)
    assert parse("uniform") == Uniform(0.5)


def test_sampled_vocabulary_draws_distinct_frequent_pieces(lm):
    ids = rows_of(SampledVocabulary(10)(lm, 10, 0), lm)
    assert sorted(ids) == list(range(10))
    assert ids == list(streams.rng(0, "init").permutation(10))
    ids = rows_of(SampledVocabulary()(lm, 6, 1), lm)  # a vocabulary smaller than 5,000
    assert len(set(ids)) == 6
    with pytest.raises(PromptError, match="cannot draw 11 distinct pieces from 10"):
        SampledVocabulary(10)(lm, 11, 0)


def test_a_longer_draw_begins_with_the_shorter(lm):
    short, long = (SampledVocabulary()(lm, n, 0).embeddings for n in (4, 9))
    np.testing.assert_array_equal(short, long[:4])


def test_class_labels(lm):
    prompt = ClassLabels(("good", "bad w5 w7"))(lm, 5, 0)
    good, bad, w5, w7 = lm.table[60], lm.table[61], lm.table[5], lm.table[7]
    np.testing.assert_array_equal(prompt.embeddings[0], good)
    np.testing.assert_allclose(prompt.embeddings[1], (bad + w5 + w7) / 3, rtol=1e-6)
    rest = SampledVocabulary()(lm, 3, 0)
    np.testing.assert_array_equal(prompt.embeddings[2:], rest.embeddings)
    whole = ClassLabels(("good", "bad"))(lm, 2, 0)
    assert rows_of(whole, lm) == [60, 61]
    with pytest.raises(PromptError, match="has 2 labels for a prompt of 1"):
        ClassLabels(("good", "bad"))(lm, 1, 0)


def test_text_is_repeated_and_cut(lm):
    assert rows_of(Text("good review bad")(lm, 7, 0), lm) == [60, 62, 61, 60, 62, 61, 60]
    assert rows_of(Text("good review bad")(lm, 2, 0), lm) == [60, 62]


def test_text_of_two_seeds_is_one_initialisation(lm):
    a, b = (Text("good review")(lm, 4, seed) for seed in (0, 1))
    assert a.record.init_id == b.record.init_id
    assert (a.record.seed, b.record.seed) == (0, 1)


def test_text_that_has_no_piece(lm):
    silent = dataclasses.replace(lm, tokenizer=SilentTokenizer())
    for how in (Text("..."), ClassLabels(("...",))):
        with pytest.raises(PromptError, match="finds no piece"):
            how(silent, 3, 0)


class SilentTokenizer:
    vocab_size = 3

    def encode(self, texts, add_eos=True):
        return [[1] if add_eos else [] for _ in texts]


def test_uniform(lm):
    values = np.asarray(Uniform(0.25)(lm, 200, 0).embeddings)
    assert values.min() >= -0.25
    assert values.max() <= 0.25
    assert values.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.05)
    rms = np.sqrt(np.mean(lm.table.astype(np.float64) ** 2))
    relative = np.asarray(Uniform(0.25, relative=True)(lm, 200, 0).embeddings)
    np.testing.assert_allclose(relative, values * rms, rtol=1e-5)


def test_file(lm, prompt, tmp_path):
    path = tmp_path / "mrpc.safetensors"
    prompt.save(path)
    how = parse(f"file:{path}")
    assert how == FromFile(path)
    start = how(lm, 5, 9)
    np.testing.assert_array_equal(start.embeddings, prompt.embeddings)
    assert start.record.init_id == init_id(prompt.embeddings)
    assert start.record.config == {"source_task": "glue/mrpc"}
    path.rename(tmp_path / "copy")
    assert FromFile(tmp_path / "copy")(lm, 5, 0).record.init_id == start.record.init_id
    with pytest.raises(PromptError, match="has 5 tokens, but a prompt of 7"):
        FromFile(tmp_path / "copy")(lm, 7, 0)
    other = dataclasses.replace(lm, weights_hash="f" * 64)
    with pytest.raises(PromptError, match="was made for base model"):
        FromFile(tmp_path / "copy")(other, 5, 0)


def test_bfloat16_embeddings(lm):
    half = dataclasses.replace(lm, table=jnp.asarray(lm.table, jnp.bfloat16))
    prompt = SampledVocabulary()(half, 4, 0)
    assert prompt.embeddings.dtype == jnp.float32
    expected = SampledVocabulary()(lm, 4, 0).embeddings.astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(prompt.embeddings, expected)


def test_init_id_is_of_the_numbers_alone():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert init_id(values) == init_id(jnp.asarray(values)) == init_id(values.astype(">f4"))
    assert init_id(values) != init_id(values.reshape(3, 2))
    assert len(init_id(values)) == 12


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vocap:5", "unknown initialiser 'vocap:5'. Did you mean 'vocab'.*Known: vocab:5000"),
        ("", "unknown initialiser ''"),
        ("vocab:many", "malformed; write it like vocab:5000"),
        ("vocab:0", "must be positive"),
        ("labels:", "needs label texts"),
        ("labels:a||b", "needs label texts"),
        ("text:", "needs a text"),
        ("file:", "needs a path"),
        ("uniform:wide", "malformed; write it like uniform:0.5"),
        ("uniform:0.5:absolute", "malformed"),
        ("uniform:-1", "must be positive"),
        ("uniform:nan", "must be positive"),
        ("uniform:inf", "must be positive"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(PromptError, match=message):
        parse(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_no_tokens(spec, lm):
    with pytest.raises(PromptError):
        parse(spec)(lm, 0, 0)
