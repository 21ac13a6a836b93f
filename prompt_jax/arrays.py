"""Arrays: prompts and task vectors as arrays, and short texts of objects that hold arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import PromptError

# The attribute that holds the array of a SoftPrompt or a TaskVector.
_HOLDERS = ("embeddings", "values")
_LONGEST = 120  # characters of one field in `fields_repr`
_MOST = 4  # entries of a collection that it shows


def unwrap(value: Any) -> Any:
    """The array of a soft prompt or task vector; anything else as it is."""
    if isinstance(value, np.ndarray | jax.Array):
        return value
    for name in _HOLDERS:
        array = getattr(value, name, None)
        if hasattr(array, "shape"):
            return array
    return value


def stack(value: Any, what: str) -> Any:
    """A prompt or task vector, or a list of them, as one array.

    Args:
      value: an array, something that holds one (`SoftPrompt`, `TaskVector`), or a list or tuple
        of such of equal shape, which are stacked along a new first axis. None, numbers and lists
        of numbers are returned as they are.
      what: name of the argument, for messages.

    Raises:
      PromptError: arrays of different shapes or dtypes, or a list of something else.

    >>> stack([np.zeros((2, 4)), np.ones((2, 4))], "prompts").shape
    (2, 2, 4)
    """
    if not isinstance(value, list | tuple):
        return unwrap(value)
    items = [unwrap(item) for item in value]
    are_arrays = [hasattr(item, "shape") and hasattr(item, "dtype") for item in items]
    if not any(are_arrays):
        if any(not isinstance(item, list | tuple | int | float) for item in items):
            raise PromptError(
                f"{what} must be an array, a SoftPrompt or TaskVector, or a list of such, not a"
                f" list of {type(items[0]).__name__}."
            )
        return value
    for number, (item, is_array) in enumerate(zip(items, are_arrays, strict=True)):
        if not is_array:
            raise PromptError(
                f"{what}: item {number} of the list is {type(item).__name__}, not an array."
            )
        if item.shape != items[0].shape:
            raise PromptError(
                f"{what}: item {number} of the list has shape {list(item.shape)}, but item 0"
                f" {list(items[0].shape)}: only prompts of one shape can be stacked."
            )
        if item.dtype != items[0].dtype:
            raise PromptError(
                f"{what}: item {number} of the list is {item.dtype}, but item 0"
                f" {items[0].dtype}: convert them to one type."
            )
    if all(isinstance(item, np.ndarray) for item in items):
        return np.stack(items)
    return jnp.stack([jnp.asarray(item) for item in items])


def fields_repr(value: Any) -> str:
    """The fields of a dataclass or named tuple in one short text: a `__repr__`.

    Arrays are shown by dtype and shape, long collections by their size.

    >>> from typing import NamedTuple
    >>> class Pair(NamedTuple):
    ...     name: str
    ...     scores: np.ndarray
    ...     def __repr__(self):
    ...         return fields_repr(self)
    >>> Pair("dev", np.zeros((400, 3), np.float32))
    Pair(name='dev', scores=float32[400, 3])
    """
    names = getattr(value, "_fields", None) or [field.name for field in fields(value)]
    shown = ", ".join(f"{name}={_brief(getattr(value, name))}" for name in names)
    return f"{type(value).__name__}({shown})"


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, str | bytes):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}..."
    if isinstance(value, Mapping):
        if len(value) > _MOST:
            return f"{{{len(value)} entries}}"
        text = "{" + ", ".join(f"{_brief(k)}: {_brief(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        if len(value) > _MOST:
            return f"[{len(value)} entries]"
        text = "[" + ", ".join(map(_brief, value)) + "]"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{type(value).__name__}(...)"
