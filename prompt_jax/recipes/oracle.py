"""The oracle of grouping: scores of every subset of the sources on a target.

For each target, k and seed the sources' and the target's prompts of DTVG's first stage are merged,

    P(S) = P_init + T_t + c * sum over S of T_s,     c = 1 or 1 / |S| by the development set,

for all 2^K subsets S, and evaluated as they are, without a step of training, or each tuned from
there with the target's budget. A plain sum alone would confound the choice of sources with the
growth of the norm. What the choice of a subset gains is measured as `prompt_jax.evaluation.subsets`
does it, against the best of none, one and all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from prompt_jax.data import registry
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Verdict, bounded, bounds, statistics
from prompt_jax.evaluation.subsets import (
    SubsetScores,
    compare,
    cross_fit,
    rank_percentile,
    subsets,
)
from prompt_jax.methods import BaseMethod, as_method, spec_of
from prompt_jax.models.base import LanguageModel
from prompt_jax.recipes import experiment, outputs
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.outcomes import Outcome
from prompt_jax.recipes.survey import base_of, method_of, survey, told_once
from prompt_jax.rundir.oracle import Choice, OracleCell, OracleReport
from prompt_jax.rundir.tables import heading

MOST_SOURCES = 10

Choices = dict[tuple[str, int], tuple[np.ndarray, Outcome]]  # by target and seed


def oracle(
    config: ExperimentConfig,
    lm: LanguageModel,
    *,
    base: str | None = None,
    tuned: bool = False,
    show: bool = True,
    say: Callable[[str], None] = print,
) -> OracleReport:
    """Evaluates all subsets for every target, k and seed, and writes a table and all numbers.

    The files are `oracle.md` and `oracle.json` of the run directory, `oracle_tuned.*` if tuned.

    Whatever the experiment has trained is read from the store of artefacts; what is missing of the
    first stage, and of the config's methods that choose sources, is trained.

    Args:
      config: the experiment; at most 10 sources.
      lm: the frozen model that `config.model` names.
      base: the method whose first stage is merged; None: the first of the config's methods that has
        one, else DTVG as published.
      tuned: tune every merged prompt with the target's budget first (2^K replicas for each target,
        k and seed), choosing the best step, the start included, by the development set.
      show: progress lines on a terminal.
      say: receives what a person should read while it runs.

    Raises:
      PromptJaxError: for anything a user can cause, before any compute is spent where possible.
    """
    base = check(config, base)
    choosers = [method for method in config.methods if _chooses(as_method(method))]
    of_base = method_of(config, base)
    groups = subsets(len(config.sources))
    cells: list[OracleCell] = []
    tell = told_once(say)
    with experiment.opened(config, lm, show=show) as (folder, executor):
        for k in config.shots:
            contexts = {(m.task, m.seed): c for m, c in executor.contexts(of_base, k).items()}
            picked = {spec_of(method): _chosen(executor, method, k) for method in choosers}
            tell(executor.stage_summaries())
            for target in config.targets:
                lands = []
                for seed in config.seed_list:
                    lands.append(survey(executor, contexts[target, seed], target, k, groups, tuned))
                    say(
                        f"  {target}, {heading(k)}, seed {seed}: {len(groups)} subsets"
                        f"{', tuned' if tuned else ''}"
                    )
                cells.append(_cell(executor, target, k, tuple(lands), picked, groups))
        names = tuple(executor.rows.task(source).name for source in config.sources)
        report = OracleReport(folder, config.name, base, tuned, names, groups, _judged(cells))
        outputs.write_report(report)
    return report


def check(config: ExperimentConfig, base: str | None = None) -> str:
    """Checks what can be checked without the model; returns the method whose stage is merged.

    Raises:
      ConfigError: for no source, too many, or a method without such a stage.
    """
    count = len(config.sources)
    if not count:
        raise ConfigError("the oracle needs sources, as in sources=snli,glue/qqp.")
    if count > MOST_SOURCES:
        raise ConfigError(
            f"the oracle evaluates all 2^K subsets of K sources: at most {MOST_SOURCES}, not"
            f" {count} ({2**count:,} prompts for each target, k and seed). Name fewer with"
            " sources=a,b."
        )
    return base_of(config, base)


def _chooses(method: BaseMethod) -> bool:
    """Whether a method chooses among prompts that were trained on one source each."""
    on_sources = any(stage.on == "source" for stage in method.stages())
    return on_sources and type(method).selected_sources is not BaseMethod.selected_sources


def _chosen(executor: Executor, method: BaseMethod | str, k: int) -> Choices:
    """The choice of every replica of a method that did not diverge."""
    found: Choices = {}
    contexts = executor.contexts(method, k)
    for outcome in executor.run(method, k):
        group = as_method(method).selected_sources(contexts[outcome.key], outcome.trained.params)
        if group is not None and outcome.trained.healthy:
            found[outcome.key.task, outcome.key.seed] = (group, outcome)
    return found


def _cell(
    executor: Executor,
    target: str,
    k: int,
    lands: tuple[SubsetScores, ...],
    picked: dict[str, Choices],
    groups: np.ndarray,
) -> OracleCell:
    """One target at one k; its verdict is not corrected yet."""
    task = executor.rows.task(target)
    metric, sizes = task.metrics[0], groups.sum(1)
    simple = np.flatnonzero((sizes <= 1) | (sizes == groups.shape[1]))
    best = tuple(cross_fit(land, np.arange(len(groups))) for land in lands)
    plain = tuple(cross_fit(land, simple) for land in lands)
    choices = []
    for spec, found in picked.items():
        for land in lands:
            if (target, land.seed) not in found:
                continue
            group, outcome = found[target, land.seed]
            number = int(np.flatnonzero((groups == group).all(1))[0])
            choices.append(
                Choice(
                    spec,
                    land.seed,
                    number,
                    float(land.test[number]),
                    *rank_percentile(land.test, number),
                    float(outcome.test.metrics[metric]),
                )
            )
    low, high = bounds(metric)
    comparison = bounded(compare(best, plain), low - high, high - low)
    verdict = Verdict(comparison, comparison.p, False)
    minimum = executor.config.minimum_effect
    if minimum is None:
        minimum = statistics.MINIMUM_EFFECT["sandbox" if registry.suite(task) else "text"]
    return OracleCell(task.name, k, metric, minimum, lands, best, plain, verdict, tuple(choices))


def _judged(cells: Sequence[OracleCell]) -> tuple[OracleCell, ...]:
    """Holm over all cells."""
    corrected = statistics.holm([cell.verdict.comparison.p for cell in cells]).tolist()
    found = []
    for cell, p in zip(cells, corrected, strict=True):
        comparison = cell.verdict.comparison
        effect = statistics.effect(p, comparison.difference, cell.minimum)
        found.append(replace(cell, verdict=Verdict(comparison, p, effect)))
    return tuple(found)
