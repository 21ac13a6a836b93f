"""What the commands load: plug-ins, configs, models, prompts and findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prompt_jax.cli.common import warn
from prompt_jax.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from prompt_jax.data import TokenisedSplit
    from prompt_jax.methods.trained import TrainedMethod
    from prompt_jax.models import LanguageModel
    from prompt_jax.prompts import SoftPrompt
    from prompt_jax.recipes import ExperimentConfig
    from prompt_jax.rundir.findings import Findings


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
