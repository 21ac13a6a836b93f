"""Opens the checkpoints of a decoder-only model: Hugging Face directories and GGUF files."""

from __future__ import annotations

from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models import hub
from prompt_jax.models.decoder import gguf
from prompt_jax.models.decoder.config import DecoderConfig
from prompt_jax.models.gguf_file import is_gguf, open_gguf
from prompt_jax.models.stored import Checkpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads the configuration of a directory or GGUF file, then opens its tensors.

    Raises:
      ModelError: no known format, no configuration, or a damaged file.
    """
    if is_gguf(path):
        file = open_gguf(path)
        config = gguf.config_of(file)
        return Checkpoint(gguf.tensors_of(file, config), config, str(path))
    if path.is_file():
        raise ModelError(
            f"{path} is no GGUF file: give one, or the directory that holds config.json."
        )
    config = DecoderConfig.from_hf_json(path / "config.json")
    if (tensors := hub.open_tensors(path)) is None:
        raise ModelError(f"{path} holds no weights: expected model.safetensors or its shards.")
    has_tokenizer = (path / "tokenizer.json").is_file()
    return Checkpoint(tensors, config, str(path) if has_tokenizer else "")
