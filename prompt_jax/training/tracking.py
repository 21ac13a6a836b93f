"""Where the numbers of a run go: metrics.jsonl always, a progress line on a terminal."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import jax


class Tracker(Protocol):
    """What the training loop reports to."""

    def start(self, stage: str, steps: int, runs: int) -> None:
        """A stage begins."""

    def log(self, record: Mapping[str, Any]) -> None:
        """One line of numbers."""

    def advance(self, step: int, note: str) -> None:
        """Steps done so far in the current stage, and a short note to show."""

    def position(self) -> int:
        """Where the log stands, for `rewind`."""

    def rewind(self, position: int) -> None:
        """Forgets what was logged after a position: it will be logged again."""


class NullTracker:
    """Reports to nobody."""

    def start(self, stage: str, steps: int, runs: int) -> None:
        """Ignored."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Ignored."""

    def advance(self, step: int, note: str) -> None:
        """Ignored."""

    def position(self) -> int:
        """Nowhere."""
        return 0

    def rewind(self, position: int) -> None:
        """Ignored."""


def finite(value: Any) -> Any:
    """JSON has no NaN: numbers that are not finite become None, inside lists too."""
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunTracker:
    """Appends to `metrics.jsonl` and, on a terminal, shows one progress line per stage.

    Only process 0 writes. Use as a context manager.

    Attributes:
      path: the metrics file.
    """

    def __init__(self, path: Path, *, show: bool = True) -> None:
        self.path = path
        self._writes = jax.process_index() == 0
        self._show = show and self._writes
        self._stage = ""
        self._began = time.monotonic()
        self._file: Any = None
        self._progress: Any = None
        self._bar: Any = None
        self._before = self._total = self._runs = 0

    def __enter__(self) -> RunTracker:
        if self._writes:
            self._file = self.path.open("a", encoding="utf-8")
            self._drop_half_a_line()
        if self._show:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True)
            if console.is_terminal:
                self._progress = Progress(
                    TextColumn("{task.description}"), BarColumn(bar_width=24),
                    TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(),
                    TextColumn("{task.fields[note]}"), console=console,
                )  # fmt: skip
                self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._progress is not None:
            self._progress.stop()
        if self._file is not None:
            self._file.close()

    def start(self, stage: str, steps: int, runs: int) -> None:
        """A stage begins; one that goes on with its next population keeps its progress line."""
        again = stage == self._stage
        self._stage = stage
        self._began = time.monotonic()
        self._before, self._runs = (self._total, self._runs + runs) if again else (0, runs)
        self._total = self._before + steps
        if self._progress is not None:
            label = f"{stage} ({self._runs} run{'s' if self._runs > 1 else ''})"
            if again:
                self._progress.update(self._bar, description=label, total=self._total)
            else:
                self._bar = self._progress.add_task(label, total=self._total, note="")

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one JSON line; seconds count from the start of the stage."""
        if self._file is not None:
            line = {"stage": self._stage, **{k: finite(v) for k, v in record.items()}}
            line["seconds"] = round(time.monotonic() - self._began, 3)
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes in the metrics file."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def rewind(self, position: int) -> None:
        """Cuts the metrics file off at a position; a shorter file stays as it is."""
        if self._file is not None and position < self.position():
            self._file.truncate(position)

    def _drop_half_a_line(self) -> None:
        """A machine that went down may have left one; nobody could read the file."""
        content = self.path.read_bytes()
        self.rewind(content.rfind(b"\n") + 1)

    def advance(self, step: int, note: str) -> None:
        """Moves the progress line."""
        if self._progress is not None:
            self._progress.update(self._bar, completed=self._before + step, note=note)
