"""`prompt-jax report`: writes the page of one run directory, or of several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prompt_jax.cli import common, loading


def report(
    directories: common.Runs,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where to write; default: report.html in DIR, comparison.html in the first of"
            " several, NAME.html here for an archive.",
        ),
    ] = None,
) -> None:
    """Write the page of a run directory, or of several of one protocol side by side.

    It is made from the files there alone. Runs whose protocols differ are refused, with what
    differs; of a method that several have, the first one's results are shown.
    """
    from prompt_jax.report import page

    findings = loading.load_findings(directories)
    path = Path(out) if out else page.default_path(directories)
    typer.echo(str(page.write(findings, path)))
