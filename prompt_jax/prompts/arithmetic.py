"""Rules of prompt arithmetic that need no prompt: shapes, initialisations, factors and names."""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import PromptError
from prompt_jax.prompts.record import PromptRecord


def common_init(
    a: str | None, b: str | None, labels: tuple[str, str], across_inits: bool
) -> str | None:
    """The initialisation of a result: the shared or only known one.

    Args:
      a: initialisation of the first operand; None is unknown.
      b: of the second.
      labels: names of the operands, for messages.
      across_inits: return None where they differ.

    Raises:
      PromptError: they differ.
    """
    if a is None or b is None or a == b:
        return a if a is not None else b
    if across_inits:
        return None
    first, second = labels if labels[0] != labels[1] else ("a", "b")
    raise PromptError(
        f"{first} and {second} do not share an initialisation (init {a} vs init {b}), so their"
        " task vectors are not comparable. Pass --across-inits to add them all the same.\n"
        "  In Python: add(a, b, across_inits=True)."
    )


def check_shapes(a: Any, b: Any) -> None:
    """Refuses two arrays of different shapes.

    Raises:
      PromptError: the shapes differ.
    """
    if a.shape != b.shape:
        raise PromptError(
            f"shapes {list(a.shape)} and {list(b.shape)} do not fit: task vectors need prompts of"
            " one length from one model."
        )


def scalar_factor(number: Any, like: jax.Array) -> tuple[Any, str]:
    """The factor in a form that strict dtype promotion takes, and how to write it.

    Args:
      number: a real number, or an array without axes.
      like: gives the dtype.

    Raises:
      TypeError: anything else.
    """
    if isinstance(number, jax.Array):
        if number.ndim == 0:
            return number.astype(like.dtype), "scale" if _traced(number) else f"{float(number):g}"
    elif isinstance(number, numbers.Real | np.floating | np.integer) or (
        isinstance(number, np.ndarray) and number.ndim == 0
    ):
        return jnp.asarray(float(number), like.dtype), f"{float(number):g}"
    raise TypeError(f"a task vector is scaled by one number, not by {type(number).__name__}.")


def _traced(number: Any) -> bool:
    return isinstance(number, jax.core.Tracer)


def combined_name(pattern: str, *names: str | None) -> str | None:
    """The pattern filled with names, sums in brackets where that matters; None if one is None."""
    if any(name is None for name in names):
        return None
    wrap = not pattern.startswith("{} +")
    parts = [
        f"({n})" if n and (" + " in n or " - " in n) and (wrap or i) else n
        for i, n in enumerate(names)
    ]
    return pattern.format(*parts)


def record_of_sum(
    record: PromptRecord, name: str | None, init_id: str | None, across_inits: bool
) -> PromptRecord:
    """The record of prompt + vector.

    It keeps model and initialisation, lists what was added (`config["vectors"]`) and loses its
    scores, which no longer hold.

    Args:
      record: of the prompt.
      name: of the vector.
      init_id: of the vector.
      across_inits: allow different initialisations.

    Raises:
      PromptError: different initialisations without `across_inits`.
    """
    labels = (record.task or "the prompt", name or "the vector")
    common_init(record.init_id, init_id, labels, across_inits)
    added = {"name": name, "init_id": init_id}
    return record.replace(
        task=combined_name("{} + {}", record.task, name) or record.task,
        config={**record.config, "vectors": [*record.config.get("vectors", []), added]},
        scores={},
        created=None,
    )
