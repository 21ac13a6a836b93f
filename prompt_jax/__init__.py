"""Multi-task soft prompt tuning over a frozen language model, in JAX.

Importing the package is cheap: no JAX backend is initialised, no environment variable is written,
and every public name is imported from its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_jax import data as data
    from prompt_jax import evaluation as evaluation
    from prompt_jax import memory_bank as memory_bank
    from prompt_jax import methods as methods
    from prompt_jax import models as models
    from prompt_jax import prompts as prompts
    from prompt_jax import recipes as recipes
    from prompt_jax import report as report
    from prompt_jax import svgd as svgd
    from prompt_jax import task_vectors as task_vectors
    from prompt_jax import testing as testing
    from prompt_jax import training as training
    from prompt_jax.errors import PromptJaxError as PromptJaxError
    from prompt_jax.evaluation import Prediction as Prediction
    from prompt_jax.evaluation import predict as predict
    from prompt_jax.memory_bank import MemoryBank as MemoryBank
    from prompt_jax.memory_bank import gather as gather
    from prompt_jax.memory_bank import retrieve as retrieve
    from prompt_jax.models import FrozenDecoder as FrozenDecoder
    from prompt_jax.models import FrozenT5 as FrozenT5
    from prompt_jax.models import from_pretrained as from_pretrained
    from prompt_jax.prompts import PromptRecord as PromptRecord
    from prompt_jax.prompts import SoftPrompt as SoftPrompt
    from prompt_jax.prompts import TaskVector as TaskVector
    from prompt_jax.recipes.transfer import transfer as transfer
    from prompt_jax.recipes.tune import tune as tune
    from prompt_jax.task_vectors import group_from_gram as group_from_gram
    from prompt_jax.task_vectors import knowledge_consistency as knowledge_consistency
    from prompt_jax.task_vectors import merge as merge
    from prompt_jax.task_vectors import select_group as select_group
    from prompt_jax.task_vectors import similarity as similarity
    from prompt_jax.task_vectors import target_similarity as target_similarity

__version__ = "0.1.0"

__all__ = [
    "FrozenDecoder",
    "FrozenT5",
    "MemoryBank",
    "Prediction",
    "PromptJaxError",
    "PromptRecord",
    "SoftPrompt",
    "TaskVector",
    "__version__",
    "data",
    "evaluation",
    "from_pretrained",
    "gather",
    "group_from_gram",
    "knowledge_consistency",
    "memory_bank",
    "merge",
    "methods",
    "models",
    "predict",
    "prompts",
    "recipes",
    "report",
    "retrieve",
    "select_group",
    "similarity",
    "svgd",
    "target_similarity",
    "task_vectors",
    "testing",
    "training",
    "transfer",
    "tune",
]

# Public name -> the module that defines it.
_NAMES = {
    "FrozenDecoder": "prompt_jax.models",
    "FrozenT5": "prompt_jax.models",
    "from_pretrained": "prompt_jax.models",
    "MemoryBank": "prompt_jax.memory_bank",
    "Prediction": "prompt_jax.evaluation",
    "predict": "prompt_jax.evaluation",
    "gather": "prompt_jax.memory_bank",
    "retrieve": "prompt_jax.memory_bank",
    "PromptJaxError": "prompt_jax.errors",
    "PromptRecord": "prompt_jax.prompts",
    "SoftPrompt": "prompt_jax.prompts",
    "TaskVector": "prompt_jax.prompts",
    "group_from_gram": "prompt_jax.task_vectors",
    "knowledge_consistency": "prompt_jax.task_vectors",
    "merge": "prompt_jax.task_vectors",
    "select_group": "prompt_jax.task_vectors",
    "similarity": "prompt_jax.task_vectors",
    "target_similarity": "prompt_jax.task_vectors",
    "transfer": "prompt_jax.recipes.transfer",
    "tune": "prompt_jax.recipes.tune",
}

_SUBPACKAGES = frozenset(
    {
        "data",
        "evaluation",
        "memory_bank",
        "methods",
        "models",
        "prompts",
        "recipes",
        "report",
        "svgd",
        "task_vectors",
        "testing",
        "training",
    }
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
    """List the public names alone: not what this module imports for itself."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
