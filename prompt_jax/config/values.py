"""Values of options: parsed from text by the type of the field."""

from __future__ import annotations

import types
import typing
from typing import Any

from prompt_jax.config.suggestions import replaced_value
from prompt_jax.errors import ConfigError, did_you_mean

_MAX_INT = 2**31 - 1
_TRUE, _FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


def split_list(text: str) -> tuple[str, ...]:
    """Splits at commas outside brackets and double quotes; quotes around a part are left out.

    >>> split_list("prompt_tuning, spot(variant=top_k, top_k=3)")
    ('prompt_tuning', 'spot(variant=top_k, top_k=3)')
    >>> split_list('"my, own/task.toml", mr')
    ('my, own/task.toml', 'mr')
    """
    parts, depth, start, quoted = [], 0, 0, False
    for i, char in enumerate(text):
        if char == '"' and (quoted or (not text[start:i].strip() and '"' in text[i + 1 :])):
            quoted = not quoted
        if quoted:
            continue
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(char, 0)
        if char == "," and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return tuple(unquoted for part in parts if (unquoted := _unquoted(part.strip())))


def _unquoted(part: str) -> str:
    return part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part


def parse_value(text: str, kind: Any, where: str) -> Any:
    """Parses `text` as a value of the annotated type `kind`.

    Where it may be None, `none` (or `null`) is None, and an empty text is the empty text.

    Args:
      text: the right-hand side of an override.
      kind: bool, int, float, str, a Literal, an Optional of these, or a tuple of one of them.
      where: the dotted key, for messages.

    Raises:
      ConfigError: when the text is no such value.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null"):
            return None
        return parse_value(text, next(a for a in args if a is not type(None)), where)
    if origin is typing.Literal:
        if text not in args:
            raise ConfigError(
                f"option '{where}' must be one of {', '.join(map(str, args))}, not '{text}'."
                + (replaced_value(text) or did_you_mean(text, map(str, args)))
            )
        return text
    if origin is tuple:
        return tuple(parse_value(part, args[0], where) for part in split_list(text.strip("[]")))
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"option '{where}' must be true or false, not '{text}'.")
        return text.lower() in _TRUE
    if kind in (int, float):
        try:
            number = kind(float(text)) if kind is int and float(text).is_integer() else kind(text)
        except (ValueError, OverflowError):
            name = "a whole number" if kind is int else "a number"
            raise ConfigError(f"option '{where}' must be {name}, not '{text}'.") from None
        if kind is int and abs(number) > _MAX_INT:  # int32, as on devices
            raise ConfigError(f"option '{where}' must lie within ±{_MAX_INT:,}, not be {text}.")
        return number
    return text
