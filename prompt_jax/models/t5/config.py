"""The shape of a T5 and how published configurations describe it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prompt_jax.errors import ModelError, did_you_mean
from prompt_jax.models.config_file import ConfigFile

Head = Literal["none", "table", "own"]
"""A checkpoint's `lm_head.weight`: missing, equal to the embedding table, or another matrix."""

ACTIVATIONS = ("relu", "gelu_new", "gelu", "silu")
_MODEL_TYPES = ("t5", "mt5", "byt5")
_SIZES = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
)
_ALIASES = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Everything static about a T5: hashable, so that it can be a static argument of `jit`.

    Attributes:
      vocab_size: rows of the embedding table (not the number of pieces of the tokenizer).
      d_model: D, width of the residual stream.
      d_kv: width of one attention head; `num_heads * d_kv` need not equal `d_model`.
      d_ff: width of the feed-forward layer.
      num_layers: encoder layers.
      num_decoder_layers: decoder layers.
      num_heads: H.
      relative_attention_num_buckets: rows of the relative position bias.
      relative_attention_max_distance: distance from which on all keys share the last bucket.
      layer_norm_epsilon: added to the mean square in the RMS norm.
      activation: one of `ACTIVATIONS`.
      gated: `activation(x W0) * (x W1)` (v1.1) instead of `activation(x W)` (v1.0).
      tied_head: the head is the embedding table.
      scale_decoder_outputs: `d_model ** -0.5` multiplies the decoder's output before the head.
      dropout_rate: what the library applies when it is given a dropout key; 0 unless asked for.
      pad_token_id: also what follows the end of a generated sequence.
      eos_token_id: end of sequence.
      decoder_start_token_id: first input of the decoder.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    activation: str = "relu"
    gated: bool = False
    tied_head: bool = True
    scale_decoder_outputs: bool = True
    dropout_rate: float = 0.0
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ModelError(f"T5Config.{name} must be at least 1, not {getattr(self, name)}.")
            if getattr(self, name) >= 2**31:
                raise ModelError(f"T5Config.{name} is {getattr(self, name)}: no model is as large.")
        buckets, distance = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        )
        if buckets < 4 or distance <= buckets // 2:
            raise ModelError(
                "Relative positions need a relative_attention_num_buckets of at least 4, and a "
                f"relative_attention_max_distance above its half, not {buckets} and {distance}."
            )
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"Unknown activation '{self.activation}': known are {', '.join(ACTIVATIONS)}."
            )
        if not (math.isfinite(self.layer_norm_epsilon) and self.layer_norm_epsilon >= 0.0):
            raise ModelError(
                f"layer_norm_epsilon must be a number of at least 0, not {self.layer_norm_epsilon}."
            )
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ModelError(f"dropout_rate must lie in [0, 1), not {self.dropout_rate}.")
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ModelError(
                    f"T5Config.{name} = {getattr(self, name)} lies outside the vocabulary of "
                    f"{self.vocab_size}."
                )

    def replace(self, **changes: Any) -> T5Config:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv

    @property
    def parameter_count(self) -> int:
        """Number of weights; a tied head is counted once."""
        d = self.d_model
        attention = 4 * d * self.inner + d
        mlp = (3 if self.gated else 2) * d * self.d_ff + d
        bias = 2 * self.relative_attention_num_buckets * self.num_heads
        heads = 1 if self.tied_head else 2
        return (
            heads * self.vocab_size * d
            + self.num_layers * (attention + mlp)
            + self.num_decoder_layers * (2 * attention + mlp)
            + bias
            + 2 * d
        )

    @classmethod
    def from_hf_json(
        cls, source: str | Path | Mapping[str, Any], head: Head | None = None
    ) -> T5Config:
        """Reads a Hugging Face `config.json`, whatever release of transformers wrote it.

        Args:
          source: path of the file, or its parsed content.
          head: what the weights have as a head; None: not known, then it is what the file says.

        Raises:
          ModelError: the file is missing, not JSON, not a T5, has a value of another type, needs
            what is not implemented, or does not agree with the weights.
        """
        file = ConfigFile(source)
        kind = _model_type(file)
        file.refuse_quantized()
        layers = file.integer("num_layers")
        decoder_layers = file.optional_integer("num_decoder_layers")
        proj = file.text("feed_forward_proj", "gated-gelu" if kind == "mt5" else "relu")
        prefix, _, name = proj.rpartition("-")
        if prefix not in ("", "gated"):
            raise file.error(f"feed_forward_proj '{proj}' is not supported.")
        if proj == "gated-gelu":  # historical: means the tanh approximation
            name = "gelu_new"
        name = file.optional_text("dense_act_fn") or name
        pad = _token_id(file, "pad_token_id", 0)
        try:
            made = cls(
                vocab_size=file.integer("vocab_size"),
                d_model=file.integer("d_model"),
                d_kv=file.integer("d_kv"),
                d_ff=file.integer("d_ff"),
                num_layers=layers,
                num_heads=file.integer("num_heads"),
                num_decoder_layers=layers if decoder_layers is None else decoder_layers,
                relative_attention_num_buckets=file.integer("relative_attention_num_buckets", 32),
                relative_attention_max_distance=file.integer(
                    "relative_attention_max_distance", 128
                ),
                layer_norm_epsilon=file.number("layer_norm_epsilon", 1e-6),
                activation=_ALIASES.get(name, name),
                gated=file.flag("is_gated_act", prefix == "gated"),
                pad_token_id=pad,
                eos_token_id=_token_id(file, "eos_token_id", 1),
                decoder_start_token_id=_token_id(file, "decoder_start_token_id", pad),
            )
        except ModelError as error:
            raise error if str(error).startswith(file.where) else file.error(str(error)) from None
        tied, scaled = _head(file, kind, head)
        return made.replace(tied_head=tied, scale_decoder_outputs=scaled)

    def to_hf_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads as the same model.

        `tie_word_embeddings` carries the value of `scale_decoder_outputs`: releases before
        transformers 5 have no other way to state that the decoder's output is scaled, and take the
        head from the file.
        """
        name = "gelu" if self.gated and self.activation == "gelu_new" else self.activation
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "d_kv": self.d_kv,
            "d_ff": self.d_ff,
            "num_layers": self.num_layers,
            "num_decoder_layers": self.num_decoder_layers,
            "num_heads": self.num_heads,
            "relative_attention_num_buckets": self.relative_attention_num_buckets,
            "relative_attention_max_distance": self.relative_attention_max_distance,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "feed_forward_proj": f"gated-{name}" if self.gated else name,
            "dense_act_fn": self.activation,
            "is_gated_act": self.gated,
            "tie_word_embeddings": self.scale_decoder_outputs,
            "scale_decoder_outputs": self.scale_decoder_outputs,
            "dropout_rate": self.dropout_rate,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
        }

    @classmethod
    def known(cls, name: str) -> T5Config:
        """The published shape of that name, without any file.

        >>> T5Config.known("t5-small").parameter_count
        60506624

        Raises:
          ModelError: the name is not in `KNOWN`.
        """
        if name not in KNOWN:
            raise ModelError(
                f"The shape of '{name}' is not known offline.{did_you_mean(name, KNOWN)} "
                "Give a local directory with config.json, or one of: " + ", ".join(sorted(KNOWN))
            )
        return KNOWN[name]


def _model_type(file: ConfigFile) -> str:
    kind = file.optional_text("model_type")
    if kind is None:  # then the class that wrote the weights tells mT5's defaults from T5's
        classes = file.raw.get("architectures")
        first = str(classes[0]) if isinstance(classes, list) and classes else "T5"
        kind = next((k for k in ("umt5", "mt5") if first.lower().startswith(k)), "t5")
    if kind not in _MODEL_TYPES:
        raise file.error(
            f"model_type '{kind}' is not supported; T5, T5 1.1, Flan-T5, mT5 and ByT5 are."
        )
    return kind


def _head(file: ConfigFile, kind: str, head: Head | None) -> tuple[bool, bool]:
    """Whether the head is the embedding table, and whether the decoder's output is scaled.

    `tie_word_embeddings` has had several meanings. transformers 4 ties the head by it, and scales
    where it ties, in T5 and mT5. transformers 5 takes the head from the weights, writes true always
    and scales a T5 by the key `scale_decoder_outputs` (in its absence: unless the tie is false) and
    an mT5 never.
    """
    tie, scale = (
        file.optional_flag(key) for key in ("tie_word_embeddings", "scale_decoder_outputs")
    )
    if tie is False and scale is None and head == "none":
        raise file.error(
            "the head is its own (tie_word_embeddings is false), but the weights have no "
            "'lm_head.weight'. If the head is the embedding table, add "
            '"scale_decoder_outputs": false.'
        )
    old = (file.major_version() or 0) in range(1, 5)
    if tie and scale is None and head == "own" and old:
        raise file.error(
            "the head is the embedding table (tie_word_embeddings is true, and transformers 4 "
            "wrote the file), but the weights have an 'lm_head.weight' that differs from it: "
            "set one of the two right."
        )
    if kind == "mt5":
        scale = _scale_of_mt5(file, tie, scale, head)
    elif scale is None:
        scale = tie is not False
    if head is not None:
        return head != "own", scale
    return (kind != "mt5" if tie is None else tie), scale


def _scale_of_mt5(
    file: ConfigFile, tie: bool | None, scale: bool | None, head: Head | None
) -> bool:
    if scale:
        raise file.error(
            "an mT5's output is never scaled by transformers 5, but scale_decoder_outputs is true. "
            'Write "model_type": "t5" if it is to be scaled.'
        )
    if not tie or head == "own" or scale is False:
        return False
    version = file.major_version()
    if version is None and head is not None:
        raise file.error(
            "an mT5 whose head is the embedding table (tie_word_embeddings is true) is scaled by "
            "transformers 4 and not by 5, and the file does not say which one wrote it. Write "
            '"model_type": "t5" and "scale_decoder_outputs": true or false.'
        )
    return version is not None and version < 5


def _token_id(file: ConfigFile, key: str, default: int) -> int:
    values = file.token_ids(key)
    if len(values) > 1:
        raise file.error(f"'{key}' has several values {list(values)}: one is supported.")
    return values[0] if values else default


def _published() -> dict[str, T5Config]:
    """Shapes as their papers and config files give them."""
    # name: d_model, d_kv, d_ff, encoder layers, decoder layers, heads
    v10 = {
        "small": (512, 64, 2048, 6, 6, 8),
        "base": (768, 64, 3072, 12, 12, 12),
        "large": (1024, 64, 4096, 24, 24, 16),
        "3b": (1024, 128, 16384, 24, 24, 32),
        "11b": (1024, 128, 65536, 24, 24, 128),
    }
    v11 = {
        "small": (512, 64, 1024, 8, 8, 6),
        "base": (768, 64, 2048, 12, 12, 12),
        "large": (1024, 64, 2816, 24, 24, 16),
        "xl": (2048, 64, 5120, 24, 24, 32),
        "xxl": (4096, 64, 10240, 24, 24, 64),
    }
    byt5 = {
        "small": (1472, 64, 3584, 12, 4, 6),
        "base": (1536, 64, 3968, 18, 6, 12),
        "large": (1536, 64, 3840, 36, 12, 16),
        "xl": (2560, 64, 6720, 36, 12, 32),
        "xxl": (4672, 64, 12352, 36, 12, 64),
    }

    def shape(dims: tuple[int, ...], vocab: int, modern: bool) -> T5Config:
        d, kv, ff, encoder, decoder, heads = dims
        return T5Config(
            vocab_size=vocab,
            d_model=d,
            d_kv=kv,
            d_ff=ff,
            num_layers=encoder,
            num_decoder_layers=decoder,
            num_heads=heads,
            activation="gelu_new" if modern else "relu",
            gated=modern,
            tied_head=not modern,
            scale_decoder_outputs=not modern,
        )

    table = {}
    for size, dims in v10.items():
        table[f"t5-{size}"] = table[f"google-t5/t5-{size}"] = shape(dims, 32128, False)
    for size, dims in v11.items():
        for pattern in ("google/t5-v1_1-{}", "google/t5-{}-lm-adapt", "google/flan-t5-{}"):
            table[pattern.format(size)] = shape(dims, 32128, True)
        table[f"google/mt5-{size}"] = shape(dims, 250112, True)
        table[f"google/byt5-{size}"] = shape(byt5[size], 384, True)
    table["bigscience/T0_3B"] = table["google/t5-xl-lm-adapt"]
    for name in ("T0", "T0p", "T0pp"):
        table[f"bigscience/{name}"] = table["google/t5-xxl-lm-adapt"]
    return table


KNOWN: dict[str, T5Config] = _published()
