"""What every benchmark uses: interleaved rounds, the record of a measurement, the machine.

A family of benchmarks (a module with `pieces`) is a list of pieces. A piece measures one thing in a
bounded time and yields records. Both sides of a comparison do the same work on the same weights and
rows: a record with a ratio says how that was checked, before anything was timed.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, NamedTuple

from benchmarks.goals import goal_of

LIBRARIES = ("jax", "jaxlib", "torch", "transformers", "peft")


class Scale(NamedTuple):
    """How large and how long measurements are.

    Attributes:
      platform: of JAX, the first part of every name: "cpu", "gpu" or "tpu".
      small: toy shapes, which show only that the code works.
      seconds: that the rounds of one comparison may take; at least two rounds are measured.
      rounds: the most rounds.
    """

    platform: str
    small: bool
    seconds: float
    rounds: int

    def choose(self, cpu: Any, accelerator: Any, small: Any) -> Any:
        """The sizes of this scale."""
        return small if self.small else cpu if self.platform == "cpu" else accelerator


def scale(platform_name: str, small: bool) -> Scale:
    """The scale of a platform."""
    if small:
        return Scale(platform_name, True, 0.2, 3)
    return Scale(platform_name, False, 12.0 if platform_name == "cpu" else 5.0, 9)


class Piece(NamedTuple):
    """One measurement that can be run alone.

    Attributes:
      name: without the platform, for instance "step/t5-small/float32/fixed"; the records that it
        yields have this name, or names below it.
      measure: yields the records.
      limit: seconds after which it is stopped, everything counted.
    """

    name: str
    measure: Callable[[], Iterator[Record]]
    limit: float = 240.0


@dataclass(frozen=True)
class Record:
    """What was measured.

    Attributes:
      name: as of `Piece`.
      unit: of `ours` and `peer`.
      ours: median over rounds.
      peer: likewise; None: there is nothing to compare with, or the peer is not installed.
      compares: "times": the ratio is peer / ours, above 1 prompt_jax needs less. "share": the ratio
        is ours / peer, a part of a whole. "": no ratio.
      peer_is: what the other side is.
      ratio: median over rounds of the ratio of each round.
      runs: rounds.
      spread: smallest and largest ratio of a round; without a ratio, of `ours`.
      checked: how it was checked that both sides do the same work, with the difference found.
      extrapolated: "", or what was measured and what was computed from it.
      note: what a reader has to know.
      settings: shapes and options.
    """

    name: str
    unit: str
    ours: float
    peer: float | None = None
    compares: str = ""
    peer_is: str = ""
    ratio: float | None = None
    runs: int = 1
    spread: tuple[float, float] | None = None
    checked: str = ""
    extrapolated: str = ""
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.ratio is None) != (self.compares == ""):
            raise ValueError(f"{self.name}: a ratio says what it compares, and only a ratio does.")
        if self.compares == "times" and not (self.checked and self.peer_is):
            raise ValueError(f"{self.name}: a ratio says whose, and how equal work was checked.")

    def to_dict(self, measured_on: Scale, machine: Mapping[str, Any]) -> dict[str, Any]:
        """The object of the JSON file: with the goal, the machine, versions and the date."""
        name = f"{measured_on.platform}/{self.name}"
        goal = None if measured_on.small else goal_of(name, versions())
        found = asdict(self) | {"name": name, "settings": dict(self.settings)}
        for key in ("ours", "peer", "ratio"):
            found[key] = _rounded(found[key])
        found["spread"] = None if self.spread is None else [_rounded(x) for x in self.spread]
        return found | {
            "goal": None if goal is None else goal.value,
            "goal_is": None if goal is None else goal.text,
            "met": None if goal is None else goal.met(self.ours, self.ratio),
            "hardware": dict(machine),
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "small": measured_on.small,
        }


class Rounds(NamedTuple):
    """Seconds of each side in each round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Median seconds of a side."""
        return statistics.median(self.seconds[side])

    def ratios(self, over: str, under: str) -> list[float]:
        """One ratio a round."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return [a / b for a, b in pairs]

    @property
    def count(self) -> int:
        """How many."""
        return len(next(iter(self.seconds.values())))


def interleave(
    sides: Mapping[str, Callable[[], object]],
    of: Scale,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warm: bool = True,
    rounds: int = 0,
    seconds: float | None = None,
) -> Rounds:
    """Calls the sides in turn, round after round, so that noise of the machine affects all.

    Args:
      sides: calls that wait for the device.
      of: time and rounds of the measurement.
      clock: seconds.
      warm: call each side once before, which compiles its programs.
      rounds: exactly so many; 0: until the time of the scale is used.
      seconds: in place of the scale's.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    if warm:
        for call in sides.values():
            call()
    began = time.perf_counter()
    seconds = of.seconds if seconds is None else seconds
    while True:
        order = list(sides) if len(found[next(iter(sides))]) % 2 == 0 else list(sides)[::-1]
        for name in order:
            start = clock()
            sides[name]()
            found[name].append(clock() - start)
        done = len(found[order[0]])
        if rounds:
            if done >= rounds:
                return Rounds(found)
        elif done >= of.rounds or (done >= 2 and time.perf_counter() - began > seconds):
            return Rounds(found)


def compared(
    name: str, rounds: Rounds, *, unit: str = "s", factor: float = 1.0, **facts: Any
) -> Record:
    """The record of a comparison of `ours` with `peer`, or of `ours` alone without a peer.

    Args:
      name: of the record.
      rounds: seconds of "ours" and "peer".
      unit: of the record.
      factor: units in a second.
      **facts: the other fields.
    """
    ours = rounds.median("ours")
    if "peer" not in rounds.seconds:
        facts.pop("checked", None)
        spread = [factor * x for x in rounds.seconds["ours"]]
        return Record(
            name,
            unit,
            factor * ours,
            runs=rounds.count,
            spread=(min(spread), max(spread)),
            **facts,
        )
    ratios = rounds.ratios("peer", "ours")
    return Record(
        name,
        unit,
        factor * ours,
        factor * rounds.median("peer"),
        "times",
        ratio=statistics.median(ratios),
        runs=rounds.count,
        spread=(min(ratios), max(ratios)),
        **facts,
    )


def agree(what: str, ours: Any, peer: Any, tolerance: float) -> str:
    """Refuses a comparison of unequal results; returns the sentence for `Record.checked`.

    Args:
      what: the results, for the sentence.
      ours: numbers.
      peer: the same of the other side.
      tolerance: largest difference relative to the largest value.

    Raises:
      RuntimeError: they differ.
    """
    import numpy as np

    ours, peer = np.asarray(ours, np.float64), np.asarray(peer, np.float64)
    if ours.shape != peer.shape:
        raise RuntimeError(f"{what}: shapes {ours.shape} and {peer.shape}")
    difference = float(np.abs(ours - peer).max() / max(float(np.abs(peer).max()), 1e-12))
    if not difference <= tolerance:
        raise RuntimeError(f"{what} differ by {difference:.2g} (relative), not timed")
    return f"{what} agree to {difference:.1g}"


def versions() -> dict[str, str]:
    """Python and the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return {name: version for name, version in found.items() if version}


def hardware() -> dict[str, Any]:
    """The machine that JAX computes on, and how busy it is; initialises JAX."""
    import jax

    device = jax.local_devices()[0]
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    chip = device.device_kind if device.platform != "cpu" else ""
    found: dict[str, Any] = {"device": chip or _cpu_name(), "cores": cores}
    if chip:
        found["devices"] = jax.local_device_count()
    return found


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where it is not known."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
