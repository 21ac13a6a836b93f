"""Trains a population of replicas of one method."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from prompt_jax.models.base import LanguageModel
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.population import Population
from prompt_jax.training.protocol import Method
from prompt_jax.training.resume import CheckpointCallback
from prompt_jax.training.speed import StepTimer
from prompt_jax.training.tracking import NullTracker, Tracker
from prompt_jax.training.types import Replica, TrainConfig, TrainedReplica


def train(
    lm: LanguageModel,
    method: Method,
    replicas: Sequence[Replica],
    config: TrainConfig,
    *,
    stage: str = "train",
    mesh: jax.sharding.Mesh | None = None,
    tracker: Tracker | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[TrainedReplica]:
    """Trains a population of replicas of one method.

    A replica's result does not depend on other replicas, on the micro-batches or on the mesh,
    beyond floating-point summation order. Training that resumes from a checkpoint gives the same
    bits as training that was never interrupted.

    Args:
      lm: the frozen model.
      method: what is trained.
      replicas: the members; all have the batch size of `config` and equal parameter shapes.
      config: the budget.
      stage: for the progress line and error messages.
      mesh: rows are split over its 'data' axis, and so are replicas where it divides their number;
        None uses one device.
      tracker: receives the numbers.
      checkpoints: where the state is saved on the way, and resumed from if there is any. SIGTERM
        then finishes the step and saves. Deleting them at the end is up to the caller.

    Raises:
      ConfigError: no replicas, unequal shapes, several replicas of a method that trains the model,
        or checkpoints of other training.
      ModelError: rows of another model's tokenizer.
      TrainingError: out of device memory, with what to lower; or checkpoints that are damaged
        or cannot be written.
      StoppedError: SIGTERM or Ctrl-C came; a checkpoint is saved.
    """
    tracker = tracker or NullTracker()
    tracker.start(stage, config.steps, len(replicas))
    tracker.doing("preparing")
    population = Population(lm, method, replicas, config, mesh)
    with CheckpointCallback(population, checkpoints, tracker, stage) as callback:
        done = callback.begin()
        if not done:
            tracker.doing("evaluating the start")
            population.evaluate(0, tracker)
        tracker.doing("")
        timer = StepTimer(population, tracker)
        while done < config.steps and population.active.any():
            metrics = timer.step(done)
            done += 1
            if done % config.log_every == 0 or done == config.steps:
                timer.report(done)
                population.log(done, metrics, tracker)
            if evaluated := config.evaluates_at(done):
                timer.pause()
                tracker.doing("evaluating")
                population.evaluate(done, tracker)
                tracker.doing("")
            callback.after(done, evaluated)
        population.summarize(tracker)
        return population.results(callback.seconds)
