"""`prompt-jax predict`: predictions for lines or JSON rows, several prompts in one batch."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prompt_jax.cli import common
from prompt_jax.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from prompt_jax.data import Example, Task, TokenisedSplit

_MAX_NEW_TOKENS = 32  # defaults, if neither an option nor a task sets the maximum length
_MAX_INPUT_TOKENS = 512


class Row(NamedTuple):
    """One input line."""

    line: int  # counted from 1
    example: Example
    prompts: tuple[int, ...]  # numbers of its prompts; empty: those of its own task
    task: Task | None = None

    @property
    def ranked(self) -> bool:
        """Whether the answer is chosen by rank classification, not generated."""
        return self.task is not None and self.task.kind in ("classification", "choice")


class Answer(NamedTuple):
    """The prediction for one row under one prompt."""

    text: str
    scores: dict[str, float] | None  # negative log-likelihood per token of each candidate


def predict(
    model: common.Model,
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="A prompt file, trained method, or folder of a PEFT adapter; repeatable.",
        ),
    ],
    source: Annotated[
        str, typer.Argument(metavar="[INPUT]", help="A file with one input per line; - is stdin.")
    ] = "-",
    task: Annotated[
        str | None, typer.Option(help="Render the fields of rows with a template of this task.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Template of the task; default: the first.")
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Lines are JSON objects; implied by INPUT's suffix.")
    ] = False,
    max_input_tokens: common.MaxInput = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of a generated answer.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = 1,
    dtype: common.Dtype = "float32",
    allow_other_model: common.OtherModel = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per answer, with scores.")
    ] = False,
) -> None:
    """Predict answers for rows of text with one or more prompts.

    A line is the input text of the model. With --task it is the task's only field, and the answer
    of a classification is one of its labels. A JSON row is {"input": TEXT} or, with --task, the
    task's fields; {"prompt": NAME} selects its prompt (the file's name, or its number, counted from
    0). A row without it is answered with every prompt, and the answers are separated by tabs.

    Without --task a JSON row may name its own: {"task": NAME} and, if not the first, {"template":
    NAME}. It is answered with the prompts of this task and template, as written by SPT. Rows of
    many tasks share batches, each with its own prompt.
    """
    from prompt_jax.data import registry

    chosen = None if task is None else registry.get(task)
    if template is not None and chosen is None:
        raise ConfigError("--template needs --task.")
    names = common.short_names(prompt)
    jsonl = jsonl or source.endswith(".jsonl")
    rows = _rows(source, jsonl, chosen, template, names)
    lm = common.load_model(model, dtype)
    loaded = common.load_prompts(prompt, lm, allow_other_model, methods=True)
    rows = [_assign_prompts(row, loaded) for row in rows]
    _warn_about_templates(rows, loaded)
    answers = _answer(lm, loaded, rows, max_input_tokens, max_new_tokens, beams)
    for row in rows:
        row_answers = [(names[i], answers[row.line, i]) for i in row.prompts]
        if not as_json:
            typer.echo("\t".join(_shown(row, answer) for _, answer in row_answers))
            continue
        for name, answer in row_answers:
            fields = {"line": row.line, "prompt": name, "answer": answer.text}
            if answer.scores is not None:
                fields["scores"] = answer.scores
            typer.echo(json.dumps(fields, ensure_ascii=False))


def _shown(row: Row, answer: Answer) -> str:
    """An answer on one line, with the label that it stands for."""
    text, candidates = answer.text, row.example.candidates
    if row.task is not None and text in candidates:
        text = row.task.named(text, candidates.index(text))
    return " ".join(text.split())


# --- rows ----------------------------------------------------------------------------------------


def _rows(
    source: str, jsonl: bool, task: Task | None, template: str | None, names: Sequence[str]
) -> list[Row]:
    all_prompts = tuple(range(len(names)))
    rows = []
    for number, text, where in _lines(source):
        fields: Any = text
        prompts, row_task, row_template = all_prompts, task, template
        if jsonl:
            fields = _object(text, where)
            if task is None and "task" in fields:
                row_task, row_template = _pop_task(fields, where)
                prompts = ()
            if "prompt" in fields and (row_task is None or "prompt" not in row_task.fields):
                prompts = (_prompt_number(fields.pop("prompt"), names, where),)
        example = _example(fields, row_task, row_template, where)
        rows.append(Row(number, example, prompts, row_task))
    if not rows:
        raise DataError(f"{_name(source)} has no lines.")
    return rows


def _pop_task(fields: dict[str, Any], where: str) -> tuple[Task, str | None]:
    """Removes task and template from a row and returns them."""
    from prompt_jax.data import registry

    name = fields.pop("task")
    if not isinstance(name, str):
        raise DataError(f"{where}: 'task' must be a name, not {name!r}.")
    task = registry.get(name)
    template = None if "template" in task.fields else fields.pop("template", None)
    if template is not None and not isinstance(template, str):
        raise DataError(f"{where}: 'template' must be a name, not {template!r}.")
    return task, template


def _assign_prompts(row: Row, loaded: Sequence[common.NamedPrompt]) -> Row:
    """The row with the prompts of its own task and template, unless it already has prompts.

    Raises:
      DataError: there is no prompt for them.
    """
    if row.prompts or row.task is None:
        return row
    template = row.example.template
    matching = []
    for i, named in enumerate(loaded):
        record = named.prompt.record
        recorded = common.record_value(named.prompt, "template", template)
        if record is not None and (record.task, recorded) == (row.task.name, template):
            matching.append(i)
    if not matching:
        raise DataError(
            f"line {row.line} is of task '{row.task.name}', template '{template}', for which no"
            ' prompt is given. Give one, or name another with {"prompt": NAME}.'
        )
    return row._replace(prompts=tuple(matching))


def _warn_about_templates(rows: Sequence[Row], loaded: Sequence[common.NamedPrompt]) -> None:
    """Warns about prompts that are used with another template than in training."""
    mismatches: dict[int, str] = {}
    for row in rows:
        for i in row.prompts:
            record = loaded[i].prompt.record
            template = row.example.template
            if record is not None and row.task is not None and record.task == row.task.name:
                recorded = common.record_value(loaded[i].prompt, "template", template)
                if recorded != template:
                    mismatches[i] = f"is for template '{recorded}', not '{template}'"
    for i, mismatch in mismatches.items():
        common.warn(f"{loaded[i].name} {mismatch}: choose with --template.")


def _lines(source: str) -> Iterator[tuple[int, str, str]]:
    """Yields the number (from 1), text, and name for error messages of each line."""
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from None
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else (), start=1):
        where = f"line {number} of {_name(source)}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is not UTF-8 ({error.reason}).") from None
        if not text:
            raise DataError(f"{where} is empty.")
        yield number, text, where


def _name(source: str) -> str:
    return "the input" if source == "-" else source


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where} is not a JSON object.")
    return fields


def _prompt_number(name: Any, names: Sequence[str], where: str) -> int:
    """The number of the prompt that a row names."""
    if isinstance(name, str) and name in names:
        return list(names).index(name)
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < len(names):
        return name
    raise DataError(
        f"{where}: unknown prompt {name!r}. Known: {', '.join(names)} (or 0 to"
        f" {len(names) - 1}).{did_you_mean(str(name), names)}"
    )


def _example(fields: Any, task: Task | None, template: str | None, where: str) -> Example:
    from prompt_jax.data import Example
    from prompt_jax.data.render import render

    if task is None:
        text = fields if isinstance(fields, str) else fields.get("input")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f'{where} needs {{"input": TEXT}}, or --task to render its fields.')
        return Example(text, "")
    if isinstance(fields, str):
        if len(task.fields) > 1:
            raise DataError(
                f"a row of task '{task.name}' has the fields {', '.join(task.fields)}: give JSON"
                " objects and --jsonl."
            )
        fields = {task.fields[0]: fields}
    chosen = task.template(template)
    return render(task, chosen, fields, where, answered=False)


# --- answers -------------------------------------------------------------------------------------


def _answer(
    lm: Any,
    loaded: Sequence[common.NamedPrompt],
    rows: Sequence[Row],
    max_input: int | None,
    max_new: int | None,
    beams: int,
) -> dict[tuple[int, int], Answer]:
    """Answers by (line, prompt number); prompts of equal length share batches."""
    from prompt_jax import evaluation

    answers: dict[tuple[int, int], Answer] = {}
    truncated = 0
    for ranked in (True, False):
        by_prompt = [
            [r for r in rows if i in r.prompts and r.ranked == ranked] for i in range(len(loaded))
        ]
        splits = {
            i: _encode(lm, loaded[i], own, max_input) for i, own in enumerate(by_prompt) if own
        }
        truncated += sum(split.truncated_inputs for split in splits.values())
        max_new_tokens = max_new or max(
            (_MAX_NEW_TOKENS if r.task is None else r.task.max_target for r in rows), default=0
        )
        for numbers, state, prompt_fn in common.populations(loaded, lm):
            used = [i for i in numbers if i in splits]
            if not used:
                continue
            jobs = [evaluation.Job(splits[i], numbers.index(i)) for i in used]
            predicted: list[list[Answer]]
            if ranked:
                predicted = [
                    [
                        _ranked(row.example, scores)
                        for row, scores in zip(by_prompt[i], result.scores, strict=True)
                    ]
                    for i, result in zip(
                        used, evaluation.rank(lm, jobs, state, prompt_fn=prompt_fn), strict=True
                    )
                ]
            else:
                texts = evaluation.generate(
                    lm,
                    jobs,
                    state,
                    max_new_tokens=max_new_tokens,
                    num_beams=beams,
                    prompt_fn=prompt_fn,
                )
                predicted = [[Answer(text, None) for text in job_texts] for job_texts in texts]
            for i, own in zip(used, predicted, strict=True):
                answers |= {(r.line, i): a for r, a in zip(by_prompt[i], own, strict=True)}
    if truncated:
        common.warn(f"{truncated} of {len(answers)} inputs were too long and were truncated.")
    return answers


def _encode(
    lm: Any, named: common.NamedPrompt, rows: Sequence[Row], max_input: int | None
) -> TokenisedSplit:
    import numpy as np

    from prompt_jax.data import encode

    default = max(_MAX_INPUT_TOKENS if r.task is None else r.task.max_input for r in rows)
    width = max_input or common.record_value(named.prompt, "max_input_tokens", default)
    target = max(_MAX_NEW_TOKENS if r.task is None else r.task.max_target for r in rows)
    examples = [row.example for row in rows]
    split = encode(examples, lm.tokenizer, width, target, name=named.name)
    tasks = {None if r.task is None else r.task.name: r.task for r in rows}
    task = next(iter(tasks.values()))
    if task is None or len(tasks) > 1:
        return split
    # Rows of one task have its numbers of templates, which a trained method may read.
    names = tuple(template.name for template in task.templates)
    numbers = [names.index(example.template) for example in examples]
    return dataclasses.replace(split, template=np.asarray(numbers, np.int32), template_names=names)


def _ranked(example: Example, scores: Any) -> Answer:
    by_text = dict(zip(example.candidates, map(float, scores), strict=False))
    return Answer(min(by_text, key=by_text.__getitem__), by_text)
