"""Opens the checkpoints of a T5: Hugging Face's formats, and T5X."""

from __future__ import annotations

from pathlib import Path

from prompt_jax.errors import ModelError
from prompt_jax.models import hub
from prompt_jax.models.config_file import ConfigFile
from prompt_jax.models.stored import Checkpoint
from prompt_jax.models.t5 import t5x, weights
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.tokenizer import has_tokenizer


def open_checkpoint(path: Path) -> Checkpoint:
    """Detects the format of a directory or file, and opens it.

    Raises:
      ModelError: no known format, no configuration, or a damaged file.
    """
    if path.is_file():
        return _t5x(path, "")
    if (tensors := hub.open_tensors(path)) is not None:
        file = path / "config.json"
        T5Config.from_hf_json(file)  # before any tensor is read
        tensors = weights.with_table(tensors, str(path))
        config = T5Config.from_hf_json(file, weights.head_of(tensors))
        _check_generation(path / "generation_config.json", config)
        return Checkpoint(tensors, config, _tokenizer(path))
    if (path / "checkpoint").is_file():
        return _t5x(path / "checkpoint", _tokenizer(path))
    raise ModelError(
        f"{path} holds no weights: expected model.safetensors, flax_model.msgpack, "
        "pytorch_model.bin or a T5X 'checkpoint'."
    )


def _t5x(path: Path, tokenizer_path: str) -> Checkpoint:
    tensors, config = t5x.open_t5x(path)
    return Checkpoint(
        tensors, config.replace(tied_head=weights.head_of(tensors) != "own"), tokenizer_path
    )


def _check_generation(path: Path, config: T5Config) -> None:
    """Checks that generation_config.json, which transformers generates by, has no other tokens."""
    if not path.is_file():
        return
    file = ConfigFile(path)
    for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        values, own = file.token_ids(key), getattr(config, key)
        if values and values != (own,):
            shown = values[0] if len(values) == 1 else list(values)
            raise file.error(
                f"'{key}' is {shown}, but {own} in config.json: set one of the two right."
            )


def _tokenizer(path: Path) -> str:
    return str(path) if has_tokenizer(path) else ""
