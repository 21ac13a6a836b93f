"""Greedy and beam search at static shapes, with a key-value cache, under `jit`.

Both loops stop as soon as every row is finished. Beam search follows transformers step by step
(length penalty 1, no early stopping), so that the same weights give the same token ids.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.modules import T5, Cache

_LOW = -1.0e9  # added to scores that must not be chosen


def greedy(
    module: T5, variables: dict[str, Any], encoded: jax.Array, mask: jax.Array, max_new_tokens: int
) -> jax.Array:
    """The most probable token at each step.

    Args:
      module: the model.
      variables: `{"params": params}`.
      encoded: `[B, P, D]`, the encoder's output.
      mask: `[B, P]`, of its positions.
      max_new_tokens: T.

    Returns:
      `[B, T]` int32 without the start token; `pad_token_id` after the end of a sequence.
    """
    config = module.config
    rows = encoded.shape[0]
    cache = module.apply(variables, encoded, rows, max_new_tokens, method="begin")

    class State(NamedTuple):
        position: jax.Array
        tokens: jax.Array  # [B], the decoder's next inputs
        done: jax.Array  # [B] bool
        out: jax.Array  # [B, T]
        cache: Any

    def going(state: State) -> jax.Array:
        return (state.position < max_new_tokens) & ~jnp.all(state.done)

    def step(state: State) -> State:
        logits, cache = module.apply(
            variables, state.tokens, state.position, state.cache, mask, method="step"
        )
        best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        tokens = jnp.where(state.done, config.pad_token_id, best)
        out = jax.lax.dynamic_update_slice_in_dim(
            state.out, tokens[:, None], state.position, axis=1
        )
        done = state.done | (tokens == config.eos_token_id)
        return State(state.position + 1, tokens, done, out, cache)

    state = State(
        jnp.zeros((), jnp.int32),
        jnp.full((rows,), config.decoder_start_token_id, jnp.int32),
        jnp.zeros((rows,), bool),
        jnp.full((rows, max_new_tokens), config.pad_token_id, jnp.int32),
        cache,
    )
    return jax.lax.while_loop(going, step, state).out


class _Beams(NamedTuple):
    """State of a beam search over K beams."""

    position: jax.Array  # [] int32
    running: jax.Array  # [B, K, T] sequences that go on, best first
    running_scores: jax.Array  # [B, K] summed log-probabilities
    ended: jax.Array  # [B, K, T] best finished sequences, best first
    ended_scores: jax.Array  # [B, K] log-probability per token
    is_ended: jax.Array  # [B, K] bool, whether `ended` holds a real sequence
    open: jax.Array  # [B] bool, whether a running beam may still beat a finished one
    stuck: jax.Array  # [] bool, every continuation of every row has ended
    tokens: jax.Array  # [B, K] the decoder's next inputs
    cache: Any  # a modules.Cache


def beam_search(
    module: T5,
    variables: dict[str, Any],
    encoded: jax.Array,
    mask: jax.Array,
    max_new_tokens: int,
    num_beams: int,
) -> jax.Array:
    """The finished sequence with the highest log-probability per token among K beams.

    Args:
      module: the model.
      variables: `{"params": params}`.
      encoded: `[B, P, D]`.
      mask: `[B, P]`.
      max_new_tokens: T.
      num_beams: K.

    Returns:
      `[B, T]` int32, as of `greedy`.
    """
    config = module.config
    rows = encoded.shape[0]
    shape = (rows, num_beams)
    first = jnp.arange(num_beams) == 0
    scores = jnp.broadcast_to(jnp.where(first, 0.0, _LOW).astype(jnp.float32)[None], shape)
    empty = jnp.full((*shape, max_new_tokens), config.pad_token_id, jnp.int32)
    state = _Beams(
        position=jnp.zeros((), jnp.int32),
        running=empty,
        running_scores=scores,
        ended=empty,
        ended_scores=jnp.full(shape, _LOW, jnp.float32),
        is_ended=jnp.zeros(shape, bool),
        open=jnp.ones((rows,), bool),
        stuck=jnp.zeros((), bool),
        tokens=jnp.full(shape, config.decoder_start_token_id, jnp.int32),
        cache=module.apply(variables, encoded, rows * num_beams, max_new_tokens, method="begin"),
    )

    def going(state: _Beams) -> jax.Array:
        return (state.position < max_new_tokens) & jnp.any(state.open) & ~state.stuck

    def step(state: _Beams) -> _Beams:
        logits, cache = module.apply(
            variables, state.tokens.reshape(-1), state.position, state.cache, mask, method="step"
        )
        log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(*shape, -1)
        return _advance(config, state, log_probs, cache, max_new_tokens)

    state = jax.lax.while_loop(going, step, state)
    return state.ended[:, 0]


def _advance(
    config: T5Config, state: _Beams, log_probs: jax.Array, cache: Any, max_new_tokens: int
) -> _Beams:
    rows, beams, vocab = log_probs.shape
    total = (log_probs + state.running_scores[..., None]).reshape(rows, beams * vocab)
    # Twice as many as beams: at most one continuation of each beam can end the sequence, so at
    # least K are left to go on.
    scores, flat = jax.lax.top_k(total, 2 * beams)
    parents, tokens = flat // vocab, (flat % vocab).astype(jnp.int32)
    sequences = _pick(state.running, parents)
    sequences = jax.lax.dynamic_update_slice_in_dim(
        sequences, tokens[..., None], state.position, axis=2
    )
    length = state.position + 1
    ends = (tokens == config.eos_token_id) | (length >= max_new_tokens)

    running_scores, going = jax.lax.top_k(jnp.where(ends, scores + _LOW, scores), beams)
    parents = _pick(parents, going)

    # Only the best K continuations may enter the finished ones; the others are spares.
    eligible = ends & (jnp.arange(2 * beams) < beams)[None]
    per_token = scores / length.astype(jnp.float32)
    per_token = jnp.where(eligible & state.open[:, None], per_token, per_token + _LOW)
    merged = jnp.concatenate([state.ended_scores, per_token], axis=1)
    ended_scores, best = jax.lax.top_k(merged, beams)
    is_ended = _pick(jnp.concatenate([state.is_ended, eligible], axis=1), best)

    hope = running_scores[:, 0] / length.astype(jnp.float32)
    worst = jnp.where(jnp.all(is_ended, axis=1), jnp.min(ended_scores, axis=1), _LOW)
    return _Beams(
        position=length,
        running=_pick(sequences, going),
        running_scores=running_scores,
        ended=_pick(jnp.concatenate([state.ended, sequences], axis=1), best),
        ended_scores=ended_scores,
        is_ended=is_ended,
        open=state.open & (hope > worst),
        stuck=jnp.all(ends),
        tokens=_pick(tokens, going),
        cache=_reorder(cache, parents),
    )


def _pick(array: jax.Array, index: jax.Array) -> jax.Array:
    """`array[b, index[b, j]]` of an `[B, N, ...]` array, row by row."""
    return jax.vmap(lambda row, i: jnp.take(row, i, axis=0, mode="clip"))(array, index)


def _reorder(cache: Cache, parents: jax.Array) -> Cache:
    """Lets every beam `[B, K]` continue from its parent's keys and values."""
    rows, beams = parents.shape

    def one(array: jax.Array) -> jax.Array:
        grouped = array.reshape(array.shape[0], rows, beams, *array.shape[2:])
        take = jax.vmap(lambda row, i: jnp.take(row, i, axis=1, mode="clip"), (1, 0), 1)
        return take(grouped, parents).reshape(array.shape)

    return cache._replace(self_keys=one(cache.self_keys), self_values=one(cache.self_values))
