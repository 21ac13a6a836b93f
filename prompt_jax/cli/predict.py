"""`prompt-jax predict`: answers for lines, JSON rows or tables, several prompts in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prompt_jax.cli import common, inputs, loading
from prompt_jax.cli.inputs import Row as Row
from prompt_jax.errors import ConfigError, DataError, PromptError

if TYPE_CHECKING:
    from prompt_jax.evaluation.predictions import Limits, Prediction
    from prompt_jax.models import LanguageModel


class Answer(NamedTuple):
    """The prediction for one row under one prompt."""

    text: str
    scores: dict[str, float] | None  # negative log-likelihood per token of each candidate
    number: int = -1  # of the candidate
    tied: tuple[int, ...] = ()  # candidates that share the best score


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
        str,
        typer.Argument(
            metavar="[INPUT]",
            help="A file of lines, or rows in .jsonl, .csv, .tsv or .parquet; - is stdin.",
        ),
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
    max_target_tokens: common.MaxTarget = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum tokens of a generated answer.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = 1,
    dtype: common.Dtype = "float32",
    allow_other_model: common.OtherModel = False,
    plugin: common.Plugin = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per answer, with scores.")
    ] = False,
) -> None:
    """Predict answers for rows of text with one or more prompts.

    A line is the input text of the model. With --task it is the task's only field, and the answer
    of a classification is one of its labels. A JSON row is {"input": TEXT} or, with --task, the
    task's fields; {"prompt": NAME} selects its prompt (the file's name, or its number, counted from
    0). A row without it is answered with every prompt, and the answers are separated by tabs.

    A row of a table (.csv and .tsv with a header, .parquet) has its fields in columns. The label of
    a row is never part of the input and may be hidden or missing; rows that have one are scored.

    Without --task a JSON row may name its own: {"task": NAME} and, if not the first, {"template":
    NAME}. It is answered with the prompts of this task and template, as written by SPT. Rows of
    many tasks share batches, each with its own prompt.
    """
    from prompt_jax.data import registry
    from prompt_jax.evaluation.predictions import Limits

    loading.load_plugins(plugin)
    chosen = None if task is None else registry.get(task)
    if template is not None and chosen is None:
        raise ConfigError("--template needs --task.")
    names = loading.short_names(prompt)
    loading.check_prompt_files(prompt)
    rows = inputs.read(source, jsonl, chosen, template, names)
    lm = loading.load_model(model, dtype)
    loaded = loading.load_prompts(prompt, lm, allow_other_model, methods=True)
    rows = [_assign_prompts(inputs.for_model(row, lm.tokenizer), loaded) for row in rows]
    _refuse_other_answers(rows, loaded)
    _warn_about_templates(rows, loaded)
    limits = Limits(max_input_tokens, max_target_tokens, max_new_tokens)
    answers = _answer(lm, loaded, rows, limits, beams)
    _warn_about_tasks(rows, loaded)
    if not as_json and not common.prints(a.text for a in answers.values()):
        common.warn(
            "this stream cannot show some characters of the answers, which are printed as '?': set"
            " PYTHONIOENCODING=utf-8, or use --json."
        )
    for row in rows:
        row_answers = [(names[i], answers[row.line, i]) for i in row.prompts]
        if not as_json:
            typer.echo("\t".join(_shown(row, answer) for _, answer in row_answers))
            continue
        for name, answer in row_answers:
            typer.echo(common.json_text(_record(row, name, answer)))
    for line in _scores(rows, answers, names):
        common.warn(line)


def _record(row: Row, name: str, answer: Answer) -> dict[str, Any]:
    """An answer for `--json`."""
    fields: dict[str, Any] = {"line" if row.is_line else "row": row.line}
    if row.id is not None:
        fields["id"] = row.id
    fields |= {"prompt": name, "answer": answer.text}
    example = row.example
    labels = () if row.task is None or row.task.kind != "classification" else row.task.labels
    if answer.number >= 0:
        fields["label"] = labels[answer.number] if labels else answer.number
    if answer.scores is not None:
        fields["scores"] = answer.scores
    if answer.tied:
        fields["tied"] = [example.candidates[i] for i in answer.tied]
    if row.labelled:
        gold: Any = example.label if example.candidates else list(example.references)
        fields["gold"] = labels[gold] if labels else gold
    return fields


def _scores(
    rows: Sequence[Row], answers: dict[tuple[int, int], Answer], names: Sequence[str]
) -> list[str]:
    """One line per prompt and task about the rows that have a gold answer; none without any."""
    import numpy as np

    from prompt_jax import evaluation

    lines = []
    tasks = {row.task.name: row.task for row in rows if row.task is not None and row.labelled}
    for i, name in enumerate(names):
        for task in tasks.values():
            every = [r for r in rows if i in r.prompts and r.task and r.task.name == task.name]
            mine = [row for row in every if row.labelled]
            if not mine:
                continue
            found = [answers[row.line, i] for row in mine]
            predicted: Any = [answer.text for answer in found]
            ties = {}
            if mine[0].ranked:
                predicted = np.asarray([answer.number for answer in found])
                ties = {n: answer.tied for n, answer in enumerate(found) if answer.tied}
            split = SimpleNamespace(examples=[row.example for row in mine])
            try:
                values = evaluation.compute(task.metrics, predicted, split, ties)
            except DataError as error:
                lines.append(f"{name} on {task.name} cannot be scored: {error}")
                continue
            text = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in values.items())
            hidden = f"; {len(every) - len(mine):,} have none" if len(every) > len(mine) else ""
            noun = "row with a label" if len(mine) == 1 else "rows with a label"
            lines.append(f"{name} on {task.name}: {text} on {len(mine):,} {noun}{hidden}.")
    return lines


def _shown(row: Row, answer: Answer) -> str:
    """An answer on one line, with the label that it stands for."""
    text, candidates = answer.text, row.example.candidates
    if row.task is not None and text in candidates:
        text = row.task.named(text, candidates.index(text))
    return " ".join(text.split())


# --- prompts of rows ------------------------------------------------------------------------------


def _assign_prompts(row: Row, loaded: Sequence[loading.NamedPrompt]) -> Row:
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
        recorded = loading.record_value(named.prompt, "template", template)
        if record is not None and (record.task, recorded) == (row.task.name, template):
            matching.append(i)
    if not matching:
        raise DataError(
            f"line {row.line} is of task '{row.task.name}', template '{template}', for which no"
            ' prompt is given. Give one, or name another with {"prompt": NAME}.'
        )
    return row._replace(prompts=tuple(matching))


def _refuse_other_answers(rows: Sequence[Row], loaded: Sequence[loading.NamedPrompt]) -> None:
    """Refuses to rank words under a prompt that was trained to answer in digits.

    Raises:
      ConfigError: with the name of the task as the prompt answers it.
    """
    from prompt_jax.data.digits import SUFFIX
    from prompt_jax.evaluation.questions import as_trained

    for row in rows:
        for i in row.prompts:
            task, record = row.task, loaded[i].prompt.record
            if task is not None and record is not None and task != as_trained(task, record):
                raise ConfigError(
                    f"the prompt {loaded[i].name} was trained to answer in digits: pass"
                    f" --task {task.name}{SUFFIX}."
                )


def _warn_about_templates(rows: Sequence[Row], loaded: Sequence[loading.NamedPrompt]) -> None:
    """Warns about prompts that are used with another template than in training."""
    mismatches: dict[int, str] = {}
    for row in rows:
        for i in row.prompts:
            record = loaded[i].prompt.record
            template = row.example.template
            if record is not None and row.task is not None and record.task == row.task.name:
                recorded = loading.record_value(loaded[i].prompt, "template", template)
                if recorded != template:
                    mismatches[i] = f"is for template '{recorded}', not '{template}'"
    for i, mismatch in mismatches.items():
        common.warn(f"{loaded[i].name} {mismatch}: choose with --template.")


# --- answers -------------------------------------------------------------------------------------


def _answer(
    lm: LanguageModel,
    loaded: Sequence[loading.NamedPrompt],
    rows: Sequence[Row],
    limits: Limits,
    beams: int,
) -> dict[tuple[int, int], Answer]:
    """Answers by (line, prompt number), with the warnings about them."""
    from prompt_jax.evaluation import predictions
    from prompt_jax.evaluation.questions import Question, populations
    from prompt_jax.prompts import PromptRecord

    asked = [(row, number) for row in rows for number in row.prompts]
    questions = []
    for row, number in asked:
        record = loaded[number].prompt.record or PromptRecord()
        words = row.example.candidates
        questions.append(Question(row.example, row.task, number, record, words))
    found = predictions.answer(
        lm, questions, populations(lm, [named.prompt for named in loaded]), limits, beams
    )
    answers = {}
    for (row, number), prediction in zip(asked, found.predictions, strict=True):
        answers[row.line, number] = _of(prediction, row, loaded[number].name)
    for note in dict.fromkeys(note for split in found.splits for note in split.notes):
        common.warn(note)
    if truncated := sum(split.truncated_inputs for split in found.splits):
        common.warn(f"{truncated} of {len(answers)} inputs were too long and were truncated.")
    loading.warn_about_answers(found.splits, found.ties)
    return answers


def _of(prediction: Prediction, row: Row, prompt: str) -> Answer:
    """A prediction by the numbers and texts of the row's candidates."""
    if not row.ranked:
        return Answer(prediction.text, None)
    if prediction.label is None:
        raise PromptError(f"{prompt} gives scores that are not numbers: is it finite?")
    names, candidates = list(prediction.nll), row.example.candidates
    number = names.index(prediction.label)
    scores = dict(zip(candidates, prediction.nll.values(), strict=True))
    return Answer(
        candidates[number], scores, number, tuple(names.index(name) for name in prediction.tied)
    )


def _warn_about_tasks(rows: Sequence[Row], loaded: Sequence[loading.NamedPrompt]) -> None:
    """Warns about prompts of a task whose template the rows are not rendered with."""
    for i, named in enumerate(loaded):
        task = None if named.prompt.record is None else named.prompt.record.task
        if task and any(i in row.prompts and row.task is None for row in rows):
            common.warn(
                f"{named.name} is for the task '{task}', but the texts are the model's input"
                f" unchanged: --task {task} (or its TOML file) renders them as in training."
            )
