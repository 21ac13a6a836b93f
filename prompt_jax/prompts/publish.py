"""Prompts on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from prompt_jax import store
from prompt_jax.errors import PromptError
from prompt_jax.prompts import files
from prompt_jax.prompts.interchange import adapter_files, base_model
from prompt_jax.prompts.record import METADATA_KEY, PromptRecord
from prompt_jax.prompts.types import SoftPrompt

FILE = "prompt.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class Upload(NamedTuple):
    """What is sent to a hub.

    Attributes:
      repository: OWNER/NAME.
      base_model: hub id of the base model.
      files: contents by their names: a PEFT adapter with its model card, and the prompt's file.
    """

    repository: str
    base_model: str
    files: dict[str, bytes]


def prepare(prompt: SoftPrompt, repository: str, base_model_name: str | None = None) -> Upload:
    """Everything that `push` sends; nothing is sent.

    Args:
      prompt: one prompt [L, D].
      repository: OWNER/NAME.
      base_model_name: hub id of the base model; None: the one in the prompt's record.

    Raises:
      PromptError: a name that is none, a base model that is not on a hub, or an unusable prompt.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise PromptError(f"a repository is OWNER/NAME, not '{repository}'.")
    base = base_model_name or base_model(prompt.record)
    if base is None or Path(base).expanduser().is_absolute() or Path(base).is_dir():
        named = "the record of the prompt names no model" if base is None else f"{base} is a folder"
        raise PromptError(
            f"{named}: others can use the prompt only with a base model that they can load. Name"
            " its hub id with --base-model-name (in Python: base_model_name=)."
        )
    sent = adapter_files(prompt, base)
    record = prompt.record or PromptRecord()
    # The path of the model on this machine is nobody else's concern.
    config = {name: value for name, value in record.config.items() if name != "model"}
    array = files.check_array(prompt.embeddings)
    record = record.replace(config=config, tokens=array.shape[0], d_model=array.shape[1])
    sent[FILE] = store.pack(record.to_metadata()[METADATA_KEY], {"prompt": array})
    return Upload(repository, base, sent)


def push(upload: Upload, *, private: bool = True, api: Any = None) -> str:
    """Sends a prompt to its repository, which is made where it is missing.

    Args:
      upload: from `prepare`.
      private: whether a repository that is made is private; one that exists stays as it is.
      api: `huggingface_hub.HfApi`; None: one with the token of this machine.

    Returns:
      The address of the repository.

    Raises:
      PromptError: no token, no right to write, or no connection.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi() if api is None else api
    operations = [CommitOperationAdd(name, raw) for name, raw in upload.files.items()]
    try:
        address = api.create_repo(upload.repository, private=private, exist_ok=True)
        api.create_commit(
            upload.repository, operations=operations, commit_message="Soft prompt of prompt_jax"
        )
    except (
        Exception
    ) as error:  # of the hub, of its HTTP client, which differs by version, or the system
        reason = " ".join(str(error).split())[:300]
        raise PromptError(
            f"{upload.repository} was not written ({type(error).__name__}: {reason}). Log in with"
            " `hf auth login` or set HF_TOKEN, and check that OWNER is you or your organisation."
        ) from None
    return str(address)
