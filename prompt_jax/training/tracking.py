"""Trackers: metrics.jsonl and speed.jsonl always, and how far a run is.

`TrackingConfig` describes the others: TensorBoard, Weights & Biases, the profiler.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import jax

from prompt_jax.errors import ConfigError, MissingExtraError
from prompt_jax.run_key import RunKey
from prompt_jax.training.profiling import Profiler, parse_span
from prompt_jax.training.progress import Display, Status
from prompt_jax.training.sinks import Sink, TensorBoard, Wandb, flat

# Beside metrics.jsonl: what differs between two equal runs.
SPEED_FILE = "speed.jsonl"


class Tracker(Protocol):
    """What the training loop reports to."""

    @property
    def measures(self) -> bool:
        """Whether `measure` does anything: its records take a fraction of a second to make."""

    def start(self, stage: str, steps: int, replicas: int) -> None:
        """A stage begins."""

    def log(self, key: RunKey, record: Mapping[str, Any]) -> None:
        """One line of numbers about a replica."""

    def advance(self, step: int, note: str) -> None:
        """Steps done so far in the current stage, and a short note to show."""

    def doing(self, what: str) -> None:
        """What begins beside taking steps, such as compiling; "": it has ended."""

    def position(self) -> int:
        """The position at the end of the log, for `rewind`."""

    def rewind(self, position: int) -> None:
        """Removes what was logged after a position: it will be logged again."""

    def before_step(self, wait: Callable[[], None]) -> None:
        """A step is about to be taken; `wait` returns when those before it are done."""

    def measure(self, record: Mapping[str, Any]) -> None:
        """The speed of the steps since the last call."""


class NullTracker:
    """Ignores everything."""

    measures = False

    def start(self, stage: str, steps: int, replicas: int) -> None:
        """Ignored."""

    def log(self, key: RunKey, record: Mapping[str, Any]) -> None:
        """Ignored."""

    def advance(self, step: int, note: str) -> None:
        """Ignored."""

    def doing(self, what: str) -> None:
        """Ignored."""

    def position(self) -> int:
        """Nowhere."""
        return 0

    def rewind(self, position: int) -> None:
        """Ignored."""

    def before_step(self, wait: Callable[[], None]) -> None:
        """Ignored."""

    def measure(self, record: Mapping[str, Any]) -> None:
        """Ignored."""


def finite(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become None, inside lists too."""
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunTracker:
    """Appends to `metrics.jsonl`, and shows how far a run is.

    That is a progress bar per stage on a terminal, and a line every few seconds elsewhere. Records
    of speed are appended to `speed.jsonl` beside the metrics. Only process 0 writes. Use as a
    context manager.

    Args:
      path: the metrics file.
      show: show how far the run is, on stderr.
      every: seconds between two lines where stderr is no terminal; 0: no lines.
      sinks: made in process 0 when the tracker is entered; they receive every number.
      profiler: receives every step.

    Attributes:
      path: the metrics file.
      measures: True in process 0.
    """

    def __init__(
        self,
        path: Path,
        *,
        show: bool = True,
        every: float = 30.0,
        sinks: Sequence[Callable[[], Sink]] = (),
        profiler: Profiler | None = None,
    ) -> None:
        self.path = path
        self._writes = self.measures = jax.process_index() == 0
        self._make_sinks, self._sinks = sinks, list[Sink]()
        self._profiler = profiler if self._writes else None
        self._status = Status()
        self._display = Display(self._status, every) if show and self._writes else None
        self._began = time.monotonic()
        self._file: Any = None

    def __enter__(self) -> RunTracker:
        if self._writes:
            self._sinks = [make() for make in self._make_sinks]
            self._file = self.path.open("a", encoding="utf-8")
            self._truncate_partial_record()
        if self._display is not None:
            self._display.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ExitStack() as stack:  # from the last to the first, also where one of them fails
            for sink in self._sinks:
                stack.callback(sink.close)
            if self._profiler is not None:
                stack.callback(self._profiler.close)
            if self._file is not None:
                stack.callback(self._file.close)
            if self._display is not None:
                stack.callback(self._display.__exit__)

    def start(self, stage: str, steps: int, replicas: int) -> None:
        """A stage begins; the next population of the same stage keeps its progress bar."""
        self._began = time.monotonic()
        again = self._status.start(stage, steps, replicas)
        if self._display is not None:
            self._display.start(again)

    def log(self, key: RunKey, record: Mapping[str, Any]) -> None:
        """Appends one JSON line; seconds count from the start of the stage."""
        if self._file is not None:
            line = {**key.fields(), **{k: finite(v) for k, v in record.items()}}
            line["seconds"] = round(time.monotonic() - self._began, 3)
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if math.isfinite(dev := float(record.get("dev", math.nan))):
            self._status.developed(key, dev)
            self._show()
        if self._sinks and "step" in record:
            self._write_sinks(str(key), int(record["step"]), flat(record))

    def _write_sinks(self, run: str, step: int, numbers: dict[str, float]) -> None:
        numbers.pop("step", None)
        for sink in self._sinks if numbers else ():
            sink.write(self._status.stage, run, step, numbers)

    def before_step(self, wait: Callable[[], None]) -> None:
        """Passes the step to the profiler."""
        self._status.taking()
        if self._profiler is not None:
            self._profiler.before_step(wait)

    def measure(self, record: Mapping[str, Any]) -> None:
        """Appends one line to `speed.jsonl`; lines there are never removed."""
        if not self._writes:
            return
        with self.path.with_name(SPEED_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self._status.stage, **record}) + "\n")
        numbers = {f"speed/{name}": float(value) for name, value in record.items()}
        self._write_sinks("", int(record["step"]), numbers)
        rate = record["rows_per_second"]
        self._status.rate = f"{rate:,.{0 if rate >= 100 else 1}f} rows/s"
        self._show()

    def position(self) -> int:
        """Bytes in the metrics file."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def rewind(self, position: int) -> None:
        """Truncates the metrics file at a position; a shorter file stays as it is."""
        if self._file is not None and position < self.position():
            self._file.truncate(position)

    def _truncate_partial_record(self) -> None:
        """A machine that went down may have written half a line; no reader could parse it."""
        content = self.path.read_bytes()
        self.rewind(content.rfind(b"\n") + 1)

    def advance(self, step: int, note: str) -> None:
        """Moves the progress bar."""
        self._status.reached(step)
        self._status.loss = note
        self._show()

    def doing(self, what: str) -> None:
        """Shows it behind the numbers."""
        self._status.note(what)
        self._show()

    def _show(self) -> None:
        if self._display is not None:
            self._display.update()


@dataclass(frozen=True)
class TrackingConfig:
    """The other trackers of a run; they never change what it computes.

    Attributes:
      tensorboard: write event files below `tensorboard/` in the run directory.
      wandb: project at Weights & Biases; "": none.
      profile: steps to trace as START:STOP, counted from 0 over all stages that this process
        trains; the trace lies below `profile/` in the run directory. "": none.
      log_seconds: seconds between two lines on how far the run is, where stderr is no terminal;
        0: no lines.

    Raises:
      ConfigError: `profile` is no span, or `log_seconds` is negative.
      MissingExtraError: a package is not installed.
    """

    tensorboard: bool = False
    wandb: str = ""
    profile: str = ""
    log_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.log_seconds < math.inf:
            raise ConfigError(
                f"--log-seconds must be a number of seconds from 0 up, not {self.log_seconds}."
            )
        if self.profile:
            parse_span(self.profile)
        for package, wanted in (("tensorboard", self.tensorboard), ("wandb", bool(self.wandb))):
            if not wanted:
                continue
            found = find_spec(package)
            if found is None or found.origin is None:  # None: a mere folder, as W&B leaves behind
                raise MissingExtraError(package, package, f"--{package}")

    def profiler(self, folder: Path) -> Profiler | None:
        """The profiler of a run directory; None where `profile` is empty."""
        return Profiler(folder / "profile", *parse_span(self.profile)) if self.profile else None

    def sinks(self, folder: Path, config: Mapping[str, Any]) -> list[Callable[[], Sink]]:
        """Functions that open the sinks of a run directory.

        Args:
          folder: the run directory.
          config: the experiment's, shown at Weights & Biases.
        """
        makers: list[Callable[[], Sink]] = []
        if self.tensorboard:
            makers.append(lambda: TensorBoard(folder / "tensorboard"))
        if self.wandb:
            makers.append(lambda: Wandb(self.wandb, folder, config))
        return makers
