"""What is drawn is what was given."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from prompt_jax.report import figures, svg


@pytest.fixture(autouse=True)
def _drawing():
    with svg.drawing():
        yield


def texts(markup: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(markup).iter() if e.tag.endswith("}text")]


def boxes(markup: str) -> list[float]:
    """Opacities of the filled boxes."""
    found = []
    for element in ET.fromstring(markup).iter():
        style = element.get("style", "")
        if "fill: var(--accent)" in style:
            opacity = float(re.search(r"opacity: ([0-9.]+)", style)[1])
            found += [opacity] * element.get("d", "").count("M")
    return found


def test_span():
    assert figures.span([0.0, 10.0]) == (-0.6, 10.6)
    low, high = figures.span([5.0], 4.0)
    assert (low, high) == (3.0, 7.0)
    assert figures.span([math.nan]) == (0.0, 1.0)
    assert figures.span([math.nan, 2.0], 2.0) == figures.span([2.0], 2.0)


def test_forest():
    rows = [
        figures.Interval("won", "+10 [5, 15]", 10, 5, 15, True),
        figures.Interval("lost", "-10 [-15, -5]", -10, -15, -5, True),
        figures.Interval("open", "+1", 1, math.nan, math.nan, False),
    ]
    markup = figures.forest("t", rows, (-20, 20), 2.0)
    assert {"won", "lost", "open", "+10 [5, 15]", "points"} <= set(texts(markup))
    # Won in the accent, lost in the other colour, and neither for what is open.
    assert markup.count("stroke: var(--accent)") == 3  # line, marker in defs, marker
    assert markup.count("stroke: var(--other)") == 3
    assert "won: +10 [5, 15]; lost: -10 [-15, -5]; open: +1" in markup
    quiet = figures.forest("t", rows[2:], (-20, 20), 2.0)
    assert "accent" not in quiet


def test_lines_cross_no_label():
    """Grid, band and zero lie below the text of their row, which ends at 0.38 of it."""
    axes = svg.Canvas(300, 120).axes(8, 4, 284, 80)
    axes.set_xlim(-6, 6)
    axes.set_ylim(2, 0)
    figures._strips(axes, 2, (-6, 6), 5)
    heights = [path.vertices[:, 1] for c in axes.collections for path in c.get_paths()]
    assert len(heights) > 6
    for y in heights:
        place = int(y.min())
        assert place + 0.45 <= y.min() <= y.max() <= place + 0.95


def test_scores_draw_every_seed():
    rows = [
        figures.Scores("m", "50.0 ± 1.0", [49.0, 50.0, math.nan, 51.0], 50.0, 1),
        figures.Scores("dead", "failed", [math.nan], math.nan, 2),
    ]
    markup = figures.scores("t", rows, (40, 60))
    assert {"m", "dead", "failed"} <= set(texts(markup))
    assert markup.count("<use") == 3


def test_curves_keep_to_their_scale():
    lines = [figures.Curve(0, [0, 10], [1.0, 2.0], True), figures.Curve(1, [0], [1.5], False)]
    markup = figures.curves("t", lines, (0, 10), (0, 4), "words")
    assert "var(--c0)" in markup
    assert "var(--c1)" in markup
    assert "words" in markup
    assert markup.count("<use") >= 1  # a single point has a marker


def test_heatmap():
    values = np.array([[0.0, 1.0, np.nan], [0.5, 2.0, -1.0]])
    markup = figures.heatmap("t", values, ["r1", "r2"], ["a", "b", "c"], (0.0, 1.0), marked=(1, -1))
    found = boxes(markup)
    assert len(found) == 5  # NaN is empty
    assert len(set(found)) == 3  # 0 and -1 are the faintest, 1 and 2 the strongest, 0.5 between
    assert min(found) == pytest.approx(0.04)
    assert max(found) == pytest.approx(figures._STRONGEST)  # beyond the limits: the strongest
    assert {"r1", "c", "0.50", "-1.00"} <= set(texts(markup))
    assert "r2: a 0.50, b 2.00, c -1.00" in markup
    large = figures.heatmap("t", np.zeros((20, 40)), [], [], (0.0, 1.0))
    assert texts(large) == []
    assert "20 by 40 values from 0.00 to 0.00" in large
    empty = figures.heatmap("t", np.full((1, 1), np.nan), ["a"], ["b"], (0.0, 1.0))
    assert "No values." in empty


def test_shrink_averages():
    rng = np.random.default_rng(0)
    values = rng.random((7, 130))
    small = figures.shrink(values)
    assert small.shape == (7, 48)
    assert small[:, 0] == pytest.approx(values[:, :2].mean(1))
    weights = np.diff([*(np.arange(48) * 130 // 48), 130])
    assert (small * weights).sum() / 130 == pytest.approx(values.mean(1).sum())
    assert figures.shrink(values[:, :10]) is not None
    np.testing.assert_array_equal(figures.shrink(values[:, :10]), values[:, :10])


def test_timeline_joins_what_does_not_change():
    values = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, np.nan]])
    markup = figures.timeline("t", [0, 10, 20, 30], values, ["a", "b"], (0.0, 1.0))
    assert len(boxes(markup)) == 2 + 3
    assert {"a", "b", "steps"} <= set(texts(markup))
    assert "At the last step: a 0, b nan" in markup
    one = figures.timeline("t", [5], np.ones((1, 1)), ["a"], (0.0, 1.0))
    assert len(boxes(one)) == 1
    tall = figures.timeline("t", [0, 1], np.ones((100, 2)), [str(i) for i in range(100)], (0, 1))
    assert "99" not in texts(tall)  # no room for labels


def test_the_mean_stands_where_all_runs_have_a_value():
    made = figures.with_mean([([0, 10, 20], [1.0, 2.0, 3.0]), ([0, 20], [3.0, 5.0])], 2)
    assert [c.strong for c in made] == [False, False, True]
    assert (list(made[-1].steps), list(made[-1].values)) == ([0, 20], [2.0, 4.0])
    assert {c.number for c in made} == {2}
    (one,) = figures.with_mean([([0], [1.0])], 0)
    assert one.strong
    assert not any(c.strong for c in figures.with_mean([([0], [1.0]), ([1], [1.0])], 0))
