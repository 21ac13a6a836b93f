"""What the commands share: printing, numbers for people, prompts and models from paths."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prompt_jax.errors import ConfigError, PromptError, did_you_mean
from prompt_jax.units import format_bytes as format_bytes
from prompt_jax.units import format_count as format_count
from prompt_jax.units import format_flops as format_flops

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel
    from prompt_jax.prompts import SoftPrompt
    from prompt_jax.recipes import ExperimentConfig
    from prompt_jax.rundir.findings import Findings

# A redirected table is as wide as it needs to be: a file has no right margin.
_FILE_WIDTH = 10_000
_WORD = 28  # longer words may be cut into lines

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory or hub id of a language model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Root = Annotated[
    str | None, typer.Option("--root", help="Folder with one folder of data per task.")
]
OtherModel = Annotated[
    bool,
    typer.Option("--allow-other-model", help="Take prompts made for other weights of that width."),
]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
MaxInput = Annotated[
    int | None, typer.Option(help="Cut longer inputs; default: as the prompt was trained.")
]
Runs = Annotated[
    list[str],
    typer.Argument(metavar="DIR...", help="Run directories, or archives of some (NAME.tar.gz)."),
]
Format = Annotated[str, typer.Option("--format", help="md, csv or latex.")]


class Printer:
    """Prints to stdout what rich can render: literal text, as wide as the terminal.

    A file has no right margin: there, nothing is wrapped, and lines end where their text ends.
    """

    def __init__(self) -> None:
        from rich.console import Console

        plain: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
        self._console = Console(**plain)
        self._to_file = not self._console.is_terminal
        if self._to_file:
            self._console = Console(width=_FILE_WIDTH, **plain)

    def print(self, *parts: Any, wrap: bool = True) -> None:
        """Prints parts in one line each; without any, an empty line."""
        for part in parts:
            _keep_words(part)
        if not self._to_file:
            return self._console.print(*parts, soft_wrap=not wrap)
        with self._console.capture() as caught:
            self._console.print(*parts)
        for line in caught.get().splitlines():
            typer.echo(line.rstrip())
        return None


def _keep_words(part: Any) -> None:
    """On a narrow screen only columns of several words wrap; names and numbers stay whole."""
    for column in getattr(part, "columns", ()):
        cells = [cell.strip() for cell in column.cells if isinstance(cell, str)]
        if all(" " not in cell and len(cell) <= _WORD for cell in cells):
            column.no_wrap = True


def heading(text: str) -> Any:
    """A line in bold."""
    from rich.text import Text

    return Text(text, style="bold")


def table(*columns: str, left: int = 1) -> Any:
    """A light table; the first `left` columns are texts, the others numbers."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_edge=False,
        header_style="bold",
    )
    for number, name in enumerate(columns):
        text = number < left
        made.add_column(
            name, justify="left" if text else "right", overflow="fold", no_wrap=not text
        )
    return made


def facts(pairs: Sequence[tuple[str, str]]) -> Any:
    """Names and values in two columns, without lines."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, value)
    return made


def emit(data: Any) -> None:
    """Prints JSON; what is not finite becomes null."""
    typer.echo(json.dumps(_plain(data), indent=2, ensure_ascii=False))


def warn(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"prompt-jax: {message}", err=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def check_choice(value: str, known: Sequence[str], option: str) -> str:
    """Checks the value of an option.

    Raises:
      ConfigError: when it is none of `known`.
    """
    if value not in known:
        raise ConfigError(
            f"{option} must be one of {', '.join(known)}, not '{value}'."
            + did_you_mean(value, known)
        )
    return value


def program() -> str:
    """This program in a command to copy: by name where the shell finds it, else as it was called.

    `make quickstart` calls the one inside an environment that is not active.
    """
    called, found = Path(sys.argv[0]), shutil.which("prompt-jax")
    if called.name == "prompt-jax" and (not found or Path(found).resolve() != called.resolve()):
        return shlex.quote(sys.argv[0])
    return "prompt-jax"


def load_experiment(config: str, overrides: Sequence[str] | None) -> ExperimentConfig:
    """The experiment of a config file or packaged config, its tasks checked.

    Args:
      config: as `prompt_jax.config.load_config` takes it, perhaps with a variant (`FILE.py:NAME`).
      overrides: arguments of its `get_config`, and overrides of the experiment.

    Raises:
      ConfigError: the config is none, or of something else.
      DataError: an unknown or forbidden task.
    """
    from prompt_jax.config import load_config
    from prompt_jax.recipes import ExperimentConfig

    loaded = load_config(config, overrides or [])
    if not isinstance(loaded, ExperimentConfig):
        raise ConfigError(
            f"get_config() of {config} returns a {type(loaded).__name__}, not an ExperimentConfig."
        )
    loaded.check_tasks()
    return loaded


def load_model(name: str, dtype: str = "float32", *, remat: bool = False) -> LanguageModel:
    """`prompt_jax.models.load`."""
    from prompt_jax import models

    return models.load(name, dtype, remat=remat)


def load_findings(directories: Sequence[str]) -> Findings:
    """The findings of a run directory or archive, or of several of one protocol.

    Raises:
      DataError: one of them is none, or their protocols differ.
    """
    from prompt_jax.rundir import archive, findings
    from prompt_jax.rundir.join import join

    return findings.find(join(archive.read(directories)))


def short_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths, without suffix, that tell them apart.

    >>> short_names(["runs/a/rte.safetensors", "runs/b/rte.safetensors", "wic.npy"])
    ['a/rte', 'b/rte', 'wic']

    Raises:
      ConfigError: for a path that is given twice.
    """
    parts = []
    for path in paths:
        if list(paths).count(path) > 1:
            raise ConfigError(f"{path} is given more than once.")
        path = path.rstrip("/")
        suffix = Path(path).suffix
        stem = path.removesuffix(suffix) if suffix in (".safetensors", ".npy", ".npz") else path
        parts.append(stem.split("/"))
    names = []
    for number, mine in enumerate(parts):
        others = [other for i, other in enumerate(parts) if i != number]
        length = next(
            (n for n in range(1, len(mine)) if all(o[-n:] != mine[-n:] for o in others)), len(mine)
        )
        names.append("/".join(mine[-length:]))
    return names


def open_prompt(path: str, key: str | None = None) -> SoftPrompt:
    """Reads a prompt from a safetensors file, a PEFT adapter folder, `.npy` or `.npz`.

    Args:
      path: file or folder.
      key: name of the array of a `.npz`, or number of the task of a multitask adapter.

    Raises:
      PromptError: missing, damaged or foreign.
    """
    from prompt_jax import prompts

    suffix = Path(path).suffix
    if suffix == ".npz":
        try:
            return prompts.from_npz(path, key or "")
        except PromptError as error:
            raise PromptError(f"{error} Choose one with --key.") if key is None else error from None
    if Path(path).is_dir():
        if key is not None and not key.isdigit():
            raise PromptError(f"{path} numbers its tasks: --key must be a number, not '{key}'.")
        return prompts.from_peft(path, task=None if key is None else int(key))
    if key is not None:
        raise PromptError(f"{path} holds a single prompt: leave --key out.")
    return prompts.from_npy(path) if suffix == ".npy" else prompts.SoftPrompt.load(path)


class NamedPrompt(NamedTuple):
    """A prompt and what the output calls it."""

    name: str
    path: str
    prompt: SoftPrompt


def load_prompts(paths: Sequence[str], lm: Any, allow_other_model: bool) -> list[NamedPrompt]:
    """Prompts that belong to a model; formats that do not name their weights give a warning.

    Raises:
      PromptError: unreadable, or made for another model.
    """
    from prompt_jax.prompts import check_model

    loaded = []
    for name, path in zip(short_names(paths), paths, strict=True):
        prompt = open_prompt(path)
        record = prompt.record
        foreign = record is None or record.model_hash is None
        if foreign and not allow_other_model:
            made = f" (it names {record.model_name})" if record and record.model_name else ""
            warn(f"{path} does not say which weights it was made for{made}; taken for {lm.name}.")
        if record is not None:
            check_model(record, lm, path, prompt.d_model, foreign or allow_other_model)
        elif prompt.d_model != lm.d_model:
            raise PromptError(
                f"{path} has width {prompt.d_model}, but {lm.name} has d_model {lm.d_model}."
            )
        loaded.append(NamedPrompt(name, path, prompt))
    return loaded


def group_by_length(loaded: Sequence[NamedPrompt]) -> list[tuple[list[int], Any]]:
    """Prompts of one length as one population: (their numbers, embeddings [P, L, D])."""
    import numpy as np

    groups: dict[int, list[int]] = {}
    for number, named in enumerate(loaded):
        groups.setdefault(named.prompt.length, []).append(number)
    return [
        (numbers, np.stack([np.asarray(loaded[i].prompt.embeddings) for i in numbers]))
        for numbers in groups.values()
    ]


def record_value(prompt: SoftPrompt, name: str, default: Any) -> Any:
    """What the record of a prompt says about how it was trained, or the default."""
    config = {} if prompt.record is None else prompt.record.config
    return config.get(name, default)
