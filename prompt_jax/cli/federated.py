"""`prompt-jax federated`: sites that keep their rows and exchange prompt-sized vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prompt_jax.cli import common, loading, run, show

if TYPE_CHECKING:
    from prompt_jax.recipes import ExperimentConfig
    from prompt_jax.recipes.federation import Federation

_COORDINATOR_LOST = "process 0, the coordinator, was lost: start all processes again."


def federated(
    config: common.ConfigFile,
    overrides: common.Overrides = None,
    every: Annotated[int, typer.Option(min=1, help="Steps between two exchanges: a round.")] = 20,
    pull: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="How far a site moves to its shared vector; 0: each trains alone."
        ),
    ] = 0.5,
    radius: Annotated[
        float,
        typer.Option(help="Of the nuclear-norm ball, as a fraction of the sum of the norms."),
    ] = 0.7,
    directions: Annotated[
        int, typer.Option(min=1, help="Frank-Wolfe steps after each round, a direction each.")
    ] = 1,
    lose: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE:3-5", help="A site that is away in these rounds; repeatable."),
    ] = None,
    delay: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE:2", help="A site whose vectors are late; repeatable."),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long a site of another process is waited for."
        ),
    ] = 60.0,
    distributed: run.Distributed = "auto",
    coordinator: run.CoordinatorAddress = None,
    processes: run.Processes = None,
    process: run.Process = None,
    as_json: common.AsJson = False,
) -> None:
    """Train the targets of an experiment as federated sites.

    Each target is a site. It trains a prompt on its own rows, and every so many steps sends its
    task vector and receives one: its row of a low-rank matrix of all. With several processes (as of
    run) each holds the rows of its own sites; the loss of one, other than process 0, ends no other.
    Writes federated.json, federated.md and the prompts into the run directory.
    """
    from prompt_jax import distributed as jobs
    from prompt_jax.recipes import federated as recipe
    from prompt_jax.recipes.federation import Federation, parse_absence, parse_delay

    options = Federation(
        every,
        pull,
        radius,
        directions,
        tuple(map(parse_absence, lose or ())),
        tuple(map(parse_delay, delay or ())),
        patience,
    )
    loaded = loading.load_experiment(config, overrides)
    recipe.check(loaded, options)
    if not jobs.initialize(distributed, coordinator, processes, process, survive=True):
        return _execute(loaded, options, as_json)
    with run.exit_with_one_message(_COORDINATOR_LOST):
        _execute(loaded, options, as_json)
        # Some processes may be gone: nobody waits for a common end.
        jobs.hard_exit(0)
    return None


def _execute(config: ExperimentConfig, options: Federation, as_json: bool) -> None:
    from prompt_jax.recipes import federated as recipe
    from prompt_jax.recipes.config import with_dtype

    lm = loading.load_model(config.model, config.dtype, remat=config.remat)
    report = recipe.federated(with_dtype(config, lm), lm, options, say=common.progress)
    if report is None:
        return None
    if as_json:
        return common.emit(report.to_dict())
    out = common.Printer()
    out.print(common.heading(f"{report.name}: federated sites"))
    show.table(out, report.table())
    for line in report.lost():
        out.print(f"lost: {line}")
    out.print()
    files = [
        (str(report.markdown_path), "this table"),
        (str(report.json_path), "every round and site"),
        (str(report.folder / "prompts"), "the prompts, one for each site"),
    ]
    return show.outputs(out, files)
