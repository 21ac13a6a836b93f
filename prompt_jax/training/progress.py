"""Shows how far a stage is: a bar on a terminal, a text in a notebook, elsewhere lines."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import Any

from prompt_jax.units import format_duration

# Seconds until the first line: compiling is slow, and a run that is over by then needs none.
_FIRST = 10.0
_REFRESH = 0.5  # seconds between two texts of a notebook


class Status:
    """How far a stage is.

    Attributes:
      stage: its label; "" before the first one.
      replicas: of all its populations so far.
      step: done, over all its populations.
      total: steps of all its populations.
      loss: a note on the loss.
      rate: rows per second, as text.
      doing: what happens beside taking steps, such as compiling.
    """

    def __init__(self) -> None:
        self.stage = self.loss = self.rate = self.doing = ""
        self.replicas = self.step = self.total = 0
        self._before = 0
        self._dev: dict[Any, float] = {}
        self._since = self._clock = time.monotonic()
        self._clocked: int | None = None

    def start(self, stage: str, steps: int, replicas: int) -> bool:
        """A stage begins; returns whether it is another population of the same one."""
        again = stage == self.stage
        self.stage, self.loss, self.doing = stage, "", ""
        self._before, earlier = (self.total, self.replicas) if again else (0, 0)
        self.rate = self.rate if again else ""
        self.replicas, self.step, self.total = earlier + replicas, self._before, steps
        self.total += self._before
        self._dev, self._clocked = {}, None
        return again

    def reached(self, step: int) -> None:
        """Steps done in the current population."""
        self.step = self._before + step

    def taking(self) -> None:
        """A step begins. The time left is judged by those after the first, which compiles."""
        if self._clocked is None:
            self._clocked = -1
        elif self._clocked < 0:
            self._clocked, self._clock = self.step, time.monotonic()

    def developed(self, key: Any, value: float) -> None:
        """The development metric of a replica."""
        self._dev[key] = value

    def note(self, doing: str) -> None:
        """Something begins beside taking steps; "": it has ended."""
        self.doing, self._since = doing, time.monotonic()

    @property
    def dev(self) -> str:
        """Mean development metric of the population, in points; "" before the first."""
        values = list(self._dev.values())
        return f"dev {100 * sum(values) / len(values):.1f}" if values else ""

    @property
    def label(self) -> str:
        """The stage and the number of its replicas."""
        return f"{self.stage} ({self.replicas} replica{'s' if self.replicas > 1 else ''})"

    @property
    def left(self) -> str:
        """The time that the stage still takes, from its steps so far; "" where it is not known."""
        if self._clocked is None or not 0 <= self._clocked < self.step < self.total:
            return ""
        each = (time.monotonic() - self._clock) / (self.step - self._clocked)
        return f"{format_duration(each * (self.total - self.step))} left"

    def line(self) -> str:
        """All of it in one line."""
        doing = self.doing and f"{self.doing} ({time.monotonic() - self._since:.0f} s)"
        step = f"step {self.step:,} of {self.total:,}"
        parts = (step, self.loss, self.dev, self.rate, self.left, doing)
        return f"{self.label}: {', '.join(part for part in parts if part)}"


class Display:
    """Shows a status: a bar on a terminal, a text that changes in a notebook, else lines on stderr.

    Use as a context manager.

    Args:
      status: what is shown.
      every: seconds between two lines; 0: no lines.
    """

    def __init__(self, status: Status, every: float) -> None:
        self._status, self._every = status, every
        self._progress: Any = None
        self._bar: Any = None
        self._cell: Any = None
        self._finished: list[str] = []  # lines of stages before this one, in a notebook
        self._line, self._drawn = "", 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Display:
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            self._progress = _bars(console)
            self._progress.start()
        elif (cell := _notebook_cell()) is not None:
            self._cell = cell
        elif self._every:
            self._thread = threading.Thread(target=self._lines, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._progress is not None:
            self._progress.stop()
        self._draw()

    def start(self, again: bool) -> None:
        """A stage, or the next population of the same one, begins."""
        if self._cell is not None and not again:
            if self._line:
                self._finished.append(self._line)
            self._draw()
        if self._progress is None:
            return
        status = self._status
        if again:
            self._progress.update(self._bar, description=status.label, total=status.total)
        else:
            self._bar = self._progress.add_task(status.label, total=status.total, note="", rate="")

    def update(self) -> None:
        """The status has changed."""
        if self._cell is not None:
            self._line = self._status.line()
            if time.monotonic() - self._drawn >= _REFRESH:
                self._draw()
        if self._progress is not None and self._bar is not None:
            status = self._status
            note = "  ".join(part for part in (status.loss, status.dev, status.doing) if part)
            self._progress.update(self._bar, completed=status.step, note=note, rate=status.rate)

    def _draw(self) -> None:
        """Replaces the text of the notebook's cell."""
        if self._cell is None:
            return
        self._drawn = time.monotonic()
        self._line = self._status.line() if self._status.stage else ""
        text = "\n".join(filter(None, (*self._finished, self._line)))
        self._cell.update({"text/plain": text}, raw=True)

    def _lines(self) -> None:
        wait, last = min(_FIRST, self._every), ""
        while not self._ended.wait(wait):
            wait = self._every
            line = self._status.line() if self._status.stage else ""
            if line != last:
                with suppress(OSError, ValueError):  # a closed pipe stops no training
                    print(line, file=sys.stderr, flush=True)
            last = line


def _notebook_cell() -> Any:
    """An output of the running notebook cell that can be replaced; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)


def _bars(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"),
        console=console,
    )
