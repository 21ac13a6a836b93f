"""Runs an experiment into a run directory that somebody else can use."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prompt_jax import config as configs
from prompt_jax import distributed, sharding
from prompt_jax.data import registry
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError, TrainingError
from prompt_jax.models.t5.partition import T5_RULES
from prompt_jax.paths import is_url, user_cache
from prompt_jax.prompts import PromptRecord, SoftPrompt, parse
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor, Outcome
from prompt_jax.recipes.mirror import OWNER, TRAINED, Mirror, staging
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.unfinished import Progress
from prompt_jax.report import page, results
from prompt_jax.report.results import Cell, Contrast, ResultRow
from prompt_jax.training import speed
from prompt_jax.training.loop import TrainedReplica, check_tokens
from prompt_jax.training.tracking import RunTracker, TrackingConfig, finite


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
                config.methods, config.targets, config.shots, self.summaries, self.primary
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


_SIGNS = {"+": "plus", "*": "times", ";": "or"}  # a + b and a; b are two methods


def slug(text: str) -> str:
    """A file name for a method spec or task name.

    >>> slug("spot(variant=mixture)"), slug("glue/rte"), slug("f(vectors=a + b)")
    ('spot_variant_mixture', 'glue_rte', 'f_vectors_a_plus_b')
    """
    for sign, word in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def run_folder(config: ExperimentConfig) -> Path:
    """Where the experiment is written on this machine."""
    if is_url(config.out):
        return staging(config.out)
    return Path(config.out or f"runs/{slug(config.name)}")


def check_folder(config: ExperimentConfig) -> Path:
    """The run directory, which must hold the same config where it exists; writes nothing.

    Raises:
      ConfigError: the directory belongs to another config (the difference is shown), or to
        something else.
    """
    folder = run_folder(config)
    path = folder / "config.json"
    try:
        if path.is_file():
            _same_config(path, configs.to_dict(config))
        elif folder.is_dir() and any(p.name != OWNER for p in folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and is no run directory. Choose another out=")
    except OSError as error:
        raise ConfigError(f"cannot read the run directory {folder}: {error.strerror}.") from None
    return folder


def prepare_folder(config: ExperimentConfig) -> Path:
    """Makes the run directory.

    Raises:
      ConfigError: as `check_folder`, or it cannot be written.
    """
    folder = check_folder(config)
    text = json.dumps(configs.to_dict(config), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {folder}: {error.strerror}.") from None
    return folder


# Keys that change nothing of what is computed.
_FREE = ("out", "checkpoint_seconds", "checkpoint_keep")


def _same_config(path: Path, new: dict[str, Any]) -> None:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is damaged. Choose another out=DIR, or remove it.") from None

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix[:-1]: tree}
        return {k: v for key in tree for k, v in flat(tree[key], f"{prefix}{key}.").items()}

    a, b = flat(old), flat(new)
    changed = [
        f"  {key}: {a.get(key, '(absent)')} -> {b.get(key, '(absent)')}"
        for key in sorted(set(a) | set(b))
        if a.get(key) != b.get(key) and key not in _FREE
    ]
    if changed:
        raise ConfigError(
            f"{path.parent} holds a run of another config. Choose another out=DIR.\n"
            + "\n".join(changed)
        )


def provenance(lm: Any) -> dict[str, Any]:
    """Versions, device and model, for the run directory."""
    packages = ("prompt-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree"
    device = jax.devices()[0]
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "model": {"name": lm.name, "weights_sha256": lm.weights_hash, "dtype": str(lm.dtype)},
    }


def run(
    config: ExperimentConfig,
    lm: Any,
    *,
    show: bool = True,
    say: Callable[[str], None] = print,
    observe: TrackingConfig | None = None,
) -> Report:
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
        report = _execute(config, executor.lm, folder, executor, say)
        executor.progress.clear()
        distributed.barrier("experiment")
    if is_url(config.out):
        say(f"  {config.out} holds all of it, and this machine {folder}")
    return report


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
    mirror = Mirror(config.out) if is_url(config.out) and distributed.is_main() else None

    def check() -> None:
        if mirror is not None:
            mirror.fetch()
        check_folder(config)

    def send() -> None:
        if mirror is not None:
            mirror.push()

    _only_main(check)
    mesh, cache = _mesh(config), _cache(config)
    if mesh is not None:
        lm = sharding.shard_tree(lm, T5_RULES, mesh)
    rows = RowStore(config.data, lm.tokenizer, cache)
    _try_inputs(config, lm, rows)
    # Only now: a start that fails leaves no directory for the next one to stumble over.
    _only_main(lambda: prepare_folder(config))
    elsewhere = None if distributed.is_main() else tempfile.TemporaryDirectory(prefix="prompt-jax-")
    folder = run_folder(config) if elsewhere is None else Path(elsewhere.name)
    (folder / "provenance.json").write_text(json.dumps(provenance(lm), indent=2) + "\n", "utf-8")
    on_stored = functools.partial(_only_main, send) if is_url(config.out) else None
    if on_stored is not None:
        on_stored()  # a URL that cannot be written is found before the first step
    store = ArtefactStore(_trained(config, folder, cache))
    progress = Progress(
        folder / "checkpoints",
        config.checkpoint_seconds,
        newest=config.checkpoint_keep,
        on_written=send if mirror is not None else None,
    )
    observe = (observe if elsewhere is None else None) or TrackingConfig()
    listening = RunTracker(
        folder / "metrics.jsonl",
        show=show,
        sinks=observe.sinks(folder, configs.to_dict(config)),
        ceiling=functools.partial(speed.matmul_ceiling, lm),
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
            " put that right, and run the same command again to go on."
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
) -> Report:
    rows = executor.rows
    tasks = {target: rows.task(target) for target in config.targets}
    primary = {target: task.metrics[0] for target, task in tasks.items()}
    measured: list[ResultRow] = []
    items: dict[tuple[str, str, int, int], np.ndarray] = {}
    prompts: list[Path] = []
    for k in config.shots:
        for spec in config.methods:
            for outcome in executor.run(spec, k):
                measured += _rows_of(spec, outcome, tasks[outcome.member.task])
                target, seed = outcome.member.task, outcome.member.seed
                scores = outcome.test.per_item.get(primary[target])
                if scores is not None and outcome.trained.healthy:
                    items[spec, target, k, seed] = scores
                named = dict(outcome.template_prompts)
                if outcome.trained.prompt is not None:
                    named[""] = outcome.trained.prompt
                for name, prompt in named.items():
                    made = dataclasses.replace(
                        outcome, trained=dataclasses.replace(outcome.trained, prompt=prompt)
                    )
                    prompts.append(_save_prompt(folder, spec, made, config, lm, executor, name))
            results.write_rows(folder / "results.jsonl", measured)
            for line in executor.news():
                say(f"  {line}")
    _save_sources(folder, config, lm, executor)
    (folder / "data.json").write_text(json.dumps(rows.report(), indent=2) + "\n", "utf-8")
    results.write_items(folder / "items.npz", items)
    values = results.cells(measured, primary)
    report = Report(
        folder,
        measured,
        primary,
        tasks,
        results.summaries(values),
        results.contrasts(config.methods, values, items),
        executor.reused,
        rows.losses(config.targets),
        prompts,
    )
    (folder / "summary.md").write_text(report.markdown(config), encoding="utf-8")
    _write_page(folder, say)
    return report


def _write_page(folder: Path, say: Callable[[str], None]) -> None:
    """The report page. Whatever goes wrong with a picture, the results are there."""
    if not distributed.is_main():
        return
    try:
        page.write(folder)
    except Exception as error:
        say(f"  warning: {folder / page.NAME} was not made: {error!r}")


def _rows_of(spec: str, outcome: Outcome, task: Task) -> list[ResultRow]:
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


def _save_prompt(
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


def _save_sources(folder: Path, config: ExperimentConfig, lm: Any, executor: Executor) -> None:
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
