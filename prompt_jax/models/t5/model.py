"""`FrozenT5`: weights and static facts of one T5, and everything that it computes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ModelError
from prompt_jax.models import arguments, decoding, hub, ops, parameters
from prompt_jax.models.base import Ids, PromptLike, Scores, Tokenizer, short_repr
from prompt_jax.models.dropout import Dropout, by_row
from prompt_jax.models.t5 import checkpoint, weights
from prompt_jax.models.t5.config import KNOWN, T5Config
from prompt_jax.models.t5.flops import flops as count_flops
from prompt_jax.models.t5.modules import T5, Cache, shift_right
from prompt_jax.models.t5.partition import T5_RULES, part_of
from prompt_jax.sharding import Rules

if TYPE_CHECKING:
    from prompt_jax.models.registry import FamilyClass

_OBSERVABLE = frozenset({"logits", "hidden"})


@dataclasses.dataclass(frozen=True)
class T5Spec:
    """What is static about a `FrozenT5`: hashable, part of the pytree's structure."""

    config: T5Config
    dtype: str = "float32"
    remat: bool = False
    name: str = "t5"
    weights_hash: str = ""
    tokenizer_path: str = ""

    @property
    def module(self) -> T5:
        """The pure functions."""
        return T5(self.config, jnp.dtype(self.dtype), self.remat)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["spec"])
@dataclasses.dataclass(frozen=True, eq=False)
class FrozenT5:
    """A T5 as a pytree of its weights.

    Pass it to jitted functions as an argument; closing over it would bake the weights into the
    program. Every method works eagerly (compiled behind the scenes, once per shape) and inside a
    caller's `jit`, `grad` or `vmap`.

    Shapes: `input_ids` and `attention_mask` are `[B, S]`, `labels` `[B, T]` padded with -100,
    `prompt` None, `[L, D]`, `[B, L, D]` or an object with such an array as `.embeddings`. The
    prompt sits before the input embeddings of the encoder with mask 1.

    Attributes:
      params: nested dict of arrays; layers are stacked along the first axis.
      spec: static facts.
    """

    params: Any
    spec: T5Spec

    SHAPES: ClassVar[Mapping[str, T5Config]] = KNOWN

    # ---------------------------------------------------------------- construction

    @classmethod
    def from_config(
        cls,
        config: T5Config,
        seed: int = 0,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str = "random",
        tokenizer: str | Path | None = None,
    ) -> FrozenT5:
        """Random weights, scaled as T5's are before training.

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
        return cls(params, T5Spec(config, kind, remat, name, digest, path))

    @classmethod
    def abstract(
        cls, config: T5Config, dtype: Any = jnp.float32, *, remat: bool = False, name: str = "t5"
    ) -> FrozenT5:
        """The model's shapes without weights, for plans: leaves are `jax.ShapeDtypeStruct`."""
        kind = arguments.dtype_name(dtype)
        flat = {
            path: jax.ShapeDtypeStruct(shape, weights.storage_dtype(path, kind))
            for path, shape in weights.parameter_shapes(config).items()
        }
        return cls(parameters.unflatten(flat), T5Spec(config, kind, remat, name, "abstract", ""))

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        dtype: Any = jnp.float32,
        *,
        remat: bool = False,
        name: str | None = None,
    ) -> FrozenT5:
        """Loads a checkpoint.

        Args:
          path_or_id: a local directory (safetensors, flax msgpack, PyTorch pickles read as weights
            only, T5X), a T5X msgpack file, the name of a Hugging Face repository, or "mini" for
            the model that ships with the package.
          dtype: float32 or bfloat16; float16 overflows in T5.
          remat: recompute layers in the backward pass.
          name: for files and tables; None takes the directory's or the repository's.

        Raises:
          ModelError: nothing there, not a T5, damaged, or the hub cannot be reached.
        """
        dtype = arguments.dtype_name(dtype)  # before any reading
        path = hub.locate(str(path_or_id))
        opened = checkpoint.open_checkpoint(path)
        params, digest = weights.assemble(opened.tensors, opened.config, dtype, str(path))
        name = name or hub.display_name(path_or_id, path)
        return cls(params, T5Spec(opened.config, dtype, remat, name, digest, opened.tokenizer_path))

    def __repr__(self) -> str:
        return short_repr(self)

    def replace(self, *, params: Any) -> FrozenT5:
        """The same model with other weights (of any float dtype).

        The hash of the loaded weights no longer holds; `weights_hash` computes it anew on demand.
        To move the same weights elsewhere use `jax.device_put(lm, ...)` or `jax.tree.map`.
        """
        return FrozenT5(params, dataclasses.replace(self.spec, weights_hash=""))

    # ---------------------------------------------------------------- facts

    @property
    def config(self) -> T5Config:
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

    @property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the canonical float32 parameter tree, taken before any cast."""
        return self.spec.weights_hash or parameters.weights_hash(self.params)

    @property
    def partition_rules(self) -> Rules:
        """How the weights are split over the mesh axis 'model'."""
        return T5_RULES

    @property
    def has_tokenizer(self) -> bool:
        """Whether a directory or file of a tokenizer is known."""
        return bool(self.spec.tokenizer_path)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint's directory, read on first use.

        Raises:
          ModelError: the model has none, or one with other special tokens.
        """
        if not self.has_tokenizer:
            raise ModelError(
                f"The model '{self.name}' has no tokenizer: pass tokenizer=DIRECTORY to "
                "from_config, or put tokenizer.json beside the weights."
            )
        from prompt_jax.models.t5.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.spec.tokenizer_path)
        ids, own = (tokenizer.pad_id, tokenizer.eos_id), (self.pad_id, self.eos_id)
        if ids != own:
            raise ModelError(
                f"The tokenizer {self.spec.tokenizer_path} pads with {ids[0]} and ends with "
                f"{ids[1]}, but the configuration of '{self.name}' has {own[0]} and {own[1]}: "
                "is it the tokenizer of another model?"
            )
        return tokenizer

    @property
    def model_config(self) -> dict[str, Any]:
        """The fields of the configuration."""
        return dataclasses.asdict(self.config)

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

    @property
    def feed_forward_shape(self) -> tuple[int, int]:
        """`(D, hidden units)` of a feed-forward layer."""
        return self.config.d_model, self.config.d_ff

    def on_device(self, model: int, dtype: Any = None) -> FrozenT5:
        """A T5 with one device's share of the heads, hidden units and vocabulary, without weights.

        Args:
          model: devices over which the weights are split.
          dtype: of matrix products; None keeps the model's.
        """
        part = part_of(self.config, model)
        kind = self.dtype if dtype is None else dtype
        return FrozenT5.abstract(part, kind, remat=self.spec.remat, name=self.name)

    # ---------------------------------------------------------------- computation

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
        """Teacher-forced scores of the labels.

        Args:
          input_ids: `[B, S]`.
          attention_mask: `[B, S]`, 0 or 1.
          labels: `[B, T]`, -100 where nothing is predicted.
          prompt: see the class.
          observe: "logits" and / or "hidden", kept in the result.
          key: dropout key; only used where `config.dropout_rate` is above 0.
          dropout: rate and keys of the rows, whatever the configuration's rate is; everywhere where
            T5 has dropout.

        Returns:
          `Scores`. A row without target tokens has `nll` 0 and `tokens` 0. `hidden` is the
          decoder's output after the final norm, before the scale of the head.

        Raises:
          ModelError, PromptError: shapes, dtypes or ids that do not fit.
        """
        if unknown := frozenset(observe) - _OBSERVABLE:
            raise ModelError(
                f"Cannot observe {', '.join(sorted(unknown))}: only "
                f"{', '.join(sorted(_OBSERVABLE))}."
            )
        ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
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
        """Scores every candidate answer of every row; each row is encoded once.

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
        ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
        shape = np.shape(candidates)
        expected = (None, None) if len(shape) == 2 else (ids.shape[0], None, None)
        candidates = arguments.integers(
            "candidates", candidates, expected, self.vocab_size, ops.IGNORE
        )
        return arguments.run(_rank, self, ids, mask, candidates, prompt)

    @arguments.takes_ids
    def logits(
        self, input_ids: Ids, attention_mask: Ids, labels: Ids, prompt: PromptLike | None = None
    ) -> jax.Array:
        """Logits `[B, T, V]` float32 under teacher forcing."""
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
          `[B, T]` int32 without the start token, padding after the end of a sequence.
        """
        if max_new_tokens < 1 or num_beams < 1:
            raise ModelError("max_new_tokens and num_beams must be at least 1.")
        if 2 * num_beams > self.vocab_size:
            raise ModelError(f"{num_beams} beams need a vocabulary of {2 * num_beams} tokens.")
        ids, mask, prompt = arguments.rows(self, input_ids, attention_mask, prompt)
        return arguments.run(
            _generate,
            self,
            ids,
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
    _: type[FamilyClass] = FrozenT5  # checked: all that the layers above use is there


# -------------------------------------------------------------------- compiled functions


def _apply(lm: FrozenT5, method: str, *args: Any, key: jax.Array | None = None) -> Any:
    rngs = None if key is None else {"dropout": key}
    return lm.spec.module.apply({"params": lm.params}, *args, method=method, rngs=rngs)


def _by_row(lm: FrozenT5, dropout: Dropout, number: int, method: str) -> Any:
    module = lm.spec.module.clone(config=lm.config.replace(dropout_rate=dropout.rate))
    return by_row(dropout, number, module, lm.params, method)


def _encode(
    lm: FrozenT5,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    key: jax.Array | None = None,
    dropout: Dropout | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Encoder output `[B, L + S, D]` and the mask `[B, L + S]` of its positions."""
    embedded = _apply(lm, "embed", input_ids).astype(lm.dtype)
    mask = mask.astype(bool)
    if prompt is not None:
        rows = input_ids.shape[0]
        if prompt.ndim == 2:
            prompt = jnp.broadcast_to(prompt[None], (rows, *prompt.shape))
        # The prompt is float32 up to here, whatever the model computes in.
        embedded = jnp.concatenate([prompt.astype(lm.dtype), embedded], axis=1)
        mask = jnp.concatenate([jnp.ones((rows, prompt.shape[1]), bool), mask], axis=1)
    if dropout is not None:
        return _by_row(lm, dropout, 0, "encode")(embedded, mask), mask
    return _apply(lm, "encode", embedded, mask, key=key), mask


@jax.jit
def _embed(lm: FrozenT5, ids: jax.Array) -> jax.Array:
    return _apply(lm, "embed", ids)


@jax.jit
def _embedding_rms(lm: FrozenT5) -> jax.Array:
    table = lm.params["shared"].astype(jnp.float32)
    return jnp.sqrt(jnp.mean(table * table))


@functools.partial(jax.jit, static_argnames="observe")
def _score(
    lm: FrozenT5,
    input_ids: jax.Array,
    mask: jax.Array,
    labels: jax.Array,
    prompt: jax.Array | None,
    key: jax.Array | None,
    dropout: Dropout | None,
    observe: frozenset[str],
) -> Scores:
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    encoded, mask = _encode(lm, input_ids, mask, prompt, encoder_key, dropout)
    decoder_ids = shift_right(labels, lm.start_id, lm.pad_id)
    if dropout is not None:
        hidden = _by_row(lm, dropout, 1, "decode")(decoder_ids, encoded, mask)
    else:
        hidden = _apply(lm, "decode", decoder_ids, encoded, mask, key=decoder_key)
    logits = None
    if "logits" in observe:
        logits = _apply(lm, "logits", hidden)
        nll = ops.logits_nll(logits, labels)
    else:
        nll = _apply(lm, "nll", hidden, labels)
    return Scores(
        nll=jnp.sum(nll, axis=1),
        tokens=_count(labels),
        logits=logits,
        hidden=hidden.astype(jnp.float32) if "hidden" in observe else None,
    )


@jax.jit
def _rank(
    lm: FrozenT5,
    input_ids: jax.Array,
    mask: jax.Array,
    candidates: jax.Array,
    prompt: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    encoded, mask = _encode(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    if candidates.ndim == 2:
        candidates = jnp.broadcast_to(candidates[None], (rows, *candidates.shape))
    # Candidates fold into the decoder's rows; its cross-attention reads them as more queries of
    # the same encoder rows, so nothing of the encoder is copied or computed per candidate.
    labels = candidates.reshape(-1, candidates.shape[-1])
    decoder_ids = shift_right(labels, lm.start_id, lm.pad_id)
    hidden = _apply(lm, "decode", decoder_ids, encoded, mask)
    nll = jnp.sum(_apply(lm, "nll", hidden, labels), axis=1)
    tokens = _count(labels)
    nll = jnp.where(tokens > 0, nll, jnp.inf)
    shape = candidates.shape[:2]
    return nll.reshape(shape), tokens.reshape(shape)


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "num_beams"))
def _generate(
    lm: FrozenT5,
    input_ids: jax.Array,
    mask: jax.Array,
    prompt: jax.Array | None,
    max_new_tokens: int,
    num_beams: int,
) -> jax.Array:
    encoded, mask = _encode(lm, input_ids, mask, prompt)
    rows = input_ids.shape[0]
    ids = {"pad_id": lm.pad_id, "eos_id": lm.eos_id}

    def step(tokens: jax.Array, position: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        return _apply(lm, "step", tokens, position, cache, mask)

    cache = _apply(lm, "begin", encoded, rows * num_beams, max_new_tokens)
    if num_beams == 1:
        first = jnp.full((rows,), lm.start_id, jnp.int32)
        return decoding.greedy(step, cache, first, max_new_tokens, **ids)
    first = jnp.full((rows, num_beams), lm.start_id, jnp.int32)
    return decoding.beam_search(step, _reorder, cache, first, max_new_tokens, **ids)


def _reorder(cache: Cache, parents: jax.Array) -> Cache:
    """Cross-attention's keys and values are the row's, not a beam's."""
    return cache._replace(
        self_keys=decoding.reorder_rows(cache.self_keys, parents),
        self_values=decoding.reorder_rows(cache.self_values, parents),
    )


def _count(labels: jax.Array) -> jax.Array:
    return jnp.sum((labels != ops.IGNORE).astype(jnp.float32), axis=-1)
