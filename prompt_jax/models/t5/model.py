"""`FrozenT5`: a T5 behind the `LanguageModel` protocol."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax

from prompt_jax.errors import ModelError
from prompt_jax.models.base import Scores, Tokenizer
from prompt_jax.models.frozen import FrozenModel
from prompt_jax.models.stored import Checkpoint
from prompt_jax.models.t5 import checkpoint, passes, weights
from prompt_jax.models.t5.config import KNOWN, T5Config
from prompt_jax.models.t5.flops import flops as count_flops
from prompt_jax.models.t5.modules import T5
from prompt_jax.models.t5.partition import T5_RULES, part_of

if TYPE_CHECKING:
    from prompt_jax.models.registry import FamilyClass


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["spec"])
class FrozenT5(FrozenModel[T5Config]):
    """A T5 as a pytree of its weights; what it computes is documented at `FrozenModel`.

    The prompt sits before the input embeddings of the encoder with mask 1.

    Checkpoints are local directories (safetensors, flax msgpack, PyTorch pickles read as weights
    only, T5X), T5X msgpack files, Hugging Face repositories, and "mini", the model that ships with
    the package.
    """

    FAMILY = "t5"
    SHAPES: ClassVar[Mapping[str, T5Config]] = KNOWN
    LAYOUT = weights.LAYOUT
    MODULE = T5
    PARTITION_RULES = T5_RULES
    TABLE = "shared"

    @property
    def pad_id(self) -> int:
        """Padding token."""
        return self.config.pad_token_id

    @property
    def eos_id(self) -> int:
        """End of sequence."""
        return self.config.eos_token_id

    @property
    def start_id(self) -> int:
        """First input of the decoder."""
        return self.config.decoder_start_token_id

    def flops(
        self,
        rows: int,
        inputs: int,
        targets: int,
        *,
        backward: str = "none",
        one_layer: bool = False,
    ) -> int:
        """Hand-counted floating point operations of one pass; see `prompt_jax.models.t5.flops`.

        Args:
          rows: B.
          inputs: encoder positions of a row, L + S.
          targets: T.
          backward: "none" (scoring), "prompt" (weights frozen) or "full" (weights trained).
          one_layer: count one layer of each stack.
        """
        config = self.config
        if one_layer:
            config = config.replace(num_layers=1, num_decoder_layers=1)
        return count_flops(config, rows, inputs, targets, backward)

    def row_tokens(self, inputs: int, targets: int, prompt_tokens: int) -> int:
        """Encoder positions of a row: its few target tokens hardly count beside them."""
        del targets
        return inputs + prompt_tokens

    @classmethod
    def _open(cls, path: Path) -> Checkpoint:
        return checkpoint.open_checkpoint(path)

    def _read_tokenizer(self, path: str) -> Tokenizer:
        from prompt_jax.models.t5.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(path)
        ids, own = (tokenizer.pad_id, tokenizer.eos_id), (self.pad_id, self.eos_id)
        if ids != own:
            raise ModelError(
                f"The tokenizer {path} pads with {ids[0]} and ends with "
                f"{ids[1]}, but the configuration of '{self.name}' has {own[0]} and {own[1]}: "
                "is it the tokenizer of another model?"
            )
        return tokenizer

    def _part(self, model: int) -> T5Config:
        return part_of(self.config, model)

    def _score(self, *rows: Any) -> Scores:
        return passes.score(self, *rows)

    def _rank(self, *rows: Any) -> tuple[jax.Array, jax.Array]:
        return passes.rank(self, *rows)

    def _generate(self, *rows: Any) -> jax.Array:
        return passes.generate(self, *rows)


if TYPE_CHECKING:
    _: type[FamilyClass] = FrozenT5  # checked: all that the layers above use is there
