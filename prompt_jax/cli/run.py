"""`prompt-jax run`: an experiment from its config to its run directory."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common, loading
from prompt_jax.errors import ConfigError, PromptJaxError, StoppedError
from prompt_jax.units import parse_bytes

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel
    from prompt_jax.recipes import ExperimentConfig, RunResult
    from prompt_jax.training.tracking import TrackingConfig

Distributed = Annotated[str, typer.Option(help="One of several processes? auto, on or off.")]
CoordinatorAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", envvar="JAX_COORDINATOR_ADDRESS", help="Where process 0 listens."
    ),
]
Processes = Annotated[
    int | None, typer.Option(envvar="JAX_NUM_PROCESSES", help="How many processes there are.")
]
Process = Annotated[
    int | None, typer.Option(envvar="JAX_PROCESS_ID", help="Number of this one, from 0.")
]

_VALUE = 40  # characters of a value in the list of keys; --json prints all


def run(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A Python file (or FILE.py:VARIANT), a packaged config (quickstart, few_shot,"
            " glue_superglue), a JSON or YAML table, or a run directory.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[a.b=value]...", help="What to change in it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and stop.")
    ] = False,
    device_memory: Annotated[
        str,
        typer.Option(
            metavar="80GB", help="With --dry-run: plan for devices with this much memory."
        ),
    ] = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="Print every key with its type and value, and stop.")
    ] = False,
    plugin: common.Plugin = None,
    mesh: Annotated[
        str | None,
        typer.Option(metavar="data=4,model=2", help="Split rows and weights over devices."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into the run directory.")
    ] = False,
    wandb: Annotated[
        str, typer.Option(metavar="PROJECT", help="Log to a project of Weights & Biases, too.")
    ] = "",
    profile: Annotated[
        str, typer.Option(metavar="START:STOP", help="Trace these steps with JAX's profiler.")
    ] = "",
    log_seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Time between two lines of progress in a log; 0: none."
        ),
    ] = 30.0,
    distributed: Distributed = "auto",
    coordinator: CoordinatorAddress = None,
    processes: Processes = None,
    process: Process = None,
    as_json: common.AsJson = False,
) -> None:
    """Plan an experiment, execute it, and write its run directory.

    CONFIG defines get_config(); what follows are its arguments, and overrides as dotted paths:
    data.root=DIR target.steps=2000 targets=glue/rte,mr. --keys lists all of them.
    """
    from prompt_jax import distributed as jobs
    from prompt_jax.training.tracking import TrackingConfig

    loading.load_plugins(plugin)
    observe = TrackingConfig(tensorboard, wandb, profile, log_seconds)
    changes = [*(overrides or []), *([] if mesh is None else [f"mesh={mesh}"])]
    if keys:
        return _keys(config, changes, as_json)
    loaded = loading.load_experiment(config, changes)
    if device_memory:
        if not dry_run:
            raise ConfigError("--device-memory is of plans: add --dry-run, or leave it out.")
        return execute(loaded, True, as_json, device_memory=parse_bytes(device_memory))
    if dry_run or not jobs.initialize(distributed, coordinator, processes, process):
        return execute(loaded, dry_run, as_json, observe)
    with exit_with_one_message():
        return execute(loaded, dry_run, as_json, observe)


def execute(
    loaded: ExperimentConfig,
    dry_run: bool,
    as_json: bool,
    observe: TrackingConfig | None = None,
    lm: LanguageModel | None = None,
    finish: Callable[[common.Printer, RunResult, ExperimentConfig], None] | None = None,
    device_memory: int = 0,
) -> None:
    """Plans an experiment, executes it and prints what was found.

    Args:
      loaded: the experiment.
      dry_run: only the plan.
      as_json: JSON instead of tables.
      observe: who else listens.
      lm: its model; None: it is loaded, or for a dry run its shapes where they are known.
      finish: prints how to go on; None: "Try next".
      device_memory: bytes of each device that a dry run is for; 0: those at hand.

    Raises:
      PromptJaxError: as `recipes.experiment.run`.
    """
    from prompt_jax import distributed as jobs
    from prompt_jax import locks
    from prompt_jax.cli import show
    from prompt_jax.config import to_dict
    from prompt_jax.paths import is_url
    from prompt_jax.recipes import experiment, make_plan
    from prompt_jax.recipes.config import with_dtype
    from prompt_jax.recipes.resources import cache_folder
    from prompt_jax.rundir.paths import check_folder, run_folder

    asked, loaded = loaded, with_dtype(loaded, lm)
    if not is_url(loaded.out) and jobs.is_main():
        folder = run_folder(loaded.out, loaded.name)
        check_folder(folder, to_dict(loaded))
        if not dry_run:
            locks.check_free(folder / locks.NAME, folder)
    if lm is None and dry_run:
        lm = _shapes(loaded)
    if lm is None:
        lm = loading.load_model(loaded.model, loaded.dtype, remat=loaded.remat)
    if not dry_run and not jobs.is_main():
        experiment.run(loaded, lm, show=False, say=lambda line: None)
        return None
    cache = cache_folder(loaded)
    plan = make_plan(asked, lm, None if dry_run else cache, cache, device_memory)
    if dry_run and as_json:
        return common.emit(plan.to_dict())
    if not as_json:
        out = common.Printer()
        show.plan(out, plan, loaded, loaded.out or str(run_folder("", loaded.name)))
        if dry_run:
            return None
        out.print()
    say = functools.partial(_say, err=as_json)
    try:
        result = experiment.run(loaded, lm, say=say, observe=observe)
    except KeyboardInterrupt:  # between the steps of a stage, or pressed twice
        raise StoppedError(
            "interrupted. Finished stages and the checkpoints so far are kept: run the same command"
            " again to resume.",
            interrupted=True,
        ) from None
    if as_json:
        return common.emit(_summary(result))
    return show.result(out, result, loaded, finish)


def config_keys() -> list[str]:
    """The keys of every experiment."""
    from prompt_jax.config import keys
    from prompt_jax.recipes import ExperimentConfig

    return keys(ExperimentConfig(targets=("-",), methods=("prompt_tuning",)))


def _keys(config: str, changes: list[str], as_json: bool) -> None:
    """Every option of a config: what it may be, what it is, and what it means."""
    from prompt_jax.config import config_arguments, describe

    found = [*config_arguments(config), *describe(loading.load_config(config, changes))]
    if as_json:
        return common.emit([key._asdict() for key in found])
    shown = common.table("key", "type", "value", "meaning", left=4)
    for key in found:
        value = key.value if len(key.value) <= _VALUE else f"{key.value[: _VALUE - 1]}\u2026"
        shown.add_row(*key._replace(value=value))
    return common.Printer().print(shown)


@contextmanager
def exit_with_one_message(lost: str = "") -> Iterator[None]:
    """Ends this process of a job with one message, without waiting for the others.

    Args:
      lost: what to say where another process was lost; "": that checkpoints are kept.
    """
    from prompt_jax import distributed as jobs

    # Native code (gloo) prints on file descriptor 1, where `--json` promises JSON alone.
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
    os.dup2(2, 1)
    try:
        yield
    except PromptJaxError as error:
        if jobs.is_reported(error):
            if jobs.is_main():
                common.warn(str(error))
            jobs.barrier("end")  # so that nobody takes the others for lost
        else:
            common.warn(f"process {jobs.process_index()}: {error}")
        jobs.hard_exit(130 if getattr(error, "interrupted", False) else 2)
    except BaseException as error:
        if jobs.is_peer_failure(error):
            common.warn(lost or jobs.PEER_LOST)
            jobs.hard_exit(2)
        if isinstance(error, KeyboardInterrupt):
            jobs.hard_exit(130)
        traceback.print_exception(error)
        jobs.hard_exit(1)


def _say(line: str, err: bool) -> None:
    """One line per finished stage, where no progress lines are drawn."""
    if not sys.stderr.isatty():
        typer.echo(line, err=err)


def _shapes(config: ExperimentConfig) -> LanguageModel | None:
    """The model's shapes alone where its name is a published one's and no directory holds it."""
    from prompt_jax import models

    if not models.has_known_shape(config.model) or Path(config.model).exists():
        return None
    return models.abstract(config.model, config.dtype, remat=config.remat)


def _summary(result: RunResult) -> dict[str, Any]:
    """What `--json` prints after a run."""
    from prompt_jax.rundir import views
    from prompt_jax.training import speed

    return {
        **views.to_dict(result.findings),
        "reused": [
            {"stage": stage, "reused": found, "runs": runs} for stage, found, runs in result.reused
        ],
        "speed": [stage._asdict() for stage in speed.read(result.folder)],
        "prompts": [str(path) for path in result.prompts],
    }
