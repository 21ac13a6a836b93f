"""Plans and reports as tables for people."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from typing import TYPE_CHECKING, Any

from prompt_jax.cli import common

if TYPE_CHECKING:
    from prompt_jax.data import Task
    from prompt_jax.recipes import ExperimentConfig, Plan, Report

_LONGEST_EXAMPLE = 160  # characters of a row that stands in a command to copy


def plan(out: common.Printer, made: Plan, config: ExperimentConfig, folder: str) -> None:
    """What will be done and what it costs."""
    from prompt_jax.rundir import results

    counts = (
        (len(config.targets), "target"),
        (len(config.methods), "method"),
        (config.seeds, "seed"),
    )
    text = " x ".join(f"{n} {noun}{'s' if n > 1 else ''}" for n, noun in counts)
    shots = ", ".join(results.heading(k) for k in config.shots)
    out.print(common.heading(f"{made.name}: {text}, {shots}"))
    out.print(
        common.facts(
            [
                (
                    "model",
                    f"{made.model}, {common.format_count(made.parameters)} parameters,"
                    f" {config.dtype}{', remat' if config.remat else ''}",
                ),
                (
                    "prompt",
                    f"{config.prompt.tokens} tokens from {config.prompt.init},"
                    f" {common.format_count(made.prompt_parameters)} parameters"
                    f" ({made.prompt_parameters / made.parameters:.2%})",
                ),
                ("device", made.device),
                ("writes", folder),
            ]
        )
    )
    out.print()
    _tasks(out, made)
    _stages(out, made)
    _costs(out, made)


def _tasks(out: common.Printer, made: Plan) -> None:
    from prompt_jax.data import registry

    roles: dict[str, list[Any]] = {}
    for task in made.tasks:
        roles.setdefault(task.name, []).append(task)
    shown = common.table("task", "role", "where", "train rows", "test rows", left=3)
    for name, entries in roles.items():
        train, test = (
            "?" if rows is None else f"{rows:,}" for rows in (entries[0].train, entries[0].test)
        )
        role = " and ".join(entry.role for entry in entries)
        shown.add_row(registry.get(name).name, role, entries[0].where, train, test)
    out.print(shown)
    out.print()


def _stages(out: common.Printer, made: Plan) -> None:
    shown = common.table("stage", "runs", "steps", "rows/step", "training")
    for stage in made.stages:
        shown.add_row(
            stage.label,
            f"{stage.runs:,}",
            f"{stage.steps:,}",
            f"{stage.rows_per_step:,}",
            common.format_flops(stage.flops),
        )
    out.print(shown)
    out.print()


def _costs(out: common.Printer, made: Plan) -> None:
    memory = made.memory
    devices = memory.data * memory.model
    held = [
        f"weights {common.format_bytes(memory.weights)}",
        f"prompts and optimizer {common.format_bytes(memory.population)}",
    ]
    if memory.fine_tuning:
        held.append(f"full fine-tuning {common.format_bytes(memory.fine_tuning)}")
    held.append(f"micro-batch {common.format_bytes(memory.micro_batch)}")
    each = ""
    if devices > 1:
        each = "each device: "
        together = memory.weights + memory.population + memory.micro_batch
        without = " without full fine-tuning" if memory.fine_tuning else ""
        held.append(f"together {common.format_bytes(together)}{without}")
    micro = f"{memory.micro_batch_rows} rows x {memory.micro_batch_tokens} tokens"
    counted = f"{common.format_flops(memory.hand_flops)} by hand"
    if math.isfinite(memory.xla_flops):
        counted += f", {common.format_flops(memory.xla_flops)} by XLA"
    out.print(
        common.facts(
            [
                (
                    "in all",
                    f"{sum(s.runs for s in made.stages):,} runs, {made.steps:,} optimizer"
                    f" steps, at most {common.format_flops(made.flops)} (inputs at full length)",
                ),
                *(
                    [
                        (
                            "mesh",
                            f"rows over {memory.data}, weights over {memory.model}:"
                            f" {devices} devices",
                        )
                    ]
                    if devices > 1
                    else []
                ),
                ("memory", each + ", ".join(held)),
                ("micro-batch", f"{each}{micro}: {counted}"),
            ]
        )
    )


def report(out: common.Printer, found: Report, config: ExperimentConfig) -> None:
    """The table with spread, contrasts, what was cut and reused, paths, what to try next."""
    spread = f", mean ± standard deviation over {config.seeds} seeds" if config.seeds > 1 else ""
    out.print()
    out.print(common.heading(f"Test rows, in points{spread}"))
    _results(out, found, config)
    if found.contrasts:
        _contrasts(out, found)
    for title, lines in (("What was cut", found.losses), ("Reused", _reused(found))):
        if lines:
            out.print()
            out.print(common.heading(title))
            for line in lines:
                out.print(f"  {line}")
    out.print()
    out.print(common.heading("What it left"))
    out.print(common.facts(_left(found)))
    if commands := _next(found, config):
        out.print()
        out.print(common.heading("Try next"))
        for command in commands:
            # Never wrapped: a command that is cut into lines cannot be copied.
            out.print(f"  {command}", wrap=False)


def _results(out: common.Printer, found: Report, config: ExperimentConfig) -> None:
    from prompt_jax.rundir import results

    # The options of a method stand below its name, so that columns stay narrow.
    names = [method.replace("(", "\n(").replace(",", ",\n") for method in config.specs]
    shown = common.table("", "target", "metric", *names, left=3)
    for k in config.shots:
        for number, target in enumerate(config.targets):
            cells = [
                results.cell_text(found.summaries.get((method, target, k)))
                for method in config.specs
            ]
            title = results.heading(k) if number == 0 else ""
            shown.add_row(
                title,
                found.tasks[target].name,
                found.primary[target],
                *cells,
                end_section=number + 1 == len(config.targets) and k != config.shots[-1],
            )
    out.print(shown)


def _contrasts(out: common.Printer, found: Report) -> None:
    from prompt_jax.rundir import results

    least = results.minimum(contrast.target for contrast in found.contrasts)
    out.print()
    out.print(
        common.heading(
            f"Against {found.contrasts[0].baseline}, paired (p after Holm; an effect has p < 0.05"
            f" and {100 * least:g} points)"
        )
    )
    shown = common.table("", "target", "method", "points", "95 %", "p", "effect", left=3)
    for contrast in found.contrasts:
        c = contrast.verdict.comparison
        shown.add_row(
            results.heading(contrast.k),
            found.tasks[contrast.target].name,
            contrast.method,
            f"{100 * c.difference:+.1f}",
            f"{100 * c.low:+.1f} to {100 * c.high:+.1f}",
            f"{contrast.verdict.p_holm:.3f}",
            "yes" if contrast.verdict.effect else "no",
        )
    out.print(shown)


def _reused(found: Report) -> list[str]:
    totals: dict[str, tuple[int, int]] = {}
    for label, reused, runs in found.reused:
        before = totals.get(label, (0, 0))
        totals[label] = (before[0] + reused, before[1] + runs)
    return [
        f"{label}: {reused} of {runs} runs" for label, (reused, runs) in totals.items() if reused
    ]


def _left(found: Report) -> list[tuple[str, str]]:
    from prompt_jax.report import page

    report = found.folder / page.NAME
    lines = [(str(report), "the report: open it in a browser")] if report.is_file() else []
    lines += [
        (str(found.folder / "summary.md"), "this table"),
        (str(found.folder / "results.jsonl"), "every number, with its cost"),
        (str(found.folder / "metrics.jsonl"), "learning curves"),
    ]
    if found.prompts:
        lines.append((str(found.folder / "prompts"), f"{len(found.prompts)} target prompts"))
    return lines


def _next(found: Report, config: ExperimentConfig) -> list[str]:
    """Commands to copy: what the first target's prompt answers, and what it looks like."""
    if not found.prompts:
        return []
    from prompt_jax.prompts import SoftPrompt

    path, model = found.prompts[0], shlex.quote(config.model)
    record = SoftPrompt.load(path).record
    names = {task.name: target for target, task in found.tasks.items()}
    target = names[str(record.task)] if record else config.targets[0]
    row, form = _example(found.tasks[target], config)
    file, program = shlex.quote(str(path)), common.program()
    return [
        f"echo {shlex.quote(row)} | {program} predict {model} --prompt {file}"
        f" --task {shlex.quote(target)}{form}",
        f"{program} prompts show {file} --model {model}",
        *(_onwards(program) if config.model == "mini" else ()),
    ]


def _onwards(program: str) -> tuple[str, ...]:
    """From the built-in model and tasks to one's own."""
    return (
        f"{program} run few_shot model=mini targets=YOURS.toml sources= methods=prompt_tuning"
        "   # your own JSONL: docs/user_tasks.md",
        f"{program} run quickstart model=google-t5/t5-base out=runs/t5-base   # needs the network",
    )


def _example(task: Task, config: ExperimentConfig) -> tuple[str, str]:
    """The first test row where it is short, else a pattern; and the option that its form needs."""
    from prompt_jax.data.sources import open_split
    from prompt_jax.errors import DataError

    first: Any = {}
    with contextlib.suppress(DataError):  # it was there when the run began
        first = open_split(task, "validation", config.data.root)[0]
    row: dict[str, Any] = {name: first.get(name) for name in task.fields}
    text = json.dumps(row, ensure_ascii=False)
    if len(text) > _LONGEST_EXAMPLE or not all(isinstance(value, str) for value in row.values()):
        row = {name: name.upper() for name in task.fields}
        text = json.dumps(row)
    single = len(row) == 1 and "\n" not in row[task.fields[0]]
    return (row[task.fields[0]], "") if single else (text, " --jsonl")
