"""The output files of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax import distributed
from prompt_jax.data import registry
from prompt_jax.data.tasks import Task
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor, Outcome
from prompt_jax.report import page
from prompt_jax.rundir import results
from prompt_jax.rundir.paths import slug
from prompt_jax.rundir.results import Cell, Contrast, ResultRow
from prompt_jax.training import speed
from prompt_jax.training.tracking import finite
from prompt_jax.training.types import TrainedReplica


@dataclass(frozen=True, eq=False)
class Report:
    """What an experiment found.

    Attributes:
      folder: the run directory.
      rows: every measured number.
      primary: the primary metric of each target.
      tasks: each target, as its description was when the experiment began.
      summaries: mean and spread of each (method, target, k) on the test rows.
      contrasts: every method against the first one.
      reused: (stage, runs found, runs in all).
      losses: texts that were cut, classes with too few rows.
      prompts: paths of the target prompts.
    """

    folder: Path
    rows: list[ResultRow]
    primary: dict[str, str]
    tasks: dict[str, Task]
    summaries: dict[Cell, Any]
    contrasts: list[Contrast]
    reused: list[tuple[str, int, int]]
    losses: list[str]
    prompts: list[Path]

    def markdown(self, config: ExperimentConfig) -> str:
        """The summary file: table, contrasts, what was cut."""
        parts = [
            f"# {config.name}\n",
            f"Test rows, in points, mean ± standard deviation over {config.seeds} seeds.\n",
            results.markdown_table(
                config.specs, config.targets, config.shots, self.summaries, self.primary
            ),
        ]
        if self.contrasts:
            parts += [
                "\nPaired over seeds and items; p after Holm over the whole family; an effect"
                f" needs p < 0.05 and {100 * results.minimum(config.targets):g} points.\n",
                "| | target | contrast | points [95 %] | p | effect |",
                "|-|-|-|-|-|-|",
                *results.contrast_lines(self.contrasts),
            ]
        if self.losses:
            parts += ["\nWhat was cut:\n", *(f"- {line}" for line in self.losses)]
        if table := speed.markdown(speed.read(self.folder)):
            parts += [
                "\nSpeed, medians over the logged intervals of all processes so far:\n",
                *table,
            ]
        return "\n".join(parts) + "\n"


def write_page(folder: Path, say: Callable[[str], None]) -> None:
    """The report page. Whatever goes wrong with a picture, the results are there."""
    if not distributed.is_main():
        return
    try:
        page.write(folder)
    except Exception as error:
        say(f"  warning: {folder / page.NAME} was not made: {error!r}")


def rows_of(spec: str, outcome: Outcome, task: Task) -> list[ResultRow]:
    """The result rows of a finished run.

    Args:
      spec: the method.
      outcome: the run.
      task: its target.
    """
    trained, cost, member = outcome.trained, outcome.cost, outcome.member
    prompt = trained.prompt
    stored = outcome.trained_parameters if prompt is None else int(np.size(prompt))

    def row(metric: str, split: str, value: float) -> ResultRow:
        # What a run that died kept is no result of its method.
        value = value if trained.healthy else float("nan")
        return ResultRow(
            spec,
            member.task,
            member.k or 0,
            member.seed,
            metric,
            split,
            float(value),
            cost.source_steps,
            cost.target_steps,
            cost.rows,
            cost.flops,
            round(cost.seconds, 3),
            outcome.trained_parameters,
            stored,
            outcome.trials,
            registry.suite(task),
            outcome.chosen,
        )

    names = list(outcome.test.metrics)
    trusted = {} if outcome.calibration is None else outcome.calibration._asdict()
    return [
        row(names[0], "dev", trained.best_value),
        *(row(name, "test", value) for name, value in outcome.test.metrics.items()),
        *(row(name, "test", value) for name, value in trusted.items()),
    ]


def _record(
    method: str,
    task: str,
    seed: int,
    config: ExperimentConfig,
    lm: Any,
    executor: Executor,
    trained: TrainedReplica,
    facts: dict[str, Any],
) -> PromptRecord:
    initial = executor.initial(seed).record
    assert trained.prompt is not None
    # What an evaluation needs to see the rows as this experiment saw them.
    rows = ("max_input_tokens", "max_target_tokens", "protocol", "dev_rows")
    seen = {name: getattr(config.data, name) for name in rows}
    return PromptRecord(
        model_hash=lm.weights_hash,
        model_name=lm.name,
        method=method,
        task=task,
        init_id=initial.init_id if initial else None,
        init=initial.init if initial else None,
        tokens=len(trained.prompt),
        d_model=lm.d_model,
        seed=seed,
        config={"dev": finite(trained.best_value), "best_step": trained.best_step, **seen, **facts},
    )


def save_prompt(
    folder: Path,
    spec: str,
    outcome: Outcome,
    config: ExperimentConfig,
    lm: Any,
    executor: Executor,
    template: str = "",
) -> Path:
    """Saves the prompt of a run, or its prompt for the rows of one template."""
    m = outcome.member
    shots = f"k{m.k}" if m.k else "all"
    task = executor.rows.task(m.task).name
    name = f"{slug(task)}-{shots}-seed{m.seed}" + (f"-{slug(template)}" if template else "")
    path = folder / "prompts" / slug(spec) / f"{name}.safetensors"
    facts: dict[str, Any] = {"k": m.k, "experiment": config.name}
    if template:
        facts["template"] = template
    if outcome.chosen is not None:
        facts["chosen"] = list(outcome.chosen)
    record = _record(spec, task, m.seed, config, lm, executor, outcome.trained, facts)
    SoftPrompt(outcome.trained.prompt).save(path, record)
    return path


def save_sources(folder: Path, config: ExperimentConfig, lm: Any, executor: Executor) -> None:
    """Saves the prompts of the sources, seed by seed."""
    for seed in config.seed_list:
        for name, trained in executor.sources(seed).items():
            task = executor.rows.task(name).name
            record = _record(
                "prompt_tuning",
                task,
                seed,
                config,
                lm,
                executor,
                trained,
                {"experiment": config.name},
            )
            path = folder / "prompts" / "sources" / f"{slug(task)}-seed{seed}.safetensors"
            SoftPrompt(trained.prompt).save(path, record)
