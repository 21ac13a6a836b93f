"""What a run directory records of the machine, the versions and the model."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import jax


def provenance(lm: Any) -> dict[str, Any]:
    """Versions, device and model, for the run directory."""
    packages = ("prompt-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree"
    device = jax.devices()[0]
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "model": {
            "name": lm.name,
            "weights_sha256": lm.weights_hash,
            "config": lm.model_config,
            "dtype": str(lm.dtype),
        },
    }
