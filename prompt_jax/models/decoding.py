"""Greedy and beam search at static shapes, with a key-value cache, under `jit`.

Both loops stop as soon as every row is finished. Beam search follows transformers step by step
(length penalty 1, no early stopping), so that the same weights give the same token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax import sharding

Step = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
"""`(tokens [N], position [], cache) -> (logits [N, V], cache)`, N rows or rows x beams."""

_LOW = -1.0e9  # added to scores that must not be chosen


def greedy(
    step: Step,
    cache: Any,
    first: jax.Array,
    max_new_tokens: int,
    *,
    pad_id: int,
    eos_id: int | tuple[int, ...],
) -> jax.Array:
    """The most probable token at each step.

    Args:
      step: one decoding step; `position` counts generated tokens from 0.
      cache: before the first step.
      first: `[B]` int32, its input.
      max_new_tokens: T.
      pad_id: fills a sequence after its end.
      eos_id: ends a sequence; of several ids, any of them.

    Returns:
      `[B, T]` int32 without `first`.
    """
    rows = first.shape[0]

    class State(NamedTuple):
        position: jax.Array
        tokens: jax.Array  # [B], the next inputs
        done: jax.Array  # [B] bool
        out: jax.Array  # [B, T]
        cache: Any

    def unfinished(state: State) -> jax.Array:
        return (state.position < max_new_tokens) & ~jnp.all(state.done)

    def body(state: State) -> State:
        logits, cache = step(state.tokens, state.position, state.cache)
        best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        tokens = jnp.where(state.done, pad_id, best)
        out = jax.lax.dynamic_update_slice_in_dim(
            state.out, tokens[:, None], state.position, axis=1
        )
        done = state.done | _is_end(tokens, eos_id)
        return State(state.position + 1, tokens, done, out, cache)

    state = State(
        jnp.zeros((), jnp.int32),
        first,
        jnp.zeros((rows,), bool),
        jnp.full((rows, max_new_tokens), pad_id, jnp.int32),
        cache,
    )
    return jax.lax.while_loop(unfinished, body, sharding.vary_alike(state)).out


class _Beams(NamedTuple):
    """State of a beam search over K beams."""

    position: jax.Array  # [] int32
    running: jax.Array  # [B, K, T] unfinished sequences, best first
    running_scores: jax.Array  # [B, K] summed log-probabilities
    ended: jax.Array  # [B, K, T] best finished sequences, best first
    ended_scores: jax.Array  # [B, K] log-probability per token
    is_ended: jax.Array  # [B, K] bool, whether `ended` holds a real sequence
    open: jax.Array  # [B] bool, whether a running beam may still beat a finished one
    stuck: jax.Array  # [] bool, every continuation of every row has ended
    tokens: jax.Array  # [B, K] the next inputs
    cache: Any


def beam_search(
    step: Step,
    reorder: Callable[[Any, jax.Array], Any],
    cache: Any,
    first: jax.Array,
    max_new_tokens: int,
    *,
    pad_id: int,
    eos_id: int | tuple[int, ...],
) -> jax.Array:
    """The finished sequence with the highest log-probability per token among K beams.

    Args:
      step: one decoding step of B x K rows, beams of a row side by side.
      reorder: `(cache, parents [B, K]) -> cache` in which every beam has the state of its parent,
        a beam of the same row; see `reorder_rows`.
      cache: before the first step.
      first: `[B, K]` int32, its inputs.
      max_new_tokens: T.
      pad_id: fills a sequence after its end.
      eos_id: ends a sequence; of several ids, any of them.

    Returns:
      `[B, T]` int32, as of `greedy`.
    """
    shape = first.shape
    leads = jnp.arange(shape[1]) == 0
    scores = jnp.broadcast_to(jnp.where(leads, 0.0, _LOW).astype(jnp.float32)[None], shape)
    empty = jnp.full((*shape, max_new_tokens), pad_id, jnp.int32)
    state = _Beams(
        position=jnp.zeros((), jnp.int32),
        running=empty,
        running_scores=scores,
        ended=empty,
        ended_scores=jnp.full(shape, _LOW, jnp.float32),
        is_ended=jnp.zeros(shape, bool),
        open=jnp.ones(shape[:1], bool),
        stuck=jnp.zeros((), bool),
        tokens=first,
        cache=cache,
    )

    def unfinished(state: _Beams) -> jax.Array:
        return (state.position < max_new_tokens) & jnp.any(state.open) & ~state.stuck

    def body(state: _Beams) -> _Beams:
        logits, cache = step(state.tokens.reshape(-1), state.position, state.cache)
        log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(*shape, -1)
        state, parents = _advance(state, log_probs, max_new_tokens, eos_id)
        return state._replace(cache=reorder(cache, parents))

    state = jax.lax.while_loop(unfinished, body, sharding.vary_alike(state))
    return state.ended[:, 0]


def _advance(
    state: _Beams, log_probs: jax.Array, max_new_tokens: int, eos_id: int | tuple[int, ...]
) -> tuple[_Beams, jax.Array]:
    """The beams after one more token, and the parent `[B, K]` of each; the cache is unchanged."""
    rows, beams, vocab = log_probs.shape
    total = (log_probs + state.running_scores[..., None]).reshape(rows, beams * vocab)
    # One continuation more of each beam than can end the sequence, so at least K are left
    # unfinished.
    ways = 1 if isinstance(eos_id, int) else len(eos_id)
    scores, flat = jax.lax.top_k(total, min((1 + ways) * beams, beams * vocab))
    parents, tokens = flat // vocab, (flat % vocab).astype(jnp.int32)
    sequences = _pick(state.running, parents)
    sequences = jax.lax.dynamic_update_slice_in_dim(
        sequences, tokens[..., None], state.position, axis=2
    )
    length = state.position + 1
    ends = _is_end(tokens, eos_id) | (length >= max_new_tokens)

    running_scores, kept = jax.lax.top_k(jnp.where(ends, scores + _LOW, scores), beams)
    parents = _pick(parents, kept)

    # Only the best K continuations may enter the finished ones; the others are spares.
    eligible = ends & (jnp.arange(tokens.shape[1]) < beams)[None]
    per_token = scores / length.astype(jnp.float32)
    per_token = jnp.where(eligible & state.open[:, None], per_token, per_token + _LOW)
    merged = jnp.concatenate([state.ended_scores, per_token], axis=1)
    ended_scores, best = jax.lax.top_k(merged, beams)
    is_ended = _pick(jnp.concatenate([state.is_ended, eligible], axis=1), best)

    hope = running_scores[:, 0] / length.astype(jnp.float32)
    worst = jnp.where(jnp.all(is_ended, axis=1), jnp.min(ended_scores, axis=1), _LOW)
    beams_after = _Beams(
        position=length,
        running=_pick(sequences, kept),
        running_scores=running_scores,
        ended=_pick(jnp.concatenate([state.ended, sequences], axis=1), best),
        ended_scores=ended_scores,
        is_ended=is_ended,
        open=state.open & (hope > worst),
        stuck=jnp.all(ends),
        tokens=_pick(tokens, kept),
        cache=state.cache,
    )
    return beams_after, parents


def _is_end(tokens: jax.Array, eos_id: int | tuple[int, ...]) -> jax.Array:
    """Where a token ends its sequence, bool of the same shape."""
    first, *others = (eos_id,) if isinstance(eos_id, int) else eos_id
    ended = tokens == first
    for other in others:
        ended |= tokens == other
    return ended


def _pick(array: jax.Array, index: jax.Array) -> jax.Array:
    """`array[b, index[b, j]]` of an `[B, N, ...]` array, row by row."""
    return jax.vmap(lambda row, i: jnp.take(row, i, axis=0, mode="clip"))(array, index)


def reorder_rows(array: jax.Array, parents: jax.Array) -> jax.Array:
    """Gives every beam the values of its parent.

    Args:
      array: `[layers, B x K, ...]`, part of a cache.
      parents: `[B, K]` int32.
    """
    rows, beams = parents.shape
    grouped = array.reshape(array.shape[0], rows, beams, *array.shape[2:])
    take = jax.vmap(lambda row, i: jnp.take(row, i, axis=1, mode="clip"), (1, 0), 1)
    return take(grouped, parents).reshape(array.shape)
