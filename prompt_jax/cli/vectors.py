"""`prompt-jax vectors`: arithmetic on what tuning added to prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common
from prompt_jax.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from prompt_jax.prompts import SoftPrompt, TaskVector


def vectors(
    expression: Annotated[
        str,
        typer.Argument(
            metavar="EXPRESSION", help='A sum such as "a + 0.5*b - c" of prompt or vector files.'
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=FILE...", help="Short names for files in EXPRESSION."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Where the prompt is written (.safetensors).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Their model: makes the initialisation again, evaluates.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="The prompt that all prompts of EXPRESSION started from.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="A prompt to add the sum to; default: the initialisation.")
    ] = None,
    across_inits: Annotated[
        bool, typer.Option("--across-inits", help="Add vectors of different initialisations.")
    ] = False,
    as_vector: Annotated[
        bool, typer.Option("--vector", help="Write the sum itself, without what it is added to.")
    ] = False,
    task: Annotated[
        list[str] | None, typer.Option(help="Evaluate the prompt on this task; may be repeated.")
    ] = None,
    root: common.Root = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
) -> None:
    """Add, subtract and scale task vectors: what tuning added to an initialisation.

    A prompt file stands for its vector, prompt minus initialisation. The initialisation is made
    again from the prompt's record (--model), or read (--init). A sum that begins with a minus needs
    a space before it, as in " -a".
    """
    from prompt_jax import prompts

    factors = prompts.linear(expression)
    paths = _bound(list(factors), names or [])
    _check_options(out, model, as_vector, task)
    common.check_choice(split, ("test", "dev"), "--split")
    lm = None if model is None else common.load_model(model)
    origin = None if init is None else _as_origin(common.open_prompt(init))
    found: dict[str, TaskVector] = {}
    bases: list[SoftPrompt] = []
    records: list[prompts.PromptRecord] = []
    for name, path in paths.items():
        found[name], base = _vector(path, lm, origin, records)
        bases += [] if base is None else [base]
    _check_models(records)
    total = prompts.combine(factors, found, across_inits=across_inits)
    _print(factors, found, total)
    if as_vector:
        assert out is not None
        total.save(out)
        return typer.echo(f"{out}: a task vector, {total.values.shape[0]} tokens")
    base = common.open_prompt(to) if to is not None else origin or (bases[0] if bases else None)
    if base is None:
        raise PromptError("vector files do not hold what to add them to: name a prompt with --to.")
    result = prompts.apply_vector(base, total, across_inits=across_inits)
    if out is not None:
        result.with_record(_record(result.record, expression, total, records)).save(out)
        typer.echo(f"{out}: {result.length} tokens x {result.d_model}")
        _evaluate(model, out, task or [], root, split)
    return None


def _check_options(
    out: str | None, model: str | None, as_vector: bool, task: list[str] | None
) -> None:
    """What can be said without reading a file."""
    if out is not None and Path(out).suffix != ".safetensors":
        raise ConfigError(f"--out must end in .safetensors, not '{out}'.")
    if as_vector and out is None:
        raise ConfigError("--vector needs --out: where the vector is written.")
    if as_vector and task:
        raise ConfigError("--vector writes no prompt that --task could evaluate.")
    if task and (model is None or out is None):
        raise ConfigError("--task needs --model, and --out for the prompt that is evaluated.")


def _bound(used: list[str], given: list[str]) -> dict[str, str]:
    """The file of every name of the expression: what it was bound to, or the name itself."""
    bound: dict[str, str] = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not equals or not path:
            raise ConfigError(f"'{entry}' is not of the form NAME=FILE.")
        if name in bound:
            raise ConfigError(f"'{name}' is bound more than once.")
        if name not in used:
            raise ConfigError(f"'{name}' does not occur in the expression ({', '.join(used)}).")
        bound[name] = path
    return {name: bound.get(name, name) for name in used}


def _vector(
    path: str, lm: Any, origin: SoftPrompt | None, records: list[Any]
) -> tuple[TaskVector, SoftPrompt | None]:
    """A file's task vector, and what it is measured from where that is known."""
    from prompt_jax import prompts
    from prompt_jax.prompts import files

    if Path(path).suffix == ".safetensors":
        tensors, _ = files.parse_safetensors(files.read_bytes(path), path)
        if list(tensors) == ["vector"]:
            return prompts.TaskVector.load(path), None
    prompt = common.open_prompt(path)
    record = prompt.record or prompts.PromptRecord()
    records.append(record)
    if lm is not None:
        foreign = record.model_hash is None
        prompts.check_model(record, lm, path, prompt.d_model, foreign)
    base = _initialisation(path, record, lm, origin)
    vector = prompts.task_vector(prompt, base)
    return prompts.TaskVector(vector.values, vector.init_id, Path(path).stem), base


def _initialisation(path: str, record: Any, lm: Any, origin: SoftPrompt | None) -> SoftPrompt:
    """What the prompt's vector is measured from: its own initialisation, never another's."""
    from prompt_jax import prompts

    if origin is not None and origin.record is not None:
        if record.init_id in (None, origin.record.init_id):
            return origin
        if lm is None:
            raise PromptError(
                f"{path} did not start from the prompt of --init (init {record.init_id} vs init"
                f" {origin.record.init_id}), so that is not what its vector is measured from. Give"
                " --model MODEL too: it makes the prompt's own initialisation again."
            )
    if lm is None:
        raise PromptError(
            f"{path} is a prompt: its vector is what tuning added to its initialisation. Make"
            " that again with --model MODEL, or read it with --init FILE."
        )
    try:
        return prompts.initialisation_of(record, lm, path)
    except PromptError as error:
        raise PromptError(f"{error} (--init FILE)") from None


def _as_origin(prompt: SoftPrompt) -> SoftPrompt:
    """A prompt that vectors are measured from: its identity is that of its own numbers."""
    from prompt_jax import prompts

    record = prompt.record or prompts.PromptRecord()
    return prompt.with_record(record.replace(init_id=prompts.init_id(prompt.embeddings)))


def _check_models(records: list[Any]) -> None:
    known = {record.model_hash: record.model_name for record in records if record.model_hash}
    if len(known) > 1:
        raise PromptError(
            f"the prompts were made for different models ({', '.join(map(str, known.values()))})."
        )


def _record(record: Any, expression: str, total: Any, records: list[Any]) -> Any:
    """Says how the prompt was made; rows are cut as those of the prompts in it."""
    from prompt_jax.prompts import PromptRecord

    record = record or PromptRecord()
    config = {**record.config, "expression": expression}
    seen = records[0] if records else PromptRecord()
    for name in ("max_input_tokens", "max_target_tokens", "protocol", "dev_rows", "k"):
        if name in seen.config:
            config.setdefault(name, seen.config[name])
    return record.replace(
        method="task_vectors",
        task=total.name,
        config=config,
        tokens=None,
        d_model=None,
        model_hash=record.model_hash or seen.model_hash,
        model_name=record.model_name or seen.model_name,
    )


def _print(factors: dict[str, float], found: dict[str, TaskVector], total: TaskVector) -> None:
    import numpy as np

    shown = common.table("vector", "initialisation", "factor", "norm", left=2)
    for name, factor in factors.items():
        norm = float(np.linalg.norm(found[name].values))
        shown.add_row(name, found[name].init_id or "unknown", f"{factor:g}", f"{norm:.4g}")
    shown.add_row("sum", total.init_id or "-", "", f"{float(np.linalg.norm(total.values)):.4g}")
    common.Printer().print(shown)


def _evaluate(model: str | None, path: str, tasks: list[str], root: str | None, split: str) -> None:
    from prompt_jax.cli.evaluate import evaluate

    for task in tasks:
        assert model is not None
        evaluate(model, [path], task, root, split)
