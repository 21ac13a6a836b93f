"""`prompt-jax doctor`: a self-check of a model on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prompt_jax.cli import common, loading

if TYPE_CHECKING:
    from prompt_jax.recipes.doctor import Check


def doctor(
    model: common.Model = "mini",
    seconds: Annotated[
        float, typer.Option(min=1, help="Train for so long at most (25 steps at least).")
    ] = 30.0,
    dtype: common.Dtype = "float32",
    as_json: common.AsJson = False,
) -> None:
    """Check that a model works on this machine: a minute, and nothing is written.

    Texts come back from the tokenizer, the prompt changes the output, padding changes nothing,
    decoding with a cache is decoding without, and training a prompt on a sandbox task lowers the
    loss and leaves the weights as they are. Exits with 1 if one of them does not hold.
    """
    from prompt_jax.recipes import doctor as recipe

    lm = loading.load_model(model, dtype)
    if not as_json:
        typer.echo(f"{lm.name}, {dtype}")
    checks = recipe.examine(
        lm, seconds=seconds, report=_ignore if as_json else lambda check: typer.echo(_line(check))
    )
    failed = [check for check in checks if not check.passed]
    if as_json:
        common.emit(recipe.summary(lm, checks))
    elif failed:
        common.warn(
            f"{len(failed)} of {len(checks)} checks failed. Results of this model on this machine"
            " cannot be trusted: try another dtype, check the files of the model against their"
            " source, and report what you see with the output of --json."
        )
    if failed:
        raise typer.Exit(1)


def _ignore(check: Check) -> None:
    pass


def _line(check: Check) -> str:
    mark = "ok" if check.passed else "FAILED"
    return f"{mark:7}{check.name}: {check.detail} ({check.seconds:.0f} s)"
