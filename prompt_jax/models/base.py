"""What a language model offers to the layers above, whatever its architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.models.dropout import Dropout
from prompt_jax.sharding import Rules


class Scores(NamedTuple):
    """The result of one teacher-forced pass over target tokens.

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
        """Token ids of each text, never truncated."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of one row of ids; padding and other special tokens are dropped."""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` for each row."""


@runtime_checkable
class ContinuingTokenizer(Tokenizer, Protocol):
    """The tokenizer of a model that continues its input, so that the answer follows in one text.

    Other models read input and answer apart; their tokenizers encode both with `encode`. The
    functions of `models.texts` choose.
    """

    def input_text(self, text: str, cue: str) -> str:
        """An input as the model reads it: with the cue for the answer."""

    def input_tail(self, cue: str) -> int:
        """Tokens at the end of an input that belong to the cue, not to the row's text."""

    def answer_text(self, text: str) -> str:
        """An answer as it follows the input."""

    def encode_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts from `input_text`, after what begins a text; no end of sequence."""

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of `answer_text` as they follow an input, with the end of sequence."""


class HasEmbeddings(Protocol):
    """A soft prompt: something with an array [.., L, D]."""

    @property
    def embeddings(self) -> jax.Array:
        """[L, D], or [B, L, D]."""


Ids = jax.Array | np.ndarray | Sequence[Sequence[int]]
"""Token ids or a mask, [B, S]; a text is none (`prompt_jax.predict` takes texts)."""
OnePrompt = jax.Array | np.ndarray | HasEmbeddings
PromptLike = OnePrompt | Sequence[OnePrompt]
"""A prompt [L, D] for all rows, or one per row: [B, L, D], or a list of B prompts."""


class LanguageModel(Protocol):
    """A frozen language model whose input can start with a soft prompt.

    An implementation is a registered pytree of its weights: it is passed to jitted functions as an
    argument and never closed over. `prompt` is `None`, `[L, D]`, `[B, L, D]` or an object with such
    an array as `.embeddings`; `labels` are padded with -100.

    The members are all that the layers above use. Inputs and targets of a row are given apart; how
    an architecture joins them (encoder and decoder, or one sequence) is its own matter.
    """

    # ---------------------------------------------------------------- weights

    @property
    def params(self) -> Any:
        """The weights: nested dict of arrays."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the canonical float32 parameter tree."""

    @property
    def partition_rules(self) -> Rules:
        """Regex on a parameter's path -> mesh axes of its dimensions, for `prompt_jax.sharding`."""

    def replace(self, *, params: Any) -> LanguageModel:
        """The same model with other weights."""

    # ---------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        """Directory name, Hugging Face repository or "random"."""

    @property
    def dtype(self) -> Any:
        """Dtype of matrix products."""

    @property
    def d_model(self) -> int:
        """D, the width of an embedding."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""

    @property
    def pad_id(self) -> int:
        """Padding token."""

    @property
    def eos_id(self) -> int:
        """End of sequence."""

    @property
    def has_tokenizer(self) -> bool:
        """Whether `tokenizer` can be read."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint, read on first use.

        Raises:
          ModelError: the model has none.
        """

    @property
    def model_config(self) -> dict[str, Any]:
        """All that decides what is computed, beside the weights: names and plain JSON values.

        The shape, the activation, the scales, the special tokens, as they are after every default.
        Records, checkpoints and keys of stored results hold it, so nothing may stand in it that
        is for display only, and nothing may lack that changes a number.
        """

    # ---------------------------------------------------------------- computation

    def embed(self, ids: Any) -> jax.Array:
        """Input embeddings `[..., D]` of token ids `[...]`."""

    def embedding_rms(self) -> jax.Array:
        """The root mean square of the input embeddings, a float32 scalar: the unit of prompts."""

    def score(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        labels: Ids,
        prompt: PromptLike | None = None,
        *,
        observe: frozenset[str] = frozenset(),
        dropout: Dropout | None = None,
    ) -> Scores:
        """Teacher-forced scores of `labels [B, T]` given `input_ids [B, S]`.

        With `dropout`, the values that the architecture drops in training are dropped.
        """

    def rank(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        candidates: Ids | Sequence[Sequence[Sequence[int]]],
        prompt: PromptLike | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Summed NLL and token count `[B, C]` of each candidate answer of each row."""

    def generate(
        self,
        input_ids: Ids,
        attention_mask: Ids,
        prompt: PromptLike | None = None,
        *,
        max_new_tokens: int = 32,
        num_beams: int = 1,
    ) -> jax.Array:
        """Token ids `[B, max_new_tokens]`, without the start token, padding after the end."""

    # ---------------------------------------------------------------- work and memory

    def flops(
        self,
        rows: int,
        inputs: int,
        targets: int,
        *,
        backward: str = "none",
        one_layer: bool = False,
    ) -> int:
        """Hand-counted floating point operations of one pass, matrix products only.

        Args:
          rows: B.
          inputs: input positions of a row, L + S.
          targets: T.
          backward: "none" (scoring), "prompt" (weights frozen) or "full" (weights trained).
          one_layer: count every loop over layers as one pass of its body, as XLA does.

        Raises:
          ConfigError: `backward` is none of the three.
        """

    def row_tokens(self, inputs: int, targets: int, prompt_tokens: int) -> int:
        """Positions of a row that limit a micro-batch: the unit of `micro_batch_tokens`.

        Args:
          inputs: S.
          targets: T.
          prompt_tokens: L.
        """

    @property
    def feed_forward_shape(self) -> tuple[int, int]:
        """`(D, hidden units)` of a feed-forward layer: the largest matrix product of a layer."""

    def on_device(self, model: int, dtype: Any = None) -> LanguageModel:
        """The shapes of what one of `model` devices computes, without weights.

        Its activations have the shapes of that device's, so that a plan can compile them without
        such devices.

        Args:
          model: devices over which the weights are split.
          dtype: of matrix products; None keeps the model's.
        """


def short_repr(lm: LanguageModel) -> str:
    """One line about a model, without its weights: what a `__repr__` returns."""
    sizes = [math.prod(getattr(leaf, "shape", ())) for leaf in jax.tree.leaves(lm.params)]
    return (
        f"{type(lm).__name__}({lm.name!r}, {sum(sizes):,} parameters, d_model={lm.d_model},"
        f" vocab_size={lm.vocab_size}, {jnp.dtype(lm.dtype).name})"
    )
