"""The start of the attention: what it looks at and what it hands on, before any training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.pretrain import attention
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.models.t5.relative import buckets

WIDTH, HEADS = 64, 4
INNER = WIDTH // HEADS


@pytest.fixture(scope="module")
def started() -> Any:
    config = T5Config(
        vocab_size=32,
        d_model=WIDTH,
        d_kv=INNER,
        d_ff=16,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=HEADS,
        activation="gelu_new",
        gated=True,
    )
    return attention.matching(FrozenT5.from_config(config).params, HEADS, seed=3)


def logits(part: Any, layer: int, head: int, asking: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Attention logits [n, m] of a head between vectors [n, D] and [m, D], without positions."""
    cut = slice(head * INNER, (head + 1) * INNER)
    q, k = (np.asarray(part[name])[layer][:, cut] for name in ("q", "k"))
    return (asking @ q) @ (asked @ k).T


def vectors(count: int) -> np.ndarray:
    found = np.random.default_rng(0).standard_normal((count, WIDTH))
    return found / np.sqrt((found**2).mean(1, keepdims=True))


@pytest.mark.parametrize("layer", [0, 1])
def test_matching_attends_to_equal_words(started: Any, layer: int) -> None:
    words = vectors(40)
    cross = started["decoder"]["layers"]["cross_attention"]
    heads = [logits(cross, layer, head, words, words) for head in range(HEADS)]
    # Together the heads' keys span everything, so their mean is exact.
    np.testing.assert_allclose(np.diag(np.mean(heads, axis=0)), attention.MATCH, rtol=1e-4)
    encoder = started["encoder"]["layers"]["self_attention"]
    for found in (*heads, *(logits(encoder, layer, head, words, words) for head in (0, 1))):
        other = found[~np.eye(40, dtype=bool)]
        assert np.diag(found).mean() > 2.5 * other.std()
        assert abs(other.mean()) < 0.1


def test_matching_copies_values_unchanged(started: Any) -> None:
    part = started["decoder"]["layers"]["cross_attention"]
    word = vectors(1)
    # All heads attend to the same word: values side by side, through the output.
    got = word @ np.asarray(part["v"])[0] @ np.asarray(part["o"])[0]
    np.testing.assert_allclose(got, attention.COPIED * word, rtol=1e-4, atol=1e-4)


def test_matching_biases_encoder_heads_by_position(started: Any) -> None:
    bias = np.asarray(started["encoder"]["relative_bias"])
    distance = buckets(
        np.asarray([-1, 0, 1, 5]), bidirectional=True, num_buckets=32, max_distance=128
    )
    before, own, after, far = (bias[b] for b in distance)
    assert (own[:2] < -5).all()
    assert (before[2], after[3]) == (5, 5)
    assert not far.any()
    words = vectors(40)
    part = started["encoder"]["layers"]["self_attention"]
    assert np.abs(logits(part, 0, 2, words, words)).max() < 1  # the place decides, not the word


def test_matching_keeps_other_parameters(started: Any) -> None:
    config = T5Config(
        vocab_size=32,
        d_model=WIDTH,
        d_kv=INNER,
        d_ff=16,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=HEADS,
        activation="gelu_new",
        gated=True,
    )
    plain = FrozenT5.from_config(config).params
    for name in ("wi_0", "wi_1", "wo", "norm"):
        np.testing.assert_array_equal(
            plain["encoder"]["layers"]["mlp"][name], started["encoder"]["layers"]["mlp"][name]
        )
    np.testing.assert_array_equal(plain["shared"], started["shared"])
