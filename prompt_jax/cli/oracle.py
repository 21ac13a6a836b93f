"""`prompt-jax oracle`: scores of every subset of the sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_jax.cli import common, loading, show

if TYPE_CHECKING:
    from prompt_jax.rundir.oracle import OracleReport


def oracle(
    config: common.ConfigFile,
    overrides: common.Overrides = None,
    base: common.Base = None,
    tuned: common.Tuned = False,
    plugin: common.Plugin = None,
    as_json: common.AsJson = False,
) -> None:
    """Evaluate the merged prompt of every subset of an experiment's sources.

    At most 10 sources. Trained prompts are read from the cache; what is missing is trained. Writes
    oracle.json and oracle.md into the run directory (oracle_tuned.json and .md with --tuned).
    """
    from prompt_jax.recipes import oracle as recipe

    loading.load_plugins(plugin)
    loaded = loading.load_experiment(config, overrides)
    recipe.check(loaded, base)
    lm = loading.load_model(loaded.model, loaded.dtype, remat=loaded.remat)
    report = recipe.oracle(loaded, lm, base=base, tuned=tuned, say=common.progress)
    if as_json:
        return common.emit(report.to_dict())
    return _show(report)


def _show(report: OracleReport) -> None:
    out = common.Printer()
    count = len(report.sources)
    out.print(common.heading(f"{report.name}: all {2**count} subsets of {count} sources"))
    for table in (report.table(), report.choice_table()):
        if table.rows:
            show.table(out, table)
            out.print()
    files = [
        (str(report.markdown_path), "these tables"),
        (str(report.json_path), "every subset, target, k and seed"),
    ]
    show.outputs(out, files)
