"""Shared parts of the commands: options, printing and formatting."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from prompt_jax.errors import ConfigError, did_you_mean
from prompt_jax.units import format_bytes as format_bytes
from prompt_jax.units import format_count as format_count
from prompt_jax.units import format_flops as format_flops

# Output to a file is not wrapped.
_FILE_WIDTH = 10_000
_MAX_WORD = 28  # longer words may be wrapped

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory or hub id of a language model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Root = Annotated[
    str | None, typer.Option("--root", help="Folder with one folder of data per task.")
]
OtherModel = Annotated[
    bool,
    typer.Option(
        "--allow-other-model", help="Accept prompts of a model with other weights of that width."
    ),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, or auto: the faster one here.")]
MaxInput = Annotated[
    int | None, typer.Option(help="Truncate longer inputs; default: as the prompt was trained.")
]
MaxTarget = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Truncate longer answers; default: as in the prompt's training if it is for this task,"
        " else not those that are ranked.",
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Column of the text (twice for a pair); default: guessed."),
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the answer; default: guessed.")
]
AnswerKind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="classification, text (answers are generated) or regression; default: guessed.",
    ),
]
Holdout = Annotated[
    float, typer.Option(min=0.01, max=0.9, help="Fraction of the rows that are test rows.")
]
ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A Python file, or a packaged config, as of run.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=value]...", help="What to change in it.")
]
Base = Annotated[
    str | None,
    typer.Option(help="Method whose first stage is merged; default: the first with one, or dtvg."),
]
Tuned = Annotated[
    bool,
    typer.Option("--tuned", help="Tune every merged prompt with the target's budget first."),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="A module or Python file with methods of your own; repeatable.",
    ),
]
Runs = Annotated[
    list[str],
    typer.Argument(metavar="DIR...", help="Run directories, or archives of some (NAME.tar.gz)."),
]
Format = Annotated[str, typer.Option("--format", help="md, csv or latex.")]


def progress(line: str) -> None:
    """Says what a recipe does, on stderr: its tables alone are the output."""
    typer.echo(line, err=True)


class Printer:
    """Prints rich renderables and literal text to stdout, as wide as the terminal.

    Output to a file is not wrapped and has no trailing spaces.
    """

    def __init__(self) -> None:
        from rich.console import Console

        plain: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
        self._console = Console(**plain)
        self._to_file = not self._console.is_terminal
        if self._to_file:
            self._console = Console(width=_FILE_WIDTH, **plain)

    def print(self, *parts: Any, wrap: bool = True) -> None:
        """Prints each part on its own line, or an empty line without parts."""
        for part in parts:
            _disable_wrapping_of_words(part)
        if not self._to_file:
            return self._console.print(*parts, soft_wrap=not wrap)
        with self._console.capture() as caught:
            self._console.print(*parts)
        for line in caught.get().splitlines():
            typer.echo(line.rstrip())
        return None


def _disable_wrapping_of_words(part: Any) -> None:
    """On a narrow terminal only columns of several words wrap, not names and numbers."""
    for column in getattr(part, "columns", ()):
        cells = [cell.strip() for cell in column.cells if isinstance(cell, str)]
        if all(" " not in cell and len(cell) <= _MAX_WORD for cell in cells):
            column.no_wrap = True


def heading(text: str) -> Any:
    """A line in bold."""
    from rich.text import Text

    return Text(text, style="bold")


def table(*columns: str, left: int = 1) -> Any:
    """A table without borders; the first `left` columns are text, the others numbers."""
    from rich import box
    from rich.table import Table

    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_edge=False,
        header_style="bold",
    )
    for number, name in enumerate(columns):
        is_text = number < left
        result.add_column(
            name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    return result


def facts(pairs: Sequence[tuple[str, str]]) -> Any:
    """Names and values in two columns, without borders."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def emit(data: Any) -> None:
    """Prints JSON; numbers that are not finite become null."""
    typer.echo(json_text(data, indent=2))


def json_text(data: Any, indent: int | None = None) -> str:
    """JSON for stdout: of ASCII alone where the stream cannot show every character.

    Numbers that are not finite become null.
    """
    return json.dumps(_to_json(data), indent=indent, ensure_ascii=not _is_unicode(sys.stdout))


def prints(texts: Iterable[str]) -> bool:
    """Whether stdout can show all of these texts."""
    if _is_unicode(sys.stdout):
        return True
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        for text in texts:
            text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _is_unicode(stream: Any) -> bool:
    name = (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "")
    return name in ("utf8", "utf8sig")


def warn(message: str) -> None:
    """Prints a one-line warning on stderr."""
    typer.echo(f"prompt-jax: {message}", err=True)


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def check_choice(value: str, known: Sequence[str], option: str) -> str:
    """Checks the value of an option.

    Raises:
      ConfigError: when it is not one of `known`.
    """
    if value not in known:
        raise ConfigError(
            f"{option} must be one of {', '.join(known)}, not '{value}'."
            + did_you_mean(value, known)
        )
    return value


def program() -> str:
    """This program for printed commands: its name if it is on the PATH, else the path as called.

    `make quickstart` calls it from an environment that is not active.
    """
    called, on_path = Path(sys.argv[0]), shutil.which("prompt-jax")
    if called.name == "prompt-jax" and (not on_path or Path(on_path).resolve() != called.resolve()):
        return shlex.quote(sys.argv[0])
    return "prompt-jax"
