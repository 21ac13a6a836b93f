"""A prompt for a user's table: read, split, tuned over several learning rates, and tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.config import override
from prompt_jax.data import registry
from prompt_jax.data.digits import answered
from prompt_jax.data.files import data_name, is_rows_file, read_rows
from prompt_jax.data.frames import as_jsonl, frame_rows
from prompt_jax.data.guess import Guess, guess
from prompt_jax.data.label_words import label_words
from prompt_jax.data.sources import Source, Subset, open_split
from prompt_jax.data.splits import Limits, load_splits
from prompt_jax.data.task_file import task_name, task_text
from prompt_jax.data.tokenise import task_for, tokenise_rows
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.models import LanguageModel, load
from prompt_jax.paths import is_url, write_atomically
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes import experiment
from prompt_jax.recipes.config import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.recipes.outputs import HasFindings
from prompt_jax.rundir.findings import Findings
from prompt_jax.rundir.paths import CONFIG, TASK, check_folder, run_folder
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig

METHOD = "prompt_tuning(rates=[1,0.3,3])"
_RATE, _BATCH, _EPOCHS = 0.3, 16, 20
_STEPS = (200, 1000)  # at least, at most
_MEASURED = 2000  # rows whose lengths set the limits
_OPTIONS = {
    "model": "--model (model=)",
    "targets": "FILE (data)",
    "out": "--out (out=)",
    "name": "--name (name=)",
    "first_seed": "--seed (seed=)",
}
_SHOWN = 12  # labels
_INPUT, _TARGET = (32, 256), (4, 128)


@dataclass(frozen=True, eq=False)
class OwnTable:
    """A table, how it is read, and what it is called.

    Attributes:
      guess: what its columns mean.
      name: of the task and the run.
      file: name of the data file beside the task file.
      content: of the data file.
    """

    guess: Guess
    name: str
    file: str
    content: bytes


@dataclass(frozen=True, eq=False, repr=False)
class Tuned(HasFindings):
    """A tuned prompt.

    Attributes:
      config: the experiment that was run.
      findings: its numbers.
      prompt: with a record of the model and the task.
      file: path of the prompt.
    """

    config: ExperimentConfig
    findings: Findings
    prompt: SoftPrompt
    file: Path

    def __repr__(self) -> str:
        return f"Tuned({self.file})"


def read_table(
    data: Any,
    *,
    text: Sequence[str] = (),
    label: str | None = None,
    kind: str | None = None,
    name: str | None = None,
) -> OwnTable:
    """Reads a file or a table in memory, and what its columns mean.

    Args:
      data: path of a .csv, .tsv, .jsonl or .parquet file, or what `frame_rows` takes.
      text: columns of the input; empty: guessed.
      label: column of the answer; None: guessed.
      kind: of the task, as in `prompt_jax.data.guess`; None: guessed.
      name: of the task; None: that of the file.

    Raises:
      DataError: it cannot be read, or could be read in two ways.
    """
    if isinstance(data, str | Path):
        path = Path(data)
        called = _free_name(task_name(name or data_name(path)))
        rows = read_rows(path)
        return OwnTable(
            guess(rows, path.name, text, label, kind), called, path.name, path.read_bytes()
        )
    called = _free_name(task_name(name or "table"))
    memory = frame_rows(data, "the table")
    made = guess(memory, "the table", text, label, kind)
    return OwnTable(made, called, f"{called}.jsonl", as_jsonl(memory))


def write_task(
    table: OwnTable, folder: Path, lm: LanguageModel, *, holdout: float = 0.2, seed: int = 0
) -> Path:
    """Writes a table and its task file into a folder, and nothing where they are there already.

    Args:
      table: from `read_table`.
      folder: of the task; its parent is the run directory.
      lm: whose tokenizer tells the label words apart.
      holdout: fraction of the rows that are test rows.
      seed: of their draw.

    Returns:
      The path of the task file.

    Raises:
      ConfigError: the run directory has a run of other rows or of another reading of them.
    """
    labels = table.guess.labels
    words = label_words(labels, lambda texts: lm.tokenizer.encode(texts, add_eos=False))
    content = task_text(
        table.guess, table.name, table.file, words if labels else (), holdout, seed
    ).encode()
    files = {folder / table.file: table.content, folder / f"{table.name}.toml": content}
    try:
        kept = has_run(folder)
        for path, raw in files.items():
            if kept and (not path.is_file() or path.read_bytes() != raw):
                what = "other rows" if path.suffix != ".toml" else "another reading of the rows"
                raise ConfigError(
                    f"{folder.parent} holds a run of {what} ({path} differs). Choose another"
                    " --name or --out."
                )
        for path, raw in files.items() if not kept else ():
            write_atomically(path, raw)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder} cannot be written: {error.strerror}."
        ) from None
    return folder / f"{table.name}.toml"


def check_overrides(overrides: Sequence[str]) -> ExperimentConfig:
    """Any experiment with these overrides: finds wrong ones before a model is loaded.

    Raises:
      ConfigError: a wrong override, or one of what has an option of its own.
    """
    for assignment in overrides:
        key = assignment.partition("=")[0].strip()
        if key in _OPTIONS:
            raise ConfigError(
                f"override '{assignment}': use {_OPTIONS[key]} instead, which also decides what is"
                " written and loaded."
            )
    return override(ExperimentConfig(targets=("-",), methods=(METHOD,)), overrides)


def tune_config(
    task: str,
    lm: LanguageModel,
    *,
    model: str | None = None,
    name: str = "",
    seed: int = 0,
    out: str = "",
    overrides: Sequence[str] = (),
) -> ExperimentConfig:
    """The experiment that tunes one prompt for a task: three learning rates, all rows, one seed.

    The best rate and step are chosen on development rows. Lengths are those of the task's rows:
    nine out of ten fit, up to a limit.

    Args:
      task: a registered task or the path of a task file.
      lm: the frozen model.
      model: its directory or hub id; None: its name.
      name: of the run; "": that of the task.
      seed: of training, and of the development rows.
      out: the run directory; "": runs/NAME.
      overrides: `a.b=value`, of the experiment.

    Raises:
      PromptJaxError: the task or its data cannot be opened, or an override is wrong.
    """
    known = registry.get(task)
    rows = open_split(known, "train")
    sample = _sample(rows)
    split = tokenise_rows(
        known, sample, tokenizer=lm.tokenizer, max_input=_INPUT[1], max_target=_TARGET[1]
    )
    steps = int(np.clip(_EPOCHS * len(rows) // _BATCH // 50 * 50, *_STEPS))
    optimizer = OptimizerConfig(
        learning_rate=_RATE, warmup_steps=10, schedule="linear", clip_norm=1.0
    )
    config = ExperimentConfig(
        name=name or known.name,
        model=model or lm.name,
        targets=(task,),
        methods=(METHOD,),
        shots=(0,),
        seeds=1,
        first_seed=seed,
        prompt=PromptConfig(tokens=20, init=f"vocab:{min(5000, lm.vocab_size)}"),
        data=DataConfig(
            max_input_tokens=_limit(split.inputs.lengths, 16, _INPUT),
            max_target_tokens=_limit(split.targets.lengths, 4, _TARGET),
        ),
        target=TrainConfig(
            steps=steps, batch_size=_BATCH, optimizer=optimizer, eval_every=max(1, steps // 10)
        ),
        out=out,
    )
    return override(config, overrides)


def describe_split(config: ExperimentConfig, lm: LanguageModel) -> list[str]:
    """Sentences on the training, development and test rows of a run's task, and on its words.

    Args:
      config: from `tune_config`.
      lm: the frozen model.
    """
    data = config.data
    task = answered(task_for(lm.tokenizer, registry.get(config.targets[0])), data.answers)
    limits = Limits(data.train_rows, data.dev_rows, data.test_rows)
    parts = load_splits(task, data.root, data.protocol, config.first_seed, limits)
    lines = [
        f"rows: {len(parts.train):,} to train, {len(parts.dev):,} to choose the learning rate and"
        f" the step, {len(parts.test):,} to test at the end.",
        *(f"rows: {note}." for note in parts.notes),
    ]
    words = list(zip(task.labels, task.words(task.templates[0]), strict=True))
    if words:
        said = ", ".join(f"'{word}' for {label}" for label, word in words[:_SHOWN])
        lines.append(f"label words: the model answers {said}{', ...' if words[_SHOWN:] else ''}.")
    return lines


def tune(
    data: Any,
    *,
    model: str | LanguageModel = "mini",
    text: str | Sequence[str] = (),
    label: str | None = None,
    kind: str | None = None,
    holdout: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    out: str | None = None,
    overrides: Sequence[str] = (),
    show: bool = True,
) -> Tuned:
    """Tunes a prompt for a table of texts and answers, and tests it on rows that are held out.

    Args:
      data: a file (.csv, .tsv, .jsonl, .parquet), a data frame, an Arrow table or a list of rows;
        or a registered task or the path of a task file.
      model: directory or hub id of the frozen model, or the model itself. The default is a toy that
        reads a small artificial language.
      text: column of the input, or several; empty: guessed.
      label: column of the answer; None: guessed.
      kind: `classification`, `text` or `regression`; None: guessed, and never `regression`.
      holdout: fraction of the rows that are test rows.
      seed: of the split and of training.
      name: of the run; None: that of the file.
      out: the run directory; None: runs/NAME.
      overrides: `a.b=value`, of the experiment; see `prompt-jax run --keys`.
      show: progress, and how the table was read.

    Raises:
      PromptJaxError: for anything that is wrong with the arguments or the data.

    >>> import prompt_jax as pj
    >>> run = pj.tune("tickets.csv", model="google/flan-t5-base")  # doctest: +SKIP
    >>> lm = pj.from_pretrained("google/flan-t5-base")  # doctest: +SKIP
    >>> pj.predict(lm, ["Login fails since this morning."], run.prompt)  # doctest: +SKIP
    """
    wanted = check_overrides(overrides)
    lm = load(model, wanted.dtype, remat=wanted.remat) if isinstance(model, str) else model
    task = data if isinstance(data, str | Path) and not is_table(data) else None
    target = str(task)
    if task is None:
        columns = (text,) if isinstance(text, str) else tuple(text)
        table = read_table(data, text=columns, label=label, kind=kind, name=name)
        if show:
            print("\n".join(table.guess.why))
        name = name or table.name
        folder = task_folder(out or "", name)
        target = str(write_task(table, folder, lm, holdout=holdout, seed=seed))
    config = tune_config(
        target,
        lm,
        model=model if isinstance(model, str) else None,
        name=name or "",
        seed=seed,
        out=out or "",
        overrides=overrides,
    )
    if show:
        print("\n".join(describe_split(config, lm)))
    result = experiment.run(config, lm, show=show, say=lambda line: None)
    if not result.prompts:
        raise ConfigError(f"{', '.join(config.specs)} leaves no prompt: run it with `run`.")
    file = result.prompts[0]
    return Tuned(config, result.findings, SoftPrompt.load(file, model=lm), file)


def is_table(data: str | Path) -> bool:
    """Whether a text is the path of a file of rows, of whatever format, and not a task."""
    path = Path(data)
    return is_rows_file(str(data)) or (path.suffix != ".toml" and path.is_file())


def has_run(folder: Path) -> bool:
    """Whether the run directory of a task's folder holds a run."""
    return (folder.parent / CONFIG).is_file()


def task_folder(out: str, name: str) -> Path:
    """Where a run keeps the task that was made for it: inside its run directory.

    Raises:
      ConfigError: the run directory is a URL, or is something else.
    """
    if is_url(out):
        raise ConfigError(
            f"out must be a directory of this machine, not {out}: write a task file with"
            " `prompt-jax tasks new`, and run that."
        )
    folder = run_folder(out, name)
    if not (folder / CONFIG).is_file():
        check_folder(folder, {})
    return folder / TASK


def _free_name(name: str) -> str:
    """The name, unless a task of the registry has it."""
    try:
        registry.get(name)
    except DataError:
        return name
    return f"{name}_own"


def _sample(rows: Source) -> Subset:
    step = max(1, len(rows) // _MEASURED)
    return Subset(rows, np.arange(0, len(rows), step)[:_MEASURED])


def _limit(lengths: np.ndarray, multiple: int, bounds: tuple[int, int]) -> int:
    """A length that 98 of 100 rows have at most, rounded up, within bounds."""
    length = float(np.quantile(lengths, 0.98)) if len(lengths) else bounds[0]
    return int(np.clip(-(-length // multiple) * multiple, *bounds))
