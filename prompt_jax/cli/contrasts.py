"""`prompt-jax contrasts`: tests the contrasts that an experiment declared."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from prompt_jax.cli import common, loading


def contrasts(
    directories: common.Runs,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG",
            help="Take the questions of this config ('FILE.py:VARIANT suite=SUITE'), not those in"
            " config.json of the first DIR.",
        ),
    ] = None,
    answerable: Annotated[
        bool,
        typer.Option(
            "--answerable",
            help="Leave secondary questions out of the family whose methods no DIR has.",
        ),
    ] = False,
    form: common.Format = "md",
) -> None:
    """Test the declared questions of an experiment on its results.

    The first DIR is the experiment's; more are searched for methods and seeds that it does
    not have.
    """
    from prompt_jax.rundir import archive, questions, tables
    from prompt_jax.rundir.contrasts import answer

    runs = archive.read(directories)
    if config is None:
        asked, groups = questions.declared(runs[0].config)
    else:
        address, *assignments = shlex.split(config)
        loaded = loading.load_experiment(address, assignments)
        asked, groups = loaded.questions, loaded.target_groups
    answers = answer(runs, asked, groups, partly=answerable)
    for number, table in enumerate(answers.tables):
        if form == "md":
            typer.echo(("\n" if number else "") + f"{table.title}.")
            typer.echo(f"{table.note}\n" if table.note else "")
        elif number:
            typer.echo()
        typer.echo(tables.render(table, form), nl=False)
    for question in answers.not_run:
        common.warn(f"not run and not in the family: {question.a} - {question.b}")
