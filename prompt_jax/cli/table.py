"""`prompt-jax table`: a table of one or several run directories, to paste."""

from __future__ import annotations

from typing import Annotated

import typer

from prompt_jax.cli import common, loading


def table(
    directories: common.Runs,
    form: common.Format = "md",
    what: Annotated[
        str,
        typer.Option(metavar="NAME", help="results, contrasts, best, costs or rows."),
    ] = "results",
) -> None:
    """Print a table of runs of one protocol as Markdown, CSV or LaTeX.

    The results hold every target and the macro average over targets.
    """
    from prompt_jax.rundir import tables, views

    findings = loading.load_findings(directories)
    shown = views.tables(findings)
    if what not in shown:
        raise typer.BadParameter(f"there is no table {what}, but {', '.join(shown)}.")
    typer.echo(tables.render(shown[what], form), nl=False)
