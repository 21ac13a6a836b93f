"""Runs an experiment and writes its run directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prompt_jax import distributed, sharding
from prompt_jax.methods import as_method
from prompt_jax.models.base import LanguageModel
from prompt_jax.paths import is_url, write_atomically
from prompt_jax.recipes import finished, outputs, reference
from prompt_jax.recipes.config import ExperimentConfig, with_dtype
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.finished import Finished
from prompt_jax.recipes.method_stages import check_methods
from prompt_jax.recipes.pace import remember
from prompt_jax.recipes.resources import RunFolder, cache_folder, check_inputs, make_mesh
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.stages import StageRunner
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import answers, overlap, provenance, results
from prompt_jax.rundir.paths import run_folder
from prompt_jax.rundir.reference import Reference, TestedRun
from prompt_jax.rundir.reference import write as write_reference
from prompt_jax.rundir.results import ResultRow
from prompt_jax.training.tracking import RunTracker, TrackingConfig


def run(
    config: ExperimentConfig,
    lm: LanguageModel,
    *,
    show: bool = True,
    say: Callable[[str], None] = print,
    observe: TrackingConfig | None = None,
) -> outputs.RunResult:
    """Executes an experiment and writes its run directory.

    Args:
      config: what to do.
      lm: the frozen model that `config.model` names.
      show: progress lines on a terminal.
      say: receives what a person should read while it runs.
      observe: who else listens.

    Raises:
      PromptJaxError: for anything a user can cause, before any compute is spent where possible.
    """
    config = with_dtype(config, lm)
    here = distributed.is_main() and not is_url(config.out)
    before = finished.read(run_folder(config.out, config.name)) if here else None
    with opened(config, lm, show=show, observe=observe) as (folder, executor):
        result = _execute(config, executor.lm, folder, executor, say, before)
        executor.runner.unfinished.clear()
        distributed.barrier("experiment")
    if is_url(config.out):
        say(f"  {config.out} holds all of it, and this machine {folder}")
    return result


@contextmanager
def opened(
    config: ExperimentConfig,
    lm: LanguageModel,
    *,
    show: bool = True,
    observe: TrackingConfig | None = None,
) -> Iterator[tuple[Path, Executor]]:
    """The run directory of an experiment, and what executes its stages, after all checks.

    Args:
      config: the experiment.
      lm: the frozen model that `config.model` names.
      show: progress lines on a terminal.
      observe: who else listens.

    Raises:
      PromptJaxError: for anything that can be found out before the first step.
      TrainingError: a file could not be written or read on the way.
    """
    config = with_dtype(config, lm)
    config.check_tasks()
    with RunFolder(config) as folder:
        folder.check()
        mesh = make_mesh(config)
        if mesh is not None:
            lm = sharding.shard_tree(lm, lm.partition_rules, mesh)
        rows = RowStore(config.data, lm.tokenizer, cache_folder(config))
        check_inputs(config, lm, rows)
        check_methods(
            config.method_objects,
            lm,
            tokens=config.prompt.tokens,
            sources=config.sources,
            targets=config.targets,
        )
        # Only now: a start that fails leaves no directory for the next one to stumble over.
        with folder.created(lm) as path:
            observe = (observe if distributed.is_main() else None) or TrackingConfig()
            listening = RunTracker(
                path / "metrics.jsonl",
                show=show,
                every=observe.log_seconds,
                sinks=observe.sinks(path, folder.described),
                profiler=observe.profiler(path),
            )
            with listening as tracker:
                runner = StageRunner(
                    lm,
                    folder.store(),
                    tracker=tracker,
                    mesh=mesh,
                    unfinished=folder.unfinished(),
                    population=config.population,
                    on_stored=folder.send,
                )
                yield path, Executor(config, rows, runner)


def _execute(
    config: ExperimentConfig,
    lm: LanguageModel,
    folder: Path,
    executor: Executor,
    say: Callable[[str], None],
    before: Finished | None,
) -> outputs.RunResult:
    began = time.monotonic()
    rows = executor.rows
    opened = rows.report(config.sources, config.targets)
    for line in (*rows.warnings, *overlap.notes(opened, config.targets)):
        say(f"  warning: {line}")
    tasks = {target: rows.task(target) for target in config.targets}
    primary = {target: task.metrics[0] for target, task in tasks.items()}
    measured: list[ResultRow] = []
    items: dict[RunKey, np.ndarray] = {}
    answered, tested = answers.AnswerLog(), list[TestedRun]()
    writer = outputs.PromptWriter(folder, config, lm)
    for k in config.shots:
        for method, spec in zip(config.methods, config.specs, strict=True):
            for outcome in executor.run(method, k):
                key = outputs.result_key(spec, as_method(method), outcome)
                measured += outputs.rows_of(key, outcome, tasks[outcome.key.task])
                target = outcome.key.task
                scores = outcome.test.per_item.get(primary[target])
                if scores is not None and outcome.trained.healthy:
                    items[key] = scores
                test = rows.rows(target, outcome.key.seed, k).test
                tested.append(reference.tested(key, outcome, tasks[target], test))
                if outcome.trained.healthy:
                    answered.add(key, tasks[target], test, outcome.test)
                task = tasks[target]
                writer.target(spec, task, outcome)
                writer.method(spec, task, as_method(method), outcome, say)
            results.write_rows(folder / "results.jsonl", measured)
            for line in executor.stage_summaries():
                say(f"  {line}")
    for seed in config.seed_list:
        for source, trained in executor.sources(seed).items():
            writer.source(rows.task(source), trained, executor.initial(seed).record)
    report = json.dumps(rows.report(config.sources, config.targets), indent=2) + "\n"
    write_atomically(folder / "data.json", report.encode())
    results.write_items(folder / "items.npz", items)
    answered.write(folder)
    lines = reference.lines(config, rows, executor.runner)
    write_reference(folder, Reference(lines, tested))
    is_new = any(found < total for _, found, total in executor.reused)
    if before is not None and not is_new and before.is_same(folder):
        before.restore(folder)
        findings = outputs.write_findings(folder, say, with_page=False)
    else:
        provenance.finish(folder, time.monotonic() - began)
        remember(cache_folder(config), lm, folder)
        findings = outputs.write_findings(folder, say)
    return outputs.RunResult(findings, executor.reused, writer.written)
