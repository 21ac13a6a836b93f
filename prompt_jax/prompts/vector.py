"""Task vectors: what tuning added to an initialisation (Belanec et al. 2024, 2408.01119).

tau = P_tuned - P_init. Vectors of one initialisation add, subtract and scale; a vector added to a
prompt is a prompt. Everything else (prompt + prompt, number * prompt) is an error, and so is mixing
vectors of different initialisations unless `across_inits=True` says that it is meant: their numbers
are not measured from one origin.
"""

from __future__ import annotations

import numbers
import os
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import PromptError
from prompt_jax.prompts import files
from prompt_jax.prompts.prompt import SoftPrompt, as_float32, describe, register
from prompt_jax.prompts.record import PromptRecord

_LONGEST_NAME = 120


class TaskVector:
    """Difference of two prompts, or a stack of them with leading axes.

    >>> tau = TaskVector(np.ones((2, 4), np.float32), init_id="17", name="mnli")
    >>> (2 * tau - tau).name
    '2 * mnli - mnli'

    Attributes:
      values: [L, D] float32, the only child of the pytree; [.., L, D] in stacks.
      init_id: the initialisation it is measured from; None = unknown, which is never checked
        (so after every tree operation and inside jit). Not part of the pytree.
      name: how it came about, for messages and records. Not part of the pytree.
    """

    values: jax.Array
    # Class-level defaults: objects made by tree operations have neither.
    init_id: str | None = None
    name: str | None = None

    # numpy must not broadcast `np.float32(2) * vector` over the object.
    __array_ufunc__ = None

    def __init__(self, values: Any, init_id: str | None = None, name: str | None = None) -> None:
        if name is not None and len(name) > _LONGEST_NAME:
            name = name[: _LONGEST_NAME - 3] + "..."
        object.__setattr__(self, "values", as_float32(values, "a task vector"))
        object.__setattr__(self, "init_id", init_id)
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a TaskVector is immutable; make a new one to change '{name}'.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vector with its name and initialisation to one safetensors file, atomically.

        Raises:
          PromptError: for a stack of vectors, NaN or infinity, or an unwritable path.
        """
        files.write(path, "vector", self.values, PromptRecord(init_id=self.init_id, task=self.name))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TaskVector:
        """Reads a file written by `save`.

        Raises:
          PromptError: for a missing, damaged or foreign file.
        """
        stored = files.read(path, "vector")
        return cls(stored.array, stored.record.init_id, stored.record.task)

    def __add__(self, other: Any) -> TaskVector:
        if isinstance(other, TaskVector):
            return _combine(self, other, 1, across_inits=False)
        return NotImplemented

    def __radd__(self, other: Any) -> TaskVector:
        if isinstance(other, int) and other == 0:  # so that sum(vectors) works
            return self
        return NotImplemented

    def __sub__(self, other: Any) -> TaskVector:
        if isinstance(other, TaskVector):
            return _combine(self, other, -1, across_inits=False)
        return NotImplemented

    def __mul__(self, number: Any) -> TaskVector:
        factor, text = _scalar(number, self.values)
        return TaskVector(self.values * factor, self.init_id, _named(text + " * {}", self.name))

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> TaskVector:
        factor, text = _scalar(number, self.values)
        return TaskVector(self.values / factor, self.init_id, _named("{} / " + text, self.name))

    def __neg__(self) -> TaskVector:
        return TaskVector(-self.values, self.init_id, _named("-{}", self.name))

    def __repr__(self) -> str:
        text = describe(self.values)
        text += f", name={self.name!r}" if self.name is not None else ""
        text += f", init_id={self.init_id!r}" if self.init_id is not None else ""
        return f"TaskVector({text})"


register(TaskVector, "values")


def task_vector(prompt: SoftPrompt, init: SoftPrompt, *, across_inits: bool = False) -> TaskVector:
    """Returns prompt - init, measured from `init`.

    Args:
      prompt: tuned prompt [.., L, D].
      init: what its training started from, [.., L, D]; or another prompt of the same start.
      across_inits: allow prompts whose records name different initialisations; the result then
        has none.

    Raises:
      PromptError: for different shapes, or different initialisations.
    """
    ids = [getattr(p.record, "init_id", None) for p in (prompt, init)]
    names = [getattr(p.record, "task", None) for p in (prompt, init)]
    # Named apart: both are called after the task where two prompts of one task meet.
    labels = (names[0] or "the prompt", names[1] or "the initialisation")
    _check_shapes(prompt.embeddings, init.embeddings)
    init_id = _common_init(ids[0], ids[1], labels, across_inits)
    name = names[0] if names[1] is None else _named("{} - {}", *names)
    return TaskVector(prompt.embeddings - init.embeddings, init_id, name)


@overload
def add(a: TaskVector, b: TaskVector, *, across_inits: bool = ...) -> TaskVector: ...
@overload
def add(a: SoftPrompt, b: TaskVector, *, across_inits: bool = ...) -> SoftPrompt: ...
def add(a: Any, b: TaskVector, *, across_inits: bool = False) -> Any:
    """Returns a + b, where `a` is a task vector or a prompt.

    Args:
      a: vector or prompt [.., L, D].
      b: vector [.., L, D].
      across_inits: allow different initialisations. A sum of vectors then has none; a prompt
        keeps its own.

    Raises:
      PromptError: for different shapes, or different initialisations without `across_inits`.
      TypeError: where `b` is no task vector.
    """
    if not isinstance(b, TaskVector):
        raise TypeError(f"only a TaskVector can be added, not {type(b).__name__}.")
    if isinstance(a, SoftPrompt):
        return apply_vector(a, b, across_inits=across_inits)
    if not isinstance(a, TaskVector):
        raise TypeError(f"a TaskVector can be added to a TaskVector or SoftPrompt, not {a!r}.")
    return _combine(a, b, 1, across_inits=across_inits)


def apply_vector(
    prompt: SoftPrompt, vector: TaskVector, *, across_inits: bool = False
) -> SoftPrompt:
    """Returns prompt + vector; `prompt + vector` is the same.

    The record, where there is one, keeps model and initialisation, says what was added
    (`config["vectors"]`) and loses its scores, which no longer hold.

    Raises:
      PromptError: for different shapes, or different initialisations without `across_inits`.
    """
    _check_shapes(prompt.embeddings, vector.values)
    record = prompt.record
    if record is not None:
        labels = (record.task or "the prompt", vector.name or "the vector")
        _common_init(record.init_id, vector.init_id, labels, across_inits)
        added = {"name": vector.name, "init_id": vector.init_id}
        record = record.replace(
            task=_named("{} + {}", record.task, vector.name) or record.task,
            config={**record.config, "vectors": [*record.config.get("vectors", []), added]},
            scores={},
            created=None,
        )
    return SoftPrompt(prompt.embeddings + vector.values, record)


def _combine(a: TaskVector, b: TaskVector, sign: int, *, across_inits: bool) -> TaskVector:
    _check_shapes(a.values, b.values)
    init_id = _common_init(a.init_id, b.init_id, (a.name or "a", b.name or "b"), across_inits)
    name = _named("{} + {}" if sign > 0 else "{} - {}", a.name, b.name)
    return TaskVector(a.values + b.values if sign > 0 else a.values - b.values, init_id, name)


def _common_init(
    a: str | None, b: str | None, labels: tuple[str, str], across_inits: bool
) -> str | None:
    """The initialisation of a result: the shared or only known one, None where they differ."""
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


def _check_shapes(a: Any, b: Any) -> None:
    if a.shape != b.shape:
        raise PromptError(
            f"shapes {list(a.shape)} and {list(b.shape)} do not fit: task vectors need prompts of"
            " one length from one model."
        )


def _scalar(number: Any, like: jax.Array) -> tuple[Any, str]:
    """The factor in a form that strict dtype promotion takes, and how to write it."""
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


def _named(pattern: str, *names: str | None) -> str | None:
    """The pattern filled with names, sums in brackets where that matters; None if one is None."""
    if any(name is None for name in names):
        return None
    wrap = not pattern.startswith("{} +")
    parts = [
        f"({n})" if n and (" + " in n or " - " in n) and (wrap or i) else n
        for i, n in enumerate(names)
    ]
    return pattern.format(*parts)
