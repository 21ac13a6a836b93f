"""The page as a whole: order, numbers, harmless text, nothing from outside, any damage."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rundir.synthetic import write_run

from prompt_jax import report
from prompt_jax.errors import DataError, PromptJaxError
from prompt_jax.report import page
from prompt_jax.rundir import views
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import read
from prompt_jax.rundir.tables import Table

VOID = {"meta", "br", "link", "img", "input", "hr"}
EVIL = "x\"'><script>alert(1)</script><img src=http://evil.test/a>{{ 7*7 }}$\\frac{1}{2}$"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def text(made: Path, tmp_path_factory) -> str:
    return report.render(find(read(made)))


def test_the_order_of_the_page(text):
    reader = Reader(text)
    sections = [a["id"] for tag, a in reader.tags if tag == "section"]
    assert sections == [
        "answer",
        "results",
        "answers",
        "transfer",
        "learning",
        "methods",
        "costs",
        "truncation",
        "use",
        "provenance",
    ]
    assert sum(tag == "h1" for tag, _ in reader.tags) == 1
    for link in reader.values("href"):
        assert link.startswith("#")
    assert {link for link in reader.values("href") if link[1:] in sections} == {
        f"#{name}" for name in sections
    }
    assert "<p>Warnings</p>" not in text


@pytest.mark.slow
def test_the_headline_is_the_lead(text, loaded):
    lead = views.lead(find(loaded))
    assert f"<h1>{html.escape(lead)}</h1>" in text
    assert text.index("<h1>") < text.index('id="results"')


@pytest.mark.slow
def test_the_tables_are_those_of_the_findings(text, loaded):
    """Cell by cell."""
    found = find(loaded)
    shown_tables = views.tables(found) | {"results": views.results(found, "columns")}
    del shown_tables["best"]  # the terminal's and `prompt-jax table`'s: the figures say the same
    for table in shown_tables.values():
        shown = text[text.index(f'aria-label="{html.escape(table.title)}"') :].split("</table>")[0]
        rows = re.findall(r"<tr>(.*?)</tr>", shown.split("</thead>")[1], re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)(?: <span.*?)?</t[hd]>", row) for row in rows]
        assert [[html.unescape(cell) for cell in row] for row in cells] == [
            list(row) for row in table.rows
        ]
    table = views.results(found, "columns")
    shown = text[text.index(f'aria-label="{table.title}"') :].split("</table>")[0]
    assert shown.count("▲") == sum(
        c.verdict.effect and c.verdict.comparison.difference > 0 for c in found.contrasts
    )
    assert shown.count('class=" top"') == sum("best" in mark for mark in table.marks.values())


@pytest.mark.slow
def test_one_seed_is_said_to_be_one(tmp_path):
    alone = "With one seed the intervals cover the draw of test rows alone"
    for seeds in (1, 2):
        folder = write_run(tmp_path / f"{seeds}", shots=(4,), seeds=seeds)
        assert (alone in report.render(find(read(folder)))) == (seeds == 1)


@pytest.mark.slow
def test_with_one_k_no_table_names_it(tmp_path):
    folder = write_run(tmp_path / "run", shots=(4,), seeds=2)
    shown = report.render(find(read(folder)))
    table = shown[shown.index('aria-label="Test rows') :].split("</table>")[0]
    assert "k = 4" not in table
    assert '<th scope="row" class="left">t/near</th>' in table


def test_the_side_with_fewer_entries_goes_across(loaded):
    found = find(loaded)
    assert page._across(found) == "columns"  # three methods, six rows
    assert page._across(dataclasses.replace(found, rows=found.rows[:1])) == "rows"


def test_what_all_task_names_begin_with_is_said_once(tmp_path):
    folder = write_run(
        tmp_path / "run",
        methods=("prompt_tuning", "spot"),
        sources=("sandbox/s", "sandbox/r"),
        targets=("sandbox/t",),
        shots=(4,),
        seeds=2,
    )
    text = report.render(find(read(folder)))
    assert "<dt>task names begin with</dt><dd>sandbox/</dd>" in text
    shown = text[text.index("<main>") : text.index('id="use"')]
    assert "sandbox/" not in shown
    assert '<th scope="row" class="left">t</th>' in shown
    assert "<summary>The comparison as a table</summary>" in text  # not "all 1 comparisons"


def test_names_are_short_in_titles_cells_and_notes():
    table = Table("t", "", ("a/x (f1)",), (("a/x",), ("data/x",)), note="a/x: 1, a/y; data/x")
    short = page._short(table, "a/")
    assert (short.columns, short.rows) == (("x (f1)",), (("x",), ("data/x",)))
    assert short.note == "x: 1, y; data/x"
    assert page._short(table, "") is table


def test_what_was_answered_is_shown(text):
    shown = text[text.index('<section id="answers"') :].split("</section>")[0]
    assert "Answers on t/near, k = 16: spot" in shown  # the best method
    assert "bad: bad 67, good 33; good: bad 0, good 100" in shown
    rows = re.findall(r">(right|wrong)</th>.*?>([^<]*)</td></tr>", shown)
    assert rows[:2] == [("wrong", "yes (good)"), ("right", "no (bad)")]


def test_nothing_empty_is_shown(tmp_path):
    folder = write_run(
        tmp_path / "run", methods=("prompt_tuning",), sources=(), shots=(4,), seeds=2
    )
    for name in ("metrics.jsonl", "answers.json"):
        (folder / name).unlink()
    reader = Reader(report.render(find(read(folder))))
    sections = [a["id"] for tag, a in reader.tags if tag == "section"]
    assert sections == ["results", "methods", "costs", "truncation", "use", "provenance"]
    assert [link for link in reader.values("href") if link[1:] in sections] == [
        f"#{name}" for name in sections
    ]


def test_what_a_reader_needs_to_go_on(text):
    for piece in (
        "mine/far",
        "two rows skipped",
        "10% of the train inputs were longer than 32 tokens",
        "300 GFLOP",
        "ab" * 32,
        "jax 0.10.2, Python 3.11",
        "prompt-jax run synthetic",
        "<dt>date</dt><dd>2026-01-02</dd>",
        "<dt>duration</dt><dd>3 min 10 s</dd>",
        "prompt-jax evaluate models/tiny",
        "--root &#39;my data&#39;",
        "prompt-jax report ",
        "pj.SoftPrompt.load(",
        "Vu et al. 2022",
    ):
        assert piece in text, piece


def test_nothing_comes_from_outside(text):
    reader = Reader(text)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert reader.values("src") == []
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    policy = [a["content"] for t, a in reader.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)


def test_markup_for_everybody(text):
    reader = Reader(text)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)}
    assert used <= set(ids)
    for tag, attrs in reader.tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (
                attrs.get("role") == "img" and len(str(attrs.get("aria-label"))) > 10
            )
        if tag == "th":
            assert attrs.get("scope") in ("row", "col")
    assert ("html", {"lang": "en"}) in reader.tags
    assert 'name="viewport"' in text


@pytest.mark.slow
def test_equal_files_give_an_equal_page(made, text, copy):
    assert report.render(find(read(made))) == text
    moved = report.render(find(read(copy)))
    assert moved.replace(str(copy), str(made)) == text


def write(copy: Path) -> Path:
    return report.write(find(read(copy)), page.default_path([copy]))


@pytest.mark.slow
def test_write(copy):
    path = write(copy)
    assert path == copy / "report.html"
    first = path.read_bytes()
    assert write(copy) == path
    assert path.read_bytes() == first
    assert [p.name for p in copy.iterdir() if p.name.endswith(".tmp")] == []


def test_default_paths():
    assert page.default_path(["runs/a"]) == Path("runs/a/report.html")
    assert page.default_path(["runs/a", "runs/b"]) == Path("runs/a/comparison.html")
    assert page.default_path(["kept/a.tar.gz", "runs/b"]) == Path("a.html")


@pytest.mark.slow
def test_a_link_in_the_place_of_the_page_is_replaced_not_followed(copy, tmp_path):
    precious = tmp_path / "thesis.html"
    precious.write_text("precious")
    (copy / "report.html").symlink_to(precious)
    write(copy)
    assert precious.read_text() == "precious"
    assert not (copy / "report.html").is_symlink()


@pytest.mark.slow
def test_a_page_that_cannot_be_written(copy):
    (copy / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html cannot be written"):
        write(copy)


@pytest.mark.slow
def test_hostile_names_are_text(tmp_path):
    folder = write_run(
        tmp_path / "run",
        methods=("prompt_tuning", f"spot {EVIL}"),
        title=EVIL,
        sources=(f"a{EVIL}", f"b{EVIL}"),
        targets=(f"t{EVIL}", f"u\x1b{EVIL}"),
        shots=(4,),
        seeds=2,
    )
    config = json.loads((folder / "config.json").read_text())
    config["model"] = f"$(touch x)\n{EVIL}"
    config["data"]["root"] = "; rm x"
    config["\ud800"] = "\ud800"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "provenance.json").write_text(json.dumps({EVIL: {EVIL: EVIL}, "device": EVIL}))
    text = report.render(find(read(folder)))
    reader = Reader(text)
    assert not {tag for tag, _ in reader.tags} & {"script", "img"}
    assert "alert(1)" in "".join(reader.text)
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|\b49\b(?!\.)", "".join(reader.text)[:400])
    commands = re.findall(r"<code>(prompt-jax.*?)</code>", text, re.DOTALL)
    assert len(commands) == 5
    assert "\n" not in "".join(commands)
    evaluate = html.unescape(commands[0])
    assert evaluate.startswith("prompt-jax evaluate '$(touch x) x\"'\"'\"'>")
    assert evaluate.endswith("--root '; rm x'")


@pytest.mark.parametrize("left", ["config.json", "results.jsonl"])
def test_one_file_alone_still_gives_a_page(made, tmp_path, left):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(made / left, folder)
    text = report.render(find(read(folder)))
    Reader(text)
    assert "<p>Warnings</p>" in text
    for name in ("provenance.json", "items.npz", "metrics.jsonl", "data.json", "prompts/"):
        assert f"<li>{name} is missing" in text
    expected = "There are no results yet." if left == "config.json" else "prompt_tuning"
    assert expected in text


@pytest.mark.slow
def test_a_run_that_died_is_named(copy):
    lines = (copy / "results.jsonl").read_text().splitlines()
    facts = json.loads(lines[1])
    assert facts["split"] == "test"
    lines[1] = json.dumps({**facts, "value": None})
    (copy / "results.jsonl").write_text("\n".join(lines))
    text = report.render(find(read(copy)))
    assert "prompt_tuning, t/near, k = 16, seed 0: the replica diverged" in text
    assert "(1 failed)" in text


@pytest.mark.slow
def test_random_damage_never_ends_in_a_traceback(made, tmp_path):
    """Bytes changed, cut and doubled anywhere: a page, or one clear error."""
    rng = random.Random(0)
    folder = write_run(tmp_path / "run", shots=(4,), seeds=1, targets=("a",), sources=("b",))
    names = [p for p in folder.rglob("*") if p.is_file()]
    originals = {p: p.read_bytes() for p in names}
    for _ in range(12):
        for path in rng.sample(names, 3):
            raw = bytearray(originals[path])
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(raw))
                raw[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            path.write_bytes(bytes(raw[: rng.randrange(len(raw))] if rng.random() < 0.3 else raw))
        with contextlib.suppress(PromptJaxError):
            Reader(report.render(find(read(folder))))
        for path, raw_ in originals.items():
            path.write_bytes(raw_)
    assert read(folder).problems == []
