"""`prompt-jax tune`: a prompt for one's own table, in one command."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common, loading, run, show

if TYPE_CHECKING:
    from prompt_jax.recipes import ExperimentConfig, RunResult

_TOY = (
    "mini is a toy that reads a small artificial language: name a real one with --model, such as"
    " google/flan-t5-base."
)


def tune(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows as .csv, .tsv, .jsonl or .parquet; or a task (a name or a .toml file).",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[a.b=value]...", help="What to change in the experiment."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Directory or hub id of the model; mini is a toy.")
    ] = "mini",
    text: common.Text = None,
    label: common.Label = None,
    kind: common.AnswerKind = None,
    holdout: common.Holdout = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of training.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run; default: that of FILE.")] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Default: runs/NAME.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how FILE is read and the plan, and stop.")
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Tune a prompt for a table of texts and answers.

    Columns are guessed, and every choice is printed. A fifth of the rows are held out and tested
    once at the end; three learning rates are tried, and development rows choose among them. The
    run directory is an ordinary one: the same command resumes it, and `report` reads it.
    """
    from prompt_jax.recipes import tune as recipe

    wanted = recipe.check_overrides(overrides or ())
    table = None
    if recipe.is_table(file):
        table = recipe.read_table(file, text=text or (), label=label, kind=kind, name=name)
        folder = recipe.task_folder(out, name or table.name)
        if not as_json:
            for line in table.guess.why:
                typer.echo(line)
    if model == "mini":
        common.warn(_TOY)
    lm = loading.load_model(model, wanted.dtype, remat=wanted.remat)
    with tempfile.TemporaryDirectory(prefix="prompt-jax-") as temporary:
        if table is not None:
            name = name or table.name
            # A plan writes nothing; the task of a run that is there already is read in its place.
            passing = dry_run and not recipe.has_run(folder)
            place = Path(temporary) / folder.name if passing else folder
            file = str(recipe.write_task(table, place, lm, holdout=holdout, seed=seed))
        config = recipe.tune_config(
            file, lm, model=model, name=name or "", seed=seed, out=out, overrides=overrides or ()
        )
        if not as_json:
            typer.echo("\n".join([*recipe.describe_split(config, lm), ""]))
        run.execute(config, dry_run, as_json, lm=lm, finish=_usage)


def _usage(out: common.Printer, made: RunResult, config: ExperimentConfig) -> None:
    """Where the prompt is, one command and three lines of Python that use it."""
    if not made.prompts:
        return
    out.print()
    out.print(common.heading(f"Use the prompt, {made.prompts[0]}"))
    for command in [show.next_commands(made, config)[0], *_python(made, config)]:
        out.print(f"  {command}", wrap=False)


def _python(made: RunResult, config: ExperimentConfig) -> list[str]:
    from prompt_jax.data import registry

    file = str(made.prompts[0])
    text: Any = show.example_row(registry.get(config.targets[0]), config)
    text = next(iter(text.values())) if len(text) == 1 else text
    return [
        "import prompt_jax as pj",
        f"lm, prompt = pj.from_pretrained({config.model!r}), pj.SoftPrompt.load({file!r})",
        f"print(pj.predict(lm, [{text!r}], prompt))",
    ]
