"""`prompt-jax evaluate`: scores of prompt files on a task."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompt_jax.cli import common, loading
from prompt_jax.errors import DataError

if TYPE_CHECKING:
    from prompt_jax.data import Source, Task, TokenisedSplit
    from prompt_jax.evaluation import Evaluation
    from prompt_jax.models import LanguageModel


def evaluate(
    model: common.Model,
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...", help="Prompt files, trained methods, or folders of PEFT adapters."
        ),
    ],
    task: Annotated[str, typer.Option(help="A registered task, or a .toml file.")],
    root: common.Root = None,
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    max_rows: Annotated[int, typer.Option(min=0, help="At most this many rows; 0: all.")] = 0,
    metrics: Annotated[
        str, typer.Option(help="Metrics, separated by commas; default: those of the task.")
    ] = "",
    max_input_tokens: common.MaxInput = None,
    max_target_tokens: common.MaxTarget = None,
    dtype: common.Dtype = "float32",
    allow_other_model: common.OtherModel = False,
    plugin: common.Plugin = None,
    as_json: common.AsJson = False,
) -> None:
    """Evaluate prompts on a task, all in one population.

    Rows are split, truncated and rendered as in the training of each prompt, according to its
    record. The template and the length of answers are those of the record if the prompt is for
    this task. Of candidates that share the best score each counts as 1 / their number.
    """
    from prompt_jax.config import split_list
    from prompt_jax.data import registry
    from prompt_jax.evaluation import Job
    from prompt_jax.evaluation import evaluate as evaluate_jobs
    from prompt_jax.evaluation.questions import answer_limit, populations

    loading.load_plugins(plugin)
    chosen = registry.get(task)
    common.check_choice(split, ("test", "dev"), "--split")
    loading.short_names(prompts)
    loading.check_prompt_files(prompts)
    lm = loading.load_model(model, dtype)
    loaded = loading.load_prompts(prompts, lm, allow_other_model, methods=True)
    opened: dict[Any, TokenisedSplit] = {}
    limits = [max_target_tokens or answer_limit(x.prompt.record, chosen) for x in loaded]
    splits = [
        _rows(
            _as_trained(chosen, named),
            named,
            lm,
            root,
            split,
            max_rows,
            (max_input_tokens, limit),
            opened,
        )
        for named, limit in zip(loaded, limits, strict=True)
    ]
    names = split_list(metrics) or chosen.metrics
    evaluations: dict[int, Evaluation] = {}
    for numbers, state, prompt_fn in populations(lm, [named.prompt for named in loaded]):
        jobs = [Job(splits[number], row) for row, number in enumerate(numbers)]
        results = evaluate_jobs(lm, jobs, state, metrics=names, prompt_fn=prompt_fn)
        evaluations |= dict(zip(numbers, results, strict=True))
    truncated = max(rows.truncated_inputs for rows in splits)
    if truncated:
        common.warn(f"{truncated} inputs were too long and were truncated.")
    ties = max(evaluation.ties for evaluation in evaluations.values())
    loading.warn_about_answers(splits, ties)
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
                    "cut_answers": rows.truncated_answers,
                    "ties": evaluations[i].ties,
                    "unparsable": evaluations[i].unparsable,
                    "metrics": evaluations[i].metrics,
                }
                for i, (named, rows) in enumerate(zip(loaded, splits, strict=True))
            ]
        )
    shown = common.table("prompt", "rows", *names)
    for i, named in enumerate(loaded):
        values = [f"{100 * evaluations[i].metrics[name]:.1f}" for name in names]
        shown.add_row(named.name, f"{len(splits[i]):,}", *values)
    out = common.Printer()
    out.print(common.heading(f"{chosen.name}, {split} rows, in points, on {lm.name}"))
    out.print(shown)
    return None


def _as_trained(task: Task, named: loading.NamedPrompt) -> Task:
    from prompt_jax.evaluation.questions import as_trained

    record = named.prompt.record
    return task if record is None else as_trained(task, record)


def _rows(
    task: Task,
    named: loading.NamedPrompt,
    lm: LanguageModel,
    root: str | None,
    split: str,
    max_rows: int,
    limits: tuple[int | None, int],
    opened: dict[Any, TokenisedSplit],
) -> TokenisedSplit:
    """The rows on which a prompt is evaluated; prompts with equal rows share them."""
    from prompt_jax.data import Limits, Subset, load_splits, tokenise_rows
    from prompt_jax.evaluation.questions import rank_by

    def recorded(name: str, default: Any) -> Any:
        return loading.record_value(named.prompt, name, default)

    record = named.prompt.record
    seed = record.seed or 0 if record is not None and split == "dev" else 0
    k = (recorded("k", 0) or 0) if split == "dev" else 0
    protocol, dev = recorded("protocol", "development"), recorded("dev_rows", 200)
    counted = recorded("shots_count", "per_class")
    widths = limits[0] or recorded("max_input_tokens", None), limits[1]
    template = "first"
    if record is not None and record.task == task.name:
        template = task.template(recorded("template", None)).name
    ranked = rank_by(record, task)
    key = (task, ranked, seed, k, counted, protocol, dev, widths, template)
    if key not in opened:
        parts = Limits(dev=dev, test=max_rows)
        splits = load_splits(task, root, protocol, seed, parts, k, counted)
        rows: Source = splits.test
        if split == "dev":
            rows = Subset(splits.dev, range(min(max_rows or len(splits.dev), len(splits.dev))))
        if not len(rows):
            raise DataError(f"task '{task.name}' has no {split} rows.")
        made = tokenise_rows(
            task, rows, lm.tokenizer, templates=template, max_input=widths[0], max_target=widths[1]
        )
        opened[key] = dataclasses.replace(made, rank_by=ranked)
    return opened[key]
