"""Draws pictures of the README and of docs/ from a run directory.

    python tools/pictures.py readme runs/quickstart docs/quickstart.svg
    python tools/pictures.py learning runs/smollm2_all_rows docs/results/smollm2_all_rows.svg

`readme` is the comparison and the similarity of prompts, `learning` the development curves. The
figures are those of the report. The file has its own colours, light and dark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from prompt_jax import report
from prompt_jax.report import charts, similarity, svg
from prompt_jax.rundir import views
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import read

WIDTH, TOP, PAD = 760, 92, 32


def readme(folder: str) -> str:
    """The comparison with the baseline beside the similarity of prompts, as SVG."""
    findings = find(read(folder))
    with svg.drawing():
        forest = charts.forests(findings)[-1]
        method, _, near = similarity.draw(findings.run)[0][-1]
    found, _, interval = views.lead(findings).partition(" [")
    return _side_by_side(
        (found, f"95 % interval [{interval} 16 training rows per class."),
        {
            f"{method} minus {findings.baseline}": forest.svg,
            "similarity of target prompts to sources": near,
        },
    )


def learning(folder: str) -> str:
    """The development curve of every target, as SVG."""
    run = read(folder)
    with svg.drawing():
        drawn = charts.learning(run)
    title = f"{run.config['model']}: {', '.join(run.methods)}"
    line = "Accuracy on development rows, in points, over the steps."
    return _side_by_side((title, line), {figure.title: figure.svg for figure in drawn})


def _side_by_side(lines: tuple[str, str], drawn: Mapping[str, str]) -> str:
    style = (Path(report.__file__).parent / "page.css").read_text("utf-8")
    colours = re.match(r":root \{.*?\n\}\n@media screen and (.*?\n\})\n", style, re.DOTALL)
    assert colours is not None
    sizes = [tuple(map(float, _size(figure))) for figure in drawn.values()]
    scale = (WIDTH - (1 + len(drawn)) * PAD) / sum(width for width, _ in sizes)
    high = TOP + scale * max(height for _, height in sizes) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high:.0f}"'
        f' width="{WIDTH}" role="img">',
        f"<title>{escape('. '.join(lines))}</title>",
        f"<style>{colours[0]} text {{ font-family: system-ui, sans-serif; }}"
        " .t { fill: var(--ink); font-size: 17px; font-weight: 650; }"
        " .s { fill: var(--soft); font-size: 13px; }</style>",
        '<rect width="100%" height="100%" rx="8" fill="var(--surface)"/>',
        f'<text class="t" x="{PAD}" y="34">{escape(lines[0])}</text>',
        f'<text class="s" x="{PAD}" y="56">{escape(lines[1])}</text>',
    ]
    left = PAD
    for (title, figure), (width, height) in zip(drawn.items(), sizes, strict=True):
        placed = (
            f'<svg x="{left}" y="{TOP}" width="{scale * width:.0f}" height="{scale * height:.0f}" '
        )
        parts.append(f'<text class="s" x="{left}" y="{TOP - 8}">{escape(title)}</text>')
        parts.append(placed + re.sub(r' width="[\d.]+"', "", figure[len("<svg ") :], count=1))
        left += round(scale * width) + PAD
    return "\n".join([*parts, "</svg>"]) + "\n"


def _size(figure: str) -> tuple[str, str]:
    """Width and height of a figure's view box."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)
    assert found is not None
    return found[1], found[2]


if __name__ == "__main__":
    what, source, target = sys.argv[1:]
    draw = {"readme": readme, "learning": learning}[what]
    Path(target).write_text(draw(source), encoding="utf-8")
