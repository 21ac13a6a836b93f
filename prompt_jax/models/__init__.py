"""Language models: the protocol, how they are loaded, and the families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prompt_jax.models.base import LanguageModel as LanguageModel
from prompt_jax.models.base import Scores as Scores
from prompt_jax.models.base import Tokenizer as Tokenizer
from prompt_jax.models.registry import abstract as abstract
from prompt_jax.models.registry import from_pretrained as from_pretrained
from prompt_jax.models.registry import has_known_shape as has_known_shape
from prompt_jax.models.registry import load as load

if TYPE_CHECKING:
    from prompt_jax.models.decoder import FrozenDecoder as FrozenDecoder
    from prompt_jax.models.t5 import FrozenT5 as FrozenT5

__all__ = [
    "FrozenDecoder",
    "FrozenT5",
    "LanguageModel",
    "Scores",
    "Tokenizer",
    "abstract",
    "from_pretrained",
    "has_known_shape",
    "load",
]


def __getattr__(name: str) -> Any:
    """Imports a family's class on first use: flax and the modules come with it."""
    if name == "FrozenT5":
        from prompt_jax.models.t5 import FrozenT5

        return FrozenT5
    if name == "FrozenDecoder":
        from prompt_jax.models.decoder import FrozenDecoder

        return FrozenDecoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names alone."""
    return sorted(__all__)
