"""Shared parts of the commands: printing, formatting, and loading of prompts and models."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prompt_jax.errors import ConfigError, PromptError, did_you_mean
from prompt_jax.units import format_bytes as format_bytes
from prompt_jax.units import format_count as format_count
from prompt_jax.units import format_flops as format_flops

if TYPE_CHECKING:
    from prompt_jax.data import TokenisedSplit
    from prompt_jax.methods.trained import TrainedMethod
    from prompt_jax.models import LanguageModel
    from prompt_jax.prompts import SoftPrompt
    from prompt_jax.recipes import ExperimentConfig
    from prompt_jax.rundir.findings import Findings

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
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
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


def load_plugins(addresses: Sequence[str] | None) -> None:
    """Registers the methods of modules or Python files.

    Raises:
      ConfigError: as `prompt_jax.methods.load_plugin`.
    """
    if addresses:
        from prompt_jax.methods import load_plugin

        for address in addresses:
            load_plugin(address)


def load_config(config: str, overrides: Sequence[str] | None) -> ExperimentConfig:
    """Loads the experiment of a config file or packaged config.

    Args:
      config: as in `prompt_jax.config.load_config`, optionally with a variant (`FILE.py:NAME`).
      overrides: arguments of its `get_config`, and overrides of the experiment.

    Raises:
      ConfigError: no config, or not one of an experiment.
    """
    from prompt_jax.config import load_config as load
    from prompt_jax.recipes import ExperimentConfig

    loaded = load(config, overrides or [], kind=ExperimentConfig)
    if not isinstance(loaded, ExperimentConfig):
        raise ConfigError(
            f"get_config() of {config} returns a {type(loaded).__name__}, not an ExperimentConfig."
        )
    return loaded


def load_experiment(config: str, overrides: Sequence[str] | None) -> ExperimentConfig:
    """`load_config`, with checks of the experiment's tasks.

    Raises:
      ConfigError: no config, or not one of an experiment.
      DataError: an unknown or forbidden task.
    """
    loaded = load_config(config, overrides)
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
    """The shortest distinct endings of the paths, without suffix.

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
    for number, own in enumerate(parts):
        others = [other for i, other in enumerate(parts) if i != number]
        length = next(
            (n for n in range(1, len(own)) if all(o[-n:] != own[-n:] for o in others)), len(own)
        )
        names.append("/".join(own[-length:]))
    return names


def open_prompt(path: str, key: str | None = None) -> SoftPrompt:
    """Reads a prompt from a safetensors file, a PEFT adapter folder, `.npy` or `.npz`.

    Args:
      path: file or folder.
      key: name of the array of a `.npz`, or number of the task of a multitask adapter.

    Raises:
      PromptError: missing, damaged or of an unknown format.
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
            raise PromptError(f"{path} has numbered tasks: --key must be a number, not '{key}'.")
        return prompts.from_peft(path, task=None if key is None else int(key))
    if key is not None:
        raise PromptError(f"{path} contains a single prompt: omit --key.")
    return prompts.from_npy(path) if suffix == ".npy" else prompts.SoftPrompt.load(path)


def check_prompt_files(paths: Sequence[str]) -> None:
    """Checks that the files are there, before anything is read or loaded.

    Raises:
      PromptError: one is missing.
    """
    for path in paths:
        if not Path(path).exists():
            raise PromptError(f"there is no file {path}.")


class NamedPrompt(NamedTuple):
    """A prompt and its name in the output."""

    name: str
    path: str
    prompt: Any  # SoftPrompt; or TrainedMethod, where the command takes them


def load_prompts(
    paths: Sequence[str], lm: LanguageModel, allow_other_model: bool, *, methods: bool = False
) -> list[NamedPrompt]:
    """Loads prompts of a model, with a warning for those without a hash of the model's weights.

    Args:
      paths: files and folders.
      lm: the model.
      allow_other_model: check widths only.
      methods: whether files of trained row-wise methods are taken as well.

    Raises:
      PromptError: unreadable, or trained with another model.
    """
    from prompt_jax.prompts import check_model

    loaded = []
    for name, path in zip(short_names(paths), paths, strict=True):
        method = _load_method(path, lm, allow_other_model) if methods else None
        if method is not None:
            loaded.append(NamedPrompt(name, path, method))
            continue
        prompt = open_prompt(path)
        record = prompt.record
        no_hash = record is None or record.model_hash is None
        if no_hash and not allow_other_model:
            recorded = f" (model name: {record.model_name})" if record and record.model_name else ""
            warn(f"{path} has no hash of its model's weights{recorded}; assumed: {lm.name}.")
        if record is not None:
            check_model(record, lm, path, prompt.d_model, no_hash or allow_other_model)
        elif prompt.d_model != lm.d_model:
            raise PromptError(
                f"{path} has width {prompt.d_model}, but {lm.name} has d_model {lm.d_model}."
            )
        loaded.append(NamedPrompt(name, path, prompt))
    return loaded


def _load_method(path: str, lm: LanguageModel, allow_other_model: bool) -> TrainedMethod | None:
    """The trained method of a file; None where it holds something else or is damaged."""
    from prompt_jax.methods import trained

    if Path(path).suffix != ".safetensors" or trained.read_record(path) is None:
        return None
    return trained.load(path, model=lm, allow_other_model=allow_other_model)


def record_value(prompt: SoftPrompt | TrainedMethod, name: str, default: Any) -> Any:
    """A setting of a prompt's training from its record, or the default."""
    config = {} if prompt.record is None else prompt.record.config
    return config.get(name, default)


def warn_about_answers(splits: Sequence[TokenisedSplit], ties: int) -> None:
    """Warns about answers that were truncated and about candidates that cannot be told apart.

    Args:
      splits: the rows of each prompt.
      ties: rows whose best score several candidates share.
    """
    counts = [split.truncated_answers for split in splits]
    if any(counts):
        worst = splits[counts.index(max(counts))]
        longest = max(worst.answers.lengths.max(initial=0), worst.targets.lengths.max(initial=0))
        warn(
            f"the answers of {max(counts):,} rows were longer than {longest} tokens and were"
            " truncated; raise --max-target-tokens."
        )
    if ties:
        warn(
            f"{ties:,} rows have several candidates with the best score; each counts as 1 / their"
            " number."
        )
