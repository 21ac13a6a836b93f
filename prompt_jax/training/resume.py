"""Resuming: the state of a population that a checkpoint holds, and when it is saved.

Rows, keys and rates are pure functions of (seed, stream, step), so what remains is the trained
state, the best parameters so far, and the loop's own counts.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import distributed
from prompt_jax.errors import StoppedError
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import fingerprint
from prompt_jax.training.population import Population
from prompt_jax.training.step import State
from prompt_jax.training.tracking import Tracker

# Steps between two times that the processes of a job agree whether to save or to stop.
_POLL = 8
# Counters of the loop, [R] or [2, R] on the host.
_COUNTS = ("folded", "healthy", "best_value", "best_step", "stale", "steps", "tokens")


def arrays_of(population: Population) -> dict[str, Any]:
    """The arrays on the device that training changes."""
    return {"state": population.state._asdict(), "best": population.best}


def host_of(population: Population) -> dict[str, Any]:
    """The loop's own counts, as JSON; Python writes and reads floats without loss."""
    return {
        **{name: getattr(population, name).tolist() for name in _COUNTS},
        "history": [[list(pair) for pair in run] for run in population.history],
        "token_budget": population.token_budget,
    }


def put_back(population: Population, arrays: Any, host: dict[str, Any]) -> None:
    """Sets a population to where `arrays_of` and `host_of` were taken."""

    def place(tree: Any) -> Any:
        # Copies of JAX's own: programs write into the buffers they are given.
        return jax.tree.map(jnp.array, tree) if population.mesh is None else population.put(tree)

    population.state = State(**place(arrays["state"]))
    population.best = place(arrays["best"])
    for name in _COUNTS:
        setattr(population, name, np.asarray(host[name], getattr(population, name).dtype))
    population.history = [[(int(s), float(v)) for s, v in run] for run in host["history"]]
    # What was free on the device then decided how sums were cut; a number in the budget is new.
    if not population.config.micro_batch_tokens:
        population.token_budget = int(host["token_budget"])


class CheckpointCallback:
    """Keeps a population's checkpoints while `train` runs; does nothing without `checkpoints`.

    As a context manager it handles SIGTERM and SIGINT (where Python lets it: in the main thread),
    so that the step is finished and saved before `StoppedError` ends the training. A second SIGINT
    is left to the handler before, which stops at once.

    Attributes:
      seconds: wall-clock so far, earlier processes included.
    """

    def __init__(
        self, population: Population, checkpoints: Checkpoints | None, tracker: Tracker, stage: str
    ) -> None:
        self._population, self._checkpoints, self._tracker = population, checkpoints, tracker
        self._stage = stage
        self._began, self._before = time.monotonic(), 0.0
        self._received: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self._fingerprint: dict[str, Any] = {}
        if checkpoints is not None:
            p = population
            self._fingerprint = fingerprint(p.lm, p.method, p.replicas, p.config)

    @property
    def seconds(self) -> float:
        """Wall-clock of this training, earlier processes included."""
        return self._before + time.monotonic() - self._began

    def __enter__(self) -> CheckpointCallback:
        if self._checkpoints is None or threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as of a job in the background
                before = signal.signal(number, self._on_signal)
                self._handlers[number] = signal.SIG_DFL if before is None else before
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received.add(number)
        if number == signal.SIGINT:
            signal.signal(number, self._handlers[number])
            if self._checkpoints is not None and distributed.is_main():
                self._checkpoints.say(
                    f"{self._stage}: Ctrl-C: saving a checkpoint after this step. Press it again to"
                    " stop at once."
                )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._checkpoints is None:
            return
        try:
            self._checkpoints.close()
        except Exception:
            if error is None:  # an error of the training is worth more than that of a save
                raise
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            if error is None:  # they came after the last step
                for number in self._received:
                    signal.raise_signal(number)

    def begin(self) -> int:
        """Restores the newest checkpoint; returns the number of steps that are done."""
        if self._checkpoints is None:
            return 0
        saved = self._checkpoints.restore(arrays_of(self._population), self._fingerprint)
        if saved is None:
            # Only the position of the log: the initial state is computed again.
            self._save(0, with_arrays=False)
            return 0
        self._before = float(saved.host["seconds"])
        self._tracker.rewind(int(saved.host["position"]))
        if saved.arrays is not None:
            put_back(self._population, saved.arrays, saved.host)
            steps = self._population.config.steps
            self._tracker.advance(saved.step, "resumed")
            if distributed.is_main():
                line = f"{self._stage}: resumed at step {saved.step} of {steps}."
                self._checkpoints.say(line)
        return saved.step

    def after(self, step: int, evaluated: bool) -> None:
        """To be called after every step.

        Raises:
          StoppedError: SIGTERM or SIGINT came; a checkpoint is saved.
          TrainingError: a checkpoint cannot be written.
        """
        if self._checkpoints is None:
            return
        due = self._checkpoints.due(step, evaluated)
        terminated, interrupted = (n in self._received for n in (signal.SIGTERM, signal.SIGINT))
        if distributed.is_multiprocess():
            every = self._checkpoints.every_steps or _POLL
            if not evaluated and step % every and step % _POLL:
                return  # all processes exchange their clocks and signals at the same steps
            due, terminated, interrupted = distributed.any_of(due, terminated, interrupted)
        if terminated or interrupted:
            self._save(step, wait=True)
            raise StoppedError(
                f"{self._stage}: {'SIGTERM' if terminated else 'Ctrl-C'}: checkpoint saved at step"
                f" {step} of {self._population.config.steps}; run the same command again to"
                " resume.",
                interrupted=not terminated,
            )
        if due:
            self._save(step)

    def _save(self, step: int, *, with_arrays: bool = True, wait: bool = False) -> None:
        assert self._checkpoints is not None
        host = {"position": self._tracker.position(), "seconds": self.seconds}
        arrays = None
        if with_arrays:
            arrays = arrays_of(self._population)
            host |= host_of(self._population)
        self._checkpoints.save(step, arrays, host, self._fingerprint, wait=wait)
