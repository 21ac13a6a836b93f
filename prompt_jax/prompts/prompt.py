"""`SoftPrompt`: a matrix that stands before the encoder's input embeddings.

Only the array is in the pytree, so two prompts of different tasks have one tree structure and a
jitted function is traced once for both. What is known about a prompt is its `record`, which lives
on the Python object alone and is dropped by every tree operation.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import PromptError
from prompt_jax.prompts import files
from prompt_jax.prompts.record import PromptRecord

T = TypeVar("T")


def as_float32(array: Any, what: str) -> jax.Array:
    """Returns a float32 JAX array [.., L, D]; numpy input is copied, tracers pass through.

    Raises:
      PromptError: for fewer than two axes or numbers that are not floating.
    """
    if not hasattr(array, "dtype"):
        array = np.asarray(array, np.float32)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise PromptError(f"{what} must hold floating-point numbers, not {array.dtype}.")
    if array.ndim < 2:
        raise PromptError(f"{what} must have shape [.., L, D], not {list(array.shape)}.")
    if isinstance(array, np.ndarray):
        return jnp.array(array, jnp.float32)  # a copy: the CPU backend may alias numpy memory
    return jnp.asarray(array, jnp.float32)


def register(cls: type[T], leaf: str) -> type[T]:
    """Registers `cls` as a pytree whose only child is the attribute `leaf`.

    Unflattening bypasses `__init__`, because JAX puts placeholders where arrays stood.
    """

    def flatten(obj: Any) -> tuple[tuple[Any], None]:
        return (getattr(obj, leaf),), None

    def flatten_with_keys(obj: Any) -> tuple[tuple[tuple[Any, Any]], None]:
        return ((jax.tree_util.GetAttrKey(leaf), getattr(obj, leaf)),), None

    def unflatten(_: None, children: Iterable[Any]) -> Any:
        obj = object.__new__(cls)
        (child,) = children
        object.__setattr__(obj, leaf, child)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def describe(array: Any) -> str:
    """Returns "L=100, D=768, norm=12.3"; the norm only of one concrete matrix."""
    shape = getattr(array, "shape", None)
    if shape is None or len(shape) < 2:
        return f"{array!r}"
    lead = f"{list(shape[:-2])} x " if len(shape) > 2 else ""
    text = f"{lead}L={shape[-2]}, D={shape[-1]}"
    if len(shape) == 2 and isinstance(array, np.ndarray | jax.Array) and _is_concrete(array):
        text += f", norm={float(np.linalg.norm(np.asarray(array, np.float32))):.4g}"
    return text


def _is_concrete(array: Any) -> bool:
    if isinstance(array, jax.core.Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


class SoftPrompt:
    """A soft prompt, or a stack of them with leading axes.

    >>> prompt = SoftPrompt(np.zeros((2, 4), np.float32))
    >>> prompt.length, prompt.d_model
    (2, 4)

    Attributes:
      embeddings: [L, D] float32, the only child of the pytree; [.., L, D] in populations.
      record: what is known about it, or None. Not part of the pytree.
      words: nearest vocabulary pieces of each token where `nearest_words` was asked, for the
        notebook display; else None. Not part of the pytree.
    """

    embeddings: jax.Array
    # Class-level defaults: objects made by tree operations have neither.
    record: PromptRecord | None = None
    words: list[list[tuple[str, float]]] | None = None

    # numpy must not broadcast `np.float32(2) * prompt` over the object.
    __array_ufunc__ = None

    def __init__(self, embeddings: Any, record: PromptRecord | None = None) -> None:
        object.__setattr__(self, "embeddings", as_float32(embeddings, "a prompt"))
        object.__setattr__(self, "record", record)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a SoftPrompt is immutable; make a new one to change '{name}'.")

    @property
    def length(self) -> int:
        """Number of prompt tokens, L."""
        return int(self.embeddings.shape[-2])

    @property
    def d_model(self) -> int:
        """Model width, D."""
        return int(self.embeddings.shape[-1])

    def with_record(self, record: PromptRecord | None) -> SoftPrompt:
        """Returns the same array with another record."""
        return SoftPrompt(self.embeddings, record)

    def save(self, path: str | os.PathLike[str], record: PromptRecord | None = None) -> None:
        """Writes the prompt and its record to one safetensors file, atomically.

        Args:
          path: local path (missing folders are made) or fsspec URL.
          record: stored in place of `self.record`.

        Raises:
          PromptError: for a stack of prompts, NaN or infinity, a record of another shape, or a
            path that cannot be written.
        """
        files.write(path, "prompt", self.embeddings, record or self.record or PromptRecord())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, model: Any = None, allow_other_model: bool = False
    ) -> SoftPrompt:
        """Reads a file written by `save`.

        Args:
          path: local path or fsspec URL.
          model: a `FrozenT5`. Where given, its weights must be those the prompt was made for.
          allow_other_model: accept other weights of the same width.

        Raises:
          PromptError: for a missing, damaged or foreign file, or another model.
        """
        stored = files.read(path, "prompt")
        if model is not None:
            check_model(stored.record, model, str(path), stored.array.shape[-1], allow_other_model)
        return cls(stored.array, stored.record)

    def __add__(self, other: Any) -> SoftPrompt:
        from prompt_jax.prompts.vector import TaskVector, apply_vector

        if isinstance(other, TaskVector):
            return apply_vector(self, other)
        if isinstance(other, SoftPrompt):
            raise TypeError(
                "prompt + prompt has no meaning: add a task vector instead,"
                " prompt + (other - initialisation)."
            )
        return NotImplemented

    def __sub__(self, other: Any) -> Any:
        from prompt_jax.prompts.vector import TaskVector, apply_vector, task_vector

        if isinstance(other, TaskVector):
            return apply_vector(self, -other)
        if isinstance(other, SoftPrompt):
            return task_vector(self, other)
        return NotImplemented

    def _no_scaling(self, other: Any = None) -> Any:
        raise TypeError(
            "number * prompt has no meaning: scale a task vector instead,"
            " initialisation + number * (prompt - initialisation)."
        )

    __mul__ = __rmul__ = __truediv__ = __neg__ = _no_scaling

    def __repr__(self) -> str:
        text = describe(self.embeddings)
        for name in ("task", "method", "init_id"):
            value = getattr(self.record, name, None)
            text += f", {name}={value!r}" if value is not None else ""
        return f"SoftPrompt({text})"

    def _repr_html_(self) -> str:
        rows = [("prompt", describe(self.embeddings))]
        if self.record is not None:
            known = {k: v for k, v in vars(self.record).items() if v not in (None, {})}
            rows += [(name, str(value)) for name, value in known.items()]
        for i, near in enumerate(self.words or []):
            rows.append((f"token {i}", ", ".join(f"{word} ({score:.2f})" for word, score in near)))
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in rows
        )
        return f"<table>{cells}</table>"


register(SoftPrompt, "embeddings")


def check_model(
    record: PromptRecord, model: Any, path: str, d_model: int, allow_other_model: bool = False
) -> None:
    """Checks that a prompt belongs to a model.

    Args:
      record: the prompt's record.
      model: anything with `weights_hash`, `name` and `d_model`.
      path: where the prompt was found, for messages.
      d_model: width of the prompt.
      allow_other_model: check the width only.

    Raises:
      PromptError: for other weights, unknown weights, or another width.
    """
    if not allow_other_model:
        if record.model_hash is None:
            raise PromptError(
                f"{path} does not say which base model it was made for. If it was {model.name},"
                " load it with allow_other_model=True."
            )
        if record.model_hash != model.weights_hash:
            made, this = shorten(record.model_hash, model.weights_hash)
            raise PromptError(
                f"{path} was made for base model {made} ({record.model_name or 'unnamed'});"
                f" this model is {this} ({model.name}). A prompt only works with the weights it"
                " was trained on."
            )
    if d_model != model.d_model:
        raise PromptError(
            f"{path} has width {d_model}, but {model.name} has d_model {model.d_model}: it was made"
            " for another model."
        )


def shorten(a: str, b: str) -> tuple[str, str]:
    """Returns two different hashes cut where they can be told apart, at four characters or later.

    >>> shorten("3f2a77", "91c0aa")
    ('3f2a...', '91c0...')
    """
    n = 4
    while a[:n] == b[:n] and n < max(len(a), len(b)):
        n += 4
    return tuple(f"{h[:n]}..." if len(h) > n else h for h in (a, b))  # type: ignore[return-value]
