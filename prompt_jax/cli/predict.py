"""`prompt-jax predict`: answers to lines or JSON rows, several prompts in one batch."""

from __future__ import annotations

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

_NEW_TOKENS = 32  # where neither an option nor a task says how long an answer may be
_INPUT_TOKENS = 512


class Row(NamedTuple):
    """One input line."""

    line: int  # counted from 1
    example: Example
    prompts: tuple[int, ...]  # the prompts that answer it; empty: those of its own task
    task: Task | None = None

    @property
    def ranked(self) -> bool:
        """Whether the answer is one of the task's, or generated."""
        return self.task is not None and self.task.kind in ("classification", "choice")


class Answer(NamedTuple):
    """What one prompt says to one row."""

    text: str
    scores: dict[str, float] | None  # negative log-likelihood per token of each candidate


def predict(
    model: common.Model,
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="A prompt file, or folder of a PEFT adapter; repeatable."
        ),
    ],
    source: Annotated[
        str, typer.Argument(metavar="[INPUT]", help="A file of lines; - is stdin.")
    ] = "-",
    task: Annotated[
        str | None, typer.Option(help="Render the fields of rows as this task does.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="Of the task; default: its first.")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Lines are JSON objects; implied by INPUT's suffix.")
    ] = False,
    max_input_tokens: common.MaxInput = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest generated answer.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="Of the beam search; 1 is greedy.")] = 1,
    dtype: common.Dtype = "float32",
    allow_other_model: common.OtherModel = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per answer, with scores.")
    ] = False,
) -> None:
    """Answer rows of text under one or more prompts.

    A line is the text that the model reads; with --task it is the task's only field, and a
    classification answers with one of its labels. A JSON row holds {"input": TEXT} or, with --task,
    the task's fields; {"prompt": NAME} names the prompt that answers it (the file's name, or its
    number, counted from 0). A row that names none is answered by every prompt, separated by tabs.

    Without --task a JSON row may name its own: {"task": NAME} and, if not the first, {"template":
    NAME}. It is answered by the prompts that were made for this task and template, as SPT leaves
    them: rows of many tasks share batches, each under its own prompt.
    """
    from prompt_jax.data import registry

    chosen = None if task is None else registry.get(task)
    if template is not None and chosen is None:
        raise ConfigError("--template needs --task.")
    names = common.short_names(prompt)
    jsonl = jsonl or source.endswith(".jsonl")
    rows = _rows(source, jsonl, chosen, template, names)
    lm = common.load_model(model, dtype)
    loaded = common.load_prompts(prompt, lm, allow_other_model)
    rows = [_routed(row, loaded) for row in rows]
    _warn_of_templates(rows, loaded)
    answers = _answer(lm, loaded, rows, max_input_tokens, max_new_tokens, beams)
    for row in rows:
        said = [(names[i], answers[row.line, i]) for i in row.prompts]
        if not as_json:
            typer.echo("\t".join(" ".join(answer.text.split()) for _, answer in said))
            continue
        for name, answer in said:
            fields = {"line": row.line, "prompt": name, "answer": answer.text}
            if answer.scores is not None:
                fields["scores"] = answer.scores
            typer.echo(json.dumps(fields, ensure_ascii=False))


# --- rows ----------------------------------------------------------------------------------------


def _rows(
    source: str, jsonl: bool, task: Task | None, template: str | None, names: Sequence[str]
) -> list[Row]:
    everyone = tuple(range(len(names)))
    rows = []
    for number, text, where in _lines(source):
        fields: Any = text
        answered_by, mine, worded = everyone, task, template
        if jsonl:
            fields = _object(text, where)
            if task is None and "task" in fields:
                mine, worded = _own_task(fields, where)
                answered_by = ()
            if "prompt" in fields and (mine is None or "prompt" not in mine.fields):
                answered_by = (_which(fields.pop("prompt"), names, where),)
        rows.append(Row(number, _example(fields, mine, worded, where), answered_by, mine))
    if not rows:
        raise DataError(f"{_name(source)} holds no lines.")
    return rows


def _own_task(fields: dict[str, Any], where: str) -> tuple[Task, str | None]:
    """Takes task and template out of a row."""
    from prompt_jax.data import registry

    name = fields.pop("task")
    if not isinstance(name, str):
        raise DataError(f"{where} names no task but {name!r}.")
    task = registry.get(name)
    worded = None if "template" in task.fields else fields.pop("template", None)
    if worded is not None and not isinstance(worded, str):
        raise DataError(f"{where} names no template but {worded!r}.")
    return task, worded


def _routed(row: Row, loaded: Sequence[common.NamedPrompt]) -> Row:
    """The row with the prompts of its own task and template, unless it has some.

    Raises:
      DataError: no prompt was made for them.
    """
    if row.prompts or row.task is None:
        return row
    template = row.example.template
    fitting = []
    for i, named in enumerate(loaded):
        record = named.prompt.record
        of = common.record_value(named.prompt, "template", template)
        if record is not None and (record.task, of) == (row.task.name, template):
            fitting.append(i)
    if not fitting:
        raise DataError(
            f"line {row.line} is of task '{row.task.name}', template '{template}', for which no"
            ' prompt is given. Give one, or name another with {"prompt": NAME}.'
        )
    return row._replace(prompts=tuple(fitting))


def _warn_of_templates(rows: Sequence[Row], loaded: Sequence[common.NamedPrompt]) -> None:
    """Says which prompts answer rows under another template than they were made for."""
    others: dict[int, str] = {}
    for row in rows:
        for i in row.prompts:
            record = loaded[i].prompt.record
            template = row.example.template
            if record is not None and row.task is not None and record.task == row.task.name:
                made_for = common.record_value(loaded[i].prompt, "template", template)
                if made_for != template:
                    others[i] = f"is for template '{made_for}', not '{template}'"
    for i, what in others.items():
        common.warn(f"{loaded[i].name} {what}: choose with --template.")


def _lines(source: str) -> Iterator[tuple[int, str, str]]:
    """Numbers from 1, texts, and what to call the lines in messages."""
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
            raise DataError(f"{where} is empty: there is nothing to answer.")
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


def _which(wanted: Any, names: Sequence[str], where: str) -> int:
    """The number of the prompt that a row names."""
    if isinstance(wanted, str) and wanted in names:
        return list(names).index(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(names):
        return wanted
    raise DataError(
        f"{where} asks for prompt {wanted!r}; there are {', '.join(names)} (or 0 to"
        f" {len(names) - 1}).{did_you_mean(str(wanted), names)}"
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
    return render(task, chosen, _with_answer(task, fields), where)


def _with_answer(task: Task, fields: dict[str, Any]) -> dict[str, Any]:
    """The row with an answer, which rendering asks for and a prediction does not read."""
    made_up: Any = 0
    if task.kind == "regression":
        made_up = task.value_range[0]
    elif task.kind in ("span", "text"):
        made_up = ["-"]
    return {**dict.fromkeys(task.group_fields, ""), task.answer_field: made_up, **fields}


# --- answers -------------------------------------------------------------------------------------


def _answer(
    lm: Any,
    loaded: Sequence[common.NamedPrompt],
    rows: Sequence[Row],
    max_input: int | None,
    max_new: int | None,
    beams: int,
) -> dict[tuple[int, int], Answer]:
    """Answers by (line, prompt number); prompts of one length share batches."""
    from prompt_jax import evaluation

    answers: dict[tuple[int, int], Answer] = {}
    cut = 0
    for ranked in (True, False):
        mine = [
            [r for r in rows if i in r.prompts and r.ranked == ranked] for i in range(len(loaded))
        ]
        splits = {i: _encode(lm, loaded[i], some, max_input) for i, some in enumerate(mine) if some}
        cut += sum(split.truncated_inputs for split in splits.values())
        longest = max_new or max(
            (_NEW_TOKENS if r.task is None else r.task.max_target for r in rows), default=0
        )
        for numbers, population in common.group_by_length(loaded):
            asked = [i for i in numbers if i in splits]
            if not asked:
                continue
            jobs = [evaluation.Job(splits[i], numbers.index(i)) for i in asked]
            found: list[list[Answer]]
            if ranked:
                found = [
                    [
                        _ranked(row.example, scores)
                        for row, scores in zip(mine[i], result.scores, strict=True)
                    ]
                    for i, result in zip(asked, evaluation.rank(lm, jobs, population), strict=True)
                ]
            else:
                texts = evaluation.generate(
                    lm, jobs, population, max_new_tokens=longest, num_beams=beams
                )
                found = [[Answer(text, None) for text in some] for some in texts]
            for i, some in zip(asked, found, strict=True):
                answers |= {(r.line, i): answer for r, answer in zip(mine[i], some, strict=True)}
    if cut:
        common.warn(f"{cut} of {len(answers)} inputs were too long and were cut.")
    return answers


def _encode(
    lm: Any, named: common.NamedPrompt, rows: Sequence[Row], max_input: int | None
) -> TokenisedSplit:
    from prompt_jax.data import encode

    default = max(_INPUT_TOKENS if r.task is None else r.task.max_input for r in rows)
    width = max_input or common.record_value(named.prompt, "max_input_tokens", default)
    target = max(_NEW_TOKENS if r.task is None else r.task.max_target for r in rows)
    return encode([row.example for row in rows], lm.tokenizer, width, target, name=named.name)


def _ranked(example: Example, scores: Any) -> Answer:
    by_text = dict(zip(example.candidates, map(float, scores), strict=False))
    return Answer(min(by_text, key=by_text.__getitem__), by_text)
