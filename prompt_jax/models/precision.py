"""Which dtype is the fastest here: what `dtype=auto` stands for, and what bfloat16 is worth."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from prompt_jax.compile_cache import processor

AUTO = "auto"
TOLERANCE = 0.03
"""The loss in bfloat16 differs by less than this share from that in float32."""
# From this release on XLA multiplies bfloat16 on a CPU with the processor's own instructions.
_CPU_RELEASE = (0, 12)
_CPU_FLAGS = frozenset(("amx_bf16", "avx512_bf16", "bf16"))
_GPU_CAPABILITY = 8.0  # of CUDA: Ampere, the first with bfloat16 tensor cores


class Precision(NamedTuple):
    """The fastest dtype of a device, and why."""

    dtype: str
    why: str


def fastest(device: Any = None, release: str = jax.__version__) -> Precision:
    """The dtype in which matrix products are fastest; float32 where bfloat16 gains nothing.

    A table by platform and release of JAX, and no measurement: the same machine always gets the
    same answer.

    Args:
      device: None: the first one.
      release: of JAX.
    """
    device = jax.devices()[0] if device is None else device
    if device.platform == "tpu":
        return Precision("bfloat16", "a TPU multiplies in bfloat16")
    if device.platform == "cpu":
        return _of_cpu(release)
    try:
        capability = float(getattr(device, "compute_capability", ""))
    except ValueError:  # no CUDA
        return Precision("float32", f"nothing is known of bfloat16 on {device.device_kind}")
    if capability >= _GPU_CAPABILITY:
        return Precision("bfloat16", "tensor cores multiply bfloat16 faster than float32")
    return Precision("float32", "this GPU has no tensor cores for bfloat16")


def note(asked: str, dtype: str) -> str:
    """What a plan says about the dtype; "" where there is nothing to say.

    Args:
      asked: the dtype of the config, possibly `auto`.
      dtype: that of the model.
    """
    found = fastest()
    if asked == AUTO:
        changes = f"; losses within {TOLERANCE:.0%} of float32's" if dtype == "bfloat16" else ""
        return f"auto, {found.why}{changes}"
    if dtype == "bfloat16" and found.dtype == "float32":
        return f"saves memory only: {found.why}"
    return ""


def _of_cpu(release: str) -> Precision:
    if tuple(int(part) for part in release.split(".")[:2]) < _CPU_RELEASE:
        return Precision(
            "float32",
            f"on a CPU, jax {release} computes bfloat16 no faster than float32 (0.12 does)",
        )
    if _CPU_FLAGS.isdisjoint(processor().split()):
        return Precision("float32", "this processor has no instructions for bfloat16")
    return Precision("bfloat16", "this processor multiplies bfloat16 faster than float32")
