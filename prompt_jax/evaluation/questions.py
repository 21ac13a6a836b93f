"""What a model is asked: rows rendered under their tasks, and the prompts of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prompt_jax.arrays import unwrap
from prompt_jax.data import batching, digits, registry
from prompt_jax.data.frames import frame_rows, is_frame
from prompt_jax.data.render import Example, choices_of, render
from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import RankBy, task_for
from prompt_jax.errors import ConfigError, DataError, PromptError, did_you_mean
from prompt_jax.evaluation.sweep import PromptFn, take_prompt
from prompt_jax.models.arguments import refuse_no_prompt
from prompt_jax.prompts.card import recorded_task, trained_template
from prompt_jax.prompts.record import PromptRecord, check_model

if TYPE_CHECKING:
    from prompt_jax.models.base import LanguageModel


WHOLE = 1 << 20
"""A length, in tokens, that no answer has."""


def answer_limit(record: PromptRecord | None, task: Task) -> int:
    """The longest target and candidate, in tokens, when a prompt is used for a task.

    On the task of its training as in training, which truncated targets and candidates alike.
    Elsewhere the length of its training says nothing about the answers: candidates are ranked
    whole, and other targets have the task's length.
    """
    own = record is not None and record.task == task.name
    limit = record.config.get("max_target_tokens") if own and record is not None else None
    if isinstance(limit, int) and limit >= 2:
        return limit
    return WHOLE if task.kind in ("classification", "choice") else task.max_target


def rank_by(record: PromptRecord | None, task: Task) -> RankBy:
    """How candidates are ranked when a prompt is used for a task: where it was trained, as then."""
    if record is None or record.task != task.name:
        return "mean"
    return "sum" if record.config.get("rank_by") == "sum" else "mean"


class Question(NamedTuple):
    """One row to answer."""

    example: Example
    task: Task | None  # None: the text is the input, and the answer is generated
    prompt: int  # number of its prompt; 0 where there is none
    record: PromptRecord  # of its prompt
    words: tuple[str, ...]  # of each candidate: what it says, or the text of the choice

    @property
    def ranked(self) -> bool:
        """Whether the answer is chosen among candidates."""
        return bool(self.example.candidates) and not self.example.generated

    def recorded(self, name: str, default: int) -> int:
        """A number of the prompt's training, or a default."""
        value = self.record.config.get(name, default)
        return value if isinstance(value, int) else default


class Population(NamedTuple):
    """Prompts that share batches: the arguments of `evaluators.rank`."""

    numbers: list[int]  # of the prompts; `Job.prompt` is a position in this list
    state: Any
    prompt_fn: PromptFn


def ask(
    lm: LanguageModel,
    texts: Any,
    prompt: Any,
    task: Any,
    template: str | None,
    allow_other_model: bool,
) -> tuple[list[Question], list[Population]]:
    """Renders rows and finds the prompt of each; arguments as of `predictions.predict`."""
    rows = rows_of(texts)
    tasks = [_answered(lm, each) for each in _tasks(task, len(rows))]
    if isinstance(prompt, Mapping):
        refuse_no_prompt(list(prompt.values()))
        prompts, numbers = list(prompt.values()), _by_task(list(prompt), tasks)
    else:
        prompts, numbers = _by_row(prompt, len(rows))
    records = [_checked(lm, each, allow_other_model) for each in prompts]
    defaults = [
        _answered(lm, recorded_task(record)) if None in tasks else None for record in records
    ]
    questions = []
    for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        record = records[number] if records else PromptRecord()
        chosen = tasks[i] or (defaults[number] if defaults else None)
        chosen = None if chosen is None else as_trained(chosen, record)
        name = template
        if name is None and chosen is not None and chosen.name == record.task:
            name = trained_template(record, chosen)
        questions.append(_question(row, chosen, name, number, record, f"row {i}"))
    return questions, populations(lm, prompts)


def as_trained(task: Task, record: PromptRecord) -> Task:
    """The task with the answers that a prompt was trained for, where it was trained for this task.

    A prompt that answers in digits would rank the words of a task as it stands in the registry.
    """
    trained = record.task == task.name and record.config.get("answers") == "digits"
    return digits.with_digits(task) if trained else task


def rows_of(texts: Any) -> list[Any]:
    """Texts and rows as a list.

    Raises:
      DataError: a row that is neither a text nor a mapping of fields.
    """
    if isinstance(texts, str | Mapping):
        texts = [texts]
    elif is_frame(texts):
        texts = list(frame_rows(texts, "the table"))
    if not isinstance(texts, Iterable) or isinstance(texts, bytes):
        raise DataError(f"rows are a list of texts or of mappings, not {type(texts).__name__}.")
    rows = list(texts)
    for i, row in enumerate(rows):
        if not isinstance(row, str | Mapping):
            raise DataError(
                f"row {i} is {type(row).__name__}: give a text, or a mapping of the task's fields."
            )
    return rows


def _tasks(task: Any, count: int) -> list[Task | None]:
    if task is None or isinstance(task, str | Task):
        return [_task(task)] * count
    if not isinstance(task, Iterable):
        raise ConfigError(f"a task is a name, a TOML file or a Task, not {type(task).__name__}.")
    tasks = [_task(each) for each in task]
    if len(tasks) != count:
        raise ConfigError(f"{len(tasks)} tasks were given for {count} rows: give one, or one each.")
    return tasks


def _task(task: Any) -> Task | None:
    if task is None or isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise ConfigError(f"a task is a name, a TOML file or a Task, not {type(task).__name__}.")
    return registry.get(task)


def _answered(lm: LanguageModel, task: Task | None) -> Task | None:
    """The task with the label words that the model answers with."""
    return None if task is None else task_for(lm.tokenizer, task)


def _by_task(names: Sequence[str], tasks: Sequence[Task | None]) -> list[int]:
    numbers = []
    for i, task in enumerate(tasks):
        if task is None:
            raise ConfigError("prompts by the names of tasks need the task of every row: task=[..]")
        if task.name not in names:
            raise ConfigError(
                f"row {i} is of task '{task.name}', for which there is no prompt."
                f"{did_you_mean(task.name, names)} There are: {', '.join(map(str, names))}."
            )
        numbers.append(list(names).index(task.name))
    return numbers


def _by_row(prompt: Any, count: int) -> tuple[list[Any], list[int]]:
    """The different prompts, and the number of each row's."""
    if prompt is None:
        return [], [0] * count
    refuse_no_prompt(prompt)
    if not isinstance(prompt, list | tuple):
        array = unwrap(prompt)
        if _is_method(prompt) or np.ndim(array) == 2:
            return [prompt], [0] * count
        if np.ndim(array) != 3:
            raise PromptError(
                f"a prompt has shape [L, D], or [n, L, D] for n rows, not {list(np.shape(array))}."
            )
        prompt = list(np.asarray(array))
    if len(prompt) != count:
        raise ConfigError(
            f"{len(prompt)} prompts were given for {count} rows: give one prompt for all rows, one"
            " for each, or a mapping from the names of tasks to prompts."
        )
    different = {id(each): each for each in prompt}
    positions = {key: number for number, key in enumerate(different)}
    return list(different.values()), [positions[id(each)] for each in prompt]


def _is_method(prompt: Any) -> bool:
    """A trained row-wise method: `prompt_jax.methods.trained.TrainedMethod`."""
    return hasattr(prompt, "prompt_fn") and hasattr(prompt, "state")


def _checked(lm: LanguageModel, prompt: Any, allow_other_model: bool) -> PromptRecord:
    """The record of a prompt that fits the model; an empty one where it has none."""
    record = getattr(prompt, "record", None) or PromptRecord()
    name = f"the prompt of task '{record.task}'" if record.task else "the prompt"
    if _is_method(prompt):
        width = record.d_model or 0
    else:
        array = np.asarray(unwrap(prompt))
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            raise PromptError(
                f"{name} must be floating-point numbers [L, D], not {array.dtype}"
                f" {list(array.shape)}."
            )
        if not np.isfinite(array).all():
            raise PromptError(f"{name} holds NaN or infinity: its training diverged.")
        width = array.shape[1]
    # Without a hash the prompt is taken for one of this model: nobody else says so.
    check_model(record, lm, name, width, allow_other_model or record.model_hash is None)
    return record


def _question(
    row: Any,
    task: Task | None,
    template: str | None,
    prompt: int,
    record: PromptRecord,
    where: str,
) -> Question:
    if task is None:
        text = row if isinstance(row, str) else row.get("input") if len(row) == 1 else None
        if not isinstance(text, str):
            raise DataError(
                f"{where} has the fields {', '.join(map(str, row))}, but no task says how they"
                " become the model's input: pass task=, or a prompt whose record names its task."
            )
        if not text.strip():
            raise DataError(f"{where} is empty.")
        return Question(Example(text, ""), None, prompt, record, ())
    if isinstance(row, str):
        if len(task.fields) > 1:
            raise DataError(
                f"{where} is a text, but a row of task '{task.name}' has the fields"
                f" {', '.join(task.fields)}: give a mapping of them."
            )
        row = {task.fields[0]: row}
    row = task.renamed(row)
    example = render(task, task.template(template), row, where, answered=False)
    words = choices_of(task, row, where) if task.kind == "choice" else example.candidates
    return Question(example, task, prompt, record, words)


def populations(lm: LanguageModel, prompts: Sequence[Any]) -> list[Population]:
    """Prompts of equal length together; a trained row-wise method alone.

    Args:
      lm: the model.
      prompts: soft prompts, arrays [L, D], or trained row-wise methods; none: no prompt.
    """
    if not prompts:
        return [Population([0], None, take_prompt)]
    lengths: dict[int, list[int]] = {}
    alone = []
    for number, prompt in enumerate(prompts):
        if _is_method(prompt):
            alone.append(Population([number], prompt.state(lm), prompt.prompt_fn))
        else:
            lengths.setdefault(len(unwrap(prompt)), []).append(number)
    together = []
    for numbers in lengths.values():
        arrays = [np.asarray(unwrap(prompts[i]), np.float32) for i in numbers]
        # The number of prompts is part of a program's shape: few sizes, few programs.
        arrays += arrays[-1:] * (batching.last_batch_size(len(arrays)) - len(arrays))
        together.append(Population(numbers, np.stack(arrays), take_prompt))
    return together + alone
