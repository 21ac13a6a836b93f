"""Opens the checkpoints of a T5: Hugging Face's formats, and T5X."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from prompt_jax.errors import ModelError
from prompt_jax.models import formats, hub
from prompt_jax.models.t5 import t5x
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.tokenizer import has_tokenizer


class Checkpoint(NamedTuple):
    """An opened checkpoint: nothing large has been read yet."""

    tensors: formats.Tensors
    config: T5Config
    tokenizer_path: str  # "" where the checkpoint has no tokenizer


def open_checkpoint(path: Path) -> Checkpoint:
    """Detects the format of a directory or file, and opens it.

    Raises:
      ModelError: no known format, no configuration, or a damaged file.
    """
    if path.is_file():
        return Checkpoint(*t5x.open_t5x(path), "")
    if (tensors := hub.open_tensors(path)) is not None:
        return Checkpoint(tensors, T5Config.from_hf_json(path / "config.json"), _tokenizer(path))
    if (path / "checkpoint").is_file():
        tensors, config = t5x.open_t5x(path / "checkpoint")
        return Checkpoint(tensors, config, _tokenizer(path))
    raise ModelError(
        f"{path} holds no weights: expected model.safetensors, flax_model.msgpack, "
        "pytorch_model.bin or a T5X 'checkpoint'."
    )


def _tokenizer(path: Path) -> str:
    return str(path) if has_tokenizer(path) else ""
