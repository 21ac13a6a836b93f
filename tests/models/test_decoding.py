"""Decoding of a model that is a table of next-token scores, against every possible sequence."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.models import decoding

PAD, EOS, VOCAB, NEW = 0, 1, 4, 4


def table(seed: int) -> np.ndarray:
    """Scores [V, V] of the next token after a token; ends are rare."""
    scores = 2 * np.random.default_rng(seed).normal(size=(VOCAB, VOCAB)).astype(np.float32)
    scores[:, EOS] -= 2
    return scores


def step_of(scores: np.ndarray):
    """A step whose scores come from the token before, kept in the cache, and the newest one.

    The first half depends on the cache alone, so that beams need the cache of their parents.
    """

    def step(tokens: jax.Array, position: jax.Array, cache: jax.Array):
        del position
        return 0.5 * (jnp.asarray(scores)[tokens] + jnp.asarray(scores)[cache[0]]), tokens[None]

    return step


def sequences(scores: np.ndarray, first: int) -> list[tuple[float, list[int]]]:
    """Every finished sequence with its log-probability per token."""
    found = []
    for tokens in itertools.product(range(VOCAB), repeat=NEW):
        length = tokens.index(EOS) + 1 if EOS in tokens else NEW
        if any(token != PAD for token in tokens[length:]):
            continue  # the same sequence with other padding
        path = [first, first, *tokens[:length]]
        total = 0.0
        for before, last, token in zip(path, path[1:], path[2:], strict=False):
            mixed = 0.5 * (scores[last] + scores[before])
            total += mixed[token] - np.log(np.exp(mixed).sum())
        found.append((total / length, list(tokens)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_best_token_of_each_step(seed: int) -> None:
    scores = table(seed)
    first = jnp.asarray([2, 3], jnp.int32)
    out = decoding.greedy(step_of(scores), first[None], first, NEW, pad_id=PAD, eos_id=EOS)
    for start, row in zip((2, 3), np.asarray(out).tolist(), strict=True):
        expected, before, token = [], start, start
        while len(expected) < NEW and token != EOS:
            before, token = token, int((scores[token] + scores[before]).argmax())
            expected.append(token)
        assert row == expected + [PAD] * (NEW - len(expected))


@pytest.mark.parametrize("seed", [0, 5, 10, 19, 21])
def test_enough_beams_find_the_best_of_all_sequences(seed: int) -> None:
    """In the later seeds the best sequence changes its place among the beams."""
    scores, beams = table(seed), 32
    first = jnp.broadcast_to(jnp.asarray([[2], [3]], jnp.int32), (2, beams))
    out = decoding.beam_search(
        step_of(scores),
        decoding.reorder_rows,
        first.reshape(1, -1),
        first,
        NEW,
        pad_id=PAD,
        eos_id=EOS,
    )
    for start, row in zip((2, 3), np.asarray(out).tolist(), strict=True):
        assert row == max(sequences(scores, start))[1]


def test_rows_of_a_cache_follow_their_parents() -> None:
    cache = np.arange(2 * 6 * 5).reshape(2, 6, 5)  # 2 layers, 2 rows of 3 beams
    parents = np.asarray([[2, 0, 0], [1, 1, 2]])
    out = decoding.reorder_rows(jnp.asarray(cache), jnp.asarray(parents))
    np.testing.assert_array_equal(out, cache[:, [2, 0, 0, 4, 4, 5]])
