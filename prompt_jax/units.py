"""Human-readable counts, bytes, FLOPs and durations."""

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
