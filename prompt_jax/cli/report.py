"""`prompt-jax report`: writes the page of a run directory again."""

from __future__ import annotations

from typing import Annotated

import typer


def report(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A run directory, as `run` leaves it.")
    ],
) -> None:
    """Write report.html in a run directory again, from the files there alone."""
    from prompt_jax.report import write

    typer.echo(str(write(directory)))
