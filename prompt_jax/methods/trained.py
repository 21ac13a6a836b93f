"""Trained row-wise methods as files: what computes the prompt of every row, for any later row.

A file holds parameters and constants in the sealed container of `prompt_jax.store`, with the spec
of the method and a prompt record as facts. The registry makes the method from the spec: nothing in
a file is executed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from prompt_jax import code_digest, store
from prompt_jax.arrays import fields_repr
from prompt_jax.data.batching import EvalRows
from prompt_jax.errors import ConfigError, PromptError
from prompt_jax.evaluation.sweep import EmbeddedBy
from prompt_jax.methods.base import BaseMethod
from prompt_jax.methods.registry import create
from prompt_jax.models.base import LanguageModel
from prompt_jax.prompts import PromptRecord, check_model
from prompt_jax.prompts.files import read_bytes, write_bytes
from prompt_jax.prompts.record import METADATA_KEY
from prompt_jax.training.deployed import prompt_of_row

_SPEC = "method"  # the fact by which such a file is recognised
_CODE = "method_code"  # digest of its class, which no spec names
_PARAMS, _CONSTS = "params/", "consts/"


@dataclass(frozen=True, eq=False)
class TrainedMethod:
    """A row-wise method with its trained parameters.

    Attributes:
      method: computes the prompts.
      params: trained parameters, nested dictionaries of arrays, without the axis R.
      consts: its constants, likewise.
      record: provenance; `tokens` is L, `d_model` is D.
    """

    method: BaseMethod
    params: Mapping[str, Any]
    consts: Mapping[str, Any]
    record: PromptRecord

    __repr__ = fields_repr

    @property
    def prompt_fn(self) -> Any:
        """The `prompt_fn` of `prompt_jax.evaluation` that computes the prompt of each row."""
        return prompt_of_row(self.method)

    def state(self, lm: LanguageModel) -> Any:
        """The state of `prompt_fn`, as a population of one.

        Args:
          lm: the model that the method was trained for.
        """
        state = jax.tree.map(lambda x: jnp.asarray(x)[None], (self.params, self.consts))
        return EmbeddedBy(lm, state) if self.method.needs_embeddings else state


def save(path: str | os.PathLike[str], trained: TrainedMethod) -> None:
    """Writes a trained row-wise method to one file, atomically.

    Args:
      path: local path (missing folders are made) or fsspec URL.
      trained: what is saved; its record needs `d_model`, and L is filled in.

    Raises:
      ConfigError: the method is not row-wise, trains the model, or is not registered.
      PromptError: parameters are not finite, or the file cannot be written.
    """
    method = trained.method
    if not method.rowwise or method.trains_lm:
        raise ConfigError(
            f"{method.spec} does not compute a prompt of each row for a frozen model."
        )
    if create(method.spec) != method:
        raise ConfigError(f"the spec '{method.spec}' does not make the method {method!r}.")
    arrays = {
        prefix + name: np.asarray(leaf)
        for prefix, tree in ((_PARAMS, trained.params), (_CONSTS, trained.consts))
        for name, leaf in flatten_dict(dict(tree), sep="/").items()
    }
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            raise PromptError(f"{path} is not written: {name} holds NaN or infinite numbers.")
    record = trained.record.replace(tokens=_prompt_length(path, trained))
    facts = json.loads(record.to_metadata()[METADATA_KEY])
    made_by = {_SPEC: method.spec, _CODE: code_digest.of_class(type(method))}
    write_bytes(path, store.pack({**facts, **made_by}, arrays))


def load(
    path: str | os.PathLike[str], *, model: Any, allow_other_model: bool = False
) -> TrainedMethod:
    """Reads what `save` wrote, for the model that it was trained for.

    A warning is logged where the method's code is not the one that has written the file.

    Args:
      path: local path or fsspec URL.
      model: anything with `weights_hash`, `model_config`, `name` and `d_model`.
      allow_other_model: check the width only.

    Raises:
      PromptError: missing, damaged, of another kind, or made for other weights; or the method is
        not registered here, or is another one in this version.
    """
    try:
        text, arrays = store.unpack(read_bytes(path))
    except store.DamagedError as error:
        raise PromptError(f"{path} {error}. Copy or make it again.") from None
    record = PromptRecord.from_metadata({METADATA_KEY: text})
    spec = json.loads(text).get(_SPEC)
    if not isinstance(spec, str):
        raise PromptError(f"{path} holds no trained method; read prompts with SoftPrompt.load.")
    check_model(record, model, str(path), record.d_model or 0, allow_other_model)
    try:
        method = create(spec)
    except ConfigError as error:
        raise PromptError(
            f"{path} was made by the method '{spec}', which is not registered here: {error} A"
            " method of a module of your own is registered by load_plugin, or by --plugin MODULE."
        ) from None
    if not method.rowwise or method.trains_lm:
        raise PromptError(f"{path} was made by '{spec}', which is no row-wise method here.")
    params, consts = (
        unflatten_dict(
            {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}, sep="/"
        )
        for prefix in (_PARAMS, _CONSTS)
    )
    trained = TrainedMethod(method, params, consts, record)
    if _prompt_length(path, trained) != record.tokens:
        raise PromptError(f"{path}: '{spec}' of this version computes prompts of another length.")
    _check_code(path, json.loads(text).get(_CODE), method)
    return trained


def _check_code(path: str | os.PathLike[str], made_by: str | None, method: BaseMethod) -> None:
    """Reports a file that other code of the method has written: its prompts may be others."""
    if made_by != code_digest.of_class(type(method)):
        why = "by other code of" if made_by else "by code that is not known, of"
        logging.getLogger("prompt_jax").warning(
            f"{path} was written {why} the method '{method.spec}': its answers may not be those"
            " that it was tested with. Train it again, or evaluate it."
        )


def read_record(path: str | os.PathLike[str]) -> PromptRecord | None:
    """The record of a file of `save`; None where the file is damaged or of another kind."""
    try:
        text, _ = store.unpack(read_bytes(path))
        return (
            PromptRecord.from_metadata({METADATA_KEY: text}) if _SPEC in json.loads(text) else None
        )
    except (PromptError, ValueError):
        return None


def _prompt_length(path: str | os.PathLike[str], trained: TrainedMethod) -> int:
    """L of the prompts that a method computes; nothing is computed for it.

    Raises:
      PromptError: its parameters or constants are not those of the method.
    """
    ids, one = jax.ShapeDtypeStruct((1, 8), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    embedded = jax.ShapeDtypeStruct((1, 8, trained.record.d_model or 0), jnp.float32)
    rows: Any = EvalRows(ids, ids, one, one, embedded)  # type: ignore[arg-type]
    state = jax.tree.map(lambda x: np.asarray(x)[None], (trained.params, trained.consts))
    try:
        shape = jax.eval_shape(trained.prompt_fn, state, one, rows).shape
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PromptError(
            f"{path}: its parameters are not those of '{trained.method.spec}' in this version of"
            f" the method ({error!r})."
        ) from None
    if len(shape) != 3 or shape[2] != trained.record.d_model:
        raise PromptError(f"{path}: '{trained.method.spec}' computes prompts of shape {shape}.")
    return int(shape[1])
