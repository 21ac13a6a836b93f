"""A compressed library of prompts: one bit a number for each prompt, in one sealed file.

All prompts of a library were trained from one initialisation P_init. Two codes, `sign` the default,
which loses less (docs/prompts.md):

- `tall`: TALL-masks (Wang et al. 2024, arXiv 2405.07813). The library holds the sum of the task
  vectors, tau, and of each prompt the mask m_t, so P_t is read as P_init + m_t * tau.
- `sign`: the library holds of each prompt the sign of every number of its task vector, and a size
  for each token: the mean of the absolute values, which is the nearest one. After BitDelta (Liu et
  al. 2024, arXiv 2402.10193), which has one size for a matrix.

Both lose something: `errors` says how much of each task vector, and the record of a prompt that
was unpacked says it too, in place of the scores of the original.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from prompt_jax import store
from prompt_jax.arrays import fields_repr
from prompt_jax.errors import PromptError, did_you_mean
from prompt_jax.prompts import PromptRecord, SoftPrompt, init_id
from prompt_jax.prompts.files import read_bytes, write_bytes
from prompt_jax.task_vectors.merging import tall_masks

Code = Literal["tall", "sign"]

FORMAT = 1
"""Version of the files."""

_KIND = "prompt library"


@dataclasses.dataclass(frozen=True, eq=False)
class PromptLibrary:
    """Prompts of one initialisation, one bit a number each.

    Attributes:
      code: how bits are read.
      initial: P_init, with its record.
      names: of the prompts, in their order.
      records: of the prompts.
      masks: bool [K, L, D].
      shared: the sum of the task vectors, [L, D] float32; None unless `code` is `tall`.
      sizes: of each token, [K, L] float32; None unless `code` is `sign`.
      errors: distance of each read vector from the original, relative to that one's norm.
    """

    code: Code
    initial: SoftPrompt
    names: tuple[str, ...]
    records: tuple[PromptRecord, ...]
    masks: np.ndarray
    shared: np.ndarray | None
    sizes: np.ndarray | None
    errors: tuple[float, ...]

    __repr__ = fields_repr

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> SoftPrompt:
        """A prompt as the library has it; its record says how far it is from the original.

        Raises:
          PromptError: there is none of that name.
        """
        if name not in self.names:
            raise PromptError(
                f"the library has no prompt '{name}' (it has {', '.join(self.names)})."
                + did_you_mean(name, self.names)
            )
        place = self.names.index(name)
        record = self.records[place]
        packed = {"code": self.code, "error": self.errors[place], "scores": dict(record.scores)}
        record = record.replace(scores={}, config={**record.config, "library": packed})
        return SoftPrompt(np.asarray(self.initial.embeddings) + self.vector(place), record)

    def vector(self, place: int) -> np.ndarray:
        """The task vector [L, D] of a prompt, as the library has it."""
        return _read(
            self.masks[place], self.shared, None if self.sizes is None else self.sizes[place]
        )

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the library to one sealed safetensors file; returns its size in bytes.

        Args:
          path: local path (missing folders are made) or fsspec URL.

        Raises:
          PromptError: it cannot be written.
        """
        count = len(self)
        arrays = {
            "initial": np.asarray(self.initial.embeddings, np.float32),
            "masks": np.packbits(self.masks.reshape(count, -1), axis=1),
        }
        for name in ("shared", "sizes"):
            if (array := getattr(self, name)) is not None:
                arrays[name] = array
        records = [
            dataclasses.asdict(r) for r in (self.initial.record or PromptRecord(), *self.records)
        ]
        common = _common(records)
        facts = {
            "kind": _KIND,
            "format": FORMAT,
            "code": self.code,
            "names": list(self.names),
            "errors": list(self.errors),
            # What all records say is written once: a definition of the model outweighs the bits.
            "common": common,
            "records": [_without(record, common) for record in records],
        }
        raw = store.pack(facts, arrays)
        write_bytes(path, raw)
        return len(raw)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PromptLibrary:
        """Reads what `save` wrote, and checks its seal.

        Raises:
          PromptError: a missing, damaged or other file, or one of a newer version.
        """
        try:
            text, arrays = store.unpack(read_bytes(path))
        except store.DamagedError as error:
            raise PromptError(f"{path} {error}. Copy or make it again.") from None
        facts = json.loads(text)
        if facts.get("kind") != _KIND:
            raise PromptError(f"{path} is no prompt library: read it with SoftPrompt.load.")
        if facts["format"] > FORMAT or facts["code"] not in get_args(Code):
            raise PromptError(f"{path} is of a newer version of prompt_jax: update it.")
        first, *records = (_record({**facts["common"], **own}) for own in facts["records"])
        shape, count = arrays["initial"].shape, len(records)
        bits = np.unpackbits(arrays["masks"], axis=1, count=int(np.prod(shape)))
        return cls(
            facts["code"],
            SoftPrompt(arrays["initial"], first),
            tuple(facts["names"]),
            tuple(records),
            bits.astype(bool).reshape(count, *shape),
            arrays.get("shared"),
            arrays.get("sizes"),
            tuple(facts["errors"]),
        )


def pack_prompts(
    prompts: Mapping[str, SoftPrompt],
    initial: SoftPrompt,
    *,
    code: Code = "sign",
    threshold: float = 0.6,
) -> PromptLibrary:
    """Compresses prompts of one initialisation.

    Args:
      prompts: by name; all [L, D].
      initial: the prompt that all were trained from.
      code: `tall` or `sign`.
      threshold: lambda of `tall_masks`; `tall` only.

    Raises:
      PromptError: no prompts, other shapes, another initialisation, other models, or a code that
        there is not.
    """
    if code not in get_args(Code):
        raise PromptError(f"code is {' or '.join(get_args(Code))}, not '{code}'.")
    if not prompts:
        raise PromptError("a library needs at least one prompt.")
    start = np.asarray(initial.embeddings)
    _check(prompts, start)
    vectors = np.stack([np.asarray(p.embeddings) - start for p in prompts.values()])
    if code == "tall":
        shared, sizes = vectors.sum(0), None
        masks = np.asarray(tall_masks(vectors, np.float32(threshold)))
    else:
        shared, sizes = None, np.abs(vectors).mean(2)
        masks = vectors > 0
    errors = []
    for place, vector in enumerate(vectors):
        read = _read(masks[place], shared, None if sizes is None else sizes[place])
        norm = float(np.linalg.norm(vector))
        errors.append(float(np.linalg.norm(read - vector)) / norm if norm else 0.0)
    records = tuple(prompt.record or PromptRecord() for prompt in prompts.values())
    return PromptLibrary(
        code, initial, tuple(prompts), records, masks, shared, sizes, tuple(errors)
    )


def _read(mask: np.ndarray, shared: np.ndarray | None, sizes: np.ndarray | None) -> np.ndarray:
    """A task vector [L, D] from its bits."""
    if shared is not None:
        return np.where(mask, shared, np.float32(0))
    assert sizes is not None
    return np.where(mask, sizes[:, None], -sizes[:, None])


def _check(prompts: Mapping[str, SoftPrompt], start: np.ndarray) -> None:
    origin, models = init_id(start), set()
    for name, prompt in prompts.items():
        if np.shape(prompt) != start.shape:
            raise PromptError(
                f"{name} has shape {list(np.shape(prompt))}, and the initialisation"
                f" {list(start.shape)}: a library has prompts of one shape."
            )
        record = prompt.record or PromptRecord()
        if record.init_id not in (None, origin):
            raise PromptError(
                f"{name} was trained from initialisation {record.init_id}, not from {origin}: its"
                " task vector would be another one. Pack prompts of one seed together."
            )
        models |= {record.model_hash} - {None}
    if len(models) > 1:
        raise PromptError("the prompts are of different models: pack those of one together.")


def _common(records: list[dict[str, Any]]) -> dict[str, Any]:
    first = records[0]
    return {k: v for k, v in first.items() if all(record[k] == v for record in records)}


def _without(record: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in common}


def _record(fields: Mapping[str, Any]) -> PromptRecord:
    known = {field.name for field in dataclasses.fields(PromptRecord)}
    return PromptRecord(**{name: value for name, value in fields.items() if name in known})
