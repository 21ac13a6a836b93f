"""Sums of named vectors, written as text: `a + 0.5*b - (c + d)/2`.

A parser of its own, not Python's: nothing is evaluated but sums, signs, and products and quotients
with numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from prompt_jax.errors import PromptError
from prompt_jax.prompts.types import TaskVector, add

_LONGEST, _DEEPEST = 4000, 50
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w./~])
    | (?P<name>[A-Za-z_./~][\w./~-]*)
    | "(?P<quoted>[^"]+)"
    | '(?P<single>[^']+)'
    | (?P<sign>[-+*/()])
    )""",
    re.VERBOSE | re.ASCII,
)

# After an operand, "/" divides; before one, it begins a path.
_SIGN = re.compile(r"\s*(?P<sign>[-+*/()])")

# A number, or the factor of every name.
_Value = float | dict[str, float]


def linear(text: str) -> dict[str, float]:
    """Reads a sum of named vectors.

    Names are letters, digits and `_ . / ~ -`, and do not begin with a digit; others stand in
    quotes. So a `-` or `/` that follows a name needs a space before it: `a - b`, `a /2`.

    Args:
      text: signs, `+`, `-`, brackets, products with and quotients by numbers.

    Returns:
      The factor of each name, in the order of their first appearance.

    Raises:
      PromptError: where it is no sum of vectors: it says where and why.

    >>> linear("a + 0.5*b - (c + a)/2")
    {'a': 0.5, 'b': 0.5, 'c': -0.5}
    """
    if len(text) > _LONGEST:
        raise PromptError(
            f"the expression has {len(text)} characters; at most {_LONGEST} are read."
        )
    reader = _Reader(text)
    value = reader.sum(0)
    if reader.kind != "end":
        raise reader.error(f"'{reader.value}' has no operator before it")
    if not isinstance(value, dict):
        raise reader.error("it names no vector")
    if not all(math.isfinite(factor) for factor in value.values()):
        raise reader.error("a factor is not a finite number")
    return value


class _Reader:
    """Recursive descent: sum = product (+|- product)*, product = factor (*|/ factor)*."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.next = text, 0, 0
        self.kind, self.value = "", ""
        self.advance()

    def error(self, why: str) -> PromptError:
        here = f" at character {self.at + 1}" if self.kind != "end" else ""
        return PromptError(f"expression '{self.text}'{here}: {why}.")

    def advance(self) -> None:
        """Reads the next token into `kind` and `value`."""
        operand = self.kind in ("name", "number") or (self.kind, self.value) == ("sign", ")")
        match = (_SIGN if operand else _TOKEN).match(self.text, self.next)
        match = match or _TOKEN.match(self.text, self.next)
        if match is None:
            rest = self.text[self.next :]
            self.at, self.kind, self.value = len(self.text) - len(rest.lstrip()), "end", ""
            if rest.strip():
                self.kind = "unknown"
                raise self.error(
                    f"cannot read '{rest.strip()[:20]}'; names with other characters stand in"
                    " quotes"
                )
            return
        self.next, self.kind = match.end(), str(match.lastgroup)
        self.value = match[self.kind]
        self.at = match.end() - len(self.value)
        if self.kind in ("quoted", "single"):
            self.kind = "name"

    def sum(self, depth: int) -> _Value:
        value = self.product(depth)
        while self.kind == "sign" and self.value in "+-":
            factor = 1.0 if self.value == "+" else -1.0
            self.advance()
            value = self.add(value, self.scale(self.product(depth), factor))
        return value

    def product(self, depth: int) -> _Value:
        value = self.factor(depth)
        while self.kind == "sign" and self.value in "*/":
            divides = self.value == "/"
            self.advance()
            other = self.factor(depth)
            if divides:
                if isinstance(other, dict):
                    raise self.error("only numbers divide: a vector cannot")
                if not other:
                    raise self.error("division by zero")
                value = self.scale(value, 1.0 / other)
            elif isinstance(other, dict):
                if isinstance(value, dict):
                    raise self.error(
                        "vector * vector has no meaning: a vector is scaled by one number"
                    )
                value = self.scale(other, value)
            else:
                value = self.scale(value, other)
        return value

    def factor(self, depth: int) -> _Value:
        kind, text = self.kind, self.value
        if kind == "end":
            raise self.error("it ends where a vector or a number should stand")
        if kind == "sign" and text in "+-":
            self.advance()
            return self.scale(self.factor(self.deeper(depth)), -1.0 if text == "-" else 1.0)
        if kind == "sign" and text == "(":
            self.advance()
            value = self.sum(self.deeper(depth))
            if self.value != ")" or self.kind != "sign":
                raise self.error("a bracket is not closed")
            self.advance()
            return value
        if kind == "sign":
            raise self.error(f"'{text}' where a vector or a number should stand")
        self.advance()
        return float(text) if kind == "number" else {text: 1.0}

    def deeper(self, depth: int) -> int:
        if depth >= _DEEPEST:
            raise self.error(f"brackets and signs are nested more than {_DEEPEST} deep")
        return depth + 1

    @staticmethod
    def scale(value: _Value, factor: float) -> _Value:
        if isinstance(value, dict):
            return {name: factor * number for name, number in value.items()}
        return factor * value

    def add(self, a: _Value, b: _Value) -> _Value:
        if isinstance(a, dict) and isinstance(b, dict):
            return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in {**a, **b}}
        if isinstance(a, dict) or isinstance(b, dict):
            raise self.error("number + vector has no meaning: numbers only scale vectors")
        return a + b


def combine(
    factors: Mapping[str, float], vectors: Mapping[str, TaskVector], *, across_inits: bool = False
) -> TaskVector:
    """The sum of scaled task vectors.

    Args:
      factors: what `linear` returned.
      vectors: one for every name.
      across_inits: allow vectors of different initialisations.

    Raises:
      PromptError: for no vector, different shapes, or different initialisations without
        `across_inits`.
    """
    total: TaskVector | None = None
    for name, factor in factors.items():
        vector = vectors[name] if factor == 1.0 else factor * vectors[name]
        total = vector if total is None else add(total, vector, across_inits=across_inits)
    if total is None:
        raise PromptError("a sum of task vectors needs at least one.")
    return total
