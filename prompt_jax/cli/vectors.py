"""`prompt-jax vectors`: arithmetic with task vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common, loading
from prompt_jax.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from prompt_jax.models import LanguageModel
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
        str | None, typer.Option(help="Output file of the prompt (.safetensors).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The prompts' model, to recompute the initialisation and to evaluate."),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="The initialisation of all prompts in EXPRESSION.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="A prompt to add the sum to; default: the initialisation.")
    ] = None,
    across_inits: Annotated[
        bool, typer.Option("--across-inits", help="Add vectors of different initialisations.")
    ] = False,
    as_vector: Annotated[
        bool, typer.Option("--vector", help="Write the sum as a task vector, not a prompt.")
    ] = False,
    task: Annotated[
        list[str] | None, typer.Option(help="Evaluate the prompt on this task; may be repeated.")
    ] = None,
    root: common.Root = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
) -> None:
    """Add, subtract and scale task vectors (prompt minus initialisation).

    A prompt file stands for its task vector. Its initialisation is recomputed from the prompt's
    record (--model) or read from a file (--init). An expression that starts with a minus needs a
    space before it, as in " -a".
    """
    from prompt_jax import prompts

    factors = prompts.linear(expression)
    paths = _files_of_names(list(factors), names or [])
    _check_options(out, model, as_vector, task)
    common.check_choice(split, ("test", "dev"), "--split")
    lm = None if model is None else loading.load_model(model)
    origin = None if init is None else _as_origin(loading.open_prompt(init))
    terms: dict[str, TaskVector] = {}
    bases: list[SoftPrompt] = []
    records: list[prompts.PromptRecord] = []
    for name, path in paths.items():
        terms[name], base = _vector(path, lm, origin, records)
        bases += [] if base is None else [base]
    _check_models(records)
    total = prompts.combine(factors, terms, across_inits=across_inits)
    _print(factors, terms, total)
    if as_vector:
        assert out is not None
        total.save(out)
        return typer.echo(f"{out}: a task vector, {total.values.shape[0]} tokens")
    base = loading.open_prompt(to) if to is not None else origin or (bases[0] if bases else None)
    if base is None:
        raise PromptError("vector files contain no prompt to add the sum to: give one with --to.")
    result = prompts.apply_vector(base, total, across_inits=across_inits)
    if out is not None:
        result.with_record(_record(result.record, expression, total, records)).save(out)
        typer.echo(f"{out}: {result.length} tokens x {result.d_model}")
        _evaluate(model, out, task or [], root, split)
    return None


def _check_options(
    out: str | None, model: str | None, as_vector: bool, task: list[str] | None
) -> None:
    """Checks the options before any file is read."""
    if out is not None and Path(out).suffix != ".safetensors":
        raise ConfigError(f"--out must end in .safetensors, not '{out}'.")
    if as_vector and out is None:
        raise ConfigError("--vector needs --out, the file of the vector.")
    if as_vector and task:
        raise ConfigError("--vector writes no prompt that --task could evaluate.")
    if task and (model is None or out is None):
        raise ConfigError("--task needs --model, and --out for the prompt that is evaluated.")


def _files_of_names(used: list[str], assignments: list[str]) -> dict[str, str]:
    """The file of every name of the expression: the assigned one, or the name itself."""
    assigned: dict[str, str] = {}
    for entry in assignments:
        name, equals, path = entry.partition("=")
        if not equals or not path:
            raise ConfigError(f"'{entry}' is not of the form NAME=FILE.")
        if name in assigned:
            raise ConfigError(f"'{name}' is assigned more than once.")
        if name not in used:
            raise ConfigError(f"'{name}' does not occur in the expression ({', '.join(used)}).")
        assigned[name] = path
    return {name: assigned.get(name, name) for name in used}


def _vector(
    path: str, lm: LanguageModel | None, origin: SoftPrompt | None, records: list[Any]
) -> tuple[TaskVector, SoftPrompt | None]:
    """A file's task vector, and its initialisation if known."""
    from prompt_jax import prompts
    from prompt_jax.prompts import files

    if Path(path).suffix == ".safetensors":
        tensors, _ = files.parse_safetensors(files.read_bytes(path), path)
        if list(tensors) == ["vector"]:
            return prompts.TaskVector.load(path), None
    prompt = loading.open_prompt(path)
    record = prompt.record or prompts.PromptRecord()
    records.append(record)
    if lm is not None:
        no_hash = record.model_hash is None
        prompts.check_model(record, lm, path, prompt.d_model, no_hash)
    base = _initialisation(path, record, lm, origin)
    vector = prompts.task_vector(prompt, base)
    return prompts.TaskVector(vector.values, vector.init_id, Path(path).stem), base


def _initialisation(
    path: str, record: Any, lm: LanguageModel | None, origin: SoftPrompt | None
) -> SoftPrompt:
    """The prompt's own initialisation, which defines its task vector."""
    from prompt_jax import prompts

    if origin is not None and origin.record is not None:
        if record.init_id in (None, origin.record.init_id):
            return origin
        if lm is None:
            raise PromptError(
                f"{path} has another initialisation than the prompt of --init (init"
                f" {record.init_id} vs init {origin.record.init_id}), so the two do not define its"
                " task vector. Give --model MODEL too, to recompute the prompt's own"
                " initialisation."
            )
    if lm is None:
        raise PromptError(
            f"{path} is a prompt: its task vector is its difference to the initialisation. Give"
            " --model MODEL to recompute that, or --init FILE to read it."
        )
    try:
        return prompts.initialisation_of(record, lm, path)
    except PromptError as error:
        raise PromptError(f"{error} (--init FILE)") from None


def _as_origin(prompt: SoftPrompt) -> SoftPrompt:
    """A prompt as an initialisation, with the init id of its own embeddings."""
    from prompt_jax import prompts

    record = prompt.record or prompts.PromptRecord()
    return prompt.with_record(record.replace(init_id=prompts.init_id(prompt.embeddings)))


def _check_models(records: list[Any]) -> None:
    from prompt_jax.prompts import config_differences

    known = {record.model_hash: record.model_name for record in records if record.model_hash}
    if len(known) > 1:
        raise PromptError(
            f"the prompts are of different models ({', '.join(map(str, known.values()))})."
        )
    configs = [record.model_config for record in records if record.model_config]
    for config in configs[1:]:
        if found := config_differences(configs[0], config):
            raise PromptError(
                "the prompts are of the same weights under different configurations: "
                f"{'; '.join(found)}."
            )


def _record(record: Any, expression: str, total: Any, records: list[Any]) -> Any:
    """The record of the sum; data settings are those of the first prompt in it."""
    from prompt_jax.prompts import PromptRecord

    record = record or PromptRecord()
    config = {**record.config, "expression": expression}
    first = records[0] if records else PromptRecord()
    rows = (
        "max_input_tokens",
        "max_target_tokens",
        "protocol",
        "dev_rows",
        "k",
        "shots_count",
        "answers",
        "rank_by",
    )
    for name in rows:
        if name in first.config:
            config.setdefault(name, first.config[name])
    return record.replace(
        method="task_vectors",
        task=total.name,
        config=config,
        tokens=None,
        d_model=None,
        model_hash=record.model_hash or first.model_hash,
        model_name=record.model_name or first.model_name,
        model_config=record.model_config or first.model_config,
    )


def _print(factors: dict[str, float], terms: dict[str, TaskVector], total: TaskVector) -> None:
    import numpy as np

    shown = common.table("vector", "initialisation", "factor", "norm", left=2)
    for name, factor in factors.items():
        norm = float(np.linalg.norm(terms[name].values))
        shown.add_row(name, terms[name].init_id or "unknown", f"{factor:g}", f"{norm:.4g}")
    shown.add_row("sum", total.init_id or "-", "", f"{float(np.linalg.norm(total.values)):.4g}")
    common.Printer().print(shown)


def _evaluate(model: str | None, path: str, tasks: list[str], root: str | None, split: str) -> None:
    from prompt_jax.cli.evaluate import evaluate

    for task in tasks:
        assert model is not None
        evaluate(model, [path], task, root, split)
