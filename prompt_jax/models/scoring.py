"""What the passes of all families have in common: the prompt in front, scores out of states."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prompt_jax.models import ops
from prompt_jax.models.base import Scores
from prompt_jax.models.frozen import FrozenModel


def embedded_rows(
    lm: FrozenModel, input_ids: jax.Array, mask: jax.Array, prompt: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Prompt and input of each row as embeddings.

    Args:
      lm: the model.
      input_ids: `[B, S]`.
      mask: `[B, S]`.
      prompt: `[L, D]`, `[B, L, D]` or None.

    Returns:
      `[B, L + S, D]` in the compute dtype and the mask `[B, L + S]` bool.
    """
    embedded = lm.apply("embed", input_ids).astype(lm.dtype)
    mask = mask.astype(bool)
    if prompt is None:
        return embedded, mask
    rows = input_ids.shape[0]
    if prompt.ndim == 2:
        prompt = jnp.broadcast_to(prompt[None], (rows, *prompt.shape))
    # The prompt is float32 up to here, whatever the model computes in.
    embedded = jnp.concatenate([prompt.astype(lm.dtype), embedded], axis=1)
    return embedded, jnp.concatenate([jnp.ones((rows, prompt.shape[1]), bool), mask], axis=1)


def scores_of(
    lm: FrozenModel, hidden: jax.Array, labels: jax.Array, observe: frozenset[str]
) -> Scores:
    """`Scores` of normed states `[B, T, D]` that predict `labels [B, T]`."""
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


def candidate_scores(
    lm: FrozenModel, hidden: jax.Array, labels: jax.Array, rows: int
) -> tuple[jax.Array, jax.Array]:
    """Summed NLL and tokens `[B, C]` of normed states `[B x C, T, D]`; infinite without tokens."""
    nll = jnp.sum(lm.apply("nll", hidden, labels), axis=1)
    tokens = _count(labels)
    nll = jnp.where(tokens > 0, nll, jnp.inf)
    return nll.reshape(rows, -1), tokens.reshape(rows, -1)


def candidates_of_rows(candidates: jax.Array, rows: int) -> jax.Array:
    """`[C, T]` or `[B, C, T]` as `[B x C, T]`."""
    if candidates.ndim == 2:
        candidates = jnp.broadcast_to(candidates[None], (rows, *candidates.shape))
    return candidates.reshape(-1, candidates.shape[-1])


def _count(labels: jax.Array) -> jax.Array:
    return jnp.sum((labels != ops.IGNORE).astype(jnp.float32), axis=-1)
