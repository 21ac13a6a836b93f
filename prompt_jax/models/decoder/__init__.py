"""Decoder-only models (Llama, Qwen2, Qwen3) in flax.linen."""

from prompt_jax.models.decoder.config import KNOWN as KNOWN
from prompt_jax.models.decoder.config import DecoderConfig as DecoderConfig
from prompt_jax.models.decoder.config import Llama3Scaling as Llama3Scaling
from prompt_jax.models.decoder.model import FrozenDecoder as FrozenDecoder

__all__ = ["KNOWN", "DecoderConfig", "FrozenDecoder", "Llama3Scaling"]
