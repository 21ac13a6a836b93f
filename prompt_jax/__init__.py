"""Multi-task soft prompt tuning over a frozen T5, in JAX.

Importing the package is cheap: no JAX backend is initialised, no environment variable is written,
and every public name is imported from its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_jax import data as data
    from prompt_jax import evaluation as evaluation
    from prompt_jax import methods as methods
    from prompt_jax import models as models
    from prompt_jax import prompts as prompts
    from prompt_jax import recipes as recipes
    from prompt_jax import training as training
    from prompt_jax.errors import PromptJaxError as PromptJaxError
    from prompt_jax.models.t5 import FrozenT5 as FrozenT5
    from prompt_jax.prompts import PromptRecord as PromptRecord
    from prompt_jax.prompts import SoftPrompt as SoftPrompt
    from prompt_jax.prompts import TaskVector as TaskVector
    from prompt_jax.recipes.transfer import transfer as transfer

__version__ = "0.1.0"

__all__ = [
    "FrozenT5",
    "PromptJaxError",
    "PromptRecord",
    "SoftPrompt",
    "TaskVector",
    "__version__",
    "data",
    "evaluation",
    "methods",
    "models",
    "prompts",
    "recipes",
    "training",
    "transfer",
]

# Public name -> the module that defines it.
_NAMES = {
    "FrozenT5": "prompt_jax.models.t5",
    "PromptJaxError": "prompt_jax.errors",
    "PromptRecord": "prompt_jax.prompts",
    "SoftPrompt": "prompt_jax.prompts",
    "TaskVector": "prompt_jax.prompts",
    "transfer": "prompt_jax.recipes.transfer",
}

_SUBPACKAGES = frozenset(
    {"data", "evaluation", "methods", "models", "prompts", "recipes", "training"}
)


def __getattr__(name: str) -> Any:
    """Import the public name `name` where it is first used (PEP 562)."""
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _SUBPACKAGES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    """List the public names before the plain module attributes that exist so far."""
    return sorted({*__all__, *globals()})
