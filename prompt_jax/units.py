"""Human-readable counts, bytes and FLOPs: three digits and a unit."""

from __future__ import annotations

from collections.abc import Sequence


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


def format_flops(value: float) -> str:
    """Formats a number of floating point operations, like '23 EFLOP'."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    return scale_to_unit(value, 1000, tuple(f" {prefix}FLOP" for prefix in prefixes))
