"""Makes `report.html`: one file, without scripts and without a request to anybody."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from prompt_jax import units
from prompt_jax.errors import DataError
from prompt_jax.paths import write_atomically
from prompt_jax.report import charts, findings, panels, similarity, svg, tables
from prompt_jax.report.findings import Findings
from prompt_jax.rundir import folder, results, truncation
from prompt_jax.rundir.folder import RunDirectory

NAME = "report.html"
_HERE = Path(__file__).parent


def write(run_directory: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run directory, from the files there alone.

    Missing or damaged files leave gaps that the page names. The same files give the same page.

    Args:
      run_directory: what `prompt-jax run` wrote.

    Returns:
      The path of the page.

    Raises:
      DataError: there is no such run directory, or it cannot be read or written.
    """
    path = Path(run_directory) / NAME
    text = render(run_directory)
    try:
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def render(run_directory: str | os.PathLike[str]) -> str:
    """The page as text; see `write`."""
    import jinja2

    run = folder.read(run_directory)
    found = findings.find(run)
    with svg.drawing():
        context = _context(run, found)
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


def _context(run: RunDirectory, found: Findings) -> dict[str, Any]:
    name = run.config.get("name")
    return {
        "name": name if isinstance(name, str) and name else run.path.resolve().name,
        "facts": _run_facts(run),
        "problems": run.problems,
        "lead": found.lead,
        "more": found.more,
        "standings": found.standings,
        "setting": lambda standing: findings.setting(run, standing),
        "multiple": findings.multiple,
        "p_text": findings.p_text,
        "several_shots": len(run.shots) > 1,
        "forests": charts.forests(run, found),
        "minimum": f"{100 * results.minimum(run.targets):g}",
        "targets": [(run.name(t), t, found.primary.get(t, "")) for t in run.targets],
        "table": charts.table(run, found),
        "comparisons": [
            (
                results.heading(c.k),
                run.name(c.target),
                c.method,
                results.interval_text(c.verdict.comparison),
                c.verdict,
            )
            for c in found.contrasts
        ],
        "baseline": run.methods[0] if run.methods else "",
        "seeds": len(run.seeds),
        "scores": charts.scores(run, found),
        "keys": charts.keys(run),
        "learning": charts.learning(run),
        "losses": charts.losses(run),
        "alike": similarity.draw(run),
        "sections": panels.sections(run),
        "costs": tables.costs(run, found),
        "cut": truncation.losses(
            run.data, folder.get(run.config, "data", "max_input_tokens") or "?", run.targets
        ),
        "rows": tables.rows(run),
        "died": [r for r in tables.primary(run, found) if not math.isfinite(r.value)],
        "run_name": run.name,
        "heading": results.heading,
        "prompts": tables.picked(run),
        "prompt_count": len(run.prompts),
        "commands": tables.commands(run),
        "python": tables.python(run),
        "provenance": tables.provenance(run),
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
        "hashes": [(name, units.format_bytes(size), sha) for name, size, sha in run.hashes],
    }


def _run_facts(run: RunDirectory) -> list[tuple[str, str]]:
    """What was run, in a line."""
    model = folder.get(run.provenance, "model", "name") or run.config.get("model")
    tokens = folder.get(run.config, "prompt", "tokens")
    known = [
        ("model", model),
        ("device", run.provenance.get("device")),
        ("prompt", f"{tokens} tokens" if tokens else None),
        ("methods", len(run.methods)),
        ("targets", len(run.targets)),
        ("sources", len(run.sources) or None),
        ("data", ", ".join(results.heading(k) for k in run.shots)),
        ("seeds", len(run.seeds)),
    ]
    return [(name, str(value)) for name, value in known if value not in (None, "")]
