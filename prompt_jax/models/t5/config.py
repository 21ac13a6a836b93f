"""The shape of a T5 and how published configurations describe it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_jax.errors import ModelError, did_you_mean

ACTIVATIONS = ("relu", "gelu_new", "gelu", "silu")
_MODEL_TYPES = ("t5", "mt5", "byt5", "umt5")
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
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"Unknown activation '{self.activation}': known are {', '.join(ACTIVATIONS)}."
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
    def from_hf_json(cls, source: str | Path | Mapping[str, Any]) -> T5Config:
        """Reads a Hugging Face `config.json`.

        `scale_decoder_outputs` is taken from the key of that name where there is one
        (transformers 5 writes it), else it equals `tie_word_embeddings` (default true). Whether
        the head really is tied follows from the weights: see `weights.assemble`.

        Args:
          source: path of the file, or its parsed content.

        Raises:
          ModelError: the file is missing, not JSON, not a T5, or needs what is not implemented.
        """
        if isinstance(source, Mapping):
            raw, where = dict(source), "the configuration"
        else:
            path = Path(source)
            where = str(path)
            try:
                raw = json.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise ModelError(f"Cannot read {where}: {error.strerror or error}.") from error
            except ValueError as error:
                raise ModelError(f"{where} is not valid JSON: {error}.") from error
            if not isinstance(raw, dict):
                raise ModelError(f"{where} must hold a JSON object.")
        kind = raw.get("model_type", "t5")
        if kind not in _MODEL_TYPES or kind == "umt5":
            raise ModelError(
                f"{where}: model_type '{kind}' is not supported; T5, T5 1.1, Flan-T5, mT5 and "
                "ByT5 are."
            )
        for key in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
            if key not in raw:
                raise ModelError(f"{where} lacks '{key}': is it the config.json of a T5?")
            if not isinstance(raw[key], int):
                raise ModelError(f"{where}: '{key}' must be an integer, not {raw[key]!r}.")
        proj = str(raw.get("feed_forward_proj", "gated-gelu" if kind == "mt5" else "relu"))
        prefix, _, name = proj.rpartition("-")
        if prefix not in ("", "gated"):
            raise ModelError(f"{where}: feed_forward_proj '{proj}' is not supported.")
        if proj == "gated-gelu":  # historical: means the tanh approximation
            name = "gelu_new"
        name = str(raw.get("dense_act_fn", name))
        tied = raw.get("tie_word_embeddings", kind != "mt5")
        start = raw.get("decoder_start_token_id")
        layers = raw["num_layers"]
        decoder_layers = raw.get("num_decoder_layers")
        defaults = cls()
        return cls(
            vocab_size=raw["vocab_size"],
            d_model=raw["d_model"],
            d_kv=raw["d_kv"],
            d_ff=raw["d_ff"],
            num_layers=layers,
            num_decoder_layers=layers if decoder_layers is None else decoder_layers,
            num_heads=raw["num_heads"],
            relative_attention_num_buckets=raw.get(
                "relative_attention_num_buckets", defaults.relative_attention_num_buckets
            ),
            relative_attention_max_distance=raw.get(
                "relative_attention_max_distance", defaults.relative_attention_max_distance
            ),
            layer_norm_epsilon=float(raw.get("layer_norm_epsilon", defaults.layer_norm_epsilon)),
            activation=_ALIASES.get(name, name),
            gated=bool(raw.get("is_gated_act", prefix == "gated")),
            tied_head=bool(tied),
            scale_decoder_outputs=bool(raw.get("scale_decoder_outputs", tied)),
            pad_token_id=_token_id(raw, "pad_token_id", 0),
            eos_token_id=_token_id(raw, "eos_token_id", 1),
            decoder_start_token_id=_token_id(raw, "pad_token_id", 0) if start is None else start,
        )

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
        short = name.removeprefix("google-t5/")
        if short not in KNOWN:
            raise ModelError(
                f"The shape of '{name}' is not known offline.{did_you_mean(short, KNOWN)} "
                "Give a local directory with config.json, or one of: " + ", ".join(sorted(KNOWN))
            )
        return KNOWN[short]


def _token_id(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key)
    if isinstance(value, list):  # generation configs may list several ends of sequence
        value = value[0] if value else None
    return default if value is None else int(value)


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
    byt5 = {"small": (1472, 64, 3584, 12, 4, 6), "base": (1536, 64, 3968, 18, 6, 12)}

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

    table = {f"t5-{size}": shape(dims, 32128, False) for size, dims in v10.items()}
    for size, dims in v11.items():
        for pattern in ("google/t5-v1_1-{}", "google/t5-{}-lm-adapt", "google/flan-t5-{}"):
            table[pattern.format(size)] = shape(dims, 32128, True)
    for size in ("small", "base"):
        table[f"google/mt5-{size}"] = shape(v11[size], 250112, True)
        table[f"google/byt5-{size}"] = shape(byt5[size], 384, True)
    return table


KNOWN: dict[str, T5Config] = _published()
