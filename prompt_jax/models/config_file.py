"""Reads a checkpoint's JSON files with the type of every value checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_jax.errors import ModelError
from prompt_jax.models import formats


class ConfigFile:
    """The content of one configuration file.

    A key that is missing takes the default that is passed; null is another type and is refused,
    except where a method says otherwise.

    Args:
      source: path of the file, or its parsed content.

    Raises:
      ModelError: the file is missing, not JSON, or holds no object.
    """

    def __init__(self, source: str | Path | Mapping[str, Any]) -> None:
        if isinstance(source, Mapping):
            self.raw, self.where = dict(source), "the configuration"
        else:
            self.raw, self.where = formats.read_json(Path(source)), str(source)

    def error(self, text: str) -> ModelError:
        """An error that names the file."""
        return ModelError(f"{self.where}: {text}")

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer; one that is required where there is no default."""
        if key not in self.raw:
            if default is None:
                raise self.error(f"lacks '{key}': is it the config.json of this model?")
            return default
        value = self.raw[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "an integer")
        return value

    def optional_integer(self, key: str) -> int | None:
        """An integer; None where the key is missing or null."""
        return None if self.raw.get(key) is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.raw.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        if not math.isfinite(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def optional_flag(self, key: str) -> bool | None:
        """True or false; None where the key is missing."""
        return self.flag(key, False) if key in self.raw else None

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self.raw.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def optional_text(self, key: str) -> str | None:
        """A text; None where the key is missing or null."""
        return None if self.raw.get(key) is None else self.text(key, "")

    def token_ids(self, key: str) -> tuple[int, ...]:
        """A token id or a list of them, without repetitions; () where missing or null."""
        value = self.raw.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if any(isinstance(v, bool) or not isinstance(v, int) for v in values):
            raise self._wrong(key, "a token id (an integer)")
        return tuple(dict.fromkeys(values))

    def refuse_quantized(self) -> None:
        """Raises a `ModelError` where the weights are stored as something else than floats."""
        if self.raw.get("quantization_config"):
            raise self.error(
                "has a 'quantization_config': quantized weights are not read. Use the checkpoint "
                "in float32, bfloat16 or float16."
            )

    def major_version(self) -> int | None:
        """The major release of transformers that wrote the file; None where it names none."""
        major = (self.optional_text("transformers_version") or "").partition(".")[0]
        return int(major) if major.isdecimal() else None

    def _wrong(self, key: str, what: str) -> ModelError:
        return self.error(f"'{key}' must be {what}, not {self.raw[key]!r}.")
