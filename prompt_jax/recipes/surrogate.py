"""Source selection by a surrogate model (Li et al. 2023, arXiv 2303.14582).

For each target, k and seed a few random subsets of the sources, all of one size, are scored on the
development set, with the target's own vector in every one of them, as in the oracle:

    f(S) = score of P_init + T_t + c * sum over S of T_s

A linear model of f says what each source adds, and the sources that add something are chosen. The
oracle's scores of all 2^K subsets, where they are at hand, say how good the choice is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation.surrogate import fit, random_subsets
from prompt_jax.methods import Context
from prompt_jax.models.base import LanguageModel
from prompt_jax.recipes import experiment, outputs
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.survey import base_of, candidates, method_of, survey, told_once
from prompt_jax.rundir.surrogate import (
    Selection,
    SurrogateCell,
    SurrogateReport,
    judge,
    read_oracle,
)
from prompt_jax.rundir.tables import heading

_TIMES = 4  # random subsets for each source


def surrogate(
    config: ExperimentConfig,
    lm: LanguageModel,
    *,
    base: str | None = None,
    number: int = 0,
    size: int = 0,
    tuned: bool = False,
    show: bool = True,
    say: Callable[[str], None] = print,
) -> SurrogateReport:
    """Chooses sources for every target, k and seed, and writes a table and all numbers.

    The files are `surrogate.md` and `surrogate.json` of the run directory, `surrogate_tuned.*` if
    tuned. What is missing of the first stage of `base` is trained.

    Args:
      config: the experiment.
      lm: the frozen model that `config.model` names.
      base: the method whose first stage is merged, as of `oracle`.
      number: of random subsets; 0: four for each source.
      size: of each; 0: half of the sources.
      tuned: tune every merged prompt with the target's budget before it is scored.
      show: progress lines on a terminal.
      say: receives what a person should read while it runs.

    Raises:
      PromptJaxError: for anything a user can cause, before any compute is spent where possible.
    """
    base, groups = check(config, base, number, size)
    cells: list[SurrogateCell] = []
    tell = told_once(say)
    with experiment.opened(config, lm, show=show) as (folder, executor):
        names = tuple(executor.rows.task(source).name for source in config.sources)
        known, why = read_oracle(folder, base, tuned, names)
        if why:
            say(f"  choices are not ranked among all subsets: {why}.")
        for k in config.shots:
            of_base = method_of(config, base)
            contexts = {(m.task, m.seed): c for m, c in executor.contexts(of_base, k).items()}
            tell(executor.stage_summaries())
            for target in config.targets:
                task = executor.rows.task(target)
                made = []
                for seed in config.seed_list:
                    context, cell = contexts[target, seed], known.get((task.name, k))
                    made.append(_select(executor, context, target, k, groups, tuned, names, cell))
                    say(
                        f"  {target}, {heading(k)}, seed {seed}: {len(groups) - 1} subsets"
                        f"{', tuned' if tuned else ''}"
                    )
                cells.append(SurrogateCell(task.name, k, task.metrics[0], tuple(made)))
        report = SurrogateReport(folder, config.name, base, tuned, names, groups, tuple(cells))
        outputs.write_report(report)
    return report


def check(
    config: ExperimentConfig, base: str | None = None, number: int = 0, size: int = 0
) -> tuple[str, np.ndarray]:
    """Checks what can be checked without the model.

    Args:
      config: the experiment.
      base: as of `surrogate`, and so are the other arguments.
      number: of subsets.
      size: of each.

    Returns:
      The method whose stage is merged, and the subsets, bool [n + 1, K].

    Raises:
      ConfigError: no sources, or subsets that cannot tell sources apart.
    """
    count = len(config.sources)
    if not count:
        raise ConfigError("a choice of sources needs sources, as in sources=snli,glue/qqp.")
    groups = random_subsets(count, size or max(1, count // 2), number or _TIMES * count)
    return base_of(config, base), groups


def _select(
    executor: Executor,
    context: Context,
    target: str,
    k: int,
    groups: np.ndarray,
    tuned: bool,
    sources: tuple[str, ...],
    cell: Mapping[str, Any] | None,
) -> Selection:
    """The choice for one target and seed."""
    _, dev, _ = candidates(executor, context, target, k, groups, tuned)
    model = fit(groups, dev)
    every = np.ones(len(sources), bool)
    compared = np.stack([~every, model.chosen, every])
    none, chosen, whole = survey(executor, context, target, k, compared, tuned).test.tolist()
    judged = None if cell is None else judge(model, sources, cell, context.seed)
    return Selection(context.seed, dev, model, (none, chosen, whole), judged)
