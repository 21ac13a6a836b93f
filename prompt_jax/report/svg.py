"""Matplotlib figures as inline SVG that takes its colours from the page, light or dark.

A figure is drawn with stand-in colours (`colour("ink")`); in the markup they become CSS variables
(`var(--ink)`). Text stays text. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

ROLES = (
    "ink",
    "strong",
    "soft",
    "line",
    "band",
    "surface",
    "accent",
    "other",
    "c0",
    "c1",
    "c2",
    "c3",
    "c4",
    "c5",
    "c6",
    "c7",
)
SERIES = 8  # colours of lines, with DASHES to tell them apart without colour
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))
_STAND_IN = {role: f"#fe{number:02x}dc" for number, role in enumerate(ROLES)}
_VARIABLE = {stand_in: f"var(--{role})" for role, stand_in in _STAND_IN.items()}
_HEX, _CLIP = re.compile("|".join(_VARIABLE)), re.compile(r"url\(#(.+)\)")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prompt_jax",
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 11.0,
    "font.family": ["sans-serif"],
    "axes.unicode_minus": True,
    "path.simplify": True,
}


def colour(role: str) -> str:
    """The stand-in of a colour of the page, for any matplotlib argument."""
    return _STAND_IN[role]


def series(number: int) -> tuple[str, tuple[float, ...]]:
    """Colour role and dashes of the n-th line of a legend."""
    return f"c{number % SERIES}", DASHES[(number // 2) % len(DASHES) if number else 0]


class Key(NamedTuple):
    """An entry of a legend."""

    name: str
    role: str  # of the colour
    dashes: str  # as SVG writes them


def legend(names: Sequence[str]) -> list[Key]:
    """The lines of a figure in the order of their numbers."""
    made = []
    for number, name in enumerate(names):
        role, dashes = series(number)
        made.append(Key(name, role, " ".join(f"{2 * dash:g}" for dash in dashes)))
    return made


def clean(text: str, longest: int = 0) -> str:
    r"""Text without control characters, which XML cannot hold, cut to `longest` characters.

    >>> clean("a\x00b"), clean("mountains", 6)
    ('a b', 'mount…')
    """
    text = _CONTROL.sub(" ", text)
    return text if not longest or len(text) <= longest else text[: longest - 1] + "…"


class Canvas:
    """A figure of so many CSS pixels, and axes placed in them.

    Attributes:
      figure: the matplotlib figure.
      width: pixels.
      height: pixels.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure((width / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes without a frame at a place counted from the upper left corner."""
        bottom = self.height - top - height
        axes = self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=10, labelcolor=colour("soft"), pad=4)
        axes.set_axisbelow(True)
        return axes

    def markup(self, title: str, description: str) -> str:
        """The SVG element, named for readers who do not see it."""
        raw = io.BytesIO()
        with warnings.catch_warnings():
            # Glyphs that matplotlib's font lacks are drawn by the browser.
            warnings.simplefilter("ignore")
            blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
            self.figure.savefig(raw, format="svg", metadata=blank)
        return _inline(raw.getvalue(), self.width, clean(title), clean(description))


@contextmanager
def drawing() -> Iterator[None]:
    """The settings under which figures are made; the caller's come back afterwards."""
    import matplotlib

    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        yield


def _inline(raw: bytes, width: float, title: str, description: str) -> str:
    ET.register_namespace("", _SVG)
    root = ET.fromstring(raw)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element inside the page would speak to all of it.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    _rename(root, hashlib.sha256(title.encode() + raw).hexdigest()[:8])
    for element in root.iter():
        if "style" in element.attrib:
            style = re.sub(r"font-family: [^;]*;? ?", "", element.attrib["style"])
            element.set("style", _HEX.sub(lambda found: _VARIABLE[found[0]], style))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("width", f"{width:g}")
    root.set("role", "img")
    root.set("aria-label", f"{title}. {description}")
    named = ET.Element(f"{{{_SVG}}}title")
    named.text = title
    root.insert(0, named)
    return re.sub(r"\s*\n\s*", " ", ET.tostring(root, encoding="unicode"))


def _rename(root: ET.Element, prefix: str) -> None:
    """Drops ids that nothing refers to, and tells the others from those of other figures."""
    href = f"{{{_XLINK}}}href"
    wanted = set()
    for element in root.iter():
        if href in element.attrib:
            name = element.attrib.pop(href).removeprefix("#")
            wanted.add(name)
            element.set("href", f"#{prefix}-{name}")
        if clip := _CLIP.fullmatch(element.get("clip-path", "")):
            wanted.add(clip[1])
            element.set("clip-path", f"url(#{prefix}-{clip[1]})")
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in wanted:
            element.set("id", f"{prefix}-{name}")
