"""`prompt-jax prompts pack` and `unpack`: a compressed library of prompts."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from prompt_jax.cli import common, loading
from prompt_jax.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from prompt_jax.prompts import SoftPrompt


def pack(
    library: Annotated[
        str, typer.Argument(metavar="LIBRARY", help="The file to write (.safetensors).")
    ],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Prompts of one initialisation.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The prompts' model, to recompute the initialisation.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="FILE", help="Or the initialisation itself.")
    ] = None,
    code: Annotated[
        str, typer.Option(help="sign, or tall (masks over the sum of the task vectors).")
    ] = "sign",
    threshold: Annotated[
        float, typer.Option(min=0, help="lambda of the masks of tall: larger keeps fewer numbers.")
    ] = 0.6,
    as_json: common.AsJson = False,
) -> None:
    """Compress prompts into one file, one bit a number each, and print what that loses.

    The initialisation is recomputed from the first prompt's record (--model) or read (--init).
    """
    from prompt_jax.task_vectors import library as libraries

    common.check_choice(code, ("tall", "sign"), "--code")
    if Path(library).suffix != ".safetensors":
        raise ConfigError(f"{library}: LIBRARY ends in .safetensors.")
    if (model is None) == (init is None):
        raise ConfigError(
            "give the initialisation: --model MODEL recomputes it, --init FILE reads it."
        )
    names = loading.short_names(files)
    opened = {name: loading.open_prompt(path) for name, path in zip(names, files, strict=True)}
    first = next(iter(opened.values()))
    initial = loading.open_prompt(init) if init else _initialisation(files[0], first, str(model))
    made = libraries.pack_prompts(
        opened,
        initial,
        code="tall" if code == "tall" else "sign",
        threshold=threshold,
    )
    size = made.save(library)
    before = sum(_bytes(path) for path in files)
    if as_json:
        errors = dict(zip(made.names, made.errors, strict=True))
        return common.emit(
            {"library": library, "code": code, "bytes": size, "before": before, "errors": errors}
        )
    shown = common.table("prompt", "relative error")
    for name, error in zip(made.names, made.errors, strict=True):
        shown.add_row(name, f"{error:.3f}")
    out = common.Printer()
    out.print(shown)
    out.print(
        f"{library}: {len(made)} prompts, {common.format_bytes(size)} in place of"
        f" {common.format_bytes(before)}"
    )
    return None


def unpack(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A file that pack wrote.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where the prompts go.")],
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This prompt alone; repeatable.")
    ] = None,
) -> None:
    """Write the prompts of a library as prompt files, for every other command.

    They are near the originals, not equal: their records have no scores, and say how far they are.
    """
    from prompt_jax.task_vectors import library as libraries

    opened = libraries.PromptLibrary.load(library)
    chosen = {name: opened[name] for name in only or opened.names}
    for name in chosen:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise PromptError(
                f"{library}: a prompt is named '{name}', which lies outside {folder}."
            )
    for name, prompt in chosen.items():
        path = Path(folder) / f"{name}.safetensors"
        prompt.save(path)
        typer.echo(str(path))


def _initialisation(path: str, prompt: SoftPrompt, model: str) -> SoftPrompt:
    from prompt_jax import prompts

    lm = loading.load_model(model)
    record = prompt.record or prompts.PromptRecord()
    prompts.check_model(record, lm, path, prompt.d_model, record.model_hash is None)
    try:
        return prompts.initialisation_of(record, lm, path)
    except PromptError as error:
        raise PromptError(f"{error} (--init FILE)") from None


def _bytes(path: str) -> int:
    place = Path(path)
    found = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in found)
