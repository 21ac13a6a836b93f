"""The facts of the page beside the findings: prompt files, commands, provenance."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_jax import units
from prompt_jax.report import svg
from prompt_jax.rundir import folder
from prompt_jax.rundir.folder import PromptFile, RunDirectory
from prompt_jax.rundir.tables import Table, heading


def tables(run: RunDirectory) -> dict[str, Table]:
    """The tables of the page that are no numbers of the findings, by name."""
    prompts = tuple(
        (
            task,
            data,
            str(prompt.record.method),
            prompt.path,
            f"{prompt.record.seed}",
            f"{100 * prompt.dev:.1f}",
        )
        for task, data, prompt in picked(run)
    )
    files = tuple((name, sha, units.format_bytes(size)) for name, size, sha in run.hashes)
    every = (
        Table(
            "prompts",
            f"{len(run.prompts)} prompt files; for each target the best on the development set",
            ("target", "data", "method", "file", "seed", "dev"),
            prompts,
            4,
            note="A prompt only works with the weights it was trained on.",
        ),
        Table(
            "provenance",
            "Versions, device and weights",
            ("key", "value"),
            tuple(provenance(run)),
            2,
        ),
        Table("files", "Files this page was made from", ("file", "sha256", "size"), files, 2),
    )
    return {table.name: table for table in every}


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
    return [(task, heading(k), best[task, k]) for task, k in order]


def commands(run: RunDirectory) -> list[tuple[str, str]]:
    """What to type: (what it does, command)."""
    found = picked(run)
    path = shlex.quote(str(run.path))
    made = []
    if found:
        _, _, prompt = found[0]
        specs = {run.name(task): task for task in run.targets}
        model = shlex.quote(svg.clean(str(run.config.get("model", "MODEL"))))
        file = shlex.quote(svg.clean(str(prompt.file)))
        task = shlex.quote(svg.clean(specs.get(str(prompt.record.task), str(prompt.record.task))))
        root = folder.get(run.config, "data", "root")
        data = f" --root {shlex.quote(svg.clean(root))}" if isinstance(root, str) else ""
        made = [
            ("Score a prompt again", f"prompt-jax evaluate {model} {file} --task {task}{data}"),
            (
                "Answer your own rows (one JSON object with the task's fields a line)",
                f"prompt-jax predict {model} rows.jsonl --prompt {file} --task {task}",
            ),
        ]
        if prompt.array is not None:
            made += [
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
    prompt = found[0][2]
    model, file = str(run.config.get("model", "MODEL")), str(prompt.file)
    load, more = "prompt = pj.SoftPrompt.load", ""
    if prompt.array is None:
        load, more = "method = trained.load", "from prompt_jax.methods import trained\n"
    return (
        f"import prompt_jax as pj\n{more}\n"
        f"lm = pj.models.load({model!r})\n"
        f"{load}({file!r}, model=lm)\n"
    )


def provenance(run: RunDirectory) -> list[tuple[str, str]]:
    """`provenance.json` without the model's configuration, seeds, generated suites of targets."""
    known = [(k, v) for k, v in flat(run.provenance) if not k.startswith("model.config.")]
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
