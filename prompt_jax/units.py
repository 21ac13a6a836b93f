"""Human-readable counts, bytes, FLOPs and durations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prompt_jax.errors import ConfigError


def scale_to_unit(value: float, step: float, units: Sequence[str]) -> str:
    """Formats a number with three significant digits and the largest suitable unit.

    >>> scale_to_unit(222_903_552, 1000, ("", " k", " M")), scale_to_unit(12, 1000, ("", " k"))
    ('223 M', '12')
    """
    number, index = float(value), 0
    while abs(number) >= step and index + 1 < len(units):
        number, index = number / step, index + 1
    return f"{number:.3g}{units[index]}" if abs(number) < 1000 else f"{number:,.0f}{units[index]}"


def format_count(value: float) -> str:
    """Formats a count, like '223 M'."""
    return scale_to_unit(value, 1000, ("", " k", " M", " G", " T"))


def format_bytes(value: float) -> str:
    """Formats a number of bytes, like '1.5 GiB'."""
    return scale_to_unit(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def parse_bytes(text: str) -> int:
    """The bytes of a size like '80GB' (10^9 bytes each) or '80 GiB' (2^30).

    >>> parse_bytes("80GB"), parse_bytes("1.5 KiB")
    (80000000000, 1536)

    Raises:
      ConfigError: not a positive number with one of the units B, KB to TB, KiB to TiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*", text, re.IGNORECASE)
    size = 0
    if match and (match[2] or not match[3]):
        step = 1024 if match[3] else 1000
        size = int(float(match[1]) * step ** "BKMGT".index(match[2].upper() or "B"))
    if size < 1:
        raise ConfigError(f"'{text}' is no size in bytes: write it like 80GB or 40GiB.")
    return size


def format_flops(value: float) -> str:
    """Formats a number of floating point operations, like '23 EFLOP'."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    return scale_to_unit(value, 1000, tuple(f" {prefix}FLOP" for prefix in prefixes))


def format_duration(seconds: float) -> str:
    """A duration for people.

    >>> [format_duration(s) for s in (7.4, 150, 8000, 200000, 2.3e8)]
    ['7 s', '2 min 30 s', '2 h 13 min', '2 d 8 h', '7.3 years']
    """
    seconds = round(seconds)
    if seconds >= 365 * 86_400:
        return f"{seconds / (365 * 86_400):,.1f} years"
    for size, name, smaller, less in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            more = seconds % size // smaller
            return f"{seconds // size} {name}" + (f" {more} {less}" if more else "")
    rest = f" {seconds % 60} s" if seconds % 60 else ""
    return f"{seconds // 60} min{rest}" if seconds >= 60 else f"{seconds} s"
