"""`--profile START:STOP`: a trace of some steps by JAX's profiler."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import jax

from prompt_jax.errors import ConfigError


def parse_span(text: str) -> tuple[int, int]:
    """The steps START to STOP - 1 of `START:STOP`.

    >>> parse_span("10:15")
    (10, 15)

    Raises:
      ConfigError: it is no such span.
    """
    match = re.fullmatch(r"\s*([0-9]{1,15})\s*:\s*([0-9]{1,15})\s*", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(
            f"--profile takes START:STOP with START below STOP, as in 10:15, not '{text}'."
        )
    return int(match[1]), int(match[2])


class Profiler:
    """Traces steps of a process, counted from 0 over all stages that it trains.

    Args:
      folder: where the trace is written, for xprof, Perfetto or TensorBoard.
      start: the first step traced.
      stop: the first step no longer traced.

    Attributes:
      traced: whether there is a trace.
    """

    def __init__(self, folder: Path, start: int, stop: int) -> None:
        self.folder, self.start, self.stop = folder, start, stop
        self.traced = False
        self._taken = 0
        self._running = False

    def before_step(self, wait: Callable[[], None]) -> None:
        """Starts or stops where it is time to.

        Args:
          wait: returns when the device has finished all steps so far.
        """
        if self._taken == self.start:
            wait()
            jax.profiler.start_trace(self.folder)
            self._running = self.traced = True
        elif self._taken == self.stop and self._running:
            wait()
            self.close()
        self._taken += 1

    def close(self) -> None:
        """Ends a trace that is running; says so where there was nothing to trace."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
        elif not self.traced:
            logging.getLogger("prompt_jax").warning(
                "nothing was traced: step %d never came, for this process trained %d steps.",
                self.start,
                self._taken,
            )
