"""`prompt-jax archive`: packs what results were computed from."""

from __future__ import annotations

from typing import Annotated

import typer


def archive(
    directories: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="Finished run directories.")
    ],
    into: Annotated[str, typer.Option(metavar="FOLDER", help="Where the archives go.")] = ".",
) -> None:
    """Pack run directories: config, results and the score of every test row, as NAME.tar.gz.

    Prompts, logs and local paths are left out. `table`, `contrasts` and `report` read
    archives like directories.
    """
    from prompt_jax.rundir import archive as archives

    for directory in directories:
        path = archives.pack(directory, into)
        typer.echo(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
