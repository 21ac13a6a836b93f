"""What a language model must offer to the floors above, whatever its architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax


class Scores(NamedTuple):
    """What one teacher-forced pass says about its target tokens.

    Sums and counts are kept apart until the very end, so that one device and N devices, one
    micro-batch and many, agree.
    """

    nll: jax.Array  # [B] float32: negative log-likelihood summed over the row's target tokens
    tokens: jax.Array  # [B] float32: number of target tokens (labels other than -100)
    logits: jax.Array | None = None  # [B, T, V] float32, only where observed
    hidden: jax.Array | None = None  # [B, T, D] float32, only where observed


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back, the same for every row of a data set."""

    pad_id: int
    eos_id: int
    vocab_size: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary file: part of every cache key."""

    def encode(self, texts: Sequence[str], add_eos: bool = True) -> list[list[int]]:
        """Token ids of each text, never cut."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of one row of ids; padding and other special tokens are dropped."""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for each row."""

    def sentinel_id(self, index: int) -> int:
        """The id of `<extra_id_{index}>`, the span-corruption sentinels."""


@runtime_checkable
class LanguageModel(Protocol):
    """A frozen encoder-decoder whose encoder input can be led by a soft prompt.

    An implementation is a registered pytree of its weights: it is passed to jitted functions as an
    argument and never closed over. `prompt` is `None`, `[L, D]`, `[B, L, D]` or an object with such
    an array as `.embeddings`; `labels` are padded with -100.
    """

    params: Any

    @property
    def d_model(self) -> int:
        """D, the width of an embedding."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the canonical float32 parameter tree."""

    def replace(self, *, params: Any) -> LanguageModel:
        """The same model with other weights."""

    def embedding_rms(self) -> jax.Array:
        """The root mean square of the input embeddings, a float32 scalar: the unit of prompts."""

    def embed(self, ids: Any) -> jax.Array:
        """Input embeddings `[..., D]` of token ids `[...]`."""

    def score(
        self,
        input_ids: Any,
        attention_mask: Any,
        labels: Any,
        prompt: Any = None,
        *,
        observe: frozenset[str] = frozenset(),
    ) -> Scores:
        """Teacher-forced scores of `labels [B, T]` given `input_ids [B, S]`."""

    def rank(
        self, input_ids: Any, attention_mask: Any, candidates: Any, prompt: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Summed NLL and token count `[B, C]` of each candidate answer of each row."""

    def generate(
        self,
        input_ids: Any,
        attention_mask: Any,
        prompt: Any = None,
        *,
        max_new_tokens: int = 32,
        num_beams: int = 1,
    ) -> jax.Array:
        """Token ids `[B, max_new_tokens]`, without the start token, 0 after the end."""
