"""Where checkpoints are: a local directory, the Hugging Face hub, or the package itself."""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from prompt_jax.errors import ModelError
from prompt_jax.models.t5 import formats, t5x, weights
from prompt_jax.models.t5.config import T5Config

# What is downloaded: never code, never pickles.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
)
_CONFIGS = ("config.json", "generation_config.json", *TOKENIZER_FILES)
_WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("flax_model*.msgpack", "flax_model.msgpack.index.json"),
)


class Checkpoint(NamedTuple):
    """An opened checkpoint: nothing large has been read yet."""

    tensors: formats.Tensors
    config: T5Config
    tokenizer_path: str  # "" where the checkpoint has no tokenizer


def locate(path_or_id: str) -> Path:
    """The local directory or T5X file that holds a checkpoint, downloading it where needed.

    Args:
      path_or_id: directory, T5X file, hub repository (`google/flan-t5-small`) or "mini".

    Raises:
      ModelError: it is in neither place, or the hub cannot be reached.
    """
    if path_or_id == "mini":
        root = Path(str(importlib.resources.files("prompt_jax.models"))) / "mini"
        if not (root / "config.json").is_file():
            raise ModelError(
                "The packaged model 'mini' is not shipped with this version: give the directory "
                "or hub name of another T5."
            )
        return root
    path = Path(os.path.expanduser(path_or_id))
    try:
        if path.exists():
            return path
    except OSError as error:  # too long a name, a folder that nobody may enter
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if path.is_absolute() or path_or_id.startswith((".", "~")) or path_or_id.count("/") > 1:
        raise ModelError(f"There is no directory {path}.")
    return _download(path_or_id)


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(repo, allow_patterns=[*patterns], etag_timeout=5))

    try:
        for patterns in _WEIGHTS:
            root = fetch(*_CONFIGS, *patterns)
            if any(any(root.glob(pattern)) for pattern in patterns):
                break
        return root
    except HFValidationError as error:
        raise ModelError(f"'{repo}' is neither a directory nor the name of a model.") from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"There is no directory '{repo}', and the hub refused it: {error}."
        ) from error
    except (OSError, ValueError) as error:  # LocalEntryNotFoundError and offline mode among them
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ModelError(
            f"There is no directory '{repo}', it is not in the local cache, and the hub cannot be "
            f"reached{offline}: give a local directory."
        ) from error


def open_checkpoint(path: Path) -> Checkpoint:
    """Finds out the format of a directory or file.

    Raises:
      ModelError: no known format, no configuration, or a damaged file.
    """
    if path.is_file():
        return Checkpoint(*t5x.open_t5x(path), "")
    readers = (formats.safetensors_directory, formats.flax_directory, formats.torch_directory)
    for reader in readers:
        if (tensors := reader(path)) is not None:
            config = T5Config.from_hf_json(path / "config.json")
            return Checkpoint(tensors, config, str(path))
    if (path / "checkpoint").is_file():
        tensors, config = t5x.open_t5x(path / "checkpoint")
        has_tokenizer = any((path / name).is_file() for name in TOKENIZER_FILES)
        return Checkpoint(tensors, config, str(path) if has_tokenizer else "")
    raise ModelError(
        f"{path} holds no weights: expected model.safetensors, flax_model.msgpack, "
        "pytorch_model.bin or a T5X 'checkpoint'."
    )


def save(directory: Path, params: weights.Params, config: T5Config, tokenizer_path: str) -> None:
    """Writes a directory that `open_checkpoint` and transformers read; see `save_pretrained`."""
    from safetensors.numpy import save_file

    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config.to_hf_dict(), indent=2, sort_keys=True)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")
        partial = directory / "model.safetensors.partial"
        save_file(dict(weights.to_hf(params)), partial, metadata={"format": "pt"})
        partial.replace(directory / "model.safetensors")
        source = Path(tokenizer_path) if tokenizer_path else directory
        files = [source] if source.is_file() else [source / name for name in TOKENIZER_FILES]
        for file in files:
            if file.is_file() and file.resolve().parent != directory.resolve():
                shutil.copyfile(file, directory / file.name)
    except OSError as error:
        raise ModelError(f"Cannot write the model to {directory}: {error}.") from error
