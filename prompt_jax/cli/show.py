"""Plans and reports as tables for people."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from typing import TYPE_CHECKING, Any

from prompt_jax.cli import common
from prompt_jax.config import split_list
from prompt_jax.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prompt_jax.data import Task
    from prompt_jax.recipes import ExperimentConfig, Plan, RunResult
    from prompt_jax.recipes.plan import PlannedMemory, PlannedStage
    from prompt_jax.rundir.folder import PromptFile
    from prompt_jax.rundir.tables import Table

_HOURS = 1  # on the fastest accelerator, from which on a plan says what it takes there
_EXAMPLES = 50  # test rows among which a short one is looked for
_LONGEST_EXAMPLE = 160  # characters of a row that stands in a command to copy


def plan(out: common.Printer, made: Plan, config: ExperimentConfig, folder: str) -> None:
    """What will be done and what it costs."""
    from prompt_jax.rundir.tables import heading

    counts = (
        (len(config.targets), "target"),
        (len(config.methods), "method"),
        (config.seeds, "seed"),
    )
    text = " x ".join(f"{n} {noun}{'s' if n > 1 else ''}" for n, noun in counts)
    shots = ", ".join(heading(k) for k in config.shots)
    out.print(common.heading(f"{made.name}: {text}, {shots}"))
    out.print(
        common.facts(
            [
                (
                    "model",
                    f"{made.model}, {common.format_count(made.parameters)} parameters,"
                    f" {made.dtype}{f' ({made.precision})' if made.precision else ''}"
                    f"{', remat' if config.remat else ''}",
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
    _costs(out, made, config)


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
    for warning in made.warnings:
        out.print(f"warning: {warning}")
    missing = [registry.get(name) for name in made.missing]
    if public := [task.name for task in missing if task.tfds or task.hf]:
        out.print(f"to fetch: {common.program()} tasks fetch {' '.join(public)}", wrap=False)
    if others := [task.name for task in missing if not (task.tfds or task.hf)]:
        out.print(f"no public source: {', '.join(others)} (put files under data.root)")
    out.print()


def _stages(out: common.Printer, made: Plan) -> None:
    shown = common.table("stage", "replicas", "steps", "rows/step", "learning rate", "training")
    for stage in made.stages:
        shown.add_row(
            stage.label,
            f"{stage.runs:,}",
            f"{stage.steps:,}",
            f"{stage.rows_per_step:,}",
            _rates(stage),
            common.format_flops(stage.flops),
        )
    out.print(shown)
    out.print()


def _rates(stage: PlannedStage) -> str:
    rates = ", ".join(f"{rate:g}" for rate in stage.learning_rates)
    return f"{rates} x RMS" if rates and stage.unit == "embedding_rms" else rates or "-"


def _time(made: Plan) -> str:
    """How long the training takes here, and from what this is known."""
    devices = made.memory.data * made.memory.model
    rate = f"{common.format_flops(made.pace.flops_per_second)}/s"
    where = f" on each of {devices} devices" if devices > 1 else ""
    time = format_duration(made.seconds)
    if made.pace.from_runs:
        return f"at most {time} at the {rate} that earlier runs of this model have reached{where}"
    return (
        f"about {time} or more at the {rate} of a plain matrix product{where}: no run of this model"
        " was measured here yet"
    )


def _chips(made: Plan) -> str:
    """What the plan would take on one accelerator; "" where that is minutes."""
    from prompt_jax.recipes import accelerators

    costs = accelerators.chip_hours(made.flops, made.dtype)
    if min(cost.hours for cost in costs) < _HOURS:
        return ""
    hours = ", ".join(f"{cost.hours:,.0f} h on one {cost.chip}" for cost in costs)
    peaks = ", ".join(f"{cost.peak / 1e12:.0f}" for cost in costs)
    return (
        f"at most {hours}, if {accelerators.SHARE:.0%} of its peak in {made.dtype} is reached"
        f" ({peaks} TFLOP/s)"
    )


def _costs(out: common.Printer, made: Plan, config: ExperimentConfig) -> None:
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
        without = " without full fine-tuning" if memory.fine_tuning else ""
        held.append(f"together {common.format_bytes(memory.together)}{without}")
    micro = f"{memory.micro_batch_rows} rows x {memory.micro_batch_tokens} tokens"
    counted = f"{common.format_flops(memory.hand_flops)} by hand"
    if math.isfinite(memory.xla_flops):
        counted += f", {common.format_flops(memory.xla_flops)} by XLA"
    out.print(
        common.facts(
            [
                (
                    "in all",
                    f"{sum(s.runs for s in made.stages):,} replicas, {made.steps:,} optimizer"
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
                ("time", _time(made)),
                *([("chips", chips)] if (chips := _chips(made)) else []),
                ("memory", each + ", ".join(held)),
                ("micro-batch", f"{each}{micro}: {counted}"),
                *([("fits", _fits(memory, config))] if memory.assumed else []),
            ]
        )
    )


def _fits(memory: PlannedMemory, config: ExperimentConfig) -> str:
    """Whether the plan fits the devices that it is for."""

    def fits(needed: int) -> str:
        return f"{'yes' if needed <= memory.assumed else 'no'}, {common.format_bytes(needed)}"

    text = f"{fits(memory.together)} of {common.format_bytes(memory.assumed)}"
    if memory.fine_tuning:
        text += f"; full fine-tuning: {fits(memory.trained)}"
    if max(memory.together, memory.trained) > memory.assumed:
        less = ["dtype=bfloat16"] if config.dtype != "bfloat16" else []
        less += [] if config.remat else ["remat=true"]
        text += f" ({', '.join([*less, f'--mesh model={2 * memory.model}'])} need less)"
    return text


def table(out: common.Printer, shown: Table) -> None:
    """A table with its title and how to read it."""
    out.print(common.heading(shown.title))
    if shown.note:
        out.print(shown.note)
    titles = [_title(name) for name in shown.columns[shown.left :]]
    made = common.table(*shown.columns[: shown.left], *titles, left=shown.left)
    for number, row in enumerate(shown.rows):
        first, last = row[0], number + 1 == len(shown.rows)
        if shown.columns[0] == "" and number and shown.rows[number - 1][0] == first:
            first = ""  # once for all rows of one k
        ends = shown.columns[0] == "" and not last and shown.rows[number + 1][0] != row[0]
        made.add_row(first, *row[1:], end_section=ends)
    out.print(made)


def _title(name: str) -> str:
    """A method with its options below its name, one a line, so that columns stay narrow.

    >>> print(_title("prompt_tuning(steps=2,rates=[1,3,10])"))
    prompt_tuning
    (steps=2,
    rates=[1,3,10])
    """
    method, bracket, options = name.partition("(")
    if not bracket:
        return name
    return f"{method}\n(" + ",\n".join(split_list(options[:-1])) + ")"


def outputs(out: common.Printer, files: Sequence[tuple[str, str]]) -> None:
    """Paths of what a command wrote, and what they hold."""
    out.print(common.heading("Outputs"))
    out.print(common.facts(files))


def result(
    out: common.Printer,
    made: RunResult,
    config: ExperimentConfig,
    finish: Callable[[common.Printer, RunResult, ExperimentConfig], None] | None = None,
) -> None:
    """Results, contrasts, truncation, reused replicas, paths, and what to try next (`finish`)."""
    from prompt_jax.rundir import views

    findings = made.findings
    out.print(common.heading(views.lead(findings)))
    for shown in (views.results(findings, "columns"), views.contrasts(findings)):
        if shown.rows:
            out.print()
            table(out, shown)
    sections = (
        ("Truncated inputs and skipped rows", findings.truncation),
        ("Warnings", findings.warnings),
        ("Reused", _reused(made)),
    )
    for title, lines in sections:
        if lines:
            out.print()
            out.print(common.heading(title))
            for line in lines:
                out.print(f"  {line}")
    out.print()
    outputs(out, _files(made))
    if finish is not None:
        finish(out, made, config)
    elif commands := next_commands(made, config):
        out.print()
        out.print(common.heading("Try next"))
        for command in commands:
            # Never wrapped: a command that is cut into lines cannot be copied.
            out.print(f"  {command}", wrap=False)


def _reused(made: RunResult) -> list[str]:
    totals: dict[str, tuple[int, int]] = {}
    for label, reused, total in made.reused:
        before = totals.get(label, (0, 0))
        totals[label] = (before[0] + reused, before[1] + total)
    return [
        f"{label}: {reused} of {total} replicas"
        for label, (reused, total) in totals.items()
        if reused
    ]


def _files(made: RunResult) -> list[tuple[str, str]]:
    from prompt_jax.report import page

    report = made.folder / page.NAME
    lines = [(str(report), "the report: open it in a browser")] if report.is_file() else []
    lines += [
        (str(made.folder / "summary.md"), "the tables above"),
        (str(made.folder / "results.jsonl"), "every number, with its cost"),
        (str(made.folder / "metrics.jsonl"), "learning curves"),
    ]
    if made.prompts:
        many = "s" if len(made.prompts) > 1 else ""
        lines.append((str(made.folder / "prompts"), f"{len(made.prompts)} target prompt{many}"))
    return lines


def next_commands(made: RunResult, config: ExperimentConfig) -> list[str]:
    """Commands to copy: what the best prompt of the first target answers, and what it looks like.

    Every one of them answers as it is printed, without network.
    """
    stored = _best_prompt(made)
    if stored is None:
        return []
    from prompt_jax.data import registry

    model = shlex.quote(config.model)
    names = {made.findings.run.name(target): target for target in config.targets}
    target = names[str(stored.record.task)]
    row, form = _example(registry.get(target), config)
    file, program = shlex.quote(str(stored.file)), common.program()
    return [
        f"echo {shlex.quote(row)} | {program} predict {model} --prompt {file}"
        f" --task {shlex.quote(_answered(target, config))}{form}",
        *((f"{program} prompts show {file} --model {model}",) if stored.array is not None else ()),
        *(_onwards(program) if config.model == "mini" else ()),
    ]


def _answered(target: str, config: ExperimentConfig) -> str:
    """The name of a target as its prompts answer it."""
    from prompt_jax.data.digits import SUFFIX

    return target + SUFFIX if config.data.answers == "digits" else target


def _best_prompt(made: RunResult) -> PromptFile | None:
    """The first target's prompt that is best on the development set, else the first one."""
    from prompt_jax.report import tables

    if picked := tables.picked(made.findings.run):
        return picked[0][2]
    stored = {prompt.file: prompt for prompt in made.findings.run.prompts}
    return next((stored[path] for path in made.prompts if path in stored), None)


def _onwards(program: str) -> tuple[str, ...]:
    """From the built-in model and tasks to one's own."""
    return (
        f"{program} tune --help   # a prompt for your own rows: .csv, .tsv, .jsonl or .parquet",
        f"{program} run quickstart model=google/flan-t5-base out=runs/flan-t5-base --dry-run"
        "   # the cost with a published T5",
    )


def _example(task: Task, config: ExperimentConfig) -> tuple[str, str]:
    """A test row for a command, and the option that its form needs."""
    row = example_row(task, config)
    text = json.dumps(row, ensure_ascii=False)
    single = len(row) == 1 and "\n" not in row[task.fields[0]]
    return (row[task.fields[0]], "") if single else (text, " --jsonl")


def example_row(task: Task, config: ExperimentConfig) -> dict[str, Any]:
    """The fields of the first test row that is short, else a pattern."""
    from prompt_jax.data.sources import open_split
    from prompt_jax.errors import DataError

    with contextlib.suppress(DataError):  # it was there when the run began
        rows = open_split(task, "validation", config.data.root)
        for number in range(min(len(rows), _EXAMPLES)):
            row = {name: rows[number].get(name) for name in task.fields}
            if not all(isinstance(value, str) and value.strip() for value in row.values()):
                continue
            if len(json.dumps(row, ensure_ascii=False)) <= _LONGEST_EXAMPLE:
                return row
    return {name: name.upper() for name in task.fields}
