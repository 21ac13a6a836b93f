"""`predict` against the model itself, row by row."""

import numpy as np
import pytest

from prompt_jax import SoftPrompt, predict
from prompt_jax.data import Task, Template
from prompt_jax.models.decoder import DecoderConfig, FrozenDecoder
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.models.t5.config import T5Config

from .test_evaluators import Letters

TASK = Task("t", "classification", ("text",), (Template("t", "{text}"),), labels=("no", "perhaps"))


def t5():
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=4
    )
    return FrozenT5.from_config(config, seed=3)


def decoder():
    config = DecoderConfig(
        vocab_size=40, d_model=16, d_ff=32, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=4
    )
    return FrozenDecoder.from_config(config, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("make", [t5, decoder])
def test_scores_are_the_models_own(monkeypatch, make):
    lm = make()
    tokenizer = Letters()
    monkeypatch.setattr(type(lm), "tokenizer", property(lambda self: tokenizer))
    draws = np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32)
    one, other = map(SoftPrompt, draws)
    texts = ["abcd", "dcba xy", "q"]
    answers = predict(lm, texts, [one, other, one], task=TASK)
    labels = np.full((2, 8), -100, np.int32)
    for row, ids in zip(labels, tokenizer.encode(TASK.labels), strict=True):
        row[: len(ids)] = ids
    for text, prompt, answer in zip(texts, (one, other, one), answers, strict=True):
        ids = np.asarray(tokenizer.encode([text]))
        nll, tokens = lm.rank(ids, np.ones_like(ids), labels, prompt)
        mean = (np.asarray(nll) / np.asarray(tokens))[0]
        np.testing.assert_allclose(list(answer.nll.values()), mean, rtol=2e-5)
        odds = np.exp(mean[0] - mean[1])
        assert answer.scores["perhaps"] == pytest.approx(odds / (1 + odds), rel=1e-4)
        assert answer.label == TASK.labels[int(mean.argmin())]
