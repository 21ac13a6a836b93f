"""`prompt-jax archive`: packs what results were computed from."""

from __future__ import annotations

from typing import Annotated

import typer

from prompt_jax.cli import common


def archive(
    directories: common.Runs,
    into: Annotated[str, typer.Option(metavar="FOLDER", help="Where the archives go.")] = ".",
) -> None:
    """Pack run directories: config, results and the score of every test row, as NAME.tar.gz.

    Prompts, logs and folders of this machine are left out. `table`, `contrasts` and `report` read
    archives like directories.
    """
    from prompt_jax.rundir import archive as archives

    for directory in directories:
        path = archives.pack(directory, into)
        typer.echo(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
