"""Figures as markup: colours of the page, no styles of their own, harmless text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib

from prompt_jax.report import svg

HOSTILE = (
    '<script>alert(1)</script> $\\frac{ & " \' \x00\x1b\n\ud800 漢字 🙂 #fe00dc url(#x) id="y"'
)


def drawn(text: str = "text", title: str = "title") -> str:
    with svg.drawing():
        canvas = svg.Canvas(200, 100)
        axes = canvas.axes(10, 10, 180, 80)
        axes.plot([0, 1], [0, 1], "o", color=svg.colour("accent"))
        axes.text(0.5, 0.5, svg.clean(text), color=svg.colour("ink"))
        return canvas.markup(title, "what it shows")


def test_colours_are_those_of_the_page():
    text = drawn()
    used = set(re.findall(r"#[0-9a-f]{6}\b", text)) - {"#000000"}
    assert not any(colour in svg._VARIABLE for colour in used)
    assert "var(--accent)" in text
    assert "var(--ink)" in text
    assert len({svg.colour(role) for role in svg.ROLES}) == len(svg.ROLES)


def test_the_element_stands_alone():
    text = drawn()
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "title. what it shows"
    assert root.get("width") == "200"
    assert root.get("height") is None
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"style", "metadata", "script", "image"}
    assert "title" in names
    assert "font-family" not in text
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    refers = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert {a or b for a, b in refers} == set(ids)
    assert len(ids) == len(set(ids))


def test_the_same_figure_gives_the_same_bytes_and_others_share_no_id():
    assert drawn() == drawn()
    ids = [set(re.findall(r' id="([^"]+)"', drawn(title=t))) for t in "ab"]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_hostile_text_stays_text():
    text = drawn(HOSTILE, HOSTILE)
    root = ET.fromstring(text)
    assert "<script" not in text
    texts = [e.text or "" for e in root.iter() if e.tag.endswith("}text")]
    (own,) = [t for t in texts if "alert" in t]
    assert own == svg.clean(HOSTILE)
    assert "#fe00dc" in own  # a colour's stand-in is replaced in styles only
    assert "$\\frac{" in own  # no formula


def test_clean():
    assert svg.clean("a\x00\x1f\n\x7fb\ufffe\ud800") == "a b "
    assert svg.clean("abcdef", 4) == "abc…"
    assert svg.clean("abcd", 4) == "abcd"


def test_settings_come_back():
    before = dict(matplotlib.rcParams)
    with svg.drawing():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_series_differ_in_colour_and_dashes():
    looks = [svg.series(i) for i in range(2 * svg.SERIES)]
    assert len({role for role, _ in looks[: svg.SERIES]}) == svg.SERIES
    assert looks[0] == ("c0", ())
    assert len({dashes for _, dashes in looks[: svg.SERIES]}) == len(svg.DASHES)
