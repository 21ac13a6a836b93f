"""Measures the reference values of an experiment: majority class and no prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prompt_jax.config import digest
from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.evaluation import Evaluation, Job, compute, evaluate
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.outcomes import Outcome
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.stages import StageRunner
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.reference import Line, TestedRun
from prompt_jax.training.fingerprint import model_of, package_code, split_hash


def lines(config: ExperimentConfig, rows: RowStore, runner: StageRunner) -> list[Line]:
    """The reference values of every target, on the test rows that all its replicas share.

    Args:
      config: the experiment.
      rows: of its tasks.
      runner: has the frozen model, the mesh and the store.
    """
    opened = [
        rows.rows(target, config.first_seed, config.shots[0])
        for target in dict.fromkeys(config.targets)
    ]
    made = [
        line
        for target, part in zip(dict.fromkeys(config.targets), opened, strict=True)
        if (line := constant(target, part.task, part.test)) is not None
    ]
    answers = _without_prompt(runner, [(part.task, part.test) for part in opened])
    return made + [
        Line("no_prompt", target, answer.metrics)
        for target, answer in zip(dict.fromkeys(config.targets), answers, strict=True)
    ]


def constant(target: str, task: Task, test: TokenisedSplit) -> Line | None:
    """What is reached without reading the rows; None for tasks whose answers are generated.

    A classification is answered by the most frequent class of the test rows (of equally frequent
    ones by the first). Where every row has its own choices, each counts as 1 / their number.

    Args:
      target: as the config names it.
      task: the target.
      test: its test rows.
    """
    if not len(test):
        return None
    labels = np.asarray(test.label, np.int64)
    if task.kind == "classification":
        best = int(np.bincount(labels).argmax())
        values = compute(task.metrics, np.full_like(labels, best), test)
        return Line("majority", target, values, task.labels[best])
    if task.kind == "choice":
        every = {row: tuple(range(len(e.candidates))) for row, e in enumerate(test.examples)}
        return Line("chance", target, compute(task.metrics, np.zeros_like(labels), test, every))
    return None


def tested(key: RunKey, outcome: Outcome, task: Task, test: TokenisedSplit) -> TestedRun:
    """The development curve and the most frequent answer of a finished replica.

    Args:
      key: of the replica.
      outcome: the replica.
      task: its target.
      test: the test rows.
    """
    found = outcome.test.predictions
    answer, share, gold = "", 0.0, 0.0
    classes = task.kind == "classification" and not isinstance(found, list)
    if classes and len(test) and outcome.trained.healthy:
        counts = np.bincount(np.maximum(np.asarray(found), 0), minlength=len(task.labels))
        best = int(counts.argmax())
        answer, share = task.labels[best], float(counts[best] / len(test))
        gold = float((np.asarray(test.label) == best).mean())
    history = tuple((int(step), float(value)) for step, value in outcome.trained.history)
    return TestedRun(key, history, answer, share, gold, outcome.test.ties)


def _without_prompt(
    runner: StageRunner, targets: Sequence[tuple[Task, TokenisedSplit]]
) -> list[Evaluation]:
    """The frozen model's answers to rows without a soft prompt, stored like test results."""
    code, found = package_code(), list[Evaluation | None]()
    keys = [
        digest("no prompt", code, model_of(runner.lm), split_hash(test), task.metrics)
        for task, test in targets
    ]
    for key, (task, _) in zip(keys, targets, strict=True):
        stored = (
            runner.store.load_evaluations(key, f"{task.name} without a prompt") if code else None
        )
        found.append(stored[0] if stored else None)
    missing = [i for i, evaluation in enumerate(found) if evaluation is None]
    if missing:
        jobs = [Job(targets[i][1]) for i in missing]
        metrics = [targets[i][0].metrics for i in missing]
        for i, made in zip(
            missing, evaluate(runner.lm, jobs, metrics=metrics, mesh=runner.mesh), strict=True
        ):
            found[i] = made
            if code:
                runner.store.save_evaluations(keys[i], [made])
    return [evaluation for evaluation in found if evaluation is not None]
