"""All subsets of the sources on one target: merged, perhaps tuned, and evaluated.

Evaluations are kept in the store of trained replicas, under the hash of the prompts, rows and
weights, so that an interrupted oracle resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax import code_digest, task_vectors
from prompt_jax.config import digest
from prompt_jax.data import TokenisedSplit
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Evaluation, Job, evaluate
from prompt_jax.evaluation.metrics import compute
from prompt_jax.evaluation.subsets import SubsetScores, nan_to_neg_inf, split_items
from prompt_jax.methods import BaseMethod, Context, as_method, create, spec_of
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.rows import TaskRows
from prompt_jax.run_key import RunKey
from prompt_jax.training.fingerprint import array_hash, model_of, package_code, split_hash

DEFAULT_BASE = "dtvg"
_PROMPTS_AT_ONCE = 64
_STAGES = {"sources", "first"}  # what a method must tune for its prompts to be merged


def survey(
    executor: Executor, context: Context, target: str, k: int, groups: np.ndarray, tuned: bool
) -> SubsetScores:
    """Evaluates every subset of the sources for one target and seed.

    Args:
      executor: of the experiment; its store keeps what was evaluated.
      context: what the last stage of the base method starts from: prompts of its first stages.
      target: the task.
      k: shots.
      groups: bool [N, K], the subsets.
      tuned: tune every merged prompt with the target's budget before it is evaluated.
    """
    rows = executor.rows.rows(target, context.seed, k)
    metric = rows.task.metrics[0]
    prompts, dev, coefficients = candidates(executor, context, target, k, groups, tuned)
    found = evaluate_prompts(executor, rows.test, metric, prompts)
    per_row = len(rows.task.templates) if executor.config.data.test_templates == "all" else 1
    first_half, halves, items = _halved(found, rows.test, metric, per_row)
    return SubsetScores(
        context.seed, coefficients, dev, _values(found, metric), halves, first_half, items
    )


def candidates(
    executor: Executor, context: Context, target: str, k: int, groups: np.ndarray, tuned: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The prompt of every subset and what it achieves on the development set.

    Args:
      executor: as for `survey`, and so are the other arguments.
      context: of the replica.
      target: the task.
      k: shots.
      groups: bool [N, K].
      tuned: tune the merged prompts.

    Returns:
      Prompts [N, L, D] float32, development values [N], and c [N].
    """
    rows = executor.rows.rows(target, context.seed, k)
    prompts, dev, coefficients = _starts(executor, context, rows, groups)
    if tuned:
        starts = {
            RunKey("prompt_tuning", "given start", target, k, context.seed, n): one
            for n, one in enumerate(prompts)
        }
        runs = executor.tune(starts, k)
        prompts = np.stack([np.asarray(run.prompt, np.float32) for run in runs])
        dev = np.asarray([run.best_value for run in runs], np.float64)
    return prompts, dev, coefficients


def base_of(config: ExperimentConfig, base: str | None = None) -> str:
    """The method whose first stage is merged.

    Args:
      config: the experiment.
      base: a spec; None: the first of the config's methods that has such a stage, else DTVG.

    Raises:
      ConfigError: the named method has no such stage.
    """
    if base is None:
        return next((spec_of(m) for m in config.methods if _has_first(as_method(m))), DEFAULT_BASE)
    if not _has_first(create(base)):
        raise ConfigError(
            f"'{base}' tunes no prompt of the target beside those of the sources. Name a method"
            f" that does, as in --base {DEFAULT_BASE}."
        )
    return base


def told_once(say: Callable[[str], None]) -> Callable[[Sequence[str]], None]:
    """Says what the first look at each stage found: later looks find all of it.

    Args:
      say: receives the lines.

    Returns:
      A function of `Executor.stage_summaries`.
    """
    told: set[str] = set()

    def tell(news: Sequence[str]) -> None:
        for line in news:
            stage = line.rpartition(":")[0]
            if stage not in told:
                say(f"  {line}")
            told.add(stage)

    return tell


def method_of(config: ExperimentConfig, base: str) -> BaseMethod | str:
    """The config's own method of a spec, which may be an object; else the spec."""
    return next((method for method in config.methods if spec_of(method) == base), base)


def _has_first(method: BaseMethod) -> bool:
    return {stage.name for stage in method.stages()} >= _STAGES


def _starts(
    executor: Executor, context: Context, rows: TaskRows, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The merged prompt [n, L, D] of every subset, its development value [n] and c [n]."""

    def values(prompts: np.ndarray) -> np.ndarray:
        metric = rows.task.metrics[0]
        return _values(evaluate_prompts(executor, rows.dev, metric, prompts), metric)

    sizes = groups.sum(1)
    coefficients = np.ones(len(groups))
    prompts = _merged(context, groups, coefficients)
    dev = values(prompts)
    several = np.flatnonzero(sizes > 1)  # 1 / |S| is another coefficient
    if len(several):
        means = _merged(context, groups[several], 1.0 / sizes[several])
        averaged = values(means)
        better = nan_to_neg_inf(averaged) > nan_to_neg_inf(dev[several])
        chosen = several[better]
        prompts[chosen], dev[chosen] = means[better], averaged[better]
        coefficients[chosen] = 1.0 / sizes[chosen]
    return prompts, dev, coefficients


def _merged(context: Context, groups: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The merged prompt of every subset, [n, L, D] float32."""
    initial = np.asarray(context.initial, np.float32)
    own = context.artefact("first").prompts[0] - initial
    vectors = context.artefact("sources").prompts - initial[None]
    ones = np.ones(len(initial), np.float32)
    merge = jax.vmap(task_vectors.merge, in_axes=(None, None, None, None, 0, 0))
    made = []
    for some, factor in _populations(groups, factors):
        scales = np.broadcast_to(
            factor[:, None, None].astype(np.float32), (*some.shape, len(initial))
        )
        made.append(np.asarray(merge(initial, own, vectors, ones, scales, some)))
    return np.concatenate(made)[: len(groups)]


def evaluate_prompts(
    executor: Executor, split: TokenisedSplit, metric: str, prompts: np.ndarray
) -> list[Evaluation]:
    """All prompts on the same rows; what was evaluated before is read from the store.

    Args:
      executor: of the experiment.
      split: the rows.
      metric: what is computed.
      prompts: [n, L, D] float32.
    """
    lm = executor.lm
    key = digest(
        "subsets",
        package_code() or code_digest.PROCESS,
        model_of(lm),
        array_hash(prompts),
        split_hash(split),
        metric,
    )
    known = executor.runner.store.load_evaluations(key, f"{len(prompts)} merged prompts")
    if known is not None:
        return known
    found: list[Evaluation] = []
    for (some,) in _populations(prompts):
        jobs = [Job(split, i) for i in range(min(len(some), len(prompts) - len(found)))]
        found += evaluate(lm, jobs, some, metrics=(metric,), mesh=executor.runner.mesh)
    executor.runner.store.save_evaluations(key, found)
    if executor.runner.on_stored is not None:
        executor.runner.on_stored()
    return found


def _populations(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Slices of one size, so that few programs are compiled; the last entry fills up the last."""
    count = len(arrays[0])
    for begin in range(0, count, _PROMPTS_AT_ONCE):
        numbers = np.minimum(np.arange(begin, begin + _PROMPTS_AT_ONCE), count - 1)
        yield tuple(array[numbers] for array in arrays)


def _values(found: Sequence[Evaluation], metric: str) -> np.ndarray:
    return np.asarray([evaluation.metrics[metric] for evaluation in found], np.float64)


def _halved(
    found: Sequence[Evaluation], split: TokenisedSplit, metric: str, per_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The first half [n], the metric on both halves [2, N], and the items [N, n] if there are."""
    # Rows of one question, and one row under several templates, are no independent items.
    units: list[Any] = [e.group or i // per_row for i, e in enumerate(split.examples)]
    if metric in found[0].per_item:
        items = np.stack([evaluation.per_item[metric] for evaluation in found])
        first = split_items(units if len(units) == items.shape[1] else range(items.shape[1]))
        return first, np.stack([items[:, first].mean(1), items[:, ~first].mean(1)]), items
    first = split_items(units)
    halves = []
    for half in (first, ~first):
        numbers = np.flatnonzero(half)
        part = split.take(numbers)
        halves.append([_metric_of(evaluation, numbers, part, metric) for evaluation in found])
    return first, np.asarray(halves, np.float64), None


def _metric_of(
    evaluation: Evaluation, numbers: np.ndarray, part: TokenisedSplit, metric: str
) -> float:
    if not np.isfinite(evaluation.metrics[metric]):
        return float("nan")
    made = evaluation.predictions
    kept = made[numbers] if isinstance(made, np.ndarray) else [made[i] for i in numbers.tolist()]
    return compute((metric,), kept, part)[metric]
