"""Makes `report.html`: one file, without scripts and without a request to anybody."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically
from prompt_jax.report import answers, charts, panels, similarity, svg, tables
from prompt_jax.rundir import archive, published, views
from prompt_jax.rundir.findings import Findings
from prompt_jax.rundir.folder import RunDirectory, get
from prompt_jax.rundir.tables import Table, heading

NAME = "report.html"
_WORD = 36  # characters of a word that a table can hold
_HERE = Path(__file__).parent


def default_path(directories: Sequence[str | os.PathLike[str]]) -> Path:
    """Where the page of run directories or archives is written, unless told where.

    A page of one run lies in its directory, that of several in the first one; an archive holds no
    page: it lies in the working directory.
    """
    first = Path(directories[0])
    if archive.is_archive(first):
        return Path(f"{first.name.removesuffix(archive.SUFFIX)}.html")
    return first / (NAME if len(directories) == 1 else "comparison.html")


def write(findings: Findings, path: str | os.PathLike[str]) -> Path:
    """Writes the page of some findings; the same findings give the same page.

    Args:
      findings: as from `prompt_jax.rundir.findings.find`.
      path: of the page.

    Returns:
      The path.

    Raises:
      DataError: it cannot be written.
    """
    path = Path(path)
    text = render(findings)
    try:
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def render(findings: Findings) -> str:
    """The page as text; see `write`."""
    import jinja2

    with svg.drawing():
        context = _context(findings)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_HERE / "page.css").read_text("utf-8")
    text = environment.get_template("page.html.jinja").render(style=style, **context)
    # What no encoding can hold (a lone half of a surrogate pair in a JSON string) is shown as "?".
    return text.encode("utf-8", "replace").decode("utf-8")


def _context(findings: Findings) -> dict[str, Any]:
    run = findings.run
    name = run.config.get("name")
    near, near_note = similarity.draw(run)
    several = len(run.shots) > 1
    shown = views.tables(findings) | tables.tables(run)
    shown |= {
        "results": views.results(findings, _across(findings)),
        "calibration": answers.calibration(findings),
    }
    made = {
        "name": name if isinstance(name, str) and name else run.path.resolve().name,
        "facts": _run_facts(run),
        "lead": views.lead(findings),
        "warnings": [_shortened(line, run.prefix) for line in findings.warnings],
        "tables": {name: _short(table, run.prefix) for name, table in shown.items()},
        "published": [_short(table, run.prefix) for table in published.tables(run)],
        "minimum": f"{100 * findings.minimum:g}",
        "baseline": findings.baseline,
        "seeds": len(run.seeds),
        "answered": findings.answer is not None,
        "why": findings.answer.question.why if findings.answer is not None else "",
        "several_shots": several,
        "forests": charts.forests(findings),
        "scores": charts.scores(findings),
        "confusions": answers.confusions(findings),
        "samples": answers.samples(findings),
        "keys": charts.keys(run),
        "learning": charts.learning(run),
        "losses": charts.losses(run),
        "near": [(f"{m}, {data}" if several else m, figure) for m, data, figure in near],
        "near_note": near_note,
        "methods": panels.sections(run),
        "truncation": [_shortened(line, run.prefix) for line in findings.truncation],
        "commands": tables.commands(run),
        "python": tables.python(run),
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
    }
    return made | {"sections": _sections(made), "columns": _columns, "unbroken": _unbroken}


def _across(findings: Findings) -> Literal["rows", "columns"]:
    """Whether methods are columns of the results: the side with fewer entries, so that they fit."""
    return "columns" if len(findings.run.methods) <= len(findings.rows) + 1 else "rows"


def _sections(made: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(id, title, whether there is anything to show) of the page's sections."""
    shown = made["tables"]
    answered = made["samples"] or made["confusions"] or shown["calibration"].rows
    listed = (
        ("answer", "Comparison", made["forests"]),
        ("results", "Results", True),
        ("published", "Published numbers", made["published"]),
        ("answers", "Answers", answered),
        ("transfer", "Similarity", made["near"]),
        ("learning", "Learning curves", made["learning"] or made["losses"]),
        ("methods", "Methods", made["methods"]),
        ("costs", "Costs", shown["costs"].rows),
        ("truncation", "Truncation", shown["rows"].rows or made["truncation"]),
        ("use", "Use the prompts" if made["python"] else "Commands", True),
        ("provenance", "Provenance", True),
    )
    return [(name, title, bool(there)) for name, title, there in listed]


def _short(table: Table, prefix: str) -> Table:
    """A table whose cells and titles do not repeat what all task names begin with."""
    if not prefix:
        return table

    def cut(cells: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cell.removeprefix(prefix) for cell in cells)

    note = _shortened(table.note, prefix)
    rows = tuple(map(cut, table.rows))
    return replace(table, columns=cut(table.columns), rows=rows, note=note)


def _shortened(sentence: str, prefix: str) -> str:
    """A sentence whose task names do not repeat what all of them begin with.

    >>> _shortened("a/x: 3 rows, a/y; data/x", "a/")
    'x: 3 rows, y; data/x'
    """
    return re.sub(rf"(?<![\w/]){re.escape(prefix)}", "", sentence) if prefix else sentence


def _unbroken(cell: str) -> bool:
    """Whether a word is so long that it has to be broken anywhere.

    >>> _unbroken("prompts/spot/" + 30 * "x"), _unbroken("a long text of many short words, no more")
    (True, False)
    """
    return max(map(len, cell.split()), default=0) > _WORD


def _columns(count: int) -> int:
    """In how many columns so many figures stand: none is alone in the last row where that can be.

    >>> [_columns(n) for n in range(1, 9)]
    [1, 2, 3, 2, 3, 3, 4, 2]
    """
    if count < 4:
        return max(count, 1)

    def cost(columns: int) -> float:
        rest = -count % columns
        alone = 2 * (rest == columns - 1)
        return rest + alone + {2: 1.5 * (count > 8), 3: 0, 4: 1}[columns]

    return min((3, 2, 4), key=cost)


def _run_facts(run: RunDirectory) -> list[tuple[str, str]]:
    """What was run, in a line."""
    model = get(run.provenance, "model", "name") or run.config.get("model")
    tokens = get(run.config, "prompt", "tokens")
    started = run.provenance.get("started")
    known = [
        ("model", model),
        ("device", run.provenance.get("device")),
        ("prompt", f"{tokens} tokens" if tokens else None),
        ("methods", len(run.methods)),
        ("targets", len(run.targets)),
        ("sources", len(run.sources) or None),
        ("task names begin with", run.prefix),
        ("data", ", ".join(heading(k) for k in run.shots)),
        ("seeds", len(run.seeds)),
        ("date", started[:10] if isinstance(started, str) else None),
        ("duration", tables.duration(run)),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]
