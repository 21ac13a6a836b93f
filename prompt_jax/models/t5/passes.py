"""The passes of a T5: teacher forcing, ranking of candidates, generation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.models import decoding, scoring
from prompt_jax.models.base import Scores
from prompt_jax.models.dropout import Dropout, by_row
from prompt_jax.models.frozen import FrozenModel
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.modules import Cache, shift_right

Model = FrozenModel[T5Config]


def encode(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    key: jax.Array | None = None,
    dropout: Dropout | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Encoder output `[B, L + S, D]` and the mask `[B, L + S]` of its positions."""
    embedded, mask = scoring.embedded_rows(lm, input_ids, mask, prompt)
    if dropout is not None:
        return _by_row(lm, dropout, 0, "encode")(embedded, mask), mask
    return lm.apply("encode", embedded, mask, key=key), mask


def _by_row(lm: Model, dropout: Dropout, number: int, method: str) -> Any:
    module = lm.module.clone(config=lm.config.replace(dropout_rate=dropout.rate))
    return by_row(dropout, number, module, lm.params, method)


def _read(lm: Model, labels: jax.Array) -> jax.Array:
    """What the decoder reads under teacher forcing."""
    return shift_right(labels, lm.config.decoder_start_token_id, lm.pad_id)


def score(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    prompt: jax.Array | None,
    key: jax.Array | None,
    dropout: Dropout | None,
    observe: frozenset[str],
) -> Scores:
    """Teacher-forced scores of `labels [B, T]`; `key` is that of the configuration's dropout."""
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    encoded, mask = encode(lm, input_ids, mask, prompt, encoder_key, dropout)
    if dropout is not None:
        hidden = _by_row(lm, dropout, 1, "decode")(_read(lm, labels), encoded, mask)
    else:
        hidden = lm.apply("decode", _read(lm, labels), encoded, mask, key=decoder_key)
    return scoring.scores_of(lm, hidden, labels, observe)


def rank(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    candidates: jax.Array,
    prompt: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Summed NLL and token count `[B, C]` of `candidates [C, T]` or `[B, C, T]`.

    Candidates fold into the decoder's rows; its cross-attention reads them as more queries of the
    same encoder rows, so nothing of the encoder is copied or computed per candidate.
    """
    encoded, mask = encode(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    labels = scoring.candidates_of_rows(candidates, rows)
    hidden = lm.apply("decode", _read(lm, labels), encoded, mask)
    return scoring.candidate_scores(lm, hidden, labels, rows)


def generate(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    max_new_tokens: int,
    num_beams: int,
) -> jax.Array:
    """Token ids `[B, max_new_tokens]`, padding after the end."""
    encoded, mask = encode(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    ids = {"pad_id": lm.pad_id, "eos_id": lm.eos_id}

    def step(tokens: jax.Array, position: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        return lm.apply("step", tokens, position, cache, mask)

    cache = lm.apply("begin", encoded, rows * num_beams, max_new_tokens)
    start = lm.config.decoder_start_token_id
    if num_beams == 1:
        first = jnp.full((rows,), start, jnp.int32)
        return decoding.greedy(step, cache, first, max_new_tokens, **ids)
    first = jnp.full((rows, num_beams), start, jnp.int32)
    return decoding.beam_search(step, _reorder, cache, first, max_new_tokens, **ids)


def _reorder(cache: Cache, parents: jax.Array) -> Cache:
    """Cross-attention's keys and values are the row's, not a beam's."""
    return cache._replace(
        self_keys=decoding.reorder_rows(cache.self_keys, parents),
        self_values=decoding.reorder_rows(cache.self_values, parents),
    )
