"""`prompt-jax prompts`: show, convert, compare, pack and push prompt files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prompt_jax.cli import common, library, loading
from prompt_jax.errors import ConfigError

app = typer.Typer(
    help="Show, convert, compare, pack and push prompt files.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="Prompt files or PEFT adapter folders.")
]


BaseModelName = Annotated[
    str | None,
    typer.Option(help="Hub id or folder of the base model, for PEFT."),
]


@app.callback()
def _top(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("show")
def show(
    files: Files,
    model: Annotated[
        str | None, typer.Option(help="A model: also show the words nearest to each token.")
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Shape, norm and record of prompts, and with --model the words nearest to their tokens."""
    import numpy as np

    from prompt_jax.prompts import nearest_words

    lm = None if model is None else loading.load_model(model)
    if lm is None:
        names = loading.short_names(files)
        loaded = [
            loading.NamedPrompt(name, path, loading.open_prompt(path))
            for name, path in zip(names, files, strict=True)
        ]
    else:
        loaded = loading.load_prompts(files, lm, allow_other_model=False)
    entries = []
    for named in loaded:
        tokens = np.asarray(named.prompt.embeddings)
        norms = np.linalg.norm(tokens, axis=1)
        record = {} if named.prompt.record is None else vars(named.prompt.record)
        entry: dict[str, Any] = {
            "path": named.path,
            "tokens": named.prompt.length,
            "d_model": named.prompt.d_model,
            "norm": float(np.linalg.norm(tokens)),
            "token_norms": {"smallest": float(norms.min()), "largest": float(norms.max())},
            "record": {name: value for name, value in record.items() if value not in (None, {})},
        }
        if lm is not None:
            entry["nearest_words"] = nearest_words(named.prompt, lm)
        entries.append(entry)
    if as_json:
        return common.emit(entries)
    out = common.Printer()
    for number, entry in enumerate(entries):
        if number:
            out.print()
        _show(out, entry)
    return None


def _show(out: common.Printer, entry: dict[str, Any]) -> None:
    out.print(common.heading(entry["path"]))
    norms = entry["token_norms"]
    lines = [
        ("shape", f"{entry['tokens']} tokens x {entry['d_model']}"),
        (
            "norm",
            f"{entry['norm']:.4g} (of tokens: {norms['smallest']:.4g} to {norms['largest']:.4g})",
        ),
    ]
    record = dict(entry["record"])
    if "config" in record:  # --json has the definition of the task, too
        config = {k: v for k, v in record["config"].items() if k != "task_definition"}
        record["config"] = config
    for name in ("tokens", "d_model"):
        record.pop(name, None)
    lines += [
        (name, json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value))
        for name, value in record.items()
    ]
    out.print(common.facts(lines))
    if "nearest_words" in entry:
        shown = common.table("token", "nearest words (cosine)", left=2)
        for number, nearest in enumerate(entry["nearest_words"]):
            words = ", ".join(f"{word} ({cosine:.2f})" for word, cosine in nearest)
            shown.add_row(str(number), words)
        out.print(shown)


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="The prompt to convert.")],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="X.safetensors, X.npy, or a folder for PEFT.")
    ],
    key: Annotated[
        str | None,
        typer.Option(help="Array of a .npz, or number of the task of a multitask adapter."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The prompt's model; its hash is written to the record.")
    ] = None,
    base_model_name: BaseModelName = None,
) -> None:
    """Convert between safetensors, .npy, .npz (reading only) and PEFT adapter folders.

    A PEFT folder has a model card and names its base model: --base-model-name, else --model, else
    the model that the prompt's record names.
    """
    from prompt_jax import prompts
    from prompt_jax.models import hub

    suffix = Path(target).suffix
    if suffix not in ("", ".safetensors", ".npy") and not Path(target).is_dir():
        raise ConfigError(
            f"{target}: OUT ends in .safetensors or .npy, or is a folder (no suffix) for PEFT."
        )
    to_folder = suffix not in (".safetensors", ".npy")
    if base_model_name is not None and not to_folder:
        raise ConfigError("--base-model-name is for a PEFT folder.")
    prompt = loading.open_prompt(source, key)
    if model is not None:
        lm = loading.load_model(model)
        record = prompt.record or prompts.PromptRecord()
        no_hash = record.model_hash is None
        prompts.check_model(record, lm, source, prompt.d_model, allow_other_model=no_hash)
        record = record.replace(
            model_hash=lm.weights_hash,
            model_name=lm.name,
            config={**record.config, "model": hub.full_name(model)},
            model_config=lm.model_config,
        )
        prompt = prompt.with_record(record)
    if suffix == ".safetensors":
        prompt.save(target)
    elif suffix == ".npy":
        prompts.to_npy(prompt, target)
    else:
        base = base_model_name or prompts.base_model(prompt.record)
        prompts.to_peft(prompt, target, base_model_name_or_path=base)
        if base is None:
            common.warn(
                f"{target} does not name its base model, so PEFT's AutoPeftModel classes cannot"
                " load it; --base-model-name ID names it."
            )
    typer.echo(f"{target}: {prompt.length} tokens x {prompt.d_model}")
    if suffix == ".safetensors" and (prompt.record is None or prompt.record.model_hash is None):
        common.warn(f"{target} has no hash of its model's weights; --model NAME adds it.")


@app.command("push")
def push(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A prompt file or PEFT folder.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where it goes.")],
    base_model_name: BaseModelName = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; it is private else.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")
    ] = False,
) -> None:
    """Send a prompt to the Hugging Face Hub, as a PEFT adapter with a model card.

    The file of the prompt goes with it, for `predict` and `SoftPrompt.load`. The token is that of
    `hf auth login` or HF_TOKEN.
    """
    from prompt_jax.prompts import publish

    upload = publish.prepare(loading.open_prompt(file), repository, base_model_name)
    visible = "public" if public else "private"
    if dry_run:
        typer.echo(f"{repository} ({visible} if it is new), base model {upload.base_model}:")
        for name, raw in upload.files.items():
            typer.echo(f"  {name}  {common.format_bytes(len(raw))}")
        typer.echo("\n" + upload.files["README.md"].decode())
        return
    typer.echo(publish.push(upload, private=not public))


@app.command("compare")
def compare(
    files: Files,
    metric: Annotated[
        str, typer.Option(help="cosine (of mean tokens) or token_cosine.")
    ] = "cosine",
    as_json: common.AsJson = False,
) -> None:
    """Pairwise similarity of prompts."""
    from prompt_jax.prompts import similarity

    names = loading.short_names(files)
    matrix = similarity([loading.open_prompt(path) for path in files], metric)
    if as_json:
        return common.emit({"prompts": names, "metric": metric, "similarity": matrix.tolist()})
    shown = common.table("", *(str(number) for number in range(len(names))))
    for number, name in enumerate(names):
        shown.add_row(f"{number} {name}", *(f"{value:.3f}" for value in matrix[number]))
    common.Printer().print(shown)
    return None


app.command("pack")(library.pack)
app.command("unpack")(library.unpack)
