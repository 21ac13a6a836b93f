"""`prompt-jax evaluate`: prompt files on the rows of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common
from prompt_jax.errors import DataError

if TYPE_CHECKING:
    from prompt_jax.data import Source, Task, TokenisedSplit
    from prompt_jax.evaluation import Evaluation


def evaluate(
    model: common.Model,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="Prompt files, or folders of PEFT adapters."),
    ],
    task: Annotated[str, typer.Option(help="A registered task, or a .toml file.")],
    root: common.Root = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    max_rows: Annotated[int, typer.Option(min=0, help="At most this many rows; 0: all.")] = 0,
    metrics: Annotated[
        str, typer.Option(help="Names, separated by commas; default: the task's.")
    ] = "",
    max_input_tokens: common.MaxInput = None,
    dtype: common.Dtype = "float32",
    allow_other_model: common.OtherModel = False,
    as_json: common.AsJson = False,
) -> None:
    """Score prompts on a task, all in one population.

    Rows are split and cut as they were when a prompt was trained (its record says how), and under
    the template that it is for, where it is for one of the task's.
    """
    from prompt_jax.config import split_list
    from prompt_jax.data import registry
    from prompt_jax.evaluation import Job
    from prompt_jax.evaluation import evaluate as evaluate_jobs

    chosen = registry.get(task)
    common.check_choice(split, ("test", "dev"), "--split")
    common.short_names(prompts)
    lm = common.load_model(model, dtype)
    loaded = common.load_prompts(prompts, lm, allow_other_model)
    opened: dict[Any, TokenisedSplit] = {}
    splits = [
        _rows(chosen, named, lm, root, split, max_rows, max_input_tokens, opened)
        for named in loaded
    ]
    names = split_list(metrics) or chosen.metrics
    found: dict[int, Evaluation] = {}
    for numbers, population in common.group_by_length(loaded):
        jobs = [Job(splits[number], place) for place, number in enumerate(numbers)]
        results = evaluate_jobs(lm, jobs, population, metrics=names)
        found |= dict(zip(numbers, results, strict=True))
    if as_json:
        return common.emit(
            [
                {
                    "prompt": named.name,
                    "path": named.path,
                    "task": chosen.name,
                    "split": split,
                    "rows": len(rows),
                    "cut": rows.truncated_inputs,
                    "unparsable": found[i].unparsable,
                    "metrics": found[i].metrics,
                }
                for i, (named, rows) in enumerate(zip(loaded, splits, strict=True))
            ]
        )
    shown = common.table("prompt", "rows", *names)
    for i, named in enumerate(loaded):
        values = [f"{100 * found[i].metrics[name]:.1f}" for name in names]
        shown.add_row(named.name, f"{len(splits[i]):,}", *values)
    out = common.Printer()
    out.print(common.heading(f"{chosen.name}, {split} rows, in points, on {lm.name}"))
    out.print(shown)
    cut = max(rows.truncated_inputs for rows in splits)
    if cut:
        common.warn(f"{cut} inputs were too long and were cut.")
    return None


def _rows(
    task: Task,
    named: common.NamedPrompt,
    lm: Any,
    root: str | None,
    split: str,
    max_rows: int,
    max_input: int | None,
    opened: dict[Any, TokenisedSplit],
) -> TokenisedSplit:
    """The rows on which a prompt is scored; prompts that see the same rows share them."""
    from prompt_jax.data import Limits, Subset, load_splits, tokenise_rows

    def told(name: str, default: Any) -> Any:
        return common.record_value(named.prompt, name, default)

    record = named.prompt.record
    seed = record.seed or 0 if record is not None and split == "dev" else 0
    k = (told("k", 0) or 0) if split == "dev" else 0
    protocol, dev = told("protocol", "development"), told("dev_rows", 200)
    widths = max_input or told("max_input_tokens", None), told("max_target_tokens", None)
    worded = "first"
    if record is not None and record.task == task.name:
        worded = task.template(told("template", None)).name
    key = (seed, k, protocol, dev, widths, worded)
    if key not in opened:
        limits = Limits(dev=dev, test=max_rows)
        cut = load_splits(task, root, protocol, seed, limits, k)
        rows: Source = cut.test
        if split == "dev":
            rows = Subset(cut.dev, range(min(max_rows or len(cut.dev), len(cut.dev))))
        if not len(rows):
            raise DataError(f"task '{task.name}' has no {split} rows.")
        opened[key] = tokenise_rows(
            task, rows, lm.tokenizer, templates=worded, max_input=widths[0], max_target=widths[1]
        )
    return opened[key]
