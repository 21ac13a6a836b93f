"""Makes `report.html`: one file, without scripts and without a request to anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically
from prompt_jax.report import charts, panels, similarity, svg, tables
from prompt_jax.rundir import archive, views
from prompt_jax.rundir.findings import Findings
from prompt_jax.rundir.folder import RunDirectory, get
from prompt_jax.rundir.tables import heading

NAME = "report.html"
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
    return {
        "name": name if isinstance(name, str) and name else run.path.resolve().name,
        "facts": _run_facts(run),
        "lead": views.lead(findings),
        "warnings": findings.warnings,
        "tables": views.tables(findings) | tables.tables(run),
        "minimum": f"{100 * findings.minimum:g}",
        "baseline": findings.baseline,
        "several_shots": len(run.shots) > 1,
        "forests": charts.forests(findings),
        "scores": charts.scores(findings),
        "keys": charts.keys(run),
        "learning": charts.learning(run),
        "losses": charts.losses(run),
        "similarity": similarity.draw(run),
        "sections": panels.sections(run),
        "truncation": findings.truncation,
        "commands": tables.commands(run),
        "python": tables.python(run),
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
    }


def _run_facts(run: RunDirectory) -> list[tuple[str, str]]:
    """What was run, in a line."""
    model = get(run.provenance, "model", "name") or run.config.get("model")
    tokens = get(run.config, "prompt", "tokens")
    known = [
        ("model", model),
        ("device", run.provenance.get("device")),
        ("prompt", f"{tokens} tokens" if tokens else None),
        ("methods", len(run.methods)),
        ("targets", len(run.targets)),
        ("sources", len(run.sources) or None),
        ("data", ", ".join(heading(k) for k in run.shots)),
        ("seeds", len(run.seeds)),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]
