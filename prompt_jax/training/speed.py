"""How fast a population trains: step time, rows per second, share of the matrix-product rate.

Speed is the only thing about a run that is not repeatable to the last bit, so it has a file of its
own, `speed.jsonl`, beside `metrics.jsonl`.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.models.base import LanguageModel
from prompt_jax.training import tracking
from prompt_jax.training.memory import CPU_TOKENS
from prompt_jax.training.population import Population
from prompt_jax.training.protocol import Method
from prompt_jax.training.step import StepMetrics
from prompt_jax.training.tracking import Tracker

FILE = tracking.SPEED_FILE
# Steps whose micro-batches are planned before the first one, to tell how many programs there are.
_AHEAD = 100
# Rows of the product that measures an accelerator: enough that launching it does not count.
_ACCELERATOR_TOKENS = 1 << 14


class Work(NamedTuple):
    """What some steps of a population did.

    Attributes:
      step: the last of them.
      steps: how many.
      seconds: wall-clock; development evaluations do not count, compilation and checkpoints do.
      rows: training rows of all replicas.
      flops: hand-counted operations on the rows' tokens; padding is no work.
      devices: that took part.
    """

    step: int
    steps: int
    seconds: float
    rows: int
    flops: float
    devices: int


class StepTimer:
    """Takes the steps of a population and measures how long they take.

    Args:
      population: whose steps are taken.
      tracker: receives a record of `describe` at every `report`, and a call before every step.
    """

    def __init__(self, population: Population, tracker: Tracker) -> None:
        self._population, self._tracker = population, tracker
        self._began: float | None = None
        self._seconds = 0.0
        self._steps = 0
        self._seen = self._counts()
        self._shapes: set[tuple[int, int]] = set()
        self._ahead: int | None = None  # programs of the next steps
        population.on_shape = self._on_shape

    def step(self, step: int) -> StepMetrics:
        """`Population.step`; a step with a new shape compiles a program for it."""
        self._tracker.before_step(self._wait)
        known = len(self._shapes)
        if self._ahead is None:
            last = min(step + _AHEAD, self._population.config.steps)
            self._ahead = len(self._population.shapes(step, last))
        if self._began is None:
            self._began = time.perf_counter()
        self._steps += 1
        metrics = self._population.step(step)
        if len(self._shapes) > known:
            self._tracker.doing("")
        return metrics

    def _on_shape(self, rows: int, width: int) -> None:
        if (rows, width) not in self._shapes:
            self._shapes.add((rows, width))
            number = len(self._shapes)
            programs = f"{number} of {max(number, self._ahead or 0)} programs"
            self._tracker.doing(f"compiling {programs} ({rows} rows x {width} tokens)")

    def pause(self) -> None:
        """Stops the clock until the next step."""
        if self._began is not None:
            self._wait()  # devices are behind the host
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def report(self, step: int) -> None:
        """Gives the tracker the measurements since the last report."""
        if not self._steps:
            return
        self.pause()
        before, self._seen = self._seen, self._counts()
        steps, inputs, targets = (now - then for now, then in zip(self._seen, before, strict=True))
        p = self._population
        rows = steps * p.config.batch_size
        devices = 1 if p.mesh is None else p.mesh.size
        flops = count_flops(p.lm, p.method, rows, inputs + rows * p.prompt_tokens, targets)
        if self._tracker.measures:
            work = Work(step, self._steps, self._seconds, rows, flops, devices)
            self._tracker.measure(describe(work, matmul_ceiling(p.lm)))
        self._seconds, self._steps = 0.0, 0

    def _counts(self) -> tuple[int, int, int]:
        """Steps, input tokens and target tokens of all replicas so far."""
        inputs, targets = self._population.tokens.sum(1).tolist()
        return int(self._population.steps.sum()), inputs, targets

    def _wait(self) -> None:
        jax.block_until_ready(self._population.state)


def count_flops(lm: LanguageModel, method: Method, rows: int, tokens: int, targets: int) -> float:
    """Hand-counted operations of training on rows.

    Args:
      lm: the model.
      method: what is trained.
      rows: how many.
      tokens: input tokens of all rows, prompts included.
      targets: target tokens of all rows.
    """
    if not rows:
        return 0.0
    passes = 1 if method.per_view_batches else method.views
    backward = "full" if method.trains_lm else "prompt"
    per_row = round(tokens / rows), max(1, round(targets / rows))
    return float(rows * passes * lm.flops(1, *per_row, backward=backward))


def matmul_ceiling(lm: LanguageModel) -> float:
    """Operations per second of one device on a matrix product of a feed-forward layer's shape.

    Measured once per process and shape; a fraction of a second.
    """
    return _ceiling(*lm.feed_forward_shape, str(jnp.dtype(lm.dtype)))


@functools.lru_cache
def _ceiling(k: int, n: int, dtype: str) -> float:
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    m, products = (CPU_TOKENS, 1) if on_cpu else (_ACCELERATOR_TOKENS, 8)
    a, b = (jax.device_put(jnp.ones(shape, dtype), device) for shape in ((m, k), (k, n)))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready([product(a, b) for _ in range(products)])
        times.append(time.perf_counter() - began)
    return products * 2.0 * m * k * n / min(times)


def peak_memory() -> dict[str, int]:
    """The most bytes so far: of the fullest local device, where it says, and of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [int(s["peak_bytes_in_use"]) for s in stats if "peak_bytes_in_use" in s]
    found = {"device_peak_bytes": max(peaks)} if peaks else {}
    try:
        import resource
    except ImportError:  # Windows
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, "host_peak_bytes": peak if sys.platform == "darwin" else peak * 1024}


def describe(work: Work, ceiling: float) -> dict[str, Any]:
    """The numbers of `speed.jsonl` for some steps.

    Args:
      work: the steps.
      ceiling: operations per second of one device, as of `matmul_ceiling`; 0: not known.
    """
    seconds = max(work.seconds, 1e-9)
    numbers = {
        "step": work.step,
        "steps": work.steps,
        "step_seconds": round(seconds / work.steps, 6),
        "rows_per_second": round(work.rows / seconds, 2),
        "flops_per_second": round(work.flops / seconds),
    }
    if ceiling:
        numbers["matmul_flops_per_second"] = round(ceiling * work.devices)
        share = work.flops / seconds / (ceiling * work.devices)
        numbers["utilisation"] = float(f"{share:.4g}")
    return {**numbers, **peak_memory()}


class StageSpeed(NamedTuple):
    """The speed of a stage: medians over its logged intervals, so that compiling does not count."""

    stage: str
    steps: int
    step_seconds: float
    rows_per_second: float
    utilisation: float  # NaN: no ceiling was measured
    peak_bytes: int  # of a device where it says, else of the process


def summarise(lines: Iterable[Mapping[str, Any]]) -> list[StageSpeed]:
    """One entry per stage, in order of appearance."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        stages.setdefault(line["stage"], []).append(line)

    def median(found: list[Mapping[str, Any]], key: str) -> float:
        values = [line[key] for line in found if line.get(key) is not None]
        return float(statistics.median(values)) if values else math.nan

    def peak(line: Mapping[str, Any]) -> int:
        return int(line.get("device_peak_bytes") or line.get("host_peak_bytes") or 0)

    return [
        StageSpeed(
            stage,
            sum(line["steps"] for line in found),
            median(found, "step_seconds"),
            median(found, "rows_per_second"),
            median(found, "utilisation"),
            max(map(peak, found)),
        )
        for stage, found in stages.items()
    ]


def read(folder: Path) -> list[StageSpeed]:
    """The speed of every stage of a run directory; lines that are damaged do not count."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
            record["stage"], record["steps"], record["step_seconds"], record["rows_per_second"]
        except (ValueError, TypeError, KeyError):
            continue
        lines.append(record)
    return summarise(lines)


def markdown(stages: Iterable[StageSpeed]) -> list[str]:
    """A table for the summary; empty without stages."""
    rows = [
        f"| {s.stage} | {s.steps} | {s.step_seconds:.3g} | {s.rows_per_second:.3g} |"
        f" {'-' if math.isnan(s.utilisation) else f'{s.utilisation:.2f}'} |"
        f" {s.peak_bytes / 2**20:.0f} |"
        for s in stages
    ]
    if not rows:
        return []
    head = "| stage | steps | step, s | rows/s | share of the matrix-product rate | peak MiB |"
    return [head, "|-|-|-|-|-|-|", *rows]
