"""Prompts of other programs: PEFT adapters, `.npy` and `.npz` arrays.

A PEFT prompt-tuning adapter is a folder with `adapter_config.json` and one tensor
`prompt_embeddings` [L * submodules, D], F32. For decoder-only models (CAUSAL_LM) PEFT makes one
submodule, for encoder-decoder models two by default, of which only the first L rows are ever used.
Multitask prompt tuning (MPT, Wang et al. 2023, 2303.02861) adds `prefix_task_cols` [K, L, r] and
`prefix_task_rows` [K, r, D]; the prompt of task k is prompt_embeddings * (cols_k @ rows_k).

Nothing is unpickled, and no path written inside an adapter is followed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prompt_jax.errors import PromptError, did_you_mean
from prompt_jax.models import has_known_shape, hub
from prompt_jax.prompts import files
from prompt_jax.prompts.record import PromptRecord
from prompt_jax.prompts.types import SoftPrompt

CARD = "README.md"
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_TORCH_WEIGHTS = "adapter_model.bin"
_SEQ2SEQ, _CAUSAL = _TASK_TYPES = ("SEQ_2_SEQ_LM", "CAUSAL_LM")
_KINDS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING")


def from_peft(directory: str | os.PathLike[str], *, task: int | None = None) -> SoftPrompt:
    """Reads the prompt before the input of a PEFT adapter folder.

    Args:
      directory: local folder with `adapter_config.json` and `adapter_model.safetensors`, or
        `adapter_model.bin` where torch is installed (read with `weights_only=True`).
      task: row of the task factors of a multitask adapter; needed where it has several.

    Returns:
      [L, D] float32; the record names the base model but not its weights, which PEFT does not
      record.

    Raises:
      PromptError: for a missing or damaged adapter, another kind of adapter or of model, or a task
        that is not there.
    """
    folder = Path(directory)
    config = _peft_config(folder)
    kind = config.get("peft_type")
    if kind not in _KINDS:
        raise PromptError(
            f"{folder} is a PEFT adapter of type {kind}; only {' and '.join(_KINDS)} are soft"
            " prompts before the input."
        )
    task_type = config.get("task_type")
    if task_type not in (*_TASK_TYPES, None):
        raise PromptError(
            f"{folder} is of task type {task_type}; only {' and '.join(_TASK_TYPES)} are."
        )
    submodules = config.get("num_transformer_submodules")
    if submodules is None:  # PEFT's own default
        submodules = 2 if task_type == _SEQ2SEQ else 1
    length = _positive(config.get("num_virtual_tokens"), "num_virtual_tokens", folder)
    submodules = _positive(submodules, "num_transformer_submodules", folder)
    base_name = config.get("base_model_name_or_path")
    if not isinstance(base_name, str | None):
        raise PromptError(f"{folder / _CONFIG}: base_model_name_or_path must be a name.")
    tensors = _peft_tensors(folder)
    prompt = _tensor(tensors, "prompt_embeddings", 2, folder)
    expected = (length * submodules, config.get("token_dim") or prompt.shape[1])
    if prompt.shape != expected:
        raise PromptError(
            f"{folder}: prompt_embeddings is {list(prompt.shape)}, but {_CONFIG} says"
            f" {list(expected)} ({length} tokens x {submodules} submodules)."
        )
    name = None
    if kind == "MULTITASK_PROMPT_TUNING":
        prompt, name = _multitask(tensors, prompt, task, folder)
    elif task is not None:
        raise PromptError(f"{folder} is no multitask adapter: leave task out.")
    embeddings = files.check_array(prompt[:length], what=f"the prompt in {folder}")
    record = PromptRecord(
        model_name=base_name,
        method="peft",
        task=name,
        tokens=length,
        d_model=embeddings.shape[1],
        config={
            "peft_type": kind,
            "peft_version": config.get("peft_version"),
            **({"task_type": task_type} if task_type == _CAUSAL else {}),
        },
    )
    return SoftPrompt(embeddings, record)


def to_peft(
    prompt: SoftPrompt,
    directory: str | os.PathLike[str],
    *,
    base_model_name_or_path: str | None = None,
    task_type: Literal["SEQ_2_SEQ_LM", "CAUSAL_LM"] | None = None,
) -> None:
    """Writes an adapter folder that `peft.PeftModel.from_pretrained(model, directory)` loads.

    `AutoPeftModelForSeq2SeqLM.from_pretrained(directory)` loads it together with its base model, if
    that is named by a hub id or an absolute path (of a decoder-only model:
    `AutoPeftModelForCausalLM`). The adapter has one submodule: the prompt is before the input only,
    so PEFT's model gives the numbers of ours. The folder has a model card.

    Args:
      prompt: one prompt [L, D].
      directory: made where it is missing; the files of an adapter in it are overwritten, and a
        README.md that this library wrote.
      base_model_name_or_path: hub id or folder of the base model; default: what the prompt's
        record names (`base_model`).
      task_type: of an encoder-decoder or of a decoder-only model; default: that of the model in
        the prompt's record, and an encoder-decoder where it is not known.

    Raises:
      PromptError: for a stack of prompts, NaN or infinity, an unknown task type, or an unwritable
        folder.
    """
    folder = Path(directory)
    made = adapter_files(prompt, base_model_name_or_path or base_model(prompt.record), task_type)
    card = folder / CARD
    if card.exists() and b"prompt_jax" not in files.read_bytes(card):
        del made[CARD]  # somebody else's
    # The config last: a folder that has one is complete.
    for name, raw in made.items():
        files.write_bytes(folder / name, raw)


def base_model(record: PromptRecord | None) -> str | None:
    """Hub id or absolute path of the model of a prompt; None where the record has neither.

    A mere name of a folder would send PEFT to the hub, where it is somebody else's model.
    """
    if record is None:
        return None
    for name in (record.config.get("model"), record.model_name):
        if not isinstance(name, str):
            continue
        path = Path(name).expanduser()
        if name == "mini" or path.is_dir():
            return str(hub.locate(name).resolve())
        if not path.is_absolute() and (name.count("/") == 1 or has_known_shape(name)):
            return name
    return None


def adapter_files(
    prompt: SoftPrompt, base_model_name_or_path: str | None, task_type: str | None = None
) -> dict[str, bytes]:
    """The files of an adapter folder by their names, in the order in which they are written.

    Args:
      prompt: one prompt [L, D].
      base_model_name_or_path: hub id or folder of the base model; a folder is made absolute. None:
        unknown, and `AutoPeftModel` cannot load the adapter.
      task_type: see `to_peft`.

    Raises:
      PromptError: for a stack of prompts, NaN or infinity, or an unknown task type.
    """
    from safetensors.numpy import save

    from prompt_jax.prompts.card import model_card

    if task_type is None:
        task_type = _task_type(prompt.record)
    if task_type not in _TASK_TYPES:
        raise PromptError(f"task_type is {' or '.join(_TASK_TYPES)}, not {task_type!r}.")

    array = files.check_array(prompt.embeddings, what="the prompt to export")
    local = base_model_name_or_path is not None and Path(base_model_name_or_path).is_dir()
    if local:
        base_model_name_or_path = str(Path(str(base_model_name_or_path)).resolve())
    hub_id = None if local else base_model_name_or_path
    config = {
        "base_model_name_or_path": base_model_name_or_path,
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": array.shape[0],
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "task_type": task_type,
        "token_dim": array.shape[1],
    }
    auto_class = {_SEQ2SEQ: "AutoPeftModelForSeq2SeqLM", _CAUSAL: "AutoPeftModelForCausalLM"}
    tokens, width = array.shape
    record = prompt.record or PromptRecord()
    card = model_card(record, tokens, width, hub_id, auto_class[task_type])
    return {
        CARD: card.encode(),
        _WEIGHTS: save({"prompt_embeddings": array}, {"format": "pt"}),
        _CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
    }


def _task_type(record: PromptRecord | None) -> Any:
    """Of the model that a prompt was trained on; configurations with an encoder have two stacks."""
    if record is None:
        return _SEQ2SEQ
    own = record.model_config
    decoder_only = bool(own) and "num_decoder_layers" not in own
    return record.config.get("task_type", _CAUSAL if decoder_only else _SEQ2SEQ)


def from_npy(path: str | os.PathLike[str], *, record: PromptRecord | None = None) -> SoftPrompt:
    """Reads a prompt [L, D] from a `.npy` file, as google-research/prompt-tuning releases them.

    Args:
      path: local path or fsspec URL; any floating dtype.
      record: what is known about it.

    Raises:
      PromptError: for a missing or damaged file, pickled objects or another shape.
    """
    array = _numpy_load(path)
    if not isinstance(array, np.ndarray):
        raise PromptError(f"{path} is an archive of arrays; read it with from_npz(path, key).")
    return SoftPrompt(files.check_array(array, what=f"the prompt in {path}"), record)


def to_npy(prompt: SoftPrompt, path: str | os.PathLike[str]) -> None:
    """Writes the bare array [L, D] float32, atomically; the record is not kept.

    Raises:
      PromptError: for a stack of prompts, NaN or infinity, or an unwritable path.
    """
    buffer = io.BytesIO()
    array = files.check_array(prompt.embeddings, what="the prompt to export")
    np.save(buffer, array, allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())


def from_npz(
    path: str | os.PathLike[str], key: str, *, record: PromptRecord | None = None
) -> SoftPrompt:
    """Reads the prompt [L, D] called `key` from a `.npz` archive.

    Args:
      path: local path or fsspec URL.
      key: name of the array.
      record: what is known about it; default: a record with `key` as the task.

    Raises:
      PromptError: for a missing or damaged file, an unknown key or another shape.
    """
    archive = _numpy_load(path)
    if isinstance(archive, np.ndarray):
        raise PromptError(f"{path} holds a single array; read it with from_npy.")
    with archive:
        if key not in archive.files:
            raise PromptError(
                f"{path} has no prompt '{key}'.{did_you_mean(key, archive.files)}"
                f" It has: {', '.join(archive.files)}."
            )
        try:
            array = archive[key]
        except Exception as error:  # as in _numpy_load
            raise PromptError(f"{path}: '{key}' cannot be read: {error}.") from None
    values = files.check_array(array, what=f"the prompt '{key}' in {path}")
    return SoftPrompt(values, record or PromptRecord(task=key))


def _numpy_load(path: str | os.PathLike[str]) -> Any:
    raw = files.read_bytes(path)
    try:
        return np.load(io.BytesIO(raw), allow_pickle=False)
    except Exception as error:  # numpy, zipfile and tokenize raise a dozen kinds on damaged bytes
        raise PromptError(f"{path} is damaged or no numpy file: {error}.") from None


def _peft_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise PromptError(f"there is no folder {folder}; from_peft needs one with {_CONFIG}.")
    try:
        config = json.loads(files.read_bytes(folder / _CONFIG))
    except (ValueError, RecursionError) as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(f"{folder / _CONFIG} is not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise PromptError(f"{folder / _CONFIG} must hold a JSON object.")
    return config


def _positive(value: Any, option: str, folder: Path) -> int:
    if not isinstance(value, int) or value < 1:
        raise PromptError(f"{folder / _CONFIG}: {option} must be positive, not {value!r}.")
    return value


def _peft_tensors(folder: Path) -> Mapping[str, np.ndarray]:
    weights = folder / _WEIGHTS
    if weights.is_file() or not (folder / _TORCH_WEIGHTS).is_file():
        return files.parse_safetensors(files.read_bytes(weights), weights)[0]
    weights = folder / _TORCH_WEIGHTS
    try:
        import torch
    except ImportError:
        raise PromptError(
            f"{weights} is a torch file: install torch to read it, or save the adapter again as"
            " safetensors."
        ) from None
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        return {str(name): value.float().numpy() for name, value in state.items()}
    except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError
        raise PromptError(f"{weights} is damaged or holds more than tensors: {error}") from None


def _tensor(tensors: Mapping[str, np.ndarray], name: str, rank: int, folder: Path) -> np.ndarray:
    if name not in tensors or tensors[name].ndim != rank:
        found = {key: list(value.shape) for key, value in tensors.items()}
        raise PromptError(f"{folder} needs a tensor '{name}' of rank {rank}; it holds {found}.")
    return tensors[name].astype(np.float32)


def _multitask(
    tensors: Mapping[str, np.ndarray], shared: np.ndarray, task: int | None, folder: Path
) -> tuple[np.ndarray, str]:
    """The prompt [L * submodules, D] of one task of an MPT adapter, and a name for it."""
    cols = _tensor(tensors, "prefix_task_cols", 3, folder)
    rows = _tensor(tensors, "prefix_task_rows", 3, folder)
    count = len(cols)
    if cols.shape[:2] != (len(rows), len(shared)) or rows.shape[1:] != (
        cols.shape[2],
        shared.shape[1],
    ):
        raise PromptError(
            f"{folder}: factors {list(cols.shape)} and {list(rows.shape)} do not fit a prompt"
            f" {list(shared.shape)}."
        )
    if task is None and count > 1:
        raise PromptError(f"{folder} holds {count} tasks: pass task=0 to {count - 1}.")
    index = task or 0
    if not 0 <= index < count:
        raise PromptError(f"{folder} holds {count} tasks, so there is no task {task}.")
    return shared * (cols[index] @ rows[index]), f"task {index}"
