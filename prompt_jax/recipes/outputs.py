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
from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod
from prompt_jax.methods import trained as trained_methods
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.outcomes import Outcome
from prompt_jax.report import page
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import folder as rundir_folder
from prompt_jax.rundir import views
from prompt_jax.rundir.findings import Findings, find
from prompt_jax.rundir.paths import slug
from prompt_jax.rundir.results import ResultRow
from prompt_jax.training.tracking import finite
from prompt_jax.training.types import TrainedReplica


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished experiment.

    Attributes:
      findings: all numbers, computed from the run directory.
      reused: (stage, runs found, runs in all) of every stage.
      prompts: paths of the target prompts, and of trained row-wise methods.
    """

    findings: Findings
    reused: list[tuple[str, int, int]]
    prompts: list[Path]

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.findings.run.path


def write_findings(folder: Path, say: Callable[[str], None]) -> Findings:
    """Computes the findings of a run directory and writes `summary.md` and `report.html` there."""
    findings = find(rundir_folder.read(folder))
    (folder / "summary.md").write_text(views.summary(findings), encoding="utf-8")
    write_page(findings, say)
    return findings


def write_page(findings: Findings, say: Callable[[str], None]) -> None:
    """Writes the report page. Whatever goes wrong with a picture, the results are there."""
    if not distributed.is_main():
        return
    path = findings.run.path / page.NAME
    try:
        page.write(findings, path)
    except Exception as error:
        say(f"  warning: {path} was not made: {error!r}")


def result_key(spec: str, method: BaseMethod, outcome: Outcome) -> RunKey:
    """The key of a finished run: of the last stage of its method, which `spec` names."""
    m = outcome.key
    return RunKey(spec, method.stages()[-1].title, m.task, m.k or 0, m.seed, m.trial)


def rows_of(key: RunKey, outcome: Outcome, task: Task) -> list[ResultRow]:
    """The result rows of a finished run.

    Args:
      key: as from `result_key`.
      outcome: the run.
      task: its target.
    """
    trained, cost = outcome.trained, outcome.cost
    prompt = trained.prompt
    stored = outcome.trained_parameters if prompt is None else int(np.size(prompt))

    def row(metric: str, split: str, value: float) -> ResultRow:
        return ResultRow(
            key=key,
            metric=metric,
            split=split,
            # What a run that died kept is no result of its method.
            value=float(value) if trained.healthy else float("nan"),
            source_steps=cost.source_steps,
            target_steps=cost.target_steps,
            rows_seen=cost.rows,
            flops=cost.flops,
            wall_s=round(cost.seconds, 3),
            trained_parameters=outcome.trained_parameters,
            stored_parameters=stored,
            trials=outcome.trials,
            suite=registry.suite(task),
            chosen=outcome.chosen,
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
        tokens=None if trained.prompt is None else len(trained.prompt),
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
    path, record = _target_file(folder, spec, outcome, config, lm, executor, template)
    SoftPrompt(outcome.trained.prompt).save(path, record)
    return path


def save_method(
    folder: Path,
    spec: str,
    method: BaseMethod,
    outcome: Outcome,
    config: ExperimentConfig,
    lm: Any,
    executor: Executor,
    say: Callable[[str], None],
) -> list[Path]:
    """Saves the trained method of a run where its prompt depends on the row's tokens.

    A method that its spec does not make again cannot be loaded: a warning says that it is not
    saved.

    Returns:
      The path; [] where nothing was saved.
    """
    trainer = method.stages()[-1].trains or method
    if not trainer.rowwise or trainer.trains_lm or outcome.template_prompts:
        return []
    path, record = _target_file(folder, spec, outcome, config, lm, executor)
    try:
        made = trained_methods.TrainedMethod(
            trainer, outcome.trained.params, outcome.consts, record
        )
        trained_methods.save(path, made)
    except ConfigError as error:
        say(f"  warning: {path} was not made: {error}")
        return []
    return [path]


def _target_file(
    folder: Path,
    spec: str,
    outcome: Outcome,
    config: ExperimentConfig,
    lm: Any,
    executor: Executor,
    template: str = "",
) -> tuple[Path, PromptRecord]:
    """Where the prompt of a run is saved, and its record."""
    m = outcome.key
    shots = f"k{m.k}" if m.k else "all"
    task = executor.rows.task(m.task).name
    name = f"{slug(task)}-{shots}-seed{m.seed}" + (f"-{slug(template)}" if template else "")
    path = folder / "prompts" / slug(spec) / f"{name}.safetensors"
    facts: dict[str, Any] = {"k": m.k, "experiment": config.name}
    if template:
        facts["template"] = template
    if outcome.chosen is not None:
        facts["chosen"] = list(outcome.chosen)
    return path, _record(spec, task, m.seed, config, lm, executor, outcome.trained, facts)


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
