"""The compiled passes of a decoder-only model: scores, ranking and generation.

A row is one sequence `[prompt ; input ; target]`. Padding may stand anywhere in the input: it is
never attended to, and positions count real tokens, so that the logits do not depend on it. The
logits of a target token are those of the last real position before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.models import decoding, ops
from prompt_jax.models.base import Scores
from prompt_jax.models.decoder.modules import Beginning, Decoder, Own
from prompt_jax.models.dropout import Dropout, by_row


class Weights(NamedTuple):
    """A module and its parameters."""

    module: Decoder
    params: Any

    def apply(self, method: str, *args: Any) -> Any:
        """Calls a method of the module."""
        return self.module.apply({"params": self.params}, *args, method=method)


def beginning_of(
    lm: Weights, input_ids: jax.Array, mask: jax.Array, prompt: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Embeddings `[B, L + S, D]` of prompt and input, and the mask `[B, L + S]` bool."""
    dtype = lm.module.dtype
    embedded = lm.apply("embed", input_ids).astype(dtype)
    mask = mask.astype(bool)
    if prompt is None:
        return embedded, mask
    rows = input_ids.shape[0]
    if prompt.ndim == 2:
        prompt = jnp.broadcast_to(prompt[None], (rows, *prompt.shape))
    # The prompt is float32 up to here, whatever the model computes in.
    embedded = jnp.concatenate([prompt.astype(dtype), embedded], axis=1)
    return embedded, jnp.concatenate([jnp.ones((rows, prompt.shape[1]), bool), mask], axis=1)


def last_real(mask: jax.Array) -> jax.Array:
    """For each position the last real one up to it, `[N, Q]` int32; 0 before the first."""
    slots = jnp.broadcast_to(jnp.arange(mask.shape[1], dtype=jnp.int32)[None], mask.shape)
    return jax.lax.cummax(jnp.where(mask, slots, 0), axis=1)


def _pick(states: jax.Array, index: jax.Array) -> jax.Array:
    """`states[n, index[n, j]]`, `[N, J, D]`."""
    return jnp.take_along_axis(states, index[..., None], axis=1, mode="clip")


def score(
    lm: Weights,
    input_ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    prompt: jax.Array | None,
    dropout: Dropout | None,
    observe: frozenset[str],
) -> Scores:
    """Teacher-forced scores of `labels [B, T]`."""
    embedded, mask = beginning_of(lm, input_ids, mask, prompt)
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
    logits = None
    if "logits" in observe:
        logits = lm.apply("logits", hidden)
        nll = ops.logits_nll(logits, labels)
    else:
        nll = lm.apply("nll", hidden, labels)
    return Scores(
        nll=jnp.sum(nll, axis=1),
        tokens=_count(labels),
        logits=logits,
        hidden=hidden.astype(jnp.float32) if "hidden" in observe else None,
    )


def rank(
    lm: Weights,
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
    if candidates.ndim == 2:
        candidates = jnp.broadcast_to(candidates[None], (rows, *candidates.shape))
    choices, length = candidates.shape[1:]
    labels = candidates.reshape(-1, length)
    states = jnp.repeat(last, choices, axis=0)[:, None]  # [N, 1, D]
    if length > 1:
        read, real = (x[:, :-1] for x in _tokens(labels))
        own = lm.apply("empty", labels.shape[0], length - 1)
        more, _ = lm.apply("extend", read, real, 0, beginning, own)
        states = jnp.concatenate([states, more], axis=1)
        states = _pick(states, last_real(jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)))
    nll = jnp.sum(lm.apply("nll", lm.apply("finish", states), labels), axis=1)
    tokens = _count(labels)
    nll = jnp.where(tokens > 0, nll, jnp.inf)
    return nll.reshape(rows, choices), tokens.reshape(rows, choices)


def generate(
    lm: Weights,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    max_new_tokens: int,
    num_beams: int,
    fill: int,
) -> jax.Array:
    """Token ids `[B, max_new_tokens]`, `fill` after the end."""
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
    config = lm.module.config
    ids: dict[str, Any] = {"pad_id": fill, "eos_id": config.eos_token_ids}
    if num_beams == 1:
        first = jnp.zeros((rows,), jnp.int32)  # not read
        return decoding.greedy(step, own, first, max_new_tokens, **ids)
    first = jnp.zeros((rows, num_beams), jnp.int32)
    return decoding.beam_search(step, _reorder, own, first, max_new_tokens, **ids)


def _begin(
    lm: Weights, input_ids: jax.Array, mask: jax.Array, prompt: jax.Array | None
) -> tuple[jax.Array, Beginning]:
    """The state `[B, D]` of the last real position, and what continuations attend to."""
    embedded, mask = beginning_of(lm, input_ids, mask, prompt)
    states, beginning = lm.apply("begin", embedded, mask)
    return _pick(states, last_real(mask)[:, -1:])[:, 0], beginning


def _reorder(own: Own, parents: jax.Array) -> Own:
    return Own(*(decoding.reorder_rows(array, parents) for array in own))


def _tokens(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Targets as ids that can be read, and which of them are real."""
    real = labels != ops.IGNORE
    return jnp.where(real, labels, 0), real


def _count(labels: jax.Array) -> jax.Array:
    return jnp.sum((labels != ops.IGNORE).astype(jnp.float32), axis=-1)
