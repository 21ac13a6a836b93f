"""Tables as Markdown, CSV and LaTeX, and the texts of their cells."""

from __future__ import annotations

import csv
import io
import math

import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Comparison, summarise
from prompt_jax.rundir import tables
from prompt_jax.rundir.tables import Table

TABLE = Table(
    "results",
    "Test rows",
    ("", "method", "a_b (f1)"),
    (("k = 4", "x|y, z", "60.0 ± 14.1"), ("all rows", "spot{50%}", "-3.2")),
    left=2,
    marks={(0, 2): frozenset({"best"})},
)


def test_markdown():
    assert tables.markdown(TABLE).splitlines() == [
        "| | method | a_b (f1) |",
        "|-|-|-|",
        "| k = 4 | x\\|y, z | 60.0 ± 14.1 |",
        "| all rows | spot{50%} | -3.2 |",
    ]


def test_csv_comes_back():
    rows = list(csv.reader(io.StringIO(tables.to_csv(TABLE))))
    assert rows == [list(TABLE.columns), *map(list, TABLE.rows)]


def test_latex_escapes_and_marks_the_best():
    assert tables.latex(TABLE).splitlines() == [
        "% Test rows",
        r"\begin{tabular}{llr}",
        r"\toprule",
        r" & method & a\_b (f1) \\",
        r"\midrule",
        r"k = 4 & x|y, z & \textbf{60.0 $\pm$ 14.1} \\",
        r"all rows & spot\{50\%\} & $-$3.2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_unknown_format_is_refused():
    assert tables.render(TABLE, "md") == tables.markdown(TABLE)
    with pytest.raises(ConfigError, match="md, csv, latex, not 'html'"):
        tables.render(TABLE, "html")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5, 0.7), "60.0 ± 14.1"),
        ((0.25,), "25.0"),
        ((0.5, math.nan), "50.0 (1 failed)"),
        ((math.nan,), "failed"),
        ((), "-"),
    ],
)
def test_cells(values, text):
    assert tables.cell_text(summarise(values)) == text
    assert tables.cell_text(None) == "-"


def test_small_texts():
    made = Comparison(-0.0001, -0.05, 0.0004, 0.5, 5, 10)
    assert tables.interval_text(made) == "+0.0 [-5.0, +0.0]"
    assert tables.interval_text(made._replace(low=math.nan, high=math.nan)) == "+0.0"
    two = made._replace(low=math.nan, high=math.nan, seeds=2)
    assert tables.interval_text(two) == "+0.0 [none: 2 seeds]"
    assert tables.interval_text(two._replace(seeds=1)) == "+0.0"
    assert tables.p_text(0.0004) == "<0.001"
    assert tables.p_text(0.0006) == "0.001"
    assert tables.multiple(9.126) == "9.1"
    assert tables.multiple(math.nan) == ""
    assert (tables.heading(0), tables.heading(16)) == ("all rows", "k = 16")
