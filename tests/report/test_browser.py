"""The page in a real browser: no overflow, no console line, no request, readable colours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rundir.synthetic import write_run

from prompt_jax import report
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import read

from . import browser as browsers

PROGRAM = browsers.find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium found; set CHROMIUM=PROGRAM")

SCROLLED = """[...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth)
  .map(e => e.getAttribute("aria-label"))"""
OVERFLOW = """[...document.querySelectorAll("main *, header *")].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre, details")
).map(e => e.outerHTML.slice(0, 120))"""
# Texts of a figure that lie on one another, or leave it.
OVERLAPS = """[...document.querySelectorAll("figure svg")].flatMap(figure => {
  const frame = figure.parentElement.getBoundingClientRect();
  const boxes = [...figure.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()])
    .filter(([_, b]) => b.width > 0);
  const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1 ||
    a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
  const bad = boxes.filter(([_, b]) => b.left < frame.left - 1 || b.right > frame.right + 1)
    .map(([t]) => t.textContent + " leaves the figure");
  boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
    if (!apart(a, b)) bad.push(t.textContent + " on " + u.textContent); }));
  return bad.map(what => figure.parentElement.innerText.slice(0, 40) + ": " + what); })"""
# WCAG contrast of every text with its nearest opaque background.
CONTRAST = """(() => {
  const light = c => { const p = c.match(/[\\d.]+/g).map(Number).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2]; };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== "transparent" && !/, 0\\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  let worst = [99, ""];
  for (const e of document.querySelectorAll("p, li, td, th, dt, dd, h1, h2, h3, a, span, code")) {
    if (!e.innerText || !e.getClientRects().length) continue;
    const a = light(getComputedStyle(e).color), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst; })()"""


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    long = "a_very_long_name_without_any_place_to_break_it_" * 3
    folder = write_run(
        tmp_path_factory.mktemp("browser") / "run",
        title=long,
        seeds=2,
        targets=("t/near", f"t/{long}"),
        sources=("s/one", "s/two", f"s/{long}"),
    )
    return report.write(find(read(folder)), folder / "report.html")


@pytest.fixture(scope="module")
def published_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one run, under the protocol of published numbers and under another."""
    pages = {}
    for protocol in ("attempt", "development"):
        folder = tmp_path_factory.mktemp(protocol) / "run"
        write_run(folder, targets=("glue/rte", "super_glue/boolq"), shots=(0,), seeds=2)
        path = folder / "config.json"
        config = json.loads(path.read_text("utf-8"))
        config["data"] = {"protocol": protocol}
        path.write_text(json.dumps({**config, "model": "t5-base"}))
        facts = json.loads((folder / "provenance.json").read_text("utf-8"))
        facts["model"]["name"] = "t5-base"
        (folder / "provenance.json").write_text(json.dumps(facts))
        pages[protocol] = report.write(find(read(folder)), folder / "report.html")
    return pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    assert PROGRAM is not None
    with browsers.browser(PROGRAM, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser, page, width, scheme):
    browser.said.clear()
    browser.requests.clear()
    browser.open(page, width, scheme)
    assert browser.run("innerWidth") == width
    assert browser.run("document.scrollingElement.scrollWidth") <= width
    assert browser.run(OVERFLOW) == []
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.run("document.scrollingElement.scrollWidth") <= width
    assert browser.run(OVERFLOW) == []
    assert browser.run(OVERLAPS) == []
    # No table has to be scrolled sideways.
    assert browser.run(SCROLLED) == []
    assert browser.said == []
    assert set(browser.requests) == {page.resolve().as_uri()}
    dark = browser.run("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(20, 22, 26)" if scheme == "dark" else "rgb(250, 249, 246)")
    ratio, worst = browser.run(CONTRAST)
    assert ratio >= 4.5, worst
    # Figures take the colours of the scheme.
    soft = browser.run("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert soft == ("rgb(163, 169, 179)" if scheme == "dark" else "rgb(91, 97, 107)")
    shown = browser.run("[...document.querySelectorAll('figure svg')].map(e => e.clientWidth)")
    assert len(shown) > 10
    assert min(shown) > 200


@pytest.mark.parametrize("width", [1280, 390])
def test_published_numbers_stand_beside_a_run_of_their_protocol(browser, published_pages, width):
    browser.open(published_pages["attempt"], width)
    text = browser.run("document.querySelector('#published').innerText")
    for shown in ("measured by others, not by this run", "SPoT", "69.8", "T5 v1.0"):
        assert shown in text
    # Not among the run's own results and comparisons.
    assert "69.8" not in browser.run("document.querySelector('#results').innerText")
    assert "ULPT" not in browser.run("document.querySelector('#answer').innerText")
    assert browser.run("document.scrollingElement.scrollWidth") <= width
    assert browser.run(OVERFLOW) == []
    assert browser.run(SCROLLED) == []
    browser.open(published_pages["development"], width)
    assert browser.run("document.querySelector('#published')") is None


def test_the_page_in_print(browser, page):
    browser.open(page, 800, "dark", media="print")
    assert browser.run("getComputedStyle(document.documentElement).getPropertyValue('--ink')") == (
        "#1b1d21"
    )
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("document.querySelector('details table').getClientRects().length") == 1
    # What a reader of paper cannot use is left out.
    assert browser.run("document.querySelector('.screen').getClientRects().length") == 0


def test_the_checks_can_fail(browser, page, tmp_path):
    bad = tmp_path / "bad.html"
    text = page.read_text("utf-8")
    text = text.replace("<main>", '<main><p style="min-width: 2000px; color: #ddd">wide</p>')
    text = re.sub("<text [^>]*>t/near</text>", r"\g<0>\g<0>", text)
    text = text.replace("default-src 'none'", "default-src *")
    bad.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    browser.said.clear()
    browser.open(bad, 800)
    assert browser.run("document.scrollingElement.scrollWidth") > 800
    assert browser.run(OVERFLOW)
    assert browser.run(OVERLAPS)
    assert browser.run(CONTRAST)[0] < 4.5
    assert "http://127.0.0.1:9/x.png" in browser.requests
    assert browser.said
