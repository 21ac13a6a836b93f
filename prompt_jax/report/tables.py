"""The facts of the page beside the findings: prompt files, commands, provenance."""

from __future__ import annotations

import math
import shlex

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
            "Command, versions, device and weights",
            ("fact", "value"),
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
                    "See the words nearest to its tokens",
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
    fields = folder.get(prompt.record.config, "task_definition", "fields")
    several = isinstance(fields, list) and len(fields) > 1
    row = {str(field): "..." for field in fields} if several else "..."
    model, file = str(run.config.get("model", "MODEL")), str(prompt.file)
    load, more = "prompt = pj.SoftPrompt.load", ""
    if prompt.array is None:
        load, more = "method = trained.load", "from prompt_jax.methods import trained\n"
    return (
        f"import prompt_jax as pj\n{more}\n"
        f"lm = pj.from_pretrained({model!r})\n"
        f"{load}({file!r}, model=lm)\n"
        f"print(pj.predict(lm, [{row!r}], {'method' if prompt.array is None else 'prompt'}))\n"
    )


def provenance(run: RunDirectory) -> list[tuple[str, str]]:
    """What a person can check: command, time, versions, device, weights and seeds."""
    known = run.provenance
    model = folder.get(known, "model")
    model = model if isinstance(model, dict) else {}
    versions = folder.get(known, "versions")
    versions = versions if isinstance(versions, dict) else {}
    python = [f"Python {known['python']}"] if isinstance(known.get("python"), str) else []
    suites = sorted({row.suite for row in run.rows if row.suite})
    pairs = (
        ("command", known.get("command")),
        ("started", known.get("started")),
        ("duration", duration(run)),
        ("commit of the source tree", known.get("commit")),
        ("versions", ", ".join([*(f"{name} {v}" for name, v in versions.items()), *python])),
        ("device", known.get("device")),
        ("model", " ".join(str(model[name]) for name in ("name", "dtype") if model.get(name))),
        ("sha256 of the weights", model.get("weights_sha256")),
        ("seeds", ", ".join(map(str, run.seeds))),
        ("sha256 of the generated suite", ", ".join(suites)),
    )
    return [(name, value) for name, value in pairs if isinstance(value, str) and value]


def duration(run: RunDirectory) -> str:
    """How long the processes of a run took together; "" where it is not known."""
    seconds = folder.number(run.provenance.get("seconds"))
    if not 0 <= seconds < 1e9:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{hours:,} h" if hours else "", f"{minutes} min" if minutes or hours else "")
    return " ".join([*filter(None, parts), f"{rest} s" if not hours else ""]).strip()
