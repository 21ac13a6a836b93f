"""How long a plan takes on accelerators that are not here, at an assumed share of their peak."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SHARE = 0.4
"""Of the peak: what dense training of a language model of this size is assumed to reach."""

# Operations per second of one chip, dense, from the makers' data sheets. float32: TF32 on GPUs, and
# bfloat16 passes on TPUs, which are JAX's defaults for products of float32 there.
PEAKS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "A100": {"float32": 156e12, "bfloat16": 312e12},
        "H100": {"float32": 494e12, "bfloat16": 989e12},
        "TPU v5e": {"float32": 197e12, "bfloat16": 197e12},
    }
)


class ChipHours(NamedTuple):
    """What a plan would take on one chip.

    Attributes:
      chip: its name.
      peak: operations per second.
      hours: at `SHARE` of the peak.
    """

    chip: str
    peak: float
    hours: float


def chip_hours(flops: float, dtype: str) -> tuple[ChipHours, ...]:
    """Hours of one chip of each kind.

    Args:
      flops: operations in all.
      dtype: of the model's activations, `float32` or `bfloat16`.

    >>> a100, *_ = chip_hours(1e18, "bfloat16")
    >>> f"{a100.chip}: {a100.hours:.2f} h"
    'A100: 2.23 h'
    """
    return tuple(
        ChipHours(name, peaks[dtype], flops / (SHARE * peaks[dtype]) / 3600)
        for name, peaks in PEAKS.items()
    )
