"""The record of a prompt: where it came from, beside its numbers.

A record is joined to a prompt when it is saved and loaded. It is no part of the `SoftPrompt`
pytree: as a static field it would force a retrace per task and forbid `tree_map` over two prompts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from prompt_jax.errors import PromptError

FORMAT = 1
"""Version of the metadata written into prompt files."""

METADATA_KEY = "prompt_jax"
"""Key of the record in a safetensors header."""

TASK_DEFINITION = "task_definition"
"""Key of a record's `config`: the task that the prompt was trained for, as `data.definition` writes
it."""

_SHOWN = 80  # characters of a value in a repr
_TEXT = ("model_hash", "model_name", "method", "task", "init_id", "init", "created")
_WHOLE = ("tokens", "d_model", "seed")


def _package_version() -> str:
    from prompt_jax import __version__

    return __version__


def _as_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A plain JSON copy of `value`, so that a record equals its own round trip."""
    if not isinstance(value, Mapping):
        raise PromptError(f"a prompt record's {name} must be a mapping, not {value!r}.")
    try:
        return dict(json.loads(json.dumps(dict(value))))
    except (TypeError, ValueError) as error:
        raise PromptError(
            f"a prompt record's {name} must hold only what JSON can hold: {error}."
        ) from None


@dataclasses.dataclass(frozen=True)
class PromptRecord:
    """Provenance of a prompt; every field may be unknown (None or empty).

    Attributes:
      model_hash: `LanguageModel.weights_hash` of the weights the prompt was trained on.
      model_name: the same model's name, for messages.
      method: registry name of the method that made it, `"init"` for an initialisation.
      task: name of the task it was trained for.
      init_id: identity of the initialisation its training started from. Task vectors of prompts
        with one `init_id` are comparable.
      init: spec string of the initialiser, as `prompt_jax.prompts.parse` reads it.
      tokens: L.
      d_model: D.
      seed: seed of the replica.
      config: of its training, JSON only.
      scores: metric name -> value.
      library_version: version of prompt_jax; not compared.
      created: ISO date, given by the caller; not compared.
      model_config: `LanguageModel.model_config` of the model the prompt was trained on. Empty in
        files of earlier versions.

    Raises:
      PromptError: where `config`, `scores` or `model_config` hold what JSON cannot hold.
    """

    model_hash: str | None = None
    model_name: str | None = None
    method: str | None = None
    task: str | None = None
    init_id: str | None = None
    init: str | None = None
    tokens: int | None = None
    d_model: int | None = None
    seed: int | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    library_version: str = dataclasses.field(default_factory=_package_version, compare=False)
    created: str | None = dataclasses.field(default=None, compare=False)
    model_config: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("config", "scores", "model_config"):
            object.__setattr__(self, name, _as_json(name, getattr(self, name)))

    def __repr__(self) -> str:
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        shown = []
        for name, value in known.items():
            if name == "library_version" or value is None or value == {}:
                continue
            text = "{" + ", ".join(value) + "}" if isinstance(value, Mapping) else repr(value)
            shown.append(f"{name}={text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}")
        return f"PromptRecord({', '.join(shown)})"

    def replace(self, **changes: Any) -> PromptRecord:
        """Returns a copy with other values in the fields named by `changes`."""
        return dataclasses.replace(self, **changes)

    def to_metadata(self) -> dict[str, str]:
        """Returns the record as a safetensors header holds it: one JSON string.

        One key, because safetensors writes several keys in a random order and equal prompts should
        be equal files.
        """
        body = {"format": FORMAT, "record": dataclasses.asdict(self)}
        return {METADATA_KEY: json.dumps(body, sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> PromptRecord:
        """Reads what `to_metadata` wrote; fields unknown to this version are dropped.

        Raises:
          PromptError: where the metadata are another program's, malformed or of a newer format.
        """
        if METADATA_KEY not in metadata:
            raise PromptError(f"the metadata have no '{METADATA_KEY}' entry.")
        try:
            body = json.loads(metadata[METADATA_KEY])
            version, fields = body["format"], dict(body["record"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise PromptError(f"the '{METADATA_KEY}' metadata are malformed.") from None
        if not isinstance(version, int) or version > FORMAT:
            raise PromptError(
                f"the metadata have format {version}; this version of prompt_jax reads up to"
                f" {FORMAT}. Update prompt_jax."
            )
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {name: value for name, value in fields.items() if name in known}
        for names, kind in ((_TEXT, str), (_WHOLE, int)):
            for name in names:
                if not isinstance(fields.get(name), kind | None):
                    raise PromptError(
                        f"the record's {name} must be {kind.__name__}, not {fields[name]!r}."
                    )
        return cls(**fields)


def check_model(
    record: PromptRecord, model: Any, path: str, d_model: int, allow_other_model: bool = False
) -> None:
    """Checks that a prompt belongs to a model.

    The same weights under another configuration are another model. Files of earlier versions hold
    no configuration: of those only the weights are compared, and a line in the log says so.

    Args:
      record: the prompt's record.
      model: anything with `weights_hash`, `model_config`, `name` and `d_model`.
      path: of the prompt, for messages.
      d_model: width of the prompt.
      allow_other_model: check the width only.

    Raises:
      PromptError: for other weights, another configuration, unknown weights, or another width.
    """
    if not allow_other_model:
        if record.model_hash is None:
            raise PromptError(
                f"{path} does not say which base model it was made for. If it was {model.name},"
                " load it with allow_other_model=True."
            )
        if record.model_hash != model.weights_hash:
            trained_on, this = shorten(record.model_hash, model.weights_hash)
            raise PromptError(
                f"{path} was made for base model {trained_on} ({record.model_name or 'unnamed'});"
                f" this model is {this} ({model.name}). A prompt only works with the weights it"
                " was trained on."
            )
        _check_config(record, model, path)
    if d_model != model.d_model:
        raise PromptError(
            f"{path} has width {d_model}, but {model.name} has d_model {model.d_model}: it was made"
            " for another model."
        )


def _check_config(record: PromptRecord, model: Any, path: str) -> None:
    if not record.model_config:
        logging.getLogger("prompt_jax").warning(
            f"{path} was saved by an earlier version, which did not record the model's"
            f" configuration: only the weights were compared with {model.name}."
        )
    if found := config_differences(record.model_config, model.model_config):
        raise PromptError(
            f"{path} was made for the weights of {model.name} under another configuration"
            f" ({record.model_name or 'unnamed'}): {'; '.join(found)}. Use the config.json that it"
            " was trained with."
        )


def config_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two `LanguageModel.model_config`, as `key: one -> other`.

    Keys that only one of them has are from another version, and not compared.

    >>> config_differences({"d_ff": 8, "num_heads": 2}, {"num_heads": 4})
    ['num_heads: 2 -> 4']
    """
    shared = sorted(one.keys() & other.keys())
    return [f"{key}: {one[key]} -> {other[key]}" for key in shared if one[key] != other[key]]


def shorten(a: str, b: str) -> tuple[str, str]:
    """Returns two different hashes, shortened to the first block of four that tells them apart.

    >>> shorten("3f2a77", "91c0aa")
    ('3f2a...', '91c0...')
    """
    n = 4
    while a[:n] == b[:n] and n < max(len(a), len(b)):
        n += 4
    return tuple(f"{h[:n]}..." if len(h) > n else h for h in (a, b))  # type: ignore[return-value]
