"""The methods, one file each, and the registry that names them.

A method is asked for by a spec: its name, and in brackets the options that differ from the
defaults, as in `spot(variant=top_k_average, top_k=2)`.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator

from prompt_jax.config import parse_value, split_list
from prompt_jax.errors import ConfigError, did_you_mean
from prompt_jax.methods.base import Artefact, BaseMethod, Context, Panel, Stage, TemplateTokens
from prompt_jax.methods.bmtpt import Bmtpt, BmtptParticles
from prompt_jax.methods.dtvg import Dtvg
from prompt_jax.methods.full_fine_tuning import FullFineTuning
from prompt_jax.methods.prompt_tuning import PromptTuning
from prompt_jax.methods.spot import Spot, source_similarity
from prompt_jax.methods.spt import Spt, SptFull
from prompt_jax.methods.task_prompt_vectors import TaskPromptVectors

REGISTRY: dict[str, type[BaseMethod]] = {
    method.name: method
    for method in (
        PromptTuning,
        Spot,
        TaskPromptVectors,
        Dtvg,
        Bmtpt,
        BmtptParticles,
        Spt,
        SptFull,
        FullFineTuning,
    )
}

_SPEC = re.compile(r"\s*([A-Za-z_][\w]*)\s*(?:\((.*)\))?\s*", re.DOTALL)


def create(spec: str) -> BaseMethod:
    """The method of a spec.

    Raises:
      ConfigError: unknown method or option, or an option of the wrong type.

    >>> create("spot(variant=mixture)")
    Spot(variant='mixture', top_k=3, steps=1, batch=1)
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(f"method '{spec}' is not of the form name or name(option=value, ...).")
    name, options = match.group(1), match.group(2) or ""
    if name not in REGISTRY:
        raise ConfigError(
            f"unknown method '{name}' (known: {', '.join(REGISTRY)})."
            + did_you_mean(name, REGISTRY)
        )
    kind = REGISTRY[name]
    types = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    return kind(**dict(_options(name, options, fields, types)))


def _options(
    name: str, text: str, fields: list[str], types: dict[str, typing.Any]
) -> Iterator[tuple[str, typing.Any]]:
    for part in split_list(text):
        option, equals, value = part.partition("=")
        option = option.strip()
        if not equals or option not in fields:
            raise ConfigError(
                f"method {name} has no option '{option}'"
                + (f" (it has {', '.join(fields)})." if fields else "; it takes none.")
                + did_you_mean(option, fields)
            )
        yield option, parse_value(value.strip(), types[option], f"{name}.{option}")


__all__ = [
    "REGISTRY",
    "Artefact",
    "BaseMethod",
    "Bmtpt",
    "BmtptParticles",
    "Context",
    "Dtvg",
    "FullFineTuning",
    "Panel",
    "PromptTuning",
    "Spot",
    "Spt",
    "SptFull",
    "Stage",
    "TaskPromptVectors",
    "TemplateTokens",
    "create",
    "source_similarity",
]
