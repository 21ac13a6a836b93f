"""From the tensors of a checkpoint to stacked parameters: none missing, none left over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prompt_jax.errors import ModelError

_SHOWN = 3  # names in a message
_BLOCK = 64  # rows of a matrix that are transposed at a time


def check_names(
    tensors: Mapping[str, np.ndarray],
    expected: Iterable[str],
    where: str,
    *,
    copies: Mapping[str, str] | None = None,
    unused: str = "",
) -> None:
    """Checks that a checkpoint holds the expected tensors and no other.

    Args:
      tensors: name -> array; may read lazily.
      expected: the names that the configuration asks for.
      where: the checkpoint, for messages.
      copies: name -> the expected name that it has to equal; may be missing.
      unused: regular expression of names without effect on the computation; may be missing.

    Raises:
      ModelError: a tensor is missing, is not used, or differs from what it is a copy of.
    """
    expected = frozenset(expected)
    missing = sorted(expected - set(tensors))
    extra = sorted(set(tensors) - expected)
    if unused:
        extra = [name for name in extra if not re.fullmatch(unused, name)]
    for name in [name for name in extra if name in (copies or {})]:
        original = (copies or {})[name]
        if original in tensors and not equal(tensors, name, original):
            raise ModelError(
                f"{where}: tensor '{name}' differs from '{original}', which it has to be a copy "
                "of: such a model is not supported."
            )
        extra.remove(name)
    if missing:
        also = f" It holds {_names(extra)} instead: were they renamed?" if extra else ""
        raise ModelError(
            f"{where} has no tensor {_names(missing)}, which its configuration asks for. "
            f"Is config.json the one of this checkpoint?{also}"
        )
    if extra:
        raise ModelError(
            f"{where} holds the tensor {_names(extra)}, which its configuration does not use: the "
            "model would compute something else without it. Is config.json the one of this "
            "checkpoint?"
        )


def equal(tensors: Mapping[str, np.ndarray], name: str, other: str) -> bool:
    """Whether two tensors are the same to the last bit."""
    return np.array_equal(tensors[name], tensors[other])


def gather(
    tensors: Mapping[str, np.ndarray],
    names: Sequence[str],
    shape: tuple[int, ...],
    where: str,
    *,
    stacked: bool,
    transposed: bool,
) -> np.ndarray:
    """One parameter, float32.

    Args:
      tensors: name -> array, PyTorch's orientation.
      names: of the tensors, one a layer.
      shape: of the parameter, with the axis of the layers where it is stacked.
      where: the checkpoint, for messages.
      stacked: one tensor a layer along the first axis; else there is one name.
      transposed: the parameter is `[in, out]`, the tensors `[out, in]`.

    Raises:
      ModelError: a tensor has another shape or is not of floats.
    """
    own = shape[1:] if stacked else shape
    expected = own[::-1] if transposed else own
    array: np.ndarray | None = None
    for layer, name in enumerate(names):
        tensor = tensors[name]
        if tensor.shape != expected:
            raise ModelError(
                f"{where}: tensor '{name}' has shape {list(tensor.shape)}, but the configuration "
                f"says {list(expected)}."
            )
        if tensor.dtype.kind in "iubcSUO":
            raise ModelError(
                f"{where}: tensor '{name}' holds {tensor.dtype}, not floating-point numbers: "
                "quantized weights are not read."
            )
        if array is None:  # not before a shape that cannot be right is found
            array = np.empty((len(names), *own), np.float32)
        if transposed:
            _write_transposed(array[layer], tensor)
        else:
            array[layer] = tensor
    assert array is not None
    return array if stacked else array[0]


def _write_transposed(out: np.ndarray, tensor: np.ndarray) -> None:
    """Writes a matrix, transposed, into an array: some rows at a time, which stay in the cache.

    A third of the time of one assignment.
    """
    for start in range(0, len(tensor), _BLOCK):
        out[:, start : start + _BLOCK] = tensor[start : start + _BLOCK].T


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else "")
