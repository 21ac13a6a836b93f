"""Runs an experiment into a run directory that somebody else can use."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prompt_jax import config as configs
from prompt_jax import distributed, sharding
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.methods import as_method
from prompt_jax.paths import is_url, user_cache
from prompt_jax.prompts import parse
from prompt_jax.recipes import outputs
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.mirror import TRAINED, Mirror
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.unfinished import Progress
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import results
from prompt_jax.rundir.paths import check_folder, prepare_folder, run_folder
from prompt_jax.rundir.provenance import provenance
from prompt_jax.rundir.results import ResultRow
from prompt_jax.training.population import check_tokens
from prompt_jax.training.tracking import RunTracker, TrackingConfig


def run(
    config: ExperimentConfig,
    lm: Any,
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
    with opened(config, lm, show=show, observe=observe) as (folder, executor):
        result = _execute(config, executor.lm, folder, executor, say)
        executor.progress.clear()
        distributed.barrier("experiment")
    if is_url(config.out):
        say(f"  {config.out} holds all of it, and this machine {folder}")
    return result


@contextmanager
def opened(
    config: ExperimentConfig, lm: Any, *, show: bool = True, observe: TrackingConfig | None = None
) -> Iterator[tuple[Path, Executor]]:
    """The run directory of an experiment, and what executes its stages, after all checks.

    In a job of several processes only process 0 has the run directory. One at a URL is brought
    here first, and sent there whenever something is finished.

    Args:
      config: the experiment.
      lm: the frozen model that `config.model` names.
      show: progress lines on a terminal.
      observe: who else listens.

    Raises:
      PromptJaxError: for anything that can be found out before the first step.
      TrainingError: a file could not be written or read on the way.
    """
    config.check_tasks()
    folder, described = run_folder(config.out, config.name), configs.to_dict(config)
    mirror = Mirror(config.out) if is_url(config.out) and distributed.is_main() else None

    def check() -> None:
        if mirror is not None:
            mirror.fetch()
        check_folder(folder, described)

    def send() -> None:
        if mirror is not None:
            mirror.push()

    _only_main(check)
    mesh, cache = _mesh(config), _cache(config)
    if mesh is not None:
        lm = sharding.shard_tree(lm, lm.partition_rules, mesh)
    rows = RowStore(config.data, lm.tokenizer, cache)
    _try_inputs(config, lm, rows)
    # Only now: a start that fails leaves no directory for the next one to stumble over.
    _only_main(lambda: prepare_folder(folder, described))
    elsewhere = None if distributed.is_main() else tempfile.TemporaryDirectory(prefix="prompt-jax-")
    checkpoints = folder / "checkpoints"  # one path in all processes: a shared one is sharded
    if elsewhere is not None:
        folder = Path(elsewhere.name)
    (folder / "provenance.json").write_text(json.dumps(provenance(lm), indent=2) + "\n", "utf-8")
    on_stored = functools.partial(_only_main, send) if is_url(config.out) else None
    if on_stored is not None:
        on_stored()  # a URL that cannot be written is found before the first step
    store = ArtefactStore(_trained(config, folder, cache))
    progress = Progress(
        checkpoints,
        config.checkpoint_seconds,
        newest=config.checkpoint_keep,
        on_written=send if mirror is not None else None,
    )
    observe = (observe if elsewhere is None else None) or TrackingConfig()
    listening = RunTracker(
        folder / "metrics.jsonl",
        show=show,
        sinks=observe.sinks(folder, described),
        profiler=observe.profiler(folder),
    )
    try:
        with listening as tracker:
            yield folder, Executor(config, lm, rows, store, tracker, mesh, progress, on_stored)
        if on_stored is not None:
            on_stored()
    except OSError as error:  # a full disk, a file that went away
        raise TrainingError(
            f"{error.filename or folder}: {error.strerror or error}. What was finished is kept:"
            " put that right, and run the same command again to resume."
        ) from error
    finally:
        if elsewhere is not None:
            elsewhere.cleanup()


def _only_main(check: Callable[[], object]) -> None:
    """Does something in process 0; what it raises is raised in all."""

    def call() -> None:
        check()

    distributed.on_main(call)


def _cache(config: ExperimentConfig) -> Path | None:
    if config.data.cache == "":
        return None
    return user_cache() if config.data.cache is None else Path(config.data.cache)


def _trained(config: ExperimentConfig, folder: Path, cache: Path | None) -> Path | None:
    """Where finished stages are kept: those of a run at a URL travel with it, unless told where."""
    if is_url(config.out) and config.data.cache is None:
        return folder / TRAINED
    return None if cache is None else cache / "runs"


def _mesh(config: ExperimentConfig) -> Any:
    """The mesh of the config; several processes without one share the rows."""
    every = jax.device_count() if distributed.is_multiprocess() else 0
    if not config.mesh:
        return sharding.make_mesh(every) if every else None
    sizes = sharding.parse_mesh(config.mesh)
    if every and sizes["data"] * sizes["model"] != every:
        raise ConfigError(
            f"mesh '{config.mesh}' has to use all {every} devices of the {jax.process_count()}"
            " processes: each process holds a part of every array."
        )
    return sharding.make_mesh(sizes["data"], sizes["model"])


def _try_inputs(config: ExperimentConfig, lm: Any, rows: RowStore) -> None:
    """Opens all data and makes an initial prompt: what is wrong is found before the first step."""
    opened = [
        *((source, seed, 0) for seed in config.seed_list for source in config.sources),
        *((t, seed, k) for seed in config.seed_list for t in config.targets for k in config.shots),
    ]
    for name, seed, k in opened:
        found = rows.rows(name, seed, k)
        for split in (found.train, found.dev, found.test):
            check_tokens(lm, split)
    parse(config.prompt.init)(lm, config.prompt.tokens, config.first_seed)


def _execute(
    config: ExperimentConfig, lm: Any, folder: Path, executor: Executor, say: Callable[[str], None]
) -> outputs.RunResult:
    rows = executor.rows
    tasks = {target: rows.task(target) for target in config.targets}
    primary = {target: task.metrics[0] for target, task in tasks.items()}
    measured: list[ResultRow] = []
    items: dict[RunKey, np.ndarray] = {}
    prompts: list[Path] = []
    for k in config.shots:
        for method, spec in zip(config.methods, config.specs, strict=True):
            for outcome in executor.run(method, k):
                key = outputs.result_key(spec, as_method(method), outcome)
                measured += outputs.rows_of(key, outcome, tasks[outcome.member.task])
                scores = outcome.test.per_item.get(primary[outcome.member.task])
                if scores is not None and outcome.trained.healthy:
                    items[key] = scores
                named = dict(outcome.template_prompts)
                if outcome.trained.prompt is not None:
                    named[""] = outcome.trained.prompt
                for name, prompt in named.items():
                    made = dataclasses.replace(
                        outcome, trained=dataclasses.replace(outcome.trained, prompt=prompt)
                    )
                    prompts.append(
                        outputs.save_prompt(folder, spec, made, config, lm, executor, name)
                    )
            results.write_rows(folder / "results.jsonl", measured)
            for line in executor.news():
                say(f"  {line}")
    outputs.save_sources(folder, config, lm, executor)
    (folder / "data.json").write_text(json.dumps(rows.report(), indent=2) + "\n", "utf-8")
    results.write_items(folder / "items.npz", items)
    findings = outputs.write_findings(folder, say)
    return outputs.RunResult(findings, executor.reused, prompts)
