"""Training: folding, step, loop, optimizers, tracking."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_jax.training.loop import train as train
    from prompt_jax.training.optimizers import OptimizerConfig as OptimizerConfig
    from prompt_jax.training.population import Population as Population
    from prompt_jax.training.types import Replica as Replica
    from prompt_jax.training.types import TrainConfig as TrainConfig
    from prompt_jax.training.types import TrainedReplica as TrainedReplica

_MODULES = {
    "OptimizerConfig": "optimizers",
    "Population": "population",
    "Replica": "types",
    "TrainConfig": "types",
    "TrainedReplica": "types",
    "train": "loop",
}
_DEPRECATED = {"Run": "Replica", "TrainedRun": "TrainedReplica"}

__all__ = ["OptimizerConfig", "Population", "Replica", "TrainConfig", "TrainedReplica", "train"]


def __getattr__(name: str) -> Any:
    # Lazy: the protocol and tracking are imported without the loop.
    if name in _DEPRECATED:
        new = _DEPRECATED[name]
        warnings.warn(
            f"prompt_jax.training.{name} is now called {new}.", DeprecationWarning, stacklevel=2
        )
        name = new
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
