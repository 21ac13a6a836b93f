"""The output files of an experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax import distributed
from prompt_jax.data import definition, registry
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod
from prompt_jax.methods import trained as trained_methods
from prompt_jax.models import hub
from prompt_jax.models.base import LanguageModel
from prompt_jax.paths import write_atomically
from prompt_jax.prompts import PromptRecord, SoftPrompt
from prompt_jax.prompts.record import TASK_DEFINITION
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.outcomes import Outcome
from prompt_jax.report import page
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import folder as rundir_folder
from prompt_jax.rundir import views
from prompt_jax.rundir.findings import Findings, find
from prompt_jax.rundir.paths import FileNames, bounded, slug
from prompt_jax.rundir.recipe_report import RecipeReport
from prompt_jax.rundir.results import ResultRow
from prompt_jax.rundir.tables import Table, markdown
from prompt_jax.training.tracking import finite
from prompt_jax.training.types import TrainedReplica


class HasFindings:
    """What a finished run shows: the table of its results, as Markdown in a notebook."""

    findings: Findings

    def table(self) -> Table:
        """The results on the test rows: mean and spread over seeds."""
        return views.results(self.findings)

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown(self.table())

    def _repr_markdown_(self) -> str:
        return self.markdown()


@dataclass(frozen=True, eq=False)
class RunResult(HasFindings):
    """A finished experiment.

    Attributes:
      findings: all numbers, computed from the run directory.
      reused: (stage, stored replicas, all replicas) of every stage.
      prompts: paths of the target prompts, and of trained row-wise methods.
    """

    findings: Findings
    reused: list[tuple[str, int, int]]
    prompts: list[Path]

    def __repr__(self) -> str:
        return f"RunResult({self.findings.run.size}, {len(self.prompts)} target prompts)"

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self.findings.run.path


def write_report(report: RecipeReport) -> None:
    """Writes the numbers and the tables of a report into its run directory.

    Raises:
      ConfigError: the directory cannot be written.
    """
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"
    try:
        write_atomically(report.json_path, text.encode())
        write_atomically(report.markdown_path, report.markdown().encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write to the run directory {report.folder}: {error.strerror}."
        ) from None


def write_findings(folder: Path, say: Callable[[str], None], *, with_page: bool = True) -> Findings:
    """Computes the findings of a run directory and writes `summary.md` and `report.html` there.

    Args:
      folder: the run directory.
      say: receives a warning where the page cannot be made.
      with_page: False: the page there is of the same numbers.
    """
    findings = find(rundir_folder.read(folder))
    write_atomically(folder / "summary.md", views.summary(findings).encode())
    if with_page:
        write_page(findings, say)
    return findings


def write_page(findings: Findings, say: Callable[[str], None]) -> None:
    """Writes the report page; a failure is a warning, since the results are written before."""
    if not distributed.is_main():
        return
    path = findings.run.path / page.NAME
    try:
        page.write(findings, path)
    except Exception as error:
        say(f"  warning: {path} was not made: {error!r}")


def result_key(spec: str, method: BaseMethod, outcome: Outcome) -> RunKey:
    """The key of a finished replica: of the last stage of its method, which `spec` names."""
    m = outcome.key
    return RunKey(spec, method.stages()[-1].title, m.task, m.k or 0, m.seed, m.trial)


def rows_of(key: RunKey, outcome: Outcome, task: Task) -> list[ResultRow]:
    """The result rows of a finished replica.

    Args:
      key: as from `result_key`.
      outcome: the replica.
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
            # The state that a diverged replica kept is no result of its method.
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
            rate=outcome.rate,
            learning_rate=outcome.learning_rate,
        )

    names = list(outcome.test.metrics)
    trusted = {} if outcome.calibration is None else outcome.calibration._asdict()
    return [
        row(names[0], "dev", trained.best_value),
        *(row(name, "test", value) for name, value in outcome.test.metrics.items()),
        *(row(name, "test", value) for name, value in trusted.items()),
    ]


class PromptWriter:
    """Writes the prompts of an experiment into its run directory, each with its record.

    Attributes:
      folder: the run directory.
      config: the experiment.
      lm: the frozen model.
      written: paths of the target prompts, and of trained row-wise methods.
    """

    def __init__(self, folder: Path, config: ExperimentConfig, lm: LanguageModel) -> None:
        self.folder, self.config, self.lm = folder, config, lm
        self.written: list[Path] = []
        self._methods, self._tasks = FileNames("sources"), FileNames()

    def target(self, spec: str, task: Task, outcome: Outcome) -> None:
        """Saves the deployed prompt of a finished replica, and its prompts by template.

        Args:
          spec: names the method.
          task: the target.
          outcome: the replica.
        """
        prompts = dict(outcome.template_prompts)
        if outcome.trained.prompt is not None:
            prompts[""] = outcome.trained.prompt
        for template, prompt in prompts.items():
            path = self._path(spec, task, outcome.key, template)
            record = self._of_outcome(spec, task, outcome, len(prompt), template)
            SoftPrompt(prompt).save(path, record)
            self.written.append(path)

    def method(
        self,
        spec: str,
        task: Task,
        method: BaseMethod,
        outcome: Outcome,
        say: Callable[[str], None],
    ) -> None:
        """Saves the trained method where its prompt depends on the row's tokens.

        A method that its spec does not make again cannot be loaded: a warning says that it is not
        saved.
        """
        trainer = method.stages()[-1].trains or method
        if not trainer.rowwise or trainer.trains_lm or outcome.template_prompts:
            return
        path = self._path(spec, task, outcome.key)
        record = self._of_outcome(spec, task, outcome, None)
        try:
            trained_methods.save(
                path,
                trained_methods.TrainedMethod(
                    trainer, outcome.trained.params, outcome.consts, record
                ),
            )
        except ConfigError as error:
            say(f"  warning: {path} was not made: {error}")
            return
        self.written.append(path)

    def source(self, task: Task, trained: TrainedReplica, start: PromptRecord | None) -> None:
        """Saves the prompt of a source.

        Args:
          task: the source.
          trained: the replica.
          start: record of its initialisation.
        """
        assert trained.prompt is not None
        key = trained.key
        name = bounded(f"{self._tasks.of(task.name, key.task)}-seed{key.seed}")
        path = self.folder / "prompts" / "sources" / f"{name}.safetensors"
        record = self._record(key.method, task, trained, start, len(trained.prompt), {})
        SoftPrompt(trained.prompt).save(path, record)

    def _path(self, spec: str, task: Task, key: RunKey, template: str = "") -> Path:
        shots = f"k{key.k}" if key.k else "all"
        name = f"{self._tasks.of(task.name, key.task)}-{shots}-seed{key.seed}"
        name = bounded(name + (f"-{slug(template)}" if template else ""))
        return self.folder / "prompts" / self._methods.of(spec) / f"{name}.safetensors"

    def _of_outcome(
        self, spec: str, task: Task, outcome: Outcome, tokens: int | None, template: str = ""
    ) -> PromptRecord:
        facts: dict[str, Any] = {"k": outcome.key.k}
        if template:
            facts["template"] = template
        if outcome.chosen is not None:
            facts["chosen"] = list(outcome.chosen)
        if outcome.rate is not None:
            facts["rate"] = outcome.rate
        if outcome.learning_rate is not None:
            facts["learning_rate"] = outcome.learning_rate
        record = self._record(spec, task, outcome.trained, outcome.start, tokens, facts)
        scores = {name: float(value) for name, value in outcome.test.metrics.items()}
        return record.replace(scores={n: v for n, v in scores.items() if math.isfinite(v)})

    def _record(
        self,
        method: str,
        task: Task,
        trained: TrainedReplica,
        start: PromptRecord | None,
        tokens: int | None,
        facts: dict[str, Any],
    ) -> PromptRecord:
        # What an evaluation needs to see the rows as this experiment saw them.
        rows = ("max_input_tokens", "max_target_tokens", "protocol", "dev_rows", "templates")
        seen: dict[str, Any] = {
            name: getattr(self.config.data, name)
            for name in (*rows, "shots_count", "answers", "rank_by")
        }
        best = {"dev": finite(trained.best_value), "best_step": trained.best_step}
        seen[TASK_DEFINITION] = definition.to_json(task)
        seen["model"] = hub.full_name(self.config.model)
        return PromptRecord(
            model_hash=self.lm.weights_hash,
            model_name=self.lm.name,
            model_config=self.lm.model_config,
            method=method,
            task=task.name,
            init_id=start.init_id if start else None,
            init=start.init if start else None,
            tokens=tokens,
            d_model=self.lm.d_model,
            seed=trained.key.seed,
            config={**best, **seen, **facts, "experiment": self.config.name},
        )
