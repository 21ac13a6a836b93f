"""`FrozenDecoder`: weights and static facts of one decoder-only model, and what it computes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models import arguments, hub, ops, parameters
from prompt_jax.models.base import Scores, Tokenizer
from prompt_jax.models.decoder import checkpoint, passes, weights
from prompt_jax.models.decoder.config import KNOWN, DecoderConfig
from prompt_jax.models.decoder.flops import flops as count_flops
from prompt_jax.models.decoder.modules import Decoder
from prompt_jax.models.decoder.partition import DECODER_RULES, part_of
from prompt_jax.models.dropout import Dropout
from prompt_jax.sharding import Rules

if TYPE_CHECKING:
    from prompt_jax.models.registry import FamilyClass

_OBSERVABLE = frozenset({"logits", "hidden"})
_PAD = 0  # any id: padding is never read, and what follows a generated end is cut


@dataclasses.dataclass(frozen=True)
class DecoderSpec:
    """What is static about a `FrozenDecoder`: hashable, part of the pytree's structure."""

    config: DecoderConfig
    dtype: str = "float32"
    remat: bool = False
    name: str = "decoder"
    weights_hash: str = ""
    tokenizer_path: str = ""

    @property
    def module(self) -> Decoder:
        """The pure functions."""
        return Decoder(self.config, jnp.dtype(self.dtype), self.remat)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["spec"])
@dataclasses.dataclass(frozen=True, eq=False)
class FrozenDecoder:
    """A decoder-only model as a pytree of its weights.

    Pass it to jitted functions as an argument; closing over it would bake the weights into the
    program. Every method works eagerly (compiled behind the scenes, once per shape) and inside a
    caller's `jit`, `grad` or `vmap`.

    Shapes: `input_ids` and `attention_mask` are `[B, S]`, `labels` `[B, T]` padded with -100,
    `prompt` None, `[L, D]`, `[B, L, D]` or an object with such an array as `.embeddings`. A row is
    the sequence `[prompt ; input ; target]`. Padding may stand anywhere in it: positions count
    real tokens only.

    Attributes:
      params: nested dict of arrays; layers are stacked along the first axis.
      spec: static facts.
    """

    params: Any
    spec: DecoderSpec

    SHAPES: ClassVar[Mapping[str, DecoderConfig]] = KNOWN

    # ---------------------------------------------------------------- construction

    @classmethod
    def from_config(
        cls,
        config: DecoderConfig,
        seed: int = 0,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str = "random",
        tokenizer: str | Path | None = None,
    ) -> FrozenDecoder:
        """Random weights.

        Args:
          config: the shape.
          seed: of the draw, which is the same on every backend.
          dtype: float32 or bfloat16, for weights and matrix products.
          remat: recompute layers in the backward pass.
          name: for files and tables.
          tokenizer: directory or file that `lm.tokenizer` reads.
        """
        kind = arguments.dtype_name(dtype)
        params, digest = weights.random_params(config, seed, kind)
        path = "" if tokenizer is None else str(tokenizer)
        return cls(params, DecoderSpec(config, kind, remat, name, digest, path))

    @classmethod
    def abstract(
        cls,
        config: DecoderConfig,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str = "decoder",
    ) -> FrozenDecoder:
        """The model's shapes without weights, for plans: leaves are `jax.ShapeDtypeStruct`."""
        kind = arguments.dtype_name(dtype)
        flat = {
            path: jax.ShapeDtypeStruct(shape, weights.storage_dtype(path, kind))
            for path, shape in weights.parameter_shapes(config).items()
        }
        spec = DecoderSpec(config, kind, remat, name, "abstract", "")
        return cls(parameters.unflatten(flat), spec)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str | None = None,
    ) -> FrozenDecoder:
        """Loads a checkpoint.

        Args:
          path_or_id: a local directory with config.json and safetensors (sharded too), or the
            name of a Hugging Face repository.
          dtype: float32 or bfloat16.
          remat: recompute layers in the backward pass.
          name: for files and tables; None takes the directory's or the repository's.

        Raises:
          ModelError: nothing there, an architecture or option that is not implemented, damaged,
            or the hub cannot be reached.
        """
        dtype = arguments.dtype_name(dtype)  # before any reading
        path = hub.locate(str(path_or_id))
        opened = checkpoint.open_checkpoint(path)
        params, digest = weights.assemble(opened.tensors, opened.config, dtype, str(path))
        name = name or hub.display_name(path_or_id, path)
        spec = DecoderSpec(opened.config, dtype, remat, name, digest, opened.tokenizer_path)
        return cls(params, spec)

    def replace(self, *, params: Any) -> FrozenDecoder:
        """The same model with other weights (of any float dtype).

        The hash of the loaded weights no longer holds; `weights_hash` computes it anew on demand.
        """
        return FrozenDecoder(params, dataclasses.replace(self.spec, weights_hash=""))

    # ---------------------------------------------------------------- facts

    @property
    def config(self) -> DecoderConfig:
        """The shape."""
        return self.spec.config

    @property
    def dtype(self) -> Any:
        """Dtype of matrix products and of the residual stream."""
        return jnp.dtype(self.spec.dtype)

    @property
    def name(self) -> str:
        """Directory name, repository or "random"."""
        return self.spec.name

    @property
    def d_model(self) -> int:
        """D."""
        return self.config.d_model

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return self.config.vocab_size

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

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the canonical float32 parameter tree, taken before any cast."""
        return self.spec.weights_hash or parameters.weights_hash(self.params)

    @property
    def partition_rules(self) -> Rules:
        """How the weights are split over the mesh axis 'model'."""
        return DECODER_RULES

    @property
    def has_tokenizer(self) -> bool:
        """Whether a directory or file of a tokenizer is known."""
        return bool(self.spec.tokenizer_path)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint, read on first use.

        Raises:
          ModelError: the model has none, or one with another end of sequence.
        """
        if not self.has_tokenizer:
            raise ModelError(
                f"The model '{self.name}' has no tokenizer: pass tokenizer=DIRECTORY to "
                "from_config, or put tokenizer.json beside the weights."
            )
        from prompt_jax.models.decoder.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.spec.tokenizer_path, self.config.eos_token_ids)
        if tokenizer.vocab_size > self.vocab_size:
            raise ModelError(
                f"The tokenizer {self.spec.tokenizer_path} has {tokenizer.vocab_size} tokens, but "
                f"the model '{self.name}' only {self.vocab_size}: is it that of another model?"
            )
        return tokenizer

    @property
    def model_config(self) -> dict[str, Any]:
        """The fields of the configuration as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.config)))
        return plain

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

    @property
    def feed_forward_shape(self) -> tuple[int, int]:
        """`(D, hidden units)` of a feed-forward layer."""
        return self.config.d_model, self.config.d_ff

    def on_device(self, model: int, dtype: Any = None) -> FrozenDecoder:
        """A model with one device's share of heads, hidden units and vocabulary, without weights.

        Args:
          model: devices over which the weights are split.
          dtype: of matrix products; None keeps the model's.
        """
        part = part_of(self.config, model)
        kind = self.dtype if dtype is None else dtype
        return FrozenDecoder.abstract(part, kind, remat=self.spec.remat, name=self.name)

    # ---------------------------------------------------------------- computation

    def embed(self, ids: Any) -> jax.Array:
        """Input embeddings `[..., D]` of ids `[...]`, in the storage dtype of the table."""
        ids = arguments.integers("ids", ids, None, self.vocab_size)
        return arguments.run(_embed, self, ids)

    def embedding_rms(self) -> jax.Array:
        """Root mean square of the embedding table, `[]` float32: the scale of a useful prompt."""
        return _embedding_rms(self)

    def score(
        self,
        input_ids: Any,
        attention_mask: Any,
        labels: Any,
        prompt: Any = None,
        *,
        observe: frozenset[str] = frozenset(),
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
          dropout: rate and keys of the rows; of the attention probabilities, the only place where
            Llama and Qwen have dropout.

        Returns:
          `Scores`. A row without target tokens has `nll` 0 and `tokens` 0. `hidden` is the output
          after the final norm.

        Raises:
          ModelError, PromptError: shapes, dtypes or ids that do not fit, or a row with targets but
            neither input nor prompt.
        """
        if unknown := frozenset(observe) - _OBSERVABLE:
            raise ModelError(
                f"Cannot observe {', '.join(sorted(unknown))}: only "
                f"{', '.join(sorted(_OBSERVABLE))}."
            )
        input_ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
        labels = arguments.integers(
            "labels", labels, (input_ids.shape[0], None), self.vocab_size, ops.IGNORE
        )
        _check_begun(mask, prompt)
        return arguments.run(
            _score, self, input_ids, mask, labels, prompt, dropout, observe=frozenset(observe)
        )

    def rank(
        self, input_ids: Any, attention_mask: Any, candidates: Any, prompt: Any = None
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
        input_ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
        shape = np.shape(candidates)
        expected = (None, None) if len(shape) == 2 else (input_ids.shape[0], None, None)
        candidates = arguments.integers(
            "candidates", candidates, expected, self.vocab_size, ops.IGNORE
        )
        _check_begun(mask, prompt)
        return arguments.run(_rank, self, input_ids, mask, candidates, prompt)

    def logits(
        self, input_ids: Any, attention_mask: Any, labels: Any, prompt: Any = None
    ) -> jax.Array:
        """Logits `[B, T, V]` float32 under teacher forcing: `[b, t]` predicts `labels[b, t]`."""
        out = self.score(
            input_ids, attention_mask, labels, prompt, observe=frozenset({"logits"})
        ).logits
        assert out is not None
        return out

    def loss(
        self,
        input_ids: Any,
        attention_mask: Any,
        labels: Any,
        prompt: Any = None,
        *,
        per_row: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Token-summed negative log-likelihood and its weight, the number of target tokens.

        Returns:
          `(nll, tokens)`, `[B]` each with `per_row`, else scalars.
        """
        scores = self.score(input_ids, attention_mask, labels, prompt)
        if per_row:
            return scores.nll, scores.tokens
        return jnp.sum(scores.nll), jnp.sum(scores.tokens)

    def generate(
        self,
        input_ids: Any,
        attention_mask: Any,
        prompt: Any = None,
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
          `[B, T]` int32: the new tokens with the end of sequence, then 0.
        """
        if max_new_tokens < 1 or num_beams < 1:
            raise ModelError("max_new_tokens and num_beams must be at least 1.")
        if 2 * num_beams > self.vocab_size:
            raise ModelError(f"{num_beams} beams need a vocabulary of {2 * num_beams} tokens.")
        input_ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
        _check_begun(mask, prompt)
        return arguments.run(
            _generate,
            self,
            input_ids,
            mask,
            prompt,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
        )

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes config.json, model.safetensors (float32) and the tokenizer's files.

        Both `from_pretrained` here and transformers load the directory as the same model.

        Raises:
          ModelError: the directory cannot be written.
        """
        tensors = weights.to_hf(self.params)
        hub.save(Path(directory), tensors, self.config.to_hf_dict(), self.spec.tokenizer_path)


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


# -------------------------------------------------------------------- compiled functions


def _weights(lm: FrozenDecoder) -> passes.Weights:
    return passes.Weights(lm.spec.module, lm.params)


@jax.jit
def _embed(lm: FrozenDecoder, ids: jax.Array) -> jax.Array:
    return _weights(lm).apply("embed", ids)


@jax.jit
def _embedding_rms(lm: FrozenDecoder) -> jax.Array:
    table = lm.params["embed"].astype(jnp.float32)
    return jnp.sqrt(jnp.mean(table * table))


@functools.partial(jax.jit, static_argnames="observe")
def _score(
    lm: FrozenDecoder,
    input_ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    prompt: jax.Array | None,
    dropout: Dropout | None,
    observe: frozenset[str],
) -> Scores:
    return passes.score(_weights(lm), input_ids, mask, labels, prompt, dropout, observe)


@jax.jit
def _rank(lm: FrozenDecoder, *rows: Any) -> tuple[jax.Array, jax.Array]:
    return passes.rank(_weights(lm), *rows)


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "num_beams"))
def _generate(
    lm: FrozenDecoder,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    max_new_tokens: int,
    num_beams: int,
) -> jax.Array:
    return passes.generate(
        _weights(lm), input_ids, mask, prompt, max_new_tokens, num_beams, lm.pad_id
    )
