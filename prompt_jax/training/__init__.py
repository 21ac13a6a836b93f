"""Training: folding, step, loop, optimizers, tracking."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_jax.training.loop import Replica as Replica
    from prompt_jax.training.loop import TrainConfig as TrainConfig
    from prompt_jax.training.loop import TrainedReplica as TrainedReplica
    from prompt_jax.training.loop import train as train
    from prompt_jax.training.optimizers import OptimizerConfig as OptimizerConfig

__all__ = ["OptimizerConfig", "Replica", "TrainConfig", "TrainedReplica", "train"]


def __getattr__(name: str) -> Any:
    # Late: what is light here (the protocol, tracking) is read without the loop.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "optimizers" if name == "OptimizerConfig" else "loop"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
