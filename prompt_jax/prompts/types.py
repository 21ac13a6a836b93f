"""`SoftPrompt` and `TaskVector`: a matrix before the input embeddings, and a difference of two.

Only the array is in the pytree, so two prompts of different tasks have one tree structure and a
jitted function is traced once for both. The `record` of a prompt is an attribute of
the Python object alone and is dropped by every tree operation.

A task vector is what tuning added to an initialisation (Belanec et al. 2024, 2408.01119):
tau = P_tuned - P_init. Vectors of one initialisation add, subtract and scale; a vector added to a
prompt is a prompt. Everything else (prompt + prompt, number * prompt) is an error, and so is mixing
vectors of different initialisations unless `across_inits=True` allows it: their numbers are not
measured from one origin.
"""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any, overload

import jax

from prompt_jax.prompts import files
from prompt_jax.prompts._pytree import Matrix, as_float32, describe, register
from prompt_jax.prompts.arithmetic import (
    check_shapes,
    combined_name,
    common_init,
    record_of_sum,
    scalar_factor,
)
from prompt_jax.prompts.record import PromptRecord, check_model

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel

_LONGEST_NAME = 120
_LONGEST_CELL = 300
_LONGEST_SHOWN = 48  # characters of a value in a repr


class SoftPrompt(Matrix):
    """A soft prompt, or a stack of them with leading axes.

    `np.asarray(prompt)`, `.shape` and `len` are those of the array. A part of it (`prompt[:5]`, or
    one prompt of a stack) is a prompt, whose record has its shape and no scores; a single token
    (`prompt[0]`) is an array.

    >>> prompt = SoftPrompt(np.zeros((2, 4), np.float32))
    >>> prompt.length, prompt.d_model
    (2, 4)

    Attributes:
      embeddings: [L, D] float32, the only child of the pytree; [.., L, D] in populations.
      record: where it came from, or None. Not part of the pytree.
      words: nearest vocabulary pieces of each token after `nearest_words`, for the notebook
        display; else None. Not part of the pytree.
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

    def __getitem__(self, index: Any) -> Any:
        array = self._take(index)
        if array.ndim < 2:
            return array
        record = self.record
        if record is not None and array.shape != self.shape:
            record = record.replace(tokens=array.shape[-2], d_model=array.shape[-1], scores={})
        return SoftPrompt(array, record)

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
        cls,
        path: str | os.PathLike[str],
        *,
        model: LanguageModel | None = None,
        allow_other_model: bool = False,
    ) -> SoftPrompt:
        """Reads a file written by `save`.

        Args:
          path: local path or fsspec URL.
          model: a language model. Where given, its weights must be those the prompt was made for.
          allow_other_model: accept other weights of the same width.

        Raises:
          PromptError: for a missing, damaged or foreign file, or another model.
        """
        stored = files.read(path, "prompt")
        if model is not None:
            check_model(stored.record, model, str(path), stored.array.shape[-1], allow_other_model)
        return cls(stored.array, stored.record)

    def __add__(self, other: Any) -> SoftPrompt:
        if isinstance(other, TaskVector):
            return apply_vector(self, other)
        if isinstance(other, SoftPrompt):
            raise TypeError(
                "prompt + prompt has no meaning: add a task vector instead,"
                " prompt + (other - initialisation)."
            )
        return NotImplemented

    def __sub__(self, other: Any) -> Any:
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
            text += f", {name}={_short(value)!r}" if value is not None else ""
        return f"SoftPrompt({text})"

    def _repr_html_(self) -> str:
        rows = [("prompt", describe(self.embeddings))]
        if self.record is not None:
            known = {k: v for k, v in vars(self.record).items() if v not in (None, {})}
            rows += [(name, _short(str(value), _LONGEST_CELL)) for name, value in known.items()]
        for i, near in enumerate(self.words or []):
            rows.append((f"token {i}", ", ".join(f"{word} ({score:.2f})" for word, score in near)))
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in rows
        )
        return f"<table>{cells}</table>"


register(SoftPrompt, "embeddings")


def _short(text: str, longest: int = _LONGEST_SHOWN) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


class TaskVector(Matrix):
    """Difference of two prompts, or a stack of them with leading axes.

    It behaves as an array, like a `SoftPrompt`.

    >>> tau = TaskVector(np.ones((2, 4), np.float32), init_id="17", name="mnli")
    >>> (2 * tau - tau).name
    '2 * mnli - mnli'

    Attributes:
      values: [L, D] float32, the only child of the pytree; [.., L, D] in stacks.
      init_id: the initialisation it is measured from; None = unknown, which is never checked
        (so after every tree operation and inside jit). Not part of the pytree.
      name: the expression that produced it, for messages and records. Not part of the pytree.
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

    def __getitem__(self, index: Any) -> Any:
        array = self._take(index)
        return array if array.ndim < 2 else TaskVector(array, self.init_id, self.name)

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
        factor, text = scalar_factor(number, self.values)
        return TaskVector(
            self.values * factor, self.init_id, combined_name(text + " * {}", self.name)
        )

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> TaskVector:
        factor, text = scalar_factor(number, self.values)
        return TaskVector(
            self.values / factor, self.init_id, combined_name("{} / " + text, self.name)
        )

    def __neg__(self) -> TaskVector:
        return TaskVector(-self.values, self.init_id, combined_name("-{}", self.name))

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
    check_shapes(prompt.embeddings, init.embeddings)
    init_id = common_init(ids[0], ids[1], labels, across_inits)
    name = names[0] if names[1] is None else combined_name("{} - {}", *names)
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

    The record, where there is one, keeps model and initialisation, lists what was added
    (`config["vectors"]`) and loses its scores, which no longer hold.

    Raises:
      PromptError: for different shapes, or different initialisations without `across_inits`.
    """
    check_shapes(prompt.embeddings, vector.values)
    record = prompt.record
    if record is not None:
        record = record_of_sum(record, vector.name, vector.init_id, across_inits)
    return SoftPrompt(prompt.embeddings + vector.values, record)


def _combine(a: TaskVector, b: TaskVector, sign: int, *, across_inits: bool) -> TaskVector:
    check_shapes(a.values, b.values)
    init_id = common_init(a.init_id, b.init_id, (a.name or "a", b.name or "b"), across_inits)
    name = combined_name("{} + {}" if sign > 0 else "{} - {}", a.name, b.name)
    return TaskVector(a.values + b.values if sign > 0 else a.values - b.values, init_id, name)
