"""Checks of what callers pass to a language model: before any compute, with a message that helps.

Shapes and dtypes are checked always, values where they are concrete (outside a caller's `jit`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import sharding
from prompt_jax.arrays import stack
from prompt_jax.errors import ModelError, PromptError
from prompt_jax.models import precision
from prompt_jax.models.base import LanguageModel

_DTYPES = ("float32", "bfloat16")


def dtype_name(dtype: Any) -> str:
    """The name of a supported compute dtype; `auto` is the fastest one here.

    Raises:
      ModelError: any other dtype.
    """
    if isinstance(dtype, str) and dtype == precision.AUTO:
        return precision.fastest().dtype
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in _DTYPES:
        why = " (float16 overflows to NaN)" if name == "float16" else ""
        raise ModelError(
            f"Models run in float32 or bfloat16 (auto: the faster one), not {name}{why}."
        )
    return name


def integers(
    name: str,
    value: Any,
    shape: tuple[int | None, ...] | None,
    vocab_size: int,
    ignore: int | None = None,
) -> Any:
    """Token ids as an int32 array.

    Args:
      name: of the argument, for messages.
      value: anything array-like.
      shape: what it must be, None for any size; None for any shape.
      vocab_size: ids must be below.
      ignore: a value that is allowed besides.

    Raises:
      ModelError: not integers, another shape, or (where concrete) ids outside the vocabulary.
    """
    array = as_array(name, value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ModelError(f"{name} must be integers, not {array.dtype}.")
    if shape is not None:
        fits = len(shape) == array.ndim and all(
            size is None or size == actual for size, actual in zip(shape, array.shape, strict=True)
        )
        if not fits:
            text = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(f"{name} must have shape [{text}], not {list(array.shape)}.")
    if _is_concrete(array) and array.size:
        values = np.asarray(array)
        bad = (values < 0) | (values >= vocab_size)
        if ignore is not None:
            bad &= values != ignore
        if bad.any():
            raise ModelError(
                f"{name} holds {int(values[bad][0])}, outside the vocabulary of {vocab_size}: was "
                "the text encoded with another model's tokenizer?"
            )
    return array.astype(jnp.int32)


def rows(
    lm: LanguageModel, input_ids: Any, attention_mask: Any, prompt: Any
) -> tuple[Any, Any, Any | None]:
    """The input arguments: ids `[B, S]`, mask `[B, S]`, prompt `[L, D]` or `[B, L, D]`.

    Raises:
      ModelError, PromptError: they do not fit together or not the model.
    """
    input_ids = integers("input_ids", input_ids, (None, None), lm.vocab_size)
    if not input_ids.shape[0]:
        raise ModelError("input_ids has no rows.")
    mask = as_array("attention_mask", attention_mask)
    if mask.shape != input_ids.shape:
        raise ModelError(
            f"attention_mask has shape {list(mask.shape)}, but input_ids "
            f"{list(input_ids.shape)}: they must be equal (the prompt's part is added here)."
        )
    if mask.dtype.kind not in "biuf" or (
        _is_concrete(mask) and not np.isin(np.asarray(mask), (0, 1)).all()
    ):
        raise ModelError("attention_mask must be 1 at tokens and 0 at padding, and nothing else.")
    return input_ids, mask, _prompt(lm, prompt, input_ids.shape[0])


def count(name: str, value: Any) -> int:
    """A static number of at least 1.

    Raises:
      ModelError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ModelError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return int(value)


Call = TypeVar("Call", bound=Callable[..., Any])


def takes_ids(method: Call) -> Call:
    """A method whose first argument are token ids: a text is refused before others are missed."""

    @functools.wraps(method)
    def checked(lm: LanguageModel, *args: Any, **options: Any) -> Any:
        first = args[0] if args else options.get("input_ids")
        if isinstance(first, str) or (isinstance(first, list | tuple) and _has_text(first)):
            as_array("input_ids", np.asarray(first, object))
        return method(lm, *args, **options)

    return cast(Call, checked)


def run(program: Callable[..., Any], lm: LanguageModel, *arrays: Any, **static: Any) -> Any:
    """Calls a compiled program of a model on checked arguments, on whatever mesh they lie.

    Args:
      program: `(lm, *arrays, **static)`; its results have a leading axis B.
      lm: the model.
      *arrays: with a leading axis B; None, scalars and matrices of all rows also, after the first.
      **static: arguments that are no arrays.

    Raises:
      ModelError: forward-mode differentiation.
    """
    if _wide() and any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(lm.params)):
        raise ModelError(
            f"The weights of '{lm.name}' are float64, but a model computes in float32 or bfloat16:"
            " convert them, lm.replace(params=jax.tree.map(lambda x: x.astype('float32'), ..))."
        )
    arrays = sharding.vary_alike(arrays)
    rows = arrays[0].shape[0]
    split = [x for x in arrays if x is not None and np.ndim(x) > 1 and x.shape[0] == rows]
    try:
        return sharding.call_with_auto_axes(
            functools.partial(program, **static), lm, *arrays, split=split
        )
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise ModelError(
            "A model has no forward-mode derivative (jax.jvp, jax.jacfwd, jax.linearize): its"
            " derivatives are written for reverse mode. Use jax.grad, jax.vjp or jax.jacrev;"
            " jax.hessian and the forward derivative of a gradient work."
        ) from None


def _wide() -> bool:
    """Whether there are 64-bit arrays; without them JAX takes float64 for float32."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def refuse_no_prompt(prompt: Any) -> None:
    """Refuses what is easily given in place of a prompt: its path, and a task vector.

    Raises:
      PromptError: with what to do.
    """
    for one in prompt if isinstance(prompt, list | tuple) else (prompt,):
        if isinstance(one, str | os.PathLike):
            raise PromptError(f"a prompt is not its path: SoftPrompt.load({str(one)!r}, model=lm).")
        if hasattr(one, "values") and hasattr(one, "init_id"):
            raise PromptError(
                "a task vector is the difference of two prompts, not a prompt: add it to the prompt"
                " that it is measured from, prompt + vector."
            )


def _prompt(lm: LanguageModel, prompt: Any, rows: int) -> Any | None:
    if prompt is None:
        return None
    refuse_no_prompt(prompt)
    array = as_array("prompt", stack(prompt, "prompt"))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise PromptError(f"A soft prompt holds embeddings, not {array.dtype} values.")
    if array.ndim not in (2, 3):
        raise PromptError(f"A prompt has shape [L, D] or [B, L, D], not {list(array.shape)}.")
    if array.shape[-1] != lm.d_model:
        raise PromptError(
            f"The prompt has width {array.shape[-1]}, but the model '{lm.name}' has d_model "
            f"{lm.d_model}: was it trained on another model?"
        )
    if array.ndim == 3 and array.shape[0] != rows:
        raise PromptError(
            f"A prompt per row was given for {array.shape[0]} rows, but the batch has {rows}."
        )
    if array.dtype == np.float64 and _wide():
        raise PromptError(
            "The prompt is float64, but a model computes in float32 or bfloat16: pass"
            " prompt.astype('float32')."
        )
    return array.astype(jnp.float32) if isinstance(array, np.ndarray) else array


def _is_concrete(array: Any) -> bool:
    """Whether the values can be looked at here."""
    if isinstance(array, jax.core.Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def as_array(name: str, value: Any) -> Any:
    """Anything array-like as an array.

    Raises:
      ModelError: it is a text, or its rows have different lengths.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModelError(
            f"{name} must be a rectangular array: pad its rows"
            f"{' with -100' if name in ('labels', 'candidates') else ''}."
        ) from error
    if array.dtype.kind in "USO" and _has_text(array):
        raise ModelError(
            f"{name} is text, but a model takes token ids: prompt_jax.predict(lm, texts, prompt)"
            " takes texts; or encode them with lm.tokenizer.encode(texts) and pad the rows."
        )
    if array.dtype == object:
        raise ModelError(f"{name} must be a rectangular array of numbers: pad its rows.")
    return array


def _has_text(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return True
    if isinstance(value, np.ndarray):
        return any(isinstance(item, str | bytes) for item in value.ravel())
    return isinstance(value, list | tuple) and any(map(_has_text, value[:1]))
