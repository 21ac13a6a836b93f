"""`FrozenModel`: what a language model computes: checked arguments, programs compiled per shape."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.errors import ModelError
from prompt_jax.models import arguments, ops
from prompt_jax.models.base import Ids, PromptLike, Scores, short_repr
from prompt_jax.models.dropout import Dropout
from prompt_jax.models.stored import Config, StoredModel

_OBSERVABLE = frozenset({"logits", "hidden"})


class FrozenModel(StoredModel[Config]):
    """A language model as a pytree of its weights; families are its subclasses.

    Pass it to jitted functions as an argument; closing over it would bake the weights into the
    program. Every method works eagerly (compiled behind the scenes, once per shape) and inside a
    caller's `jit`, `grad` or `vmap`.

    Shapes: `input_ids` and `attention_mask` are `[B, S]`, `labels` `[B, T]` padded with -100,
    `prompt` None, `[L, D]`, `[B, L, D]`, an object with such an array as `.embeddings`, or a list
    of B prompts.
    """

    def __repr__(self) -> str:
        return short_repr(self)

    def embed(self, ids: Any) -> jax.Array:
        """Input embeddings `[..., D]` of ids `[...]`, in the storage dtype of the table."""
        ids = arguments.integers("ids", ids, None, self.vocab_size)
        return arguments.run(_embed, self, ids)

    def embedding_rms(self) -> jax.Array:
        """Root mean square of the embedding table, `[]` float32: the scale of a useful prompt."""
        return _embedding_rms(self)

    @arguments.takes_ids
    def score(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        labels: Ids,
        prompt: PromptLike | None = None,
        *,
        observe: frozenset[str] = frozenset(),
        key: jax.Array | None = None,
        dropout: Dropout | None = None,
    ) -> Scores:
        """Teacher-forced scores of the labels; logits are computed at target positions only.

        Args:
          input_ids: `[B, S]`.
          attention_mask: `[B, S]`, 0 or 1.
          labels: `[B, T]`, -100 where nothing is predicted.
          prompt: see the class.
          observe: "logits" and / or "hidden", kept in the result. Position t of both predicts
            `labels[:, t]`.
          key: dropout key; only used where `config.dropout_rate` is above 0.
          dropout: rate and keys of the rows, whatever the configuration's rate is; everywhere where
            T5 has dropout, and of the attention probabilities of a decoder-only model.

        Returns:
          `Scores`. A row without target tokens has `nll` 0 and `tokens` 0. `hidden` is the
          output after the final norm, before the scale of a head.

        Raises:
          ModelError, PromptError: shapes, dtypes or ids that do not fit.
        """
        if unknown := frozenset(observe) - _OBSERVABLE:
            raise ModelError(
                f"Cannot observe {', '.join(sorted(unknown))}: only "
                f"{', '.join(sorted(_OBSERVABLE))}."
            )
        ids, mask, prompt = self._rows(input_ids, attention_mask, prompt)
        labels = arguments.integers(
            "labels", labels, (ids.shape[0], None), self.vocab_size, ops.IGNORE
        )
        return arguments.run(
            _score, self, ids, mask, labels, prompt, key, dropout, observe=frozenset(observe)
        )

    @arguments.takes_ids
    def rank(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        candidates: Ids | Sequence[Sequence[Sequence[int]]],
        prompt: PromptLike | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Scores every candidate answer of every row; what stands before them runs once.

        Args:
          input_ids: `[B, S]`.
          attention_mask: `[B, S]`.
          candidates: `[C, T]` for all rows or `[B, C, T]`, padded with -100. A candidate that is
            all padding is no candidate.
          prompt: see the class.

        Returns:
          Summed NLL and number of tokens, `[B, C]` float32 each; NLL is infinite for padding
          candidates.
        """
        ids, mask, prompt = self._rows(input_ids, attention_mask, prompt)
        answers = arguments.as_array("candidates", candidates)
        expected = (None, None) if answers.ndim == 2 else (ids.shape[0], None, None)
        answers = arguments.integers("candidates", answers, expected, self.vocab_size, ops.IGNORE)
        return arguments.run(_rank, self, ids, mask, answers, prompt)

    @arguments.takes_ids
    def logits(
        self, input_ids: Ids, attention_mask: Ids, labels: Ids, prompt: PromptLike | None = None
    ) -> jax.Array:
        """Logits `[B, T, V]` float32 under teacher forcing: `[b, t]` predicts `labels[b, t]`."""
        out = self.score(
            input_ids, attention_mask, labels, prompt, observe=frozenset({"logits"})
        ).logits
        assert out is not None
        return out

    @arguments.takes_ids
    def loss(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        labels: Ids,
        prompt: PromptLike | None = None,
        *,
        per_row: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Token-summed negative log-likelihood and its weight, the number of target tokens.

        Returns:
          `(nll, tokens)`, `[B]` each with `per_row`, else scalars.
        """
        scores = self.score(input_ids, attention_mask, labels, prompt, key=key)
        if per_row:
            return scores.nll, scores.tokens
        return jnp.sum(scores.nll), jnp.sum(scores.tokens)

    @arguments.takes_ids
    def generate(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        prompt: PromptLike | None = None,
        *,
        max_new_tokens: int = 32,
        num_beams: int = 1,
    ) -> jax.Array:
        """Generates with greedy (`num_beams=1`) or beam search, as transformers does.

        Args:
          input_ids: `[B, S]`.
          attention_mask: `[B, S]`.
          prompt: see the class.
          max_new_tokens: T.
          num_beams: beams; the finished sequence with the best log-probability per token wins.

        Returns:
          `[B, T]` int32: the new tokens with the end of sequence, then `pad_id`.
        """
        max_new_tokens = arguments.count("max_new_tokens", max_new_tokens)
        num_beams = arguments.count("num_beams", num_beams)
        if 2 * num_beams > self.vocab_size:
            raise ModelError(f"{num_beams} beams need a vocabulary of {2 * num_beams} tokens.")
        ids, mask, prompt = self._rows(input_ids, attention_mask, prompt)
        return arguments.run(
            _generate,
            self,
            ids,
            mask,
            prompt,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
        )

    # ---------------------------------------------------------------- of a family

    def _rows(
        self, input_ids: Any, attention_mask: Any, prompt: Any
    ) -> tuple[Any, Any, Any | None]:
        """The checked input arguments; see `arguments.rows`."""
        return arguments.rows(self, input_ids, attention_mask, prompt)

    def _score(self, *rows: Any) -> Scores:
        """`score` inside `jit`: ids, mask, labels, prompt, key, dropout, what to observe."""
        raise NotImplementedError

    def _rank(self, *rows: Any) -> tuple[jax.Array, jax.Array]:
        """`rank` inside `jit`: ids, mask, candidates, prompt."""
        raise NotImplementedError

    def _generate(self, *rows: Any) -> jax.Array:
        """`generate` inside `jit`: ids, mask, prompt, new tokens, beams."""
        raise NotImplementedError


# -------------------------------------------------------------------- compiled functions


@jax.jit
def _embed(lm: FrozenModel[Any], ids: jax.Array) -> jax.Array:
    return lm.apply("embed", ids)


@jax.jit
def _embedding_rms(lm: FrozenModel[Any]) -> jax.Array:
    table = lm.params[lm.TABLE].astype(jnp.float32)
    return jnp.sqrt(jnp.mean(table * table))


@functools.partial(jax.jit, static_argnames="observe")
def _score(lm: FrozenModel[Any], *rows: Any, observe: frozenset[str]) -> Scores:
    return lm._score(*rows, observe)


@jax.jit
def _rank(lm: FrozenModel[Any], *rows: Any) -> tuple[jax.Array, jax.Array]:
    return lm._rank(*rows)


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "num_beams"))
def _generate(lm: FrozenModel[Any], *rows: Any, max_new_tokens: int, num_beams: int) -> jax.Array:
    return lm._generate(*rows, max_new_tokens, num_beams)
