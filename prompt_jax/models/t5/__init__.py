"""T5 in flax.linen: configuration, modules, weights, tokenizers and decoding."""

from prompt_jax.models.t5.config import KNOWN as KNOWN
from prompt_jax.models.t5.config import T5Config as T5Config
from prompt_jax.models.t5.flops import flops as flops
from prompt_jax.models.t5.model import FrozenT5 as FrozenT5

__all__ = ["KNOWN", "FrozenT5", "T5Config", "flops"]
