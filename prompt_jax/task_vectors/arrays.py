"""Arguments of the functions on task vectors, as arrays of one type."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.arrays import stack
from prompt_jax.errors import PromptError


def common(*values: Any) -> tuple[jax.Array, ...]:
    """Arrays of one type: float64 if one of them is, else float32. Plain numbers do not decide."""
    found = [jnp.asarray(value) for value in values]
    wide = any(x.dtype == jnp.float64 and not x.weak_type for x in found)
    return tuple(x.astype(jnp.float64 if wide else jnp.float32) for x in found)


def matrices(x: Any, what: str) -> jax.Array:
    """Prompts, task vectors, arrays or lists of them as one array [.., L, D].

    Raises:
      PromptError: it has fewer than two axes.
    """
    x = stack(x, what)
    if jnp.ndim(x) < 2:
        raise PromptError(f"{what} must have shape [.., L, D], not {list(jnp.shape(x))}.")
    return common(x)[0]
