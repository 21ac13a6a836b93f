"""`prompt-jax tasks`: list the registry, show one task, fetch its data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common, loading
from prompt_jax.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from prompt_jax.data import Example, Task
    from prompt_jax.data.overlap import CheckedRows
    from prompt_jax.models.base import Tokenizer

app = typer.Typer(
    help="List tasks, show one, write one for a file, fetch data.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

_MAX_TEXT = 300  # characters of an example that are shown


@app.callback()
def _top(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_tasks()


@app.command("list")
def list_tasks(
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    as_json: common.AsJson = False,
) -> None:
    """All tasks of the registry."""
    from prompt_jax.data import registry

    families = registry.families()
    if family is not None:
        by_name = {name.casefold(): name for name in families}
        if family.casefold() not in by_name:
            near = did_you_mean(family.casefold(), by_name)
            raise ConfigError(f"unknown family '{family}'.{near} Known: {', '.join(families)}.")
        families = {name: families[name] for name in [by_name[family.casefold()]]}
    if as_json:
        return common.emit(
            [{"family": name, **_facts(task)} for name, tasks in families.items() for task in tasks]
        )
    shown = common.table("task", "kind", "metrics", "train rows", "test rows", left=3)
    for name, tasks in families.items():
        shown.add_row(common.heading(name))
        for number, task in enumerate(tasks, start=1):
            sizes = dict(task.sizes)
            shown.add_row(
                f"  {task.name}",
                task.kind,
                ", ".join(task.metrics),
                *(f"{sizes[part]:,}" if part in sizes else "" for part in ("train", "validation")),
                end_section=number == len(tasks),
            )
    common.Printer().print(shown)
    return None


def _places(task: Task) -> list[str]:
    """Sources of the data, in the order in which they are tried."""
    if task.files:
        return ["files"]
    pairs = (("TFDS", task.tfds), ("Hub", task.hf))
    return [name for name, known in pairs if known is not None]


def _facts(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "description": task.description,
        "fields": list(task.fields),
        "labels": list(task.labels),
        "metrics": list(task.metrics),
        "sizes": dict(task.sizes),
        "sources": _places(task),
        "folder": task.folder,
        "licence": task.licence,
        "reserved": task.reserved,
        "templates": [
            {"name": t.name, "text": t.text, "target": t.target, "labels": list(t.labels)}
            for t in task.templates
        ],
    }


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A registered task, or a .toml file.")
    ],
    template: Annotated[
        str | None, typer.Option(help="Template of the example; default: the first.")
    ] = None,
    root: common.Root = None,
    model: Annotated[
        str | None, typer.Option(help="Show the row as this model reads it, with its tokens.")
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Fields, labels, metrics, sizes, licence and templates of a task, and a rendered row.

    Rows of files are read: a row that does not match the task is an error, and validation rows that
    are training rows too are counted.
    """
    from prompt_jax.data import overlap, registry
    from prompt_jax.data.tokenise import task_for

    task = registry.get(name)
    checked = None
    if task.files or root is not None:  # the user gave the location of the data
        checked = overlap.check_rows(task, root)
    tokenizer = None if model is None else loading.load_model(model).tokenizer
    if tokenizer is not None:
        task = task_for(tokenizer, task)
    example, where = _example(task, template, root)
    read = None if tokenizer is None else _as_read(tokenizer, example)
    if as_json:
        example_facts: dict[str, Any] = {
            "input": example.input,
            "target": example.target,
            "candidates": list(example.candidates),
            "made_up": where is None,
            **({"model": read} if read else {}),
        }
        found = {} if checked is None else {"rows": checked.rows, "overlap": checked.shared}
        return common.emit({**_facts(task), **found, "example": example_facts})
    out = common.Printer()
    out.print(common.heading(task.name))
    out.print(common.facts(_lines(task, checked)))
    out.print()
    out.print(common.heading("Templates"))
    chosen = task.template(template)
    out.print(
        common.facts(
            [
                (f"{'*' if t is chosen else ' '} {t.name}", t.text + _labels(t.labels))
                for t in task.templates
            ]
        )
    )
    out.print()
    origin = "Placeholder row (no data on this machine)" if where is None else f"First {where}"
    out.print(common.heading(f"{origin}, under '{chosen.name}'"))
    answers = [task.named(text, number) for number, text in enumerate(example.candidates[:20])]
    target = task.named(example.target, example.label)
    lines = [("input", _short(example.input)), ("target", target)]
    if answers:
        lines.append(("answers", " | ".join(answers)))
    out.print(common.facts(lines))
    if read:
        out.print()
        out.print(common.heading(f"As {model} reads it"))
        out.print(
            common.facts(
                [
                    ("input", repr(_short(read["input"]))),
                    ("target", repr(read["target"])),
                    ("input tokens", " ".join(map(str, read["input_ids"]))),
                    ("target tokens", " ".join(map(str, read["target_ids"]))),
                ]
            )
        )
    return None


def _as_read(tokenizer: Tokenizer, example: Example) -> dict[str, Any]:
    """Input and target as a model's tokenizer gives them: texts and ids, not truncated."""
    from prompt_jax.models import texts

    text = texts.input_text(tokenizer, example.input, example.cue)
    return {
        "input": text,
        "target": texts.answer_text(tokenizer, example.target),
        "input_ids": texts.encode_inputs(tokenizer, [text])[0],
        "target_ids": texts.encode_answers(tokenizer, [example.target])[0],
    }


def _lines(task: Task, checked: CheckedRows | None) -> list[tuple[str, str]]:
    from prompt_jax.rundir import overlap

    sizes = dict(task.sizes) if checked is None else checked.rows
    shared = None if checked is None else checked.shared
    pairs = [
        ("about", task.description),
        ("kind", task.kind),
        ("fields", ", ".join(task.fields)),
        ("labels", ", ".join(task.labels)),
        ("metrics", ", ".join(task.metrics)),
        ("rows", ", ".join(f"{split} {rows:,}" for split, rows in sizes.items())),
        ("warning", "" if shared is None else overlap.sentence([shared], "validation rows")),
        ("data", _where(task)),
        ("licence", task.licence),
        ("reserved", "yes: no pre-training mixture may contain it" if task.reserved else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _where(task: Task) -> str:
    if task.files:
        part = f" ({task.holdout:.0%} are test rows, seed {task.holdout_seed})"
        return ", ".join(path for _, path in task.files) + (part if task.holdout else "")
    return ", ".join([*_places(task), f"the folder {task.folder} under data.root"])


def _labels(labels: tuple[str, ...]) -> str:
    return f"  [{', '.join(labels)}]" if labels else ""


def _short(text: str) -> str:
    short = len(text) <= _MAX_TEXT
    return text if short else text[:_MAX_TEXT] + f"... ({len(text):,} characters)"


def _example(task: Task, template: str | None, root: str | None) -> tuple[Example, str | None]:
    """A rendered row and its name; a placeholder row and None if there are no data."""
    from prompt_jax.data import open_split
    from prompt_jax.data.render import render
    from prompt_jax.data.sources import row_name

    chosen = task.template(template)
    try:
        rows = open_split(task, "validation", root)
    except DataError:
        if root is not None or task.files:
            raise  # the user gave the location of the data
        return render(task, chosen, placeholder_row(task)), None
    return render(task, chosen, rows[0], row_name(rows, 0)), row_name(rows, 0)


def placeholder_row(task: Task) -> dict[str, Any]:
    """A row with [field] in every field and the first answer."""
    row: dict[str, Any] = {field: f"[{field}]" for field in task.fields}
    if task.kind == "choice" and len(task.choices) == 1:
        row[task.choices[0]] = ["[first choice]", "[second choice]"]
    first: Any = task.labels[0] if task.labels else 0
    if task.kind == "choice" and task.answers:
        first = "[first choice]" if len(task.choices) == 1 else f"[{task.choices[0]}]"
    answers = {"regression": task.value_range[1], "span": ["[answer]"], "text": ["[answer]"]}
    row[task.answer_field] = answers.get(task.kind, first)
    return row


@app.command("new")
def new(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Rows as .csv, .tsv, .jsonl or .parquet.")
    ],
    text: common.Text = None,
    label: common.Label = None,
    kind: common.AnswerKind = None,
    holdout: common.Holdout = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of the test rows.")] = 0,
    out: Annotated[
        str | None,
        typer.Option(metavar="NAME.toml", help="Default: beside FILE, with its name."),
    ] = None,
) -> None:
    """Write the task file of a table: columns are guessed, and every choice is printed.

    Comments in the file give the reasons. Read it, correct it, and use its path as a task's name.
    """
    from prompt_jax.data import registry
    from prompt_jax.data.files import data_name, read_rows
    from prompt_jax.data.guess import guess
    from prompt_jax.data.label_words import label_words
    from prompt_jax.data.task_file import task_name, task_text
    from prompt_jax.paths import write_atomically

    data = Path(file)
    path = data.with_name(f"{data_name(data)}.toml") if out is None else Path(out)
    if path.suffix != ".toml":
        raise ConfigError(f"--out must end in .toml, not be {path}.")
    if path.exists():
        raise ConfigError(f"{path} is there already. Remove it, or name another with --out.")
    try:
        inside = data.resolve().relative_to(path.resolve().parent).as_posix()
    except ValueError:
        raise ConfigError(
            f"{path} must lie in the folder of {data}, or in one above it: a task file names data"
            " inside its own folder only."
        ) from None
    made = guess(read_rows(data), data.name, text or (), label, kind)
    words = label_words(made.labels) if made.labels else ()
    name = task_name(path.stem)
    content = task_text(made, name, inside, words, holdout, seed)
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
    registry.get(str(path))  # and so it can be read
    for line in made.why:
        typer.echo(line)
    typer.echo(f"{path}: look at it with {common.program()} tasks show {shlex.quote(str(path))}")


@app.command("fetch")
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...", help="Registered tasks; with --for also overrides (key=value)."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--for", metavar="CONFIG", help="All tasks of this config that are not here."),
    ] = None,
) -> None:
    """Download the data of tasks (the only command that uses the network for data)."""
    from prompt_jax.data import fetch as download
    from prompt_jax.data import registry
    from prompt_jax.data.sources import is_here

    given = names or []
    overrides = [name for name in given if config is not None and "=" in name]
    tasks = {
        task.name: task for task in map(registry.get, (n for n in given if n not in overrides))
    }
    if config is not None:
        loaded = loading.load_experiment(config, overrides)
        wanted = [registry.get(name) for name in (*loaded.sources, *loaded.targets)]
        missing = {t.name: t for t in wanted if not is_here(t, loaded.data.root)}
        if not missing and not tasks:
            return typer.echo(f"the data of all tasks of {config} is on this machine.")
        tasks |= missing
    if not tasks:
        raise ConfigError("name tasks to fetch, as in glue/rte mr, or a config: --for few_shot.")
    failed = []
    for task in tasks.values():
        try:
            typer.echo(f"{task.name}: {download(task)}")
        except DataError as error:  # the others are fetched all the same
            failed.append(str(error))
    if failed:
        raise DataError("\n".join(dict.fromkeys(failed)))
    return None
