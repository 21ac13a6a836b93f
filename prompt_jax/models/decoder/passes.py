"""The compiled passes of a decoder-only model: scores, ranking and generation.

A row is one sequence `[prompt ; input ; target]`. Padding may stand anywhere in the input: it is
never attended to, and positions count real tokens, so that the logits do not depend on it. The
logits of a target token are those of the last real position before it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.models import decoding, ops, scoring
from prompt_jax.models.base import Scores
from prompt_jax.models.decoder.config import DecoderConfig
from prompt_jax.models.decoder.modules import Beginning, Own
from prompt_jax.models.dropout import Dropout, by_row
from prompt_jax.models.frozen import FrozenModel

Model = FrozenModel[DecoderConfig]


def last_real(mask: jax.Array) -> jax.Array:
    """For each position the last real one up to it, `[N, Q]` int32; 0 before the first."""
    slots = jnp.broadcast_to(jnp.arange(mask.shape[1], dtype=jnp.int32)[None], mask.shape)
    return jax.lax.cummax(jnp.where(mask, slots, 0), axis=1)


def _pick(states: jax.Array, index: jax.Array) -> jax.Array:
    """`states[n, index[n, j]]`, `[N, J, D]`."""
    return jnp.take_along_axis(states, index[..., None], axis=1, mode="clip")


def score(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    prompt: jax.Array | None,
    dropout: Dropout | None,
    observe: frozenset[str],
) -> Scores:
    """Teacher-forced scores of `labels [B, T]`."""
    embedded, mask = scoring.embedded_rows(lm, input_ids, mask, prompt)
    start, length = embedded.shape[1], labels.shape[1]
    # The last target is predicted, never read.
    read, real = _tokens(labels)
    more = lm.apply("embed", read[:, :-1]).astype(embedded.dtype)
    whole = jnp.concatenate([mask, real[:, :-1]], axis=1)
    embedded = jnp.concatenate([embedded, more], axis=1)
    if dropout is None:
        states = lm.apply("states", embedded, whole)
    else:
        module = lm.module.clone(dropout=dropout.rate)
        states = by_row(dropout, 0, module, lm.params, "states")(embedded, whole)
    before = last_real(whole)[:, start - 1 : start - 1 + length]
    hidden = lm.apply("finish", _pick(states, before))
    return scoring.scores_of(lm, hidden, labels, observe)


def rank(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    candidates: jax.Array,
    prompt: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Summed NLL and token count `[B, C]` of `candidates [C, T]` or `[B, C, T]`.

    The beginning of a row runs once; its candidates continue from its keys and values.
    """
    last, beginning = _begin(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    labels = scoring.candidates_of_rows(candidates, rows)
    length, choices = labels.shape[1], candidates.shape[-2]
    states = jnp.repeat(last, choices, axis=0)[:, None]  # [N, 1, D]
    if length > 1:
        read, real = (x[:, :-1] for x in _tokens(labels))
        own = lm.apply("empty", labels.shape[0], length - 1)
        more, _ = lm.apply("extend", read, real, 0, beginning, own)
        states = jnp.concatenate([states, more], axis=1)
        states = _pick(states, last_real(jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)))
    return scoring.candidate_scores(lm, lm.apply("finish", states), labels, rows)


def generate(
    lm: Model,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    max_new_tokens: int,
    num_beams: int,
) -> jax.Array:
    """Token ids `[B, max_new_tokens]`, `pad_id` after the end."""
    last, beginning = _begin(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    first_logits = lm.apply("logits", lm.apply("finish", last[:, None]))[:, 0]
    first_logits = jnp.repeat(first_logits, num_beams, axis=0)

    def step(tokens: jax.Array, position: jax.Array, own: Own) -> tuple[jax.Array, Own]:
        """The first token follows from the beginning; later ones from the token before them."""

        def begun(own: Own) -> tuple[jax.Array, Own]:
            return first_logits, own

        def further(own: Own) -> tuple[jax.Array, Own]:
            real = jnp.ones((tokens.shape[0], 1), bool)
            states, own = lm.apply("extend", tokens[:, None], real, position - 1, beginning, own)
            return lm.apply("logits", lm.apply("finish", states))[:, 0], own

        return jax.lax.cond(position == 0, begun, further, own)

    own = lm.apply("empty", rows * num_beams, max(max_new_tokens - 1, 1))
    ids: dict[str, Any] = {"pad_id": lm.pad_id, "eos_id": lm.config.eos_token_ids}
    if num_beams == 1:
        first = jnp.zeros((rows,), jnp.int32)  # not read
        return decoding.greedy(step, own, first, max_new_tokens, **ids)
    first = jnp.zeros((rows, num_beams), jnp.int32)
    return decoding.beam_search(step, _reorder, own, first, max_new_tokens, **ids)


def _begin(
    lm: Model, input_ids: jax.Array, mask: jax.Array, prompt: jax.Array | None
) -> tuple[jax.Array, Beginning]:
    """The state `[B, D]` of the last real position, and what continuations attend to."""
    embedded, mask = scoring.embedded_rows(lm, input_ids, mask, prompt)
    states, beginning = lm.apply("begin", embedded, mask)
    return _pick(states, last_real(mask)[:, -1:])[:, 0], beginning


def _reorder(own: Own, parents: jax.Array) -> Own:
    return Own(*(decoding.reorder_rows(array, parents) for array in own))


def _tokens(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Targets as ids that can be read, and which of them are real."""
    real = labels != ops.IGNORE
    return jnp.where(real, labels, 0), real
