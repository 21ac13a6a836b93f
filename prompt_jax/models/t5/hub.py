"""Finding a checkpoint: a local directory, the Hugging Face hub, or the model in the package."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models.t5 import formats

_PATTERNS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "flax_model*.msgpack*")


def locate(path_or_id: str) -> Path:
    """The local directory that holds a checkpoint, downloading it where needed.

    Args:
      path_or_id: directory, hub repository (`google/flan-t5-small`) or "mini".

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
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json: is it a model directory?")
        return path
    if path.exists():
        raise ModelError(f"{path} is a file: give the directory that holds config.json.")
    if path.is_absolute() or path_or_id.startswith((".", "~")) or path_or_id.count("/") > 1:
        raise ModelError(f"There is no directory {path}.")
    return _download(path_or_id)


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repo, allow_patterns=[*_PATTERNS, *_WEIGHTS], etag_timeout=5))
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


def open_checkpoint(root: Path) -> formats.Tensors:
    """The tensors of a directory, whatever format it holds.

    Raises:
      ModelError: no known format, or a damaged file.
    """
    tensors = formats.safetensors_directory(root)
    if tensors is None:
        raise ModelError(f"{root} has a config.json but no weights (model.safetensors).")
    return tensors
