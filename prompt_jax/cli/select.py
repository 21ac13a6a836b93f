"""`prompt-jax select`: recipes that choose sources for a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prompt_jax.cli import common, loading, show
from prompt_jax.config import parse_value

if TYPE_CHECKING:
    from prompt_jax.rundir.forkmerge import ForkMergeReport
    from prompt_jax.rundir.surrogate import SurrogateReport

app = typer.Typer(
    help="Choose sources for the targets of an experiment.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("surrogate")
def surrogate(
    config: common.ConfigFile,
    overrides: common.Overrides = None,
    number: Annotated[
        int, typer.Option("--subsets", min=0, help="Random subsets; 0: four for each source.")
    ] = 0,
    size: Annotated[int, typer.Option(min=0, help="Sources in each subset; 0: half of them.")] = 0,
    base: common.Base = None,
    tuned: common.Tuned = False,
    plugin: common.Plugin = None,
    as_json: common.AsJson = False,
) -> None:
    """Score random subsets of the sources, and choose by a linear model of the scores.

    Trained prompts are read from the cache; what is missing is trained. Writes surrogate.json and
    surrogate.md into the run directory (surrogate_tuned.json and .md with --tuned). The choices are
    ranked among all subsets if `prompt-jax oracle` has been run there.
    """
    from prompt_jax.recipes import surrogate as recipe

    loading.load_plugins(plugin)
    loaded = loading.load_experiment(config, overrides)
    recipe.check(loaded, base, number, size)
    lm = loading.load_model(loaded.model, loaded.dtype, remat=loaded.remat)
    report = recipe.surrogate(
        loaded, lm, base=base, number=number, size=size, tuned=tuned, say=common.progress
    )
    if as_json:
        return common.emit(report.to_dict())
    files = [(str(report.json_path), "every subset, effect, target, k and seed")]
    return _show(report, "sources chosen by a surrogate model", files)


@app.command("forkmerge")
def forkmerge(
    config: common.ConfigFile,
    overrides: common.Overrides = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often branches are merged; they share the budget.")
    ] = 5,
    branches: Annotated[
        str, typer.Option(metavar="N,...", help="How many of the best sources each branch has.")
    ] = "0,3,5",
    plugin: common.Plugin = None,
    as_json: common.AsJson = False,
) -> None:
    """Train branches with and without sources, and merge them by the development rows.

    Writes forkmerge.json and forkmerge.md into the run directory, and the merged prompts into its
    folder prompts/forkmerge.
    """
    from prompt_jax.recipes import forkmerge as recipe

    loading.load_plugins(plugin)
    loaded = loading.load_experiment(config, overrides)
    sizes = parse_value(branches, tuple[int, ...], "--branches")
    recipe.check(loaded, rounds, sizes)
    lm = loading.load_model(loaded.model, loaded.dtype, remat=loaded.remat)
    report = recipe.forkmerge(loaded, lm, rounds=rounds, branches=sizes, say=common.progress)
    if as_json:
        return common.emit(report.to_dict())
    files = [
        (str(report.json_path), "every round, target, k and seed"),
        (str(report.folder / "prompts" / "forkmerge"), "the prompts"),
    ]
    return _show(report, "ForkMerge", files)


def _show(
    report: SurrogateReport | ForkMergeReport, title: str, files: list[tuple[str, str]]
) -> None:
    out = common.Printer()
    out.print(common.heading(f"{report.name}: {title}"))
    show.table(out, report.table())
    out.print()
    show.outputs(out, [(str(report.markdown_path), "this table"), *files])
