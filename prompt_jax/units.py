"""Counts, bytes and operations for people: three digits and a unit."""

from __future__ import annotations

from collections.abc import Sequence


def scaled(value: float, step: float, units: Sequence[str]) -> str:
    """A number with three digits and its unit.

    >>> scaled(222_903_552, 1000, ("", " k", " M")), scaled(12, 1000, ("", " k"))
    ('223 M', '12')
    """
    number, index = float(value), 0
    while abs(number) >= step and index + 1 < len(units):
        number, index = number / step, index + 1
    return f"{number:.3g}{units[index]}" if abs(number) < 1000 else f"{number:,.0f}{units[index]}"


def many(value: float) -> str:
    """A count."""
    return scaled(value, 1000, ("", " k", " M", " G", " T"))


def size(value: float) -> str:
    """Bytes."""
    return scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def work(value: float) -> str:
    """Floating point operations."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    return scaled(value, 1000, tuple(f" {prefix}FLOP" for prefix in prefixes))
