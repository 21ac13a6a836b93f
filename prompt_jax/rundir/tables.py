"""Tables as data, their cells as text, and their rendering as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Comparison, Summary
from prompt_jax.units import format_count

_FEW = 5  # seeds

Mark = Literal["best", "ahead", "behind"]


@dataclass(frozen=True)
class Table:
    """A table for people.

    Attributes:
      name: identifies it within `Findings.tables`.
      title: what it shows, in a few words.
      columns: titles; "" for a column that needs none.
      rows: cells, one text per column.
      left: this many first columns are text, aligned left; the others are numbers.
      note: how to read it, in sentences.
      marks: of cells (row, column): `best` of its column, significantly `ahead` of or `behind` the
        baseline.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    note: str = ""
    marks: Mapping[tuple[int, int], frozenset[Mark]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self.rows)} rows x {len(self.columns)} columns)"

    def _repr_markdown_(self) -> str:
        return f"**{self.title}**\n\n{markdown(self)}"


def markdown(table: Table) -> str:
    """The table alone, as a Markdown table."""

    def line(cells: tuple[str, ...]) -> str:
        escaped = (cell.replace("|", r"\|") for cell in cells)
        return "|" + "|".join(f" {cell} " if cell else " " for cell in escaped) + "|\n"

    ruler = "|" + "-|" * len(table.columns) + "\n"
    return line(table.columns) + ruler + "".join(map(line, table.rows))


def to_csv(table: Table) -> str:
    """Comma-separated values with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([table.columns, *table.rows])
    return out.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(table: Table) -> str:
    """A `tabular` for the package booktabs; the best of each column is bold."""

    def cell(text: str, place: tuple[int, int] | None = None) -> str:
        text = "".join(_LATEX.get(sign, sign) for sign in text)
        text = re.sub(r"(?<![\w-])-(?=\d)", "$-$", text)
        best = place is not None and "best" in table.marks.get(place, ())
        return f"\\textbf{{{text}}}" if best else text

    align = "l" * table.left + "r" * (len(table.columns) - table.left)
    lines = [" & ".join(map(cell, table.columns))]
    lines += [
        " & ".join(cell(c, (i, j)) for j, c in enumerate(r)) for i, r in enumerate(table.rows)
    ]
    head, *body = (f"{line} \\\\\n" for line in lines)
    return (
        f"% {table.title}\n\\begin{{tabular}}{{{align}}}\n\\toprule\n{head}\\midrule\n"
        f"{''.join(body)}\\bottomrule\n\\end{{tabular}}\n"
    )


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": to_csv, "latex": latex}


def render(table: Table, form: str) -> str:
    """A table in one of `FORMATS`.

    Raises:
      ConfigError: for another format.
    """
    if form not in FORMATS:
        raise ConfigError(f"a table has the format {', '.join(FORMATS)}, not '{form}'.")
    return FORMATS[form](table)


def heading(k: int) -> str:
    """How a number of shots is called in a table."""
    return "all rows" if k == 0 else f"k = {k}"


def cell_text(summary: Summary | None) -> str:
    """A cell in points: mean and standard deviation over seeds, and diverged replicas."""
    if summary is None or summary.n == 0:
        return "failed" if summary is not None and summary.failed else "-"
    text = f"{100 * summary.mean:.1f}"
    if summary.n > 1:
        text += f" ± {100 * summary.std:.1f}"
    return text + (f" ({summary.failed} failed)" if summary.failed else "")


def interval_text(comparison: Comparison) -> str:
    """A difference in points with its interval.

    Where few seeds cannot support an interval (`statistics.bounded`), it says so; otherwise an
    interval that is not known is left out.

    >>> interval_text(Comparison(0.1, 0.05, 0.15, 0.01, 5, 100))
    '+10.0 [+5.0, +15.0]'
    """
    text = signed(comparison.difference)
    if math.isfinite(comparison.low) and math.isfinite(comparison.high):
        return f"{text} [{signed(comparison.low)}, {signed(comparison.high)}]"
    return f"{text} [{missing_interval(comparison)}]" if 1 < comparison.seeds < _FEW else text


def missing_interval(comparison: Comparison) -> str:
    """Why a comparison has no interval; "" where it has one, or has one seed.

    >>> missing_interval(Comparison(0.1, math.nan, math.nan, 0.5, 2, 1))
    'none: 2 seeds'
    """
    known = math.isfinite(comparison.low) and math.isfinite(comparison.high)
    return "" if known or comparison.seeds < 2 else f"none: {comparison.seeds} seeds"


def signed(fraction: float) -> str:
    """A difference in points with its sign.

    >>> signed(0.1), signed(-0.0001)
    ('+10.0', '+0.0')
    """
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def p_text(p: float) -> str:
    """A p-value with three decimals.

    >>> p_text(0.0214), p_text(0.00002)
    ('0.021', '<0.001')
    """
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def multiple(ratio: float) -> str:
    """A ratio with two digits; "" where it is not known.

    >>> multiple(9.123), multiple(0.0772), multiple(1200.0)
    ('9.1', '0.077', '1.2 k')
    """
    return format_count(float(f"{ratio:.2g}")) if math.isfinite(ratio) else ""
