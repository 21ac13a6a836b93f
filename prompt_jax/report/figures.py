"""The figures of the page. Each takes plain numbers and returns one SVG element.

Widths are those of a phone, so that a column of figures on a phone and a row of them on a desk are
the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.report.svg import Canvas, clean, colour, series

WIDTH = 300  # pixels
_PAD = 8
_FAINTEST, _STRONGEST, _SHADES = 0.04, 0.85, 40  # opacities of boxes, and how many there are
_MOST = 48  # boxes along one side of a heat map, labels of a timeline


class Interval(NamedTuple):
    """A row of a forest plot, in points."""

    label: str
    text: str
    middle: float
    low: float  # NaN: no interval
    high: float
    strong: bool  # an effect


class Scores(NamedTuple):
    """A row of a plot of scores, in points."""

    label: str
    text: str
    values: Sequence[float]  # one per seed
    mean: float
    number: int  # of the series


class Curve(NamedTuple):
    """A line over steps."""

    number: int  # of the series
    steps: Sequence[float]
    values: Sequence[float]
    strong: bool  # a mean; otherwise one replica


def with_mean(runs: Sequence[tuple[list[int], list[float]]], colour: int) -> list[Curve]:
    """Faint lines for the replicas, and a strong one for their mean where all have a value."""
    if len(runs) == 1:
        return [Curve(colour, *runs[0], True)]
    made = [Curve(colour, steps, values, False) for steps, values in runs]
    shared = sorted(set.intersection(*(set(steps) for steps, _ in runs))) if runs else []
    if shared:
        tables = [dict(zip(*pair, strict=True)) for pair in runs]
        means = [float(np.mean([table[step] for table in tables])) for step in shared]
        made.append(Curve(colour, shared, means, True))
    return made


def span(values: Sequence[float], least: float = 1.0) -> tuple[float, float]:
    """Limits of an axis around finite values, with some air."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, least
    low, high = min(finite), max(finite)
    air = max(0.06 * (high - low), (least - (high - low)) / 2, 0.02 * least)
    return low - air, high + air


def forest(
    title: str, rows: Sequence[Interval], limits: tuple[float, float], minimum: float
) -> str:
    """Differences with their intervals around zero; effects are filled."""
    high = 40
    canvas = Canvas(WIDTH, len(rows) * high + 42)
    axes = canvas.axes(_PAD, 4, WIDTH - 2 * _PAD, len(rows) * high)
    axes.set_xlim(*limits)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([])
    _strips(axes, len(rows), limits, minimum)
    for place, row in enumerate(rows):
        ink = colour(("accent" if row.middle > 0 else "other") if row.strong else "soft")
        y = place + 0.7
        if math.isfinite(row.low) and math.isfinite(row.high):
            axes.plot([row.low, row.high], [y, y], color=ink, lw=2.2, solid_capstyle="round")
        axes.plot(
            row.middle,
            y,
            "o",
            ms=8,
            mew=2,
            mec=ink,
            mfc=ink if row.strong else colour("surface"),
        )
        _row_text(axes, place, row.label, row.text, row.strong)
    canvas.figure.text(
        0.5,
        3 / canvas.height,
        "points",
        ha="center",
        va="bottom",
        fontsize=10,
        color=colour("soft"),
    )
    return canvas.markup(title, "; ".join(f"{row.label}: {row.text}" for row in rows))


def scores(title: str, rows: Sequence[Scores], limits: tuple[float, float]) -> str:
    """Every seed as a dot and the mean as a bar, method by method."""
    high = 40
    canvas = Canvas(WIDTH, len(rows) * high + 20)
    axes = canvas.axes(_PAD, 2, WIDTH - 2 * _PAD, len(rows) * high)
    axes.set_xlim(*limits)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([])
    _strips(axes, len(rows), limits)
    for place, row in enumerate(rows):
        y, ink = place + 0.7, colour(series(row.number)[0])
        axes.plot([limits[0], limits[1]], [y, y], color=colour("line"), lw=1)
        finite = [v for v in row.values if math.isfinite(v)]
        axes.plot(finite, [y] * len(finite), "o", ms=7, mew=0, mfc=ink, alpha=0.45)
        if math.isfinite(row.mean):
            axes.plot([row.mean] * 2, [y - 0.19, y + 0.19], color=ink, lw=3)
        _row_text(axes, place, row.label, row.text, False)
    return canvas.markup(title, "; ".join(f"{row.label}: {row.text}" for row in rows))


def _strips(axes: Any, rows: int, limits: tuple[float, float], minimum: float = 0.0) -> None:
    """Grid lines, and zero with its band, in the lower part of every row: none crosses a label."""
    low, high = limits
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    left, right = max(low, -minimum), min(high, minimum)
    for place in range(rows):
        top, bottom = place + 0.5, place + 0.9
        if left < right:
            axes.fill_between((left, right), top, bottom, color=colour("band"), lw=0)
        axes.vlines(ticks, top, bottom, color=colour("line"), lw=0.6)
        if minimum:
            axes.vlines(0, top, bottom, color=colour("soft"), lw=1)


def _row_text(axes: Any, place: int, label: str, text: str, strong: bool) -> None:
    """A row's name above its line on the left, its numbers on the right."""
    place_of = axes.get_yaxis_transform()
    room = (WIDTH - 2 * _PAD - 5.7 * len(text)) / 6  # characters
    axes.text(
        0,
        place + 0.38,
        clean(label, max(8, int(room))),
        transform=place_of,
        va="bottom",
        fontsize=11,
        color=colour("ink"),
    )
    axes.text(
        1,
        place + 0.38,
        clean(text),
        transform=place_of,
        va="bottom",
        ha="right",
        fontsize=10.5,
        color=colour("ink" if strong else "soft"),
        fontweight="bold" if strong else "normal",
    )


def curves(
    title: str,
    lines: Sequence[Curve],
    across: tuple[float, float],
    up: tuple[float, float],
    description: str,
) -> str:
    """Lines over steps: faint for one replica, strong for their mean."""
    canvas = Canvas(WIDTH, 200)
    axes = canvas.axes(30, 8, WIDTH - 30 - 14, 160)
    axes.set_xlim(*across)
    axes.set_ylim(*up)
    axes.grid(color=colour("line"), lw=0.6)
    axes.locator_params(axis="both", nbins=5)
    for line in lines:
        role, dashes = series(line.number)
        style: dict[str, Any] = {"lw": 2.4} if line.strong else {"lw": 0.9, "alpha": 0.35}
        if len(line.steps) == 1:
            style["marker"] = "o"
        axes.plot(
            line.steps,
            line.values,
            color=colour(role),
            linestyle=(0, dashes) if dashes else "-",
            solid_joinstyle="round",
            **style,
        )
    axes.text(
        1,
        -0.19,
        "steps",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=10,
        color=colour("soft"),
    )
    return canvas.markup(title, description)


def shrink(values: np.ndarray, most: int = _MOST) -> np.ndarray:
    """A matrix of at most `most` rows and columns, neighbours averaged.

    >>> shrink(np.arange(6.0).reshape(1, 6), 3)
    array([[0.5, 2.5, 4.5]])
    """
    for axis in (0, 1):
        size = values.shape[axis]
        if size > most:
            starts = np.arange(most) * size // most
            counts = np.diff([*starts, size])
            total = np.add.reduceat(values, starts, axis=axis)
            values = total / (counts[:, None] if axis == 0 else counts[None, :])
    return values


def heatmap(
    title: str,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    *,
    digits: int = 2,
    marked: Sequence[int] = (),
    width: float = WIDTH,
) -> str:
    """Boxes whose strength is their value; numbers in them where there is room.

    Args:
      title: names the figure.
      values: [n, m]; NaN leaves a box empty.
      rows: n labels, or none.
      columns: m labels, or none.
      limits: values of the faintest and the strongest box.
      digits: behind the point.
      marked: for every row the column of a box with a frame; -1: none.
      width: pixels.
    """
    n, m = values.shape
    left = _left(rows)
    side = min(56.0, (width - left - _PAD) / m)
    high = side if side < 26 else min(side, 34.0)
    numbered = side >= 26
    upright = any(6 * len(clean(c, 18)) > side for c in columns)
    top = 10 + 5.6 * max((len(clean(c, 18)) for c in columns), default=0) if upright else 20.0
    top = top if columns else 6.0
    canvas = Canvas(width, top + n * high + 6)
    axes = canvas.axes(left, top, m * side, n * high)
    axes.set_xlim(0, m)
    axes.set_ylim(n, 0)
    low, span_ = limits[0], max(limits[1] - limits[0], 1e-9)
    boxes: list[tuple[float, float, float, float]] = []
    for i in range(n):
        for j in range(m):
            if not math.isfinite(values[i, j]):
                continue
            share = (values[i, j] - low) / span_
            boxes.append((j, i, 1.0, share))
            if numbered:
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    f"{values[i, j]:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=9.5,
                    color=colour("strong" if share > 0.6 else "ink"),
                )
    _boxes(axes, boxes, (1.5 / side, 1.5 / high))
    for i, j in enumerate(marked):
        if j >= 0:
            axes.plot(
                [j, j + 1, j + 1, j, j],
                [i, i, i + 1, i + 1, i],
                color=colour("ink"),
                lw=1.6,
                clip_on=False,
            )
    _labels(axes, rows, columns, upright)
    return canvas.markup(title, _words(values, rows, columns, digits))


def _left(rows: Sequence[str]) -> float:
    """Room for the labels of rows."""
    return 10 + 5.8 * max((len(clean(row, 18)) for row in rows), default=0)


def _boxes(
    axes: Any, boxes: Sequence[tuple[float, float, float, float]], gap: tuple[float, float]
) -> None:
    """Draws boxes (x, y, width, share of the strongest); those of one shade are one path."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    dx, dy = gap[0] / 2, gap[1] / 2
    shades: dict[int, list[list[tuple[float, float]]]] = {}
    for x, y, width, share in boxes:
        left, right, top, low = x + dx, x + width - dx, y + dy, y + 1 - dy
        corners = [(left, top), (right, top), (right, low), (left, low), (left, top)]
        shades.setdefault(round(_SHADES * min(max(share, 0.0), 1.0)), []).append(corners)
    ring = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for shade, several in sorted(shades.items()):
        path = Path(np.concatenate(several), ring * len(several))
        alpha = _FAINTEST + (_STRONGEST - _FAINTEST) * shade / _SHADES
        axes.add_patch(PathPatch(path, facecolor=colour("accent"), alpha=alpha, lw=0))


def _labels(axes: Any, rows: Sequence[str], columns: Sequence[str], upright: bool) -> None:
    axes.xaxis.tick_top()
    axes.set_xticks([i + 0.5 for i in range(len(columns))])
    axes.set_xticklabels([clean(c, 18) for c in columns], rotation=90 if upright else 0)
    axes.set_yticks([i + 0.5 for i in range(len(rows))])
    axes.set_yticklabels([clean(r, 18) for r in rows])
    axes.tick_params(labelcolor=colour("ink"), labelsize=10)


def _words(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], digits: int) -> str:
    """A small matrix in words, a large one by its range."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "No values."
    if values.size > 60 or not rows or not columns:
        n, m = values.shape
        return f"{n} by {m} values from {finite.min():.{digits}f} to {finite.max():.{digits}f}"
    return "; ".join(
        f"{row}: " + ", ".join(f"{c} {v:.{digits}f}" for c, v in zip(columns, line, strict=True))
        for row, line in zip(rows, values, strict=True)
    )


def timeline(
    title: str,
    steps: Sequence[float],
    values: np.ndarray,
    rows: Sequence[str],
    limits: tuple[float, float],
) -> str:
    """K rows of boxes over the steps; neighbours of one value are one box.

    Args:
      title: names the figure.
      steps: n, ascending.
      values: [K, n].
      rows: K labels.
      limits: values of the faintest and the strongest box.
    """
    k, n = values.shape
    high = 24 if k <= 16 else max(6.0, 384 / k)
    left = _left(rows) if high >= 12 else _PAD
    canvas = Canvas(WIDTH, k * high + 34)
    axes = canvas.axes(left, 4, WIDTH - left - _PAD, k * high)
    gap = steps[-1] - steps[-2] if n > 1 else 1.0
    edges = [*steps, steps[-1] + gap]
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(k, 0)
    low, span_ = limits[0], max(limits[1] - limits[0], 1e-9)
    boxes: list[tuple[float, float, float, float]] = []
    for row in range(k):
        start = 0
        for column in range(1, n + 1):
            if column < n and values[row, column] == values[row, start]:
                continue
            if math.isfinite(values[row, start]):
                wide = edges[column] - edges[start]
                boxes.append((edges[start], row, wide, (values[row, start] - low) / span_))
            start = column
    _boxes(axes, boxes, (0.0, 3.0 / high))
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks([i + 0.5 for i in range(k)] if high >= 12 else [])
    if high >= 12:
        axes.set_yticklabels([clean(r, 18) for r in rows])
    axes.text(
        1,
        -30 / (k * high),
        "steps",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=10,
        color=colour("soft"),
    )
    last = ", ".join(f"{r} {v:.2g}" for r, v in zip(rows, values[:, -1], strict=True))
    return canvas.markup(title, f"At the last step: {last}")
