"""The shape of a decoder-only model and how published configurations describe it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_jax.errors import ModelError, did_you_mean
from prompt_jax.models.config_file import ConfigFile

MODEL_TYPES = ("llama", "qwen2", "qwen3")
ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu")
_ALIASES = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}
_SIZES = (
    "vocab_size",
    "d_model",
    "d_ff",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "max_positions",
)


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's scaling of rotary frequencies, for contexts longer than in pretraining.

    Attributes:
      factor: divides the low frequencies.
      low_freq_factor: wavelengths above `original_positions / low_freq_factor` are divided.
      high_freq_factor: wavelengths below `original_positions / high_freq_factor` are kept.
      original_positions: positions of the pretraining.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ModelError(f"The rope scaling's {field.name} must be above 0, not {value}.")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ModelError(
                "The rope scaling's low_freq_factor must be below its high_freq_factor, not "
                f"{self.low_freq_factor} and {self.high_freq_factor}."
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Everything static about a decoder-only model: hashable, a static argument of `jit`.

    Attributes:
      vocab_size: rows of the embedding table.
      d_model: D, width of the residual stream.
      d_ff: hidden units of the gated feed-forward layer.
      num_layers: layers.
      num_heads: heads of the queries.
      num_kv_heads: heads of keys and values; divides `num_heads`.
      head_dim: width of a head; `num_heads * head_dim` need not equal `d_model`.
      rope_theta: base of the rotary frequencies.
      rope_scaling: None or Llama 3.1's.
      norm_epsilon: added to the mean square in the RMS norm.
      activation: one of `ACTIVATIONS`, of the gate.
      qkv_bias: queries, keys and values have biases (Qwen2).
      o_bias: the attention's output has one.
      qk_norm: queries and keys are normed head by head (Qwen3).
      tied_head: the head is the embedding table.
      bos_token_id: beginning of a text, or None.
      eos_token_ids: what ends a generated sequence, at least one id.
      max_positions: longest sequence of the pretraining (with `rope_scaling`: after it).
      model_type: one of `MODEL_TYPES`, for files.
    """

    vocab_size: int = 49152
    d_model: int = 576
    d_ff: int = 1536
    num_layers: int = 30
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int = 64
    rope_theta: float = 10000.0
    rope_scaling: Llama3Scaling | None = None
    norm_epsilon: float = 1e-5
    activation: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = (2,)
    max_positions: int = 8192
    model_type: str = "llama"

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads "
                "evenly."
            )
        if self.head_dim % 2:
            raise ModelError(f"Rotary positions need an even head_dim, not {self.head_dim}.")
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"Unknown activation '{self.activation}': known are {', '.join(ACTIVATIONS)}."
            )
        for name in ("rope_theta", "norm_epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ModelError(f"{name} must be a number above 0, not {value}.")
        if not self.eos_token_ids:
            raise ModelError("The configuration names no end of sequence (eos_token_id).")
        bos = () if self.bos_token_id is None else (self.bos_token_id,)
        for number in (*self.eos_token_ids, *bos):
            if not 0 <= number < self.vocab_size:
                raise ModelError(
                    f"The special token {number} lies outside the vocabulary of {self.vocab_size}."
                )

    def replace(self, **changes: Any) -> DecoderConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def inner(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_dim

    @property
    def kv_inner(self) -> int:
        """Width of all key heads, and of all value heads, together."""
        return self.num_kv_heads * self.head_dim

    @property
    def parameter_count(self) -> int:
        """Number of weights; a tied head is counted once."""
        d = self.d_model
        attention = 2 * d * (self.inner + self.kv_inner) + d
        attention += (self.inner + 2 * self.kv_inner) * self.qkv_bias + d * self.o_bias
        attention += 2 * self.head_dim * self.qk_norm
        tables = 1 if self.tied_head else 2
        return (
            tables * self.vocab_size * d + self.num_layers * (attention + 3 * d * self.d_ff + d) + d
        )

    @classmethod
    def from_hf_json(cls, source: str | Path | Mapping[str, Any]) -> DecoderConfig:
        """Reads a Hugging Face `config.json`.

        A `generation_config.json` beside it names the ends of sequence, as in transformers.

        Args:
          source: path of the file, or its parsed content.

        Raises:
          ModelError: the file is missing, not JSON, or describes what is not implemented.
        """
        file = ConfigFile(source)
        if not isinstance(source, Mapping):
            beside = Path(source).with_name("generation_config.json")
            if beside.is_file() and (ends := ConfigFile(beside).token_ids("eos_token_id")):
                file.raw["eos_token_id"] = list(ends)
        return _read(file)

    def to_hf_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads as the same model.

        Raises:
          ModelError: no published architecture has this combination of options.
        """
        expected = {
            "llama": (self.qkv_bias, False),
            "qwen2": (True, False),
            "qwen3": (self.qkv_bias, True),
        }[self.model_type]
        o_bias = self.qkv_bias and self.model_type != "qwen2"
        if (self.qkv_bias, self.qk_norm) != expected or self.o_bias != o_bias:
            raise ModelError(
                f"A {self.model_type} cannot have these biases and norms of queries and keys."
            )
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if (scaling := self.rope_scaling) is not None:
            rope |= {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_positions,
            }
        eos = self.eos_token_ids
        return {
            "architectures": [f"{self.model_type.capitalize()}ForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "intermediate_size": self.d_ff,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            # Releases before transformers 5 read the first two, later ones the third.
            "rope_theta": self.rope_theta,
            "rope_scaling": None
            if scaling is None
            else {k: v for k, v in rope.items() if k != "rope_theta"},
            "rope_parameters": rope,
            "rms_norm_eps": self.norm_epsilon,
            "hidden_act": self.activation,
            "attention_bias": self.qkv_bias,
            "tie_word_embeddings": self.tied_head,
            "max_position_embeddings": self.max_positions,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else list(eos),
        }


def _read(file: ConfigFile) -> DecoderConfig:
    kind = file.optional_text("model_type")
    if kind not in MODEL_TYPES:
        raise file.error(
            f"model_type '{kind}' is not supported.{did_you_mean(str(kind), MODEL_TYPES)} "
            f"Of decoder-only models {', '.join(MODEL_TYPES)} are."
        )
    layers = file.integer("num_hidden_layers")
    _refuse(file, kind, layers)
    heads, width = file.integer("num_attention_heads"), file.integer("hidden_size")
    theta, scaling = _rope(file)
    biased = file.flag("attention_bias", False)
    activation = file.text("hidden_act", "silu")
    bos = file.token_ids("bos_token_id")
    kv_heads, head_dim = (file.optional_integer(k) for k in ("num_key_value_heads", "head_dim"))
    if kv_heads is None:
        kv_heads = heads if kind == "llama" else 32
    if head_dim is None:
        head_dim = 128 if kind == "qwen3" else width // max(heads, 1)
    try:
        return DecoderConfig(
            vocab_size=file.integer("vocab_size"),
            d_model=width,
            d_ff=file.integer("intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            rope_theta=theta,
            rope_scaling=scaling,
            norm_epsilon=file.number("rms_norm_eps", 1e-6),
            activation=_ALIASES.get(activation, activation),
            qkv_bias=biased or kind == "qwen2",
            o_bias=biased and kind != "qwen2",
            qk_norm=kind == "qwen3",
            tied_head=file.flag("tie_word_embeddings", False),
            bos_token_id=bos[0] if bos else None,
            eos_token_ids=file.token_ids("eos_token_id"),
            max_positions=file.integer("max_position_embeddings", 2048),
            model_type=kind,
        )
    except ModelError as error:
        raise error if str(error).startswith(file.where) else file.error(str(error)) from None


def _refuse(file: ConfigFile, kind: str, layers: int) -> None:
    """What changes the computation and is not implemented."""
    file.refuse_quantized()
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if file.raw.get(key) not in (None, 0, 1):
            raise file.error(f"mixtures of experts ('{key}') are not supported.")
    for key, value in {"mlp_bias": False, "partial_rotary_factor": 1.0}.items():
        if file.raw.get(key) is not None and file.raw[key] != value:
            raise file.error(f"'{key}' = {file.raw[key]!r} is not supported.")
    types = file.raw.get("layer_types")
    if types is not None:
        sliding = not isinstance(types, list) or any(name != "full_attention" for name in types)
    elif kind == "llama":
        sliding = file.raw.get("sliding_window") is not None
    else:
        uses = file.flag("use_sliding_window", False)
        sliding = uses and file.integer("max_window_layers", 28) < layers
    if sliding:
        raise file.error(
            "layers with a sliding window are not supported: every layer must attend to the whole "
            "text."
        )


def _rope(file: ConfigFile) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling, from `rope_parameters` or from the two older keys."""
    raw: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = file.raw.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise file.error(f"'{key}' must be an object, not {value!r}.")
        raw |= value or {}
    for key in ("rope_theta", "max_position_embeddings"):
        if key in file.raw:
            raw.setdefault(key, file.raw[key])
    rope = ConfigFile(raw)
    rope.where = f"{file.where}: the rotary positions"
    theta = rope.number("rope_theta", 10000.0)
    kind = raw.get("rope_type", raw.get("type", "default"))
    if raw.get("partial_rotary_factor") not in (None, 1.0):
        raise file.error("rotary positions of a part of each head are not supported.")
    if kind in ("default", None):
        return theta, None
    if kind != "llama3":
        raise file.error(
            f"the rope type '{kind}' is not supported: only 'default' and 'llama3' are."
        )
    for key in ("factor", "low_freq_factor", "high_freq_factor"):
        if key not in raw:
            raise rope.error(f"lack '{key}', which the rope type 'llama3' needs.")
    key = "original_max_position_embeddings"
    return theta, Llama3Scaling(
        factor=rope.number("factor", 0.0),
        low_freq_factor=rope.number("low_freq_factor", 0.0),
        high_freq_factor=rope.number("high_freq_factor", 0.0),
        original_positions=rope.integer(key, rope.integer("max_position_embeddings", 2048)),
    )


def _published() -> dict[str, DecoderConfig]:
    """Shapes as their config files give them."""
    llama3 = {
        "vocab_size": 128256,
        "rope_theta": 500000.0,
        "rope_scaling": Llama3Scaling(32.0, 1.0, 4.0, 8192),
        "bos_token_id": 128000,
        "eos_token_ids": (128001,),
        "max_positions": 131072,
    }
    smol = {"rope_theta": 100000.0, "eos_token_ids": (0,), "bos_token_id": 0}
    qwen: dict[str, Any] = {
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
        "norm_epsilon": 1e-6,
        "bos_token_id": 151643,
        "eos_token_ids": (151643,),
    }
    qwen3 = {
        **qwen,
        "model_type": "qwen3",
        "qk_norm": True,
        "head_dim": 128,
        "max_positions": 40960,
        "eos_token_ids": (151645,),
    }

    def shape(layers: int, d: int, ff: int, heads: int, kv: int, **more: Any) -> DecoderConfig:
        options = {"head_dim": d // heads, **more}
        return DecoderConfig(
            num_layers=layers, d_model=d, d_ff=ff, num_heads=heads, num_kv_heads=kv, **options
        )

    return {
        "HuggingFaceTB/SmolLM2-135M": shape(30, 576, 1536, 9, 3, **smol),
        "HuggingFaceTB/SmolLM2-360M": shape(32, 960, 2560, 15, 5, **smol),
        "HuggingFaceTB/SmolLM2-1.7B": shape(
            24, 2048, 8192, 32, 32, **{**smol, "rope_theta": 130000.0}
        ),
        "meta-llama/Llama-3.2-1B": shape(16, 2048, 8192, 32, 8, **llama3),
        "meta-llama/Llama-3.2-3B": shape(28, 3072, 8192, 24, 8, **llama3),
        "Qwen/Qwen2.5-0.5B": shape(
            24, 896, 4864, 14, 2, **qwen, model_type="qwen2", qkv_bias=True, max_positions=32768
        ),
        "Qwen/Qwen3-0.6B": shape(28, 1024, 3072, 16, 8, **qwen3),
        "Qwen/Qwen3-8B": shape(36, 4096, 12288, 32, 8, **qwen3, tied_head=False),
    }


KNOWN: dict[str, DecoderConfig] = _published()
