"""Text in, answer out: predictions for texts or rows under one prompt or many.

A row is rendered as its task does, answered by rank classification where the task has candidates
and by generation otherwise. Rows of all tasks and prompts share padded batches of a few shapes,
whose programs JAX keeps between calls.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prompt_jax.data.tasks import LETTERS, Task
from prompt_jax.data.tokenise import TokenisedSplit, encode
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import evaluators, metrics
from prompt_jax.evaluation.ensemble import probabilities
from prompt_jax.evaluation.questions import Population, Question, answer_limit, ask, rank_by
from prompt_jax.evaluation.sweep import Job

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

    from prompt_jax.evaluation.evaluators import RankResult
    from prompt_jax.models.base import LanguageModel
    from prompt_jax.prompts import SoftPrompt

MAX_NEW_TOKENS = 32  # where neither an option nor the task gives a length
MAX_INPUT_TOKENS = 512
_SHOWN = 4  # scores in a repr


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction:
    """The answer to one row.

    Attributes:
      label: name of the label, as in the task's `labels`; the letter of a choice without names;
        None for generated answers.
      text: the words: the label's words under the template, the text of the choice, or
        the generated text.
      score: probability of the label among the task's labels, None for generated answers.
      scores: the probability of every label, in the task's order: the softmax of minus `nll`.
      nll: the negative log-likelihood per token of every label's words.
      value: the number of a regression, NaN where the text is none; else None.
      truncated: whether the input was longer than what the prompt was trained with.
      tied: the labels that share the best score, if there are several; `label` is the first.
    """

    label: str | None
    text: str
    score: float | None = None
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    nll: dict[str, float] = dataclasses.field(default_factory=dict)
    value: float | None = None
    truncated: bool = False
    tied: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [f"label={self.label!r}", f"text={self.text!r}"]
        if self.score is not None:
            parts.append(f"score={self.score:.3f}")
            best = sorted(self.scores.items(), key=lambda pair: -pair[1])[:_SHOWN]
            shown = [f"{name!r}: {value:.3f}" for name, value in best]
            shown += ["..."] * (len(self.scores) > _SHOWN)
            parts.append(f"scores={{{', '.join(shown)}}}")
        if self.value is not None:
            parts.append(f"value={self.value:g}")
        if self.truncated:
            parts.append("truncated=True")
        if self.tied:
            parts.append(f"tied={self.tied!r}")
        return f"Prediction({', '.join(parts)})"


def predict(
    lm: LanguageModel,
    texts: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]],
    prompt: SoftPrompt | jax.Array | np.ndarray | Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    task: str | Task | Sequence[str | Task] | None = None,
    template: str | None = None,
    max_input_tokens: int | None = None,
    max_target_tokens: int | None = None,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    allow_other_model: bool = False,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
) -> list[Prediction]:
    """Answers texts or rows: rendered, tokenised, batched, and given back as labels and words.

    The task defines how a row becomes the model's input and which answers there are. It is the one
    that `task` names, or else the one that the prompt was trained for, which its record holds.
    Without either a text is the model's input unchanged, and the answer is generated.

    Args:
      lm: the model, with a tokenizer.
      texts: rows; one text or row is a batch of one. A text is the only field of its task; a row of
        several fields is a mapping of them. Answers in a row are not read.
      prompt: of all rows, [L, D]; or one per row, a list or [n, L, D]; or a mapping from the names
        of tasks to their prompts; or None. A trained row-wise method (`prompt_jax.methods.trained`)
        can stand for a prompt.
      task: name, TOML file or `Task` of all rows, or one per row.
      template: name of the template; None: that of the prompt's training, or the first.
      max_input_tokens: longer inputs are truncated, with a warning; None: as in the prompt's
        training, or the task's limit.
      max_target_tokens: longer candidates are truncated, with a warning; None: as in the prompt's
        training if it is for this task, else none.
      max_new_tokens: of generated answers; None: the task's limit.
      num_beams: of generated answers; 1 is greedy.
      allow_other_model: accept prompts of a model with other weights of this width.
      token_budget: tokens of a batch; None: a default for the device.
      mesh: rows are split over its axis 'data'.

    Returns:
      One prediction per row.

    Raises:
      ConfigError: arguments that do not fit each other.
      DataError: an unknown task, or a row that lacks a field of it.
      PromptError: a prompt of another model, of another width, or not finite.

    >>> import prompt_jax as pj
    >>> lm = pj.FrozenT5.from_pretrained("mini")  # doctest: +SKIP
    >>> prompt = pj.SoftPrompt.load("prompts/topic.safetensors")  # doctest: +SKIP
    >>> pj.predict(lm, ["the baker sliced the bread"], prompt)[0].label  # doctest: +SKIP
    'river'
    """
    limits = Limits(max_input_tokens, max_target_tokens, max_new_tokens)
    limits.check()
    questions, populations = ask(lm, texts, prompt, task, template, allow_other_model)
    found = answer(
        lm, questions, populations, limits, num_beams, token_budget=token_budget, mesh=mesh
    )
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    return found.predictions


class Limits(NamedTuple):
    """Lengths in tokens; None: as in the prompt's training, or the task's."""

    inputs: int | None = None
    targets: int | None = None  # of candidates
    new: int | None = None  # of generated answers

    def check(self) -> None:
        """Refuses lengths below 1.

        Raises:
          ConfigError: names the argument of `predict`.
        """
        names = ("max_input_tokens", "max_target_tokens", "max_new_tokens")
        for name, value in zip(names, self, strict=True):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}.")


class Answers(NamedTuple):
    """What `answer` returns.

    Attributes:
      predictions: one per question.
      splits: the tokenised rows, those of one task under one prompt together.
      notes: warnings, each once.
    """

    predictions: list[Prediction]
    splits: list[TokenisedSplit]
    notes: list[str]

    @property
    def ties(self) -> int:
        """The number of rows in which several candidates have the best score."""
        return sum(bool(each.tied) for each in self.predictions)


def answer(
    lm: LanguageModel,
    questions: Sequence[Question],
    populations: Sequence[Population],
    limits: Limits,
    num_beams: int = 1,
    *,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
) -> Answers:
    """Answers rendered rows; `predict` and `prompt-jax predict` are this function.

    Args:
      lm: the model, with a tokenizer.
      questions: the rows, with the numbers of their prompts.
      populations: the prompts.
      limits: lengths in tokens.
      num_beams: of generated answers.
      token_budget: as of `predict`.
      mesh: likewise.

    Raises:
      DataError: candidates that become the same tokens, or limits that are too small.
    """
    answers: dict[int, Prediction] = {}
    splits: list[TokenisedSplit] = []
    for population in populations:
        groups = _groups(lm, questions, population.numbers, limits)
        splits += [group.split for group in groups]
        for length in {group.new_tokens: None for group in groups}:
            own = [group for group in groups if group.new_tokens == length]
            answered = _answer(lm, own, population, num_beams, token_budget, mesh)
            for group, predictions in zip(own, answered, strict=True):
                answers |= zip(group.rows, predictions, strict=True)
    found = Answers([answers[i] for i in range(len(questions))], splits, [])
    notes = [note for split in splits for note in split.notes]
    count = len(questions)
    if truncated := sum(each.truncated for each in found.predictions):
        notes.append(f"{truncated} of {count} inputs were too long and were truncated.")
    if shortened := sum(split.truncated_answers for split in splits):
        notes.append(
            f"the answers of {shortened} of {count} rows were too long and were truncated."
        )
    if found.ties:
        notes.append(f"{found.ties} of {count} rows have several answers with the best score.")
    return found._replace(notes=list(dict.fromkeys(notes)))


class _Group(NamedTuple):
    """Questions of one task under one prompt."""

    rows: list[int]  # numbers of the questions
    questions: list[Question]
    split: TokenisedSplit
    task: Task | None
    position: int  # of the prompt in its population
    new_tokens: int  # of a generated answer; 0: answers are ranked


def _groups(
    lm: LanguageModel,
    questions: Sequence[Question],
    prompts: Sequence[int],
    limits: Limits,
) -> list[_Group]:
    members: dict[tuple[int, str | None], list[int]] = {}
    for i, question in enumerate(questions):
        if question.prompt in prompts:
            name = None if question.task is None else question.task.name
            members.setdefault((question.prompt, name), []).append(i)
    groups = []
    for (number, _), rows in members.items():
        own = [questions[i] for i in rows]
        first, task = own[0], own[0].task
        width = MAX_INPUT_TOKENS if task is None else task.max_input
        longest = MAX_NEW_TOKENS if task is None else task.max_target
        target = limits.targets
        if target is None:
            target = longest if task is None else answer_limit(first.record, task)
        split = encode(
            [question.example for question in own],
            lm.tokenizer,
            limits.inputs or first.recorded("max_input_tokens", width),
            target,
            name="the rows" if task is None else task.name,
            task_name="" if task is None else task.name,
            template_names=None if task is None else [each.name for each in task.templates],
            own_choices=task is not None and task.kind == "choice",
        )
        if task is not None:
            split = dataclasses.replace(split, rank_by=rank_by(first.record, task))
        new_tokens = 0 if first.ranked else limits.new or longest
        groups.append(_Group(rows, own, split, task, list(prompts).index(number), new_tokens))
    return groups


def _answer(
    lm: LanguageModel,
    groups: Sequence[_Group],
    population: Population,
    num_beams: int,
    token_budget: int | None,
    mesh: Mesh | None,
) -> list[list[Prediction]]:
    """The predictions of groups that are all ranked, or all generate as many tokens."""
    jobs = [Job(group.split, group.position) for group in groups]
    shared: Any = {
        "prompt_fn": population.prompt_fn,
        "token_budget": token_budget,
        "mesh": mesh,
    }
    if groups[0].new_tokens:
        length = groups[0].new_tokens
        texts = evaluators.generate(
            lm, jobs, population.state, max_new_tokens=length, num_beams=num_beams, **shared
        )
        return [
            [
                _generated(question, text, bool(truncated))
                for question, text, truncated in zip(
                    group.questions, own, group.split.input_truncated, strict=True
                )
            ]
            for group, own in zip(groups, texts, strict=True)
        ]
    ranked = evaluators.rank(lm, jobs, population.state, **shared)
    return [
        [_ranked(group, result, row) for row in range(len(group.rows))]
        for group, result in zip(groups, ranked, strict=True)
    ]


def _generated(question: Question, text: str, truncated: bool) -> Prediction:
    task = question.task
    value = None
    if task is not None and task.kind == "regression":
        value = metrics.parse_number(text)
    label = None
    if question.task is not None and question.example.candidates:
        number = metrics.match_label(text, question.example.candidates)
        names = _label_names(question.task, len(question.example.candidates))
        label = names[number] if number >= 0 else None
    return Prediction(label, text, value=value, truncated=truncated)


def _ranked(group: _Group, result: RankResult, row: int) -> Prediction:
    words, truncated = group.questions[row].words, bool(group.split.input_truncated[row])
    assert group.task is not None
    names = _label_names(group.task, len(words))
    scores, best = result.scores[row, : len(names)], int(result.prediction[row])
    nll = dict(zip(names, map(float, scores), strict=True))
    if best < 0:  # a row-wise method whose prompt is not finite
        return Prediction(None, "", math.nan, dict.fromkeys(names, math.nan), nll, None, truncated)
    shares = dict(zip(names, map(float, probabilities(scores[None])[0]), strict=True))
    tied = tuple(names[i] for i in result.ties.get(row, ()))
    return Prediction(
        names[best], words[best], shares[names[best]], shares, nll, None, truncated, tied
    )


def _label_names(task: Task, count: int) -> list[str]:
    """Names of the answers of a row: the task's labels, or letters."""
    return [*task.labels[:count], *LETTERS[len(task.labels) : count]]
