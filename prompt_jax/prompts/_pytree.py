"""What `SoftPrompt` and `TaskVector` share: one array [.., L, D] as the only child of a pytree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import PromptError

T = TypeVar("T")


def as_float32(array: Any, what: str) -> jax.Array:
    """Returns a float32 JAX array [.., L, D]; numpy input is copied, tracers pass through.

    Raises:
      PromptError: for fewer than two axes or numbers that are not floating.
    """
    if not hasattr(array, "dtype"):
        try:
            array = np.asarray(array, np.float32)
        except (TypeError, ValueError):
            raise PromptError(
                f"{what} holds numbers [.., L, D], not a {type(array).__name__}: SoftPrompt.load"
                " reads a file."
            ) from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise PromptError(f"{what} must hold floating-point numbers, not {array.dtype}.")
    if array.ndim < 2:
        raise PromptError(f"{what} must have shape [.., L, D], not {list(array.shape)}.")
    if isinstance(array, np.ndarray):
        return jnp.array(array, jnp.float32)  # a copy: the CPU backend may alias numpy memory
    return jnp.asarray(array, jnp.float32)


class Matrix:
    """What a soft prompt and a task vector do as arrays [.., L, D]; `register` names the array."""

    _leaf: str

    @property
    def shape(self) -> tuple[int, ...]:
        """[L, D], or [.., L, D] of a stack."""
        return tuple(self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self._array.ndim)

    @property
    def dtype(self) -> Any:
        """float32."""
        return self._array.dtype

    @property
    def _array(self) -> Any:
        return getattr(self, self._leaf)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype, copy=copy)

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _take(self, index: Any) -> Any:
        """Part of the array; an index out of range is an IndexError, as of numpy.

        JAX would take the last one.
        """
        for number, size in zip(index if isinstance(index, tuple) else (index,), self.shape):  # noqa: B905
            if isinstance(number, int) and not -size <= number < size:
                raise IndexError(f"index {number} is out of range for {size} along an axis.")
        return self._array[index]

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError


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

    cls._leaf = leaf  # type: ignore[attr-defined]
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
