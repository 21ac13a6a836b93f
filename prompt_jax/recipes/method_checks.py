"""Mistakes in a user's method, reported before the first step in one message.

The package's own methods are not checked here; the conformance tests do that.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_jax.errors import ConfigError, PromptJaxError
from prompt_jax.methods import BaseMethod
from prompt_jax.models.base import LanguageModel, Scores
from prompt_jax.training.protocol import Method, Prompted, RowLoss, Rows

_ROWS, _TOKENS, _TARGETS = 2, 4, 3  # of the made-up rows, B, S and T
_PACKAGE = Path(__file__).resolve().parents[1]
_HOST = (
    jax.errors.ConcretizationTypeError,  # .item(), float() and if
    jax.errors.TracerArrayConversionError,  # numpy
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


@contextmanager
def own_errors(method: Method, function: str = "") -> Iterator[None]:
    """Turns an error inside the code of a method of one's own into one message.

    Args:
      method: whose code runs here.
      function: that was called; "": any of it, and other errors pass as they are.

    Raises:
      ConfigError: names the method, its file and line, and the error.
    """
    try:
        yield
    except (PromptJaxError, MemoryError):
        raise
    except Exception as error:
        file = source_file(method)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if file is None or not (frames or function):
            raise
        place = f"line {frames[-1].lineno} of {file}" if frames else file
        called = function or frames[-1].name
        hint = "" if frames or not function else _hint(method, function)
        if isinstance(error, _HOST):
            hint += (
                " It runs inside a compiled program, where arrays have no values yet: use"
                " jax.numpy, jnp.where and jax.lax.cond in place of numpy, Python numbers and if."
            )
        first = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(
            f"method {_name(method)}: {called} fails ({place}): {type(error).__name__}: {first}"
            f"{'' if first.endswith('.') else '.'}{hint} PROMPT_JAX_TRACEBACK=1 prints where."
        ) from error


def check_method(
    method: Method, params: Any, consts: Any, lm: LanguageModel, *, every: bool = False
) -> None:
    """Traces the functions of a method of one's own on shapes, and checks what they return.

    Args:
      method: that trains a replica.
      params: of a replica, from `init`.
      consts: likewise.
      lm: the frozen model.
      every: whether the package's own methods are checked as well.

    Raises:
      ConfigError: a function fails or returns something else than the protocol says.
    """
    if source_file(method) is None and not every:
        return
    check = Checks(method)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), _dtype(x)), (params, consts))
    carry = check.traced("carry", method.carry, *shapes)
    prompted = check.traced(
        "prompts",
        method.prompts,
        *shapes,
        carry,
        _rows(method, lm),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    check.kind("prompts", prompted, Prompted, "a Prompted")
    _check_prompts(check, prompted, carry, lm)
    scores = _scores(method, lm)
    teacher = None if prompted.teacher is None else scores
    loss = check.traced("row_loss", method.row_loss, scores, teacher)
    check.kind("row_loss", loss, RowLoss, "a RowLoss")
    for part in loss:
        check.shape("row_loss", part, (_ROWS,), "a RowLoss of floats [b], one number per row")
    step = jax.ShapeDtypeStruct((), jnp.int32)
    penalty = check.traced("penalty", method.penalty, *shapes, prompted.aux, step)
    check.shape("penalty", penalty, (), "a scalar")
    if (method.lm_params(params) is not None) != method.trains_lm:
        raise check.says("lm_params() must return the model's weights if trains_lm, else None")
    names = check.called("groups", method.groups, params)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (names, params)]
    if structures[0] != structures[1]:
        raise check.wrong("groups", "a tree like params, of names", names)
    check.kind("group_rates", check.called("group_rates", method.group_rates), Mapping, "a mapping")
    tx = check.called("transform", method.transform, optax.identity())
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise check.wrong("transform", "an optax.GradientTransformation", tx)
    made = check.traced("metrics", method.metrics, *shapes, prompted)
    check.kind("metrics", made, Mapping, "a mapping")
    if method.rowwise:
        made = check.traced("row_prompts", method.row_prompts, *shapes, _rows(method, lm))
        if made is not None:
            wanted = "floats [B, L, D], or None"
            check.shape("row_prompts", made, (_ROWS, None, lm.d_model), wanted)
    for function, letters in (("deploy", "LD"), ("ensemble", "MLD"), ("template_prompts", "PLD")):
        found = check.traced(function, getattr(method, function), *shapes)
        if found is not None:
            shape = (*(None,) * (len(letters) - 1), lm.d_model)
            check.shape(function, found, shape, f"floats [{', '.join(letters)}], or None")


def _check_prompts(check: Checks, prompted: Prompted, carry: Any, lm: LanguageModel) -> None:
    """The shapes of what `prompts` returns."""
    method = check.method
    letters = "V, B, L, D" if method.rowwise else "V, L, D"
    shape: tuple[int | None, ...] = (method.views, None, lm.d_model)
    if method.rowwise:
        shape = (method.views, _ROWS, None, lm.d_model)
    for what, value in (("prompts", prompted.prompts), ("teacher", prompted.teacher)):
        if value is not None:
            wanted = f"{what} as floats [{letters}], with V = {method.views} and D = {lm.d_model}"
            check.shape("prompts", value, shape, wanted)
    if prompted.row_weights is not None:
        check.shape("prompts", prompted.row_weights, (method.views, _ROWS), "row_weights [V, B]")
    before, after = (
        jax.tree.map(lambda x: (np.shape(x), _dtype(x)), tree) for tree in (carry, prompted.carry)
    )
    if before != after:
        raise check.says(
            "prompts() must return a carry of the shapes and types of carry():"
            f" Prompted(..., carry=carry). It is {after}, not {before}"
        )


class Checks(NamedTuple):
    """Calls of a method's functions, with one message for what is wrong.

    Attributes:
      method: whose functions are called.
    """

    method: Method

    def traced(self, function: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The shapes that a function returns; everything but arrays as it is."""
        with own_errors(self.method, f"{function}()"):
            return jax.eval_shape(call, *arguments)

    def called(self, function: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the host returns."""
        with own_errors(self.method, f"{function}()"):
            return call(*arguments)

    def kind(self, function: str, value: Any, kind: type, wanted: str) -> None:
        """Checks the type of what was returned."""
        if not isinstance(value, kind):
            raise self.wrong(function, wanted, value)

    def shape(self, function: str, value: Any, shape: tuple[int | None, ...], wanted: str) -> None:
        """Checks the shape of what was returned; None fits any size."""
        found: tuple[int, ...] = getattr(value, "shape", (-1,) * (len(shape) + 1))
        fits = len(found) == len(shape)
        if not fits or any(n not in (None, m) for n, m in zip(shape, found, strict=True)):
            raise self.wrong(function, wanted, value)
        if not jnp.issubdtype(_dtype(value), jnp.floating):
            raise self.says(f"{function}() must return floats, not {_dtype(value)}")

    def wrong(self, function: str, wanted: str, value: Any) -> ConfigError:
        """The error about a value that was returned."""
        shape = getattr(value, "shape", None)
        what = type(value).__name__ if shape is None else f"an array {list(shape)}"
        return self.says(f"{function}() must return {wanted}, not {what}")

    def says(self, text: str) -> ConfigError:
        """An error about the method."""
        return ConfigError(
            f"method {_name(self.method)}: {text}"
            f" ({source_file(self.method) or type(self.method).__module__})."
        )


def source_file(method: Method) -> str | None:
    """The file of a method of one's own; None for the package's and where it is unknown."""
    try:
        file = inspect.getsourcefile(type(method))
    except TypeError:  # a class of a notebook
        file = f"<{type(method).__module__}>"
    if file is None or Path(file).resolve().is_relative_to(_PACKAGE):
        return None
    return file


def _name(method: Method) -> str:
    return f"{type(method).__qualname__} ('{method.name}')"


def _hint(method: Method, function: str) -> str:
    """What to define where a default does not fit what the method has."""
    name = function.removesuffix("()")
    if name not in vars(BaseMethod) or any(
        name in vars(kind) for kind in type(method).__mro__ if kind not in BaseMethod.__mro__
    ):
        return ""
    return (
        f" It has no {name}() of its own, and the inherited one reads params['prompt']: define"
        f" {name}{inspect.signature(getattr(BaseMethod, name))}."
    )


def _dtype(value: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(getattr(value, "dtype", np.asarray(value).dtype))


def _rows(method: Method, lm: LanguageModel) -> Rows:
    def of(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((_ROWS, *shape), dtype)

    reads = method.needs_inputs or method.needs_embeddings
    tokens = _TOKENS if reads else 0
    embedded = of(tokens, lm.d_model, dtype=jnp.float32) if method.needs_embeddings else None
    return Rows(of(tokens), of(tokens), of(), of(), of(dtype=jnp.float32), embedded)


def _scores(method: Method, lm: LanguageModel) -> Scores:
    def of(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((_ROWS, *shape), jnp.float32)

    logits = of(_TARGETS, lm.vocab_size) if "logits" in method.observe else None
    hidden = of(_TARGETS, lm.d_model) if "hidden" in method.observe else None
    return Scores(of(), of(), logits, hidden)
