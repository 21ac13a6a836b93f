"""The plain facts of the page: costs, rows, prompt files, commands, provenance."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax import units
from prompt_jax.report import svg
from prompt_jax.report.findings import Findings, multiple
from prompt_jax.rundir import folder, results
from prompt_jax.rundir.folder import PromptFile, RunDirectory

_MEANS = (
    "source_steps",
    "target_steps",
    "rows_seen",
    "flops",
    "wall_s",
    "trained_parameters",
    "stored_parameters",
    "trials",
)


def primary(run: RunDirectory, found: Findings) -> list[results.ResultRow]:
    """The test rows of each target's primary metric."""
    return [
        row
        for row in run.rows
        if row.split == "test" and row.metric == found.primary.get(row.target)
    ]


def costs(run: RunDirectory, found: Findings) -> list[dict[str, Any]]:
    """Mean cost of one run of every method at every k, over targets and seeds."""
    made = []
    measured = primary(run, found)
    for k in run.shots:
        means: dict[str, dict[str, float]] = {}
        for method in run.methods:
            mine = [row for row in measured if (row.method, row.k) == (method, k)]
            if mine:
                means[method] = {
                    name: float(np.mean([getattr(row, name) for row in mine])) for name in _MEANS
                }
        most = max((mean["flops"] for mean in means.values()), default=0.0)
        base = means.get(run.methods[0], {}).get("flops", 0.0)
        for number, (method, mean) in enumerate(means.items()):
            made.append(
                {
                    **mean,
                    "k": k,
                    "method": method,
                    "first": number == 0,
                    "share": f"{100 * mean['flops'] / most:.1f}" if most else "0",
                    "ratio": multiple(mean["flops"] / base) if base else "",
                    "work": units.format_flops(mean["flops"]),
                    "trained": units.format_count(mean["trained_parameters"]),
                    "stored": units.format_count(mean["stored_parameters"]),
                }
            )
    return made


def rows(run: RunDirectory) -> list[dict[str, Any]]:
    """Rows of every task at every k, as ranges over the seeds, and the share that was cut."""
    made = []
    for task, entries in run.data.items():
        for k in sorted({entry["k"] for entry in entries}):
            mine = [entry for entry in entries if entry["k"] == k]
            role = "target" if task in run.targets else "source"
            line: dict[str, Any] = {
                "task": run.name(task),
                "role": role,
                "k": results.heading(k),
                "draws": len(mine),
            }
            for part in ("train", "dev", "test"):
                line[part] = _range([entry["rows"][part] for entry in mine])
                shares = [
                    entry["cut"][part]["inputs"] / entry["rows"][part]
                    for entry in mine
                    if entry["rows"][part]
                ]
                line[f"{part}_cut"] = f"{max(shares, default=0.0):.0%}"
            made.append(line)
    return sorted(made, key=lambda line: line["role"], reverse=True)


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def picked(run: RunDirectory) -> list[tuple[str, str, PromptFile]]:
    """For every target and k the prompt that is best on the development set."""
    best: dict[tuple[str, int], PromptFile] = {}
    for prompt in run.prompts:
        if prompt.is_source or not math.isfinite(prompt.dev):
            continue
        key = str(prompt.record.task), prompt.k
        if key not in best or prompt.dev > best[key].dev:
            best[key] = prompt
    names = [run.name(target) for target in run.targets]
    order = [(task, k) for task in names for k in run.shots if (task, k) in best]
    return [(task, results.heading(k), best[task, k]) for task, k in order]


def commands(run: RunDirectory) -> list[tuple[str, str]]:
    """What to type: (what it does, command)."""
    found = picked(run)
    path = shlex.quote(str(run.path))
    made = []
    if found:
        _, _, prompt = found[0]
        specs = {run.name(task): task for task in run.targets}
        model = shlex.quote(svg.clean(str(run.config.get("model", "MODEL"))))
        file = shlex.quote(svg.clean(str(run.path / prompt.path)))
        task = shlex.quote(svg.clean(specs.get(str(prompt.record.task), str(prompt.record.task))))
        root = folder.get(run.config, "data", "root")
        data = f" --root {shlex.quote(svg.clean(root))}" if isinstance(root, str) else ""
        made = [
            ("Score a prompt again", f"prompt-jax evaluate {model} {file} --task {task}{data}"),
            (
                "Answer your own rows (one JSON object with the task's fields a line)",
                f"prompt-jax predict {model} rows.jsonl --prompt {file} --task {task}",
            ),
            (
                "See which words its tokens lie near",
                f"prompt-jax prompts show {file} --model {model}",
            ),
            ("Carry it to PEFT", f"prompt-jax prompts convert {file} adapter/"),
        ]
    return [*made, ("Write this page again", f"prompt-jax report {path}")]


def python(run: RunDirectory) -> str:
    """The same in Python; "" without a prompt."""
    found = picked(run)
    if not found:
        return ""
    model, file = str(run.config.get("model", "MODEL")), str(run.path / found[0][2].path)
    return (
        "import prompt_jax as pj\n\n"
        f"lm = pj.models.load({model!r})\n"
        f"prompt = pj.SoftPrompt.load({file!r}, model=lm)\n"
    )


def provenance(run: RunDirectory) -> list[tuple[str, str]]:
    """`provenance.json`, the seeds, and the generated suites that targets are from."""
    known = list(flat(run.provenance))
    if run.seeds:
        known.append(("seeds", ", ".join(map(str, run.seeds))))
    suites = sorted({row.suite for row in run.rows if row.suite})
    return [*known, *(("suite", suite) for suite in suites)]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as (dotted name, text)."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text
