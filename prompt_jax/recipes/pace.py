"""How long a plan takes on this machine, from the speed that earlier runs have reached here."""

from __future__ import annotations

import json
import os
import statistics
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from prompt_jax import store
from prompt_jax.config import digest
from prompt_jax.models.base import LanguageModel
from prompt_jax.training import speed


class Pace(NamedTuple):
    """Operations per second of one device.

    Attributes:
      flops_per_second: of one device.
      from_runs: what earlier runs of this model have reached here; otherwise the rate of a plain
        matrix product, which training does not reach.
    """

    flops_per_second: float
    from_runs: bool


def remember(cache: Path | None, lm: LanguageModel, folder: Path) -> None:
    """Keeps the speed of a run for later plans; a cache that cannot be written is no error here.

    Args:
      cache: the folder of everything that is kept between experiments; None: nothing is.
      lm: the model of the run.
      folder: its run directory.
    """
    rates = []
    with suppress(OSError):
        for line in (folder / speed.FILE).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError, KeyError):
                rates.append(float(json.loads(line)["flops_per_second"]))
    rates = [rate for rate in rates if rate > 0]
    if cache is None or not rates:
        return
    rate = statistics.median(rates) / jax.device_count()
    with suppress(OSError):
        store.write(_path(cache, lm), {"flops_per_second": rate}, {})


def pace(cache: Path | None, lm: LanguageModel) -> Pace:
    """The speed of one device of this machine; where no run was measured, a product is now.

    Args:
      cache: as of `remember`.
      lm: the model, or its shapes.
    """
    entry = None if cache is None else store.read(_path(cache, lm))
    if entry is not None:
        return Pace(float(entry.facts["flops_per_second"]), True)
    return Pace(speed.matmul_ceiling(lm), False)


def _path(cache: Path, lm: LanguageModel) -> Path:
    device = jax.local_devices()[0]
    cores = os.cpu_count() if device.platform == "cpu" else 0
    shapes = str(jax.tree.map(lambda x: x.shape, lm.params))
    name = digest("speed", device.device_kind, cores, shapes, str(np.dtype(lm.dtype)))
    return cache / "speeds" / f"{name}.safetensors"
