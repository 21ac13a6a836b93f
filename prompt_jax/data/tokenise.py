"""Rendered rows as token ids, tokenised once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from prompt_jax.data import token_cache
from prompt_jax.data.ragged import Ragged
from prompt_jax.data.render import Example, render
from prompt_jax.data.sources import Source, row_name
from prompt_jax.data.tasks import CUE, Task, Template
from prompt_jax.errors import DataError
from prompt_jax.streams import rng

if TYPE_CHECKING:
    from prompt_jax.models.base import Tokenizer

RankBy = Literal["mean", "sum"]

# Words of the "order" stream for the template of each row; no feed has two words starting with 0.
_TEMPLATE_WORDS = (0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenisedSplit:
    """n tokenised rows, possibly of several tasks.

    Attributes:
      name: name of the split in reports.
      inputs: token ids of the inputs, each ending with the end of sequence or the model's cue.
      targets: token ids of the targets, each ending with the end of sequence.
      label: int32 [n], index of the right candidate; -1 without candidates.
      template: int32 [n], index into `template_names`.
      task: int32 [n], index into `task_names`.
      candidates: per row, indices into `answers`; no indices where there are no candidates.
      answers: token ids of every different candidate answer.
      input_truncated: bool [n], whether the input was truncated to the maximum length.
      target_truncated: bool [n], whether the target was.
      examples: the texts.
      template_names: "task/template".
      task_names: names of the tasks.
      notes: warnings for the report.
      answer_truncated: bool, whether each of `answers` was truncated; empty: none was.
      rank_by: whether candidates are ranked by the mean or by the sum of their tokens'
        log-likelihoods, where nothing else is asked.
    """

    name: str
    inputs: Ragged
    targets: Ragged
    label: np.ndarray
    template: np.ndarray
    task: np.ndarray
    candidates: Ragged
    answers: Ragged
    input_truncated: np.ndarray
    target_truncated: np.ndarray
    examples: tuple[Example, ...]
    template_names: tuple[str, ...]
    task_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    answer_truncated: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    rank_by: RankBy = "mean"

    def __post_init__(self) -> None:
        per_row = (self.inputs, self.targets, self.label, self.template, self.task, self.candidates)
        sizes = {
            len(part)
            for part in (*per_row, self.input_truncated, self.target_truncated, self.examples)
        }
        if len(sizes) != 1:
            raise ValueError(f"parts of split '{self.name}' have different lengths: {sizes}")

    def __len__(self) -> int:
        return len(self.label)

    def __repr__(self) -> str:
        return (
            f"TokenisedSplit({self.name!r}, {len(self):,} rows, {len(self.answers):,} different"
            f" answers, {self.truncated_inputs:,} inputs and {self.truncated_targets:,} targets"
            " truncated)"
        )

    @property
    def truncated_inputs(self) -> int:
        """Number of rows with a truncated input."""
        return int(self.input_truncated.sum())

    @property
    def truncated_targets(self) -> int:
        """Number of rows with a truncated target."""
        return int(self.target_truncated.sum())

    @property
    def truncated_answers(self) -> int:
        """Number of rows with a truncated target or candidate."""
        truncated = np.array(self.target_truncated)
        if self.answer_truncated.any():
            rows = np.repeat(np.arange(len(self)), self.candidates.lengths)
            truncated[rows[self.answer_truncated[self.candidates.values]]] = True
        return int(truncated.sum())

    def take(self, indices: Sequence[int] | np.ndarray) -> TokenisedSplit:
        """The given rows, in the given order (repeats allowed)."""
        rows = np.asarray(indices, np.int64)
        return dataclasses.replace(
            self,
            inputs=self.inputs.take(rows),
            targets=self.targets.take(rows),
            label=self.label[rows],
            template=self.template[rows],
            task=self.task[rows],
            candidates=self.candidates.take(rows),
            input_truncated=self.input_truncated[rows],
            target_truncated=self.target_truncated[rows],
            examples=tuple(self.examples[i] for i in rows),
        )

    def candidate_matrix(
        self,
        rows: Sequence[int] | np.ndarray,
        choices: int | None = None,
        width: int | None = None,
    ) -> np.ndarray:
        """Token ids of the rows' candidate answers.

        Args:
          rows: row numbers, int [b].
          choices: C; None: the most that one of these rows has.
          width: T; None: the longest answer of these rows.

        Returns:
          int32 [b, C, T], padded with -100; a candidate that a row does not have is all -100.

        Raises:
          ValueError: if something does not fit in `choices` or `width`.
        """
        table = self.candidates.padded(rows, choices, -1)  # [b, C]
        used, where = np.unique(table, return_inverse=True)
        real = used[used >= 0]
        ids = self.answers.padded(real, width, -100)
        missing = np.full((len(used) - len(real), ids.shape[1]), -100, np.int32)
        return np.concatenate([missing, ids])[where.reshape(table.shape)]


def concat(splits: Sequence[TokenisedSplit], name: str | None = None) -> TokenisedSplit:
    """Concatenates splits, in order.

    Tasks and templates of the same name are merged; others keep their order of appearance.

    Args:
      splits: at least one.
      name: of the result; None: the names joined with "+".
    """
    if not splits:
        raise ValueError("concat needs at least one split")
    tasks = _numbered(name for split in splits for name in split.task_names)
    templates = _numbered(name for split in splits for name in split.template_names)
    firsts = np.cumsum([0, *(len(split.answers) for split in splits)])
    return TokenisedSplit(
        name=name or "+".join(split.name for split in splits),
        inputs=Ragged.concat([split.inputs for split in splits]),
        targets=Ragged.concat([split.targets for split in splits]),
        label=np.concatenate([split.label for split in splits]),
        template=np.concatenate(
            [_renumber(split.template, split.template_names, templates) for split in splits]
        ),
        task=np.concatenate([_renumber(split.task, split.task_names, tasks) for split in splits]),
        candidates=Ragged.concat(
            [
                Ragged(split.candidates.values + np.int32(first), split.candidates.offsets)
                for split, first in zip(splits, firsts[:-1], strict=True)
            ]
        ),
        answers=Ragged.concat([split.answers for split in splits]),
        input_truncated=np.concatenate([split.input_truncated for split in splits]),
        target_truncated=np.concatenate([split.target_truncated for split in splits]),
        examples=tuple(example for split in splits for example in split.examples),
        template_names=tuple(templates),
        task_names=tuple(tasks),
        notes=tuple(note for split in splits for note in split.notes),
        answer_truncated=np.concatenate(
            [
                split.answer_truncated
                if len(split.answer_truncated)
                else np.zeros(len(split.answers), bool)
                for split in splits
            ]
        ),
        rank_by="sum" if all(split.rank_by == "sum" for split in splits) else "mean",
    )


def task_for(tokenizer: Tokenizer, task: Task) -> Task:
    """The task with the label words that the tokenizer's model answers with."""
    from prompt_jax.models.texts import continues

    return task.continued if continues(tokenizer) else task


def trained_templates(task: Task, mode: str) -> tuple[Template, ...]:
    """The templates that rows rendered with a mode (see `render_rows`) can be under.

    Raises:
      DataError: for an unknown name, or "rest" or "most" where the task has one template.
    """
    if mode in ("all", "cycle"):
        return task.templates
    if mode in ("rest", "most"):
        if len(task.templates) < 2:
            raise DataError(f"task '{task.name}' has one template: there is no rest to train on.")
        return task.templates[1:] if mode == "rest" else task.templates[:-1]
    return (task.template(None if mode == "first" else mode),)


def render_rows(
    task: Task, source: Source, templates: str = "first", seed: int = 0
) -> list[Example]:
    """Renders all rows of a source.

    Args:
      task: meaning of the rows.
      source: the rows.
      templates: "first"; "all" (every row under every template, rows outermost); "cycle" (every
        row under one, drawn by (seed, row)); "rest" (as "cycle", but never under the first, which
        is then unseen in training); "most" (never under the last); or the name of one.
      seed: for "cycle", "rest" and "most" (stream "order").

    Raises:
      DataError: for a row that does not match the task; the message names it.
    """
    templates_of_rows: list[tuple[Template, ...]]
    allowed = trained_templates(task, templates)
    if templates in ("cycle", "rest", "most"):
        draws = rng(seed, "order", *_TEMPLATE_WORDS).integers(len(allowed), size=len(source))
        templates_of_rows = [(allowed[draw],) for draw in draws]
    else:
        templates_of_rows = [allowed] * len(source)
    examples: list[Example] = []
    for i, row_templates in enumerate(templates_of_rows):
        row = source[i]
        where = row_name(source, i)
        examples.extend(render(task, template, row, where) for template in row_templates)
    return examples


def tokenise_rows(
    task: Task,
    source: Source,
    tokenizer: Tokenizer,
    *,
    templates: str = "first",
    seed: int = 0,
    max_input: int | None = None,
    max_target: int | None = None,
    cache_dir: str | Path | None = None,
    name: str | None = None,
) -> TokenisedSplit:
    """Renders and tokenises all rows of a source.

    The rows are always rendered, which checks them and costs little. The token ids are cached in
    `cache_dir` under a hash of every text, the tokenizer's vocabulary and the maximum lengths, so
    that a stale cache is never read.

    Args:
      task: meaning of the rows.
      source: the rows.
      tokenizer: gives inputs and answers as its model reads them, see `models.texts`.
      templates: see `render_rows`.
      seed: see `render_rows`.
      max_input: maximum input tokens; None: the task's. See `encode`.
      max_target: maximum target tokens; None: the task's.
      cache_dir: folder of cached token ids; None: no cache.
      name: of the split; None: the task's name.

    Raises:
      DataError: for a row that does not match the task, or a task with two label words that have
        the same token ids.
    """
    task = task_for(tokenizer, task)
    examples = render_rows(task, source, templates, seed)
    return encode(
        examples,
        tokenizer,
        task.max_input if max_input is None else max_input,
        task.max_target if max_target is None else max_target,
        name=name or task.name,
        task_name=task.name,
        template_names=tuple(template.name for template in task.templates),
        cache_dir=cache_dir,
        own_choices=task.kind == "choice",
    )


def encode(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    max_input: int,
    max_target: int,
    *,
    name: str = "",
    task_name: str = "",
    template_names: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    own_choices: bool = False,
) -> TokenisedSplit:
    """Tokenises rendered examples of one task.

    A text that is too long loses the tokens before its end of sequence, or before the cue of a
    model that continues its input (so a template should put its longest field last). Truncated
    rows are counted, and candidates are truncated like targets.

    Args:
      examples: the texts, n rows.
      tokenizer: gives inputs and answers as its model reads them, see `models.texts`.
      max_input: maximum input tokens, including the end of sequence or cue, and at least one more.
      max_target: maximum target tokens, likewise.
      name: of the split.
      task_name: of the task.
      template_names: all templates that examples may have; None: those that occur.
      cache_dir: folder of cached token ids; None: no cache.
      own_choices: whether every row has candidates of its own, also where there are few rows.

    Raises:
      DataError: if candidates that all rows share become the same token ids.
    """
    from prompt_jax.models import texts as model_texts

    examples = tuple(examples)
    cues = {example.cue for example in examples} or {CUE}
    tails = {cue: model_texts.input_tail(tokenizer, cue) for cue in cues}
    if max_input <= (tail := max(tails.values())) or max_target < 2:
        needed = "at least 2 tokens" if tail == 1 else f"more than {tail} input and 1 target tokens"
        raise DataError(f"rows need {needed}, not {max_input} and {max_target}.")
    if template_names is None:
        template_names = tuple(dict.fromkeys(example.template for example in examples))
    numbers = {template: i for i, template in enumerate(template_names)}
    # Every answer text once: candidates, and targets of rows without candidates.
    texts: dict[str, int] = {}
    rows: dict[tuple[str, ...], list[int]] = {}
    for example in examples:
        for text in (*example.candidates, example.target):
            texts.setdefault(text, len(texts))
        if example.candidates not in rows:
            rows[example.candidates] = [texts[text] for text in example.candidates]

    arrays = token_cache.cached(
        cache_dir,
        name=task_name or name or "examples",
        key=(tokenizer.fingerprint, max_input, max_target),
        texts=(
            [model_texts.input_text(tokenizer, example.input, example.cue) for example in examples],
            list(texts),
        ),
        make=lambda inputs, answers: {
            **_truncate(
                "inputs",
                model_texts.encode_inputs(tokenizer, inputs),
                max_input,
                [tails[example.cue] for example in examples],
            ),
            **_truncate(
                "answers",
                model_texts.encode_answers(tokenizer, answers),
                max_target,
                [1] * len(answers),
            ),
        },
    )
    inputs = Ragged(arrays["inputs_values"], arrays["inputs_offsets"])
    answers = Ragged(arrays["answers_values"], arrays["answers_offsets"])
    target = np.asarray([texts[example.target] for example in examples], np.int64)
    return TokenisedSplit(
        name=name,
        inputs=inputs,
        targets=answers.take(target),
        label=np.asarray([example.label for example in examples], np.int32),
        template=np.asarray([numbers[example.template] for example in examples], np.int32),
        task=np.zeros(len(examples), np.int32),
        candidates=Ragged.of([rows[example.candidates] for example in examples]),
        answers=answers,
        input_truncated=arrays["inputs_cut"],
        target_truncated=arrays["answers_cut"][target],
        examples=examples,
        template_names=tuple(f"{task_name}/{template}" for template in template_names),
        task_names=(task_name,),
        notes=_check_ambiguity(
            name, rows, answers, max_target, 0 if own_choices else len(template_names)
        ),
        answer_truncated=arrays["answers_cut"],
    )


def _truncate(
    prefix: str, rows: list[list[int]], width: int, tails: list[int]
) -> dict[str, np.ndarray]:
    truncated = np.asarray([len(row) > width for row in rows], bool)
    short = [
        [*row[: width - tail], *row[-tail:]] if len(row) > width else row
        for row, tail in zip(rows, tails, strict=True)
    ]
    ragged = Ragged.of(short)
    return {
        f"{prefix}_values": ragged.values,
        f"{prefix}_offsets": ragged.offsets,
        f"{prefix}_cut": truncated,
    }


def _check_ambiguity(
    name: str,
    rows: dict[tuple[str, ...], list[int]],
    answers: Ragged,
    max_target: int,
    templates: int,
) -> tuple[str, ...]:
    """Finds candidates that differ as texts but not as token ids."""
    pairs = []
    for texts, numbers in rows.items():
        seen: dict[bytes, str] = {}
        for text, number in zip(texts, numbers, strict=True):
            other = seen.setdefault(answers[number].tobytes(), text)
            if other != text:
                pairs.append((other, text))
                break
    # A classification has one list of candidates per template. Where rows have their own choices,
    # two choices with equal tokens affect only that row, not the task.
    if pairs and len(rows) <= templates:
        raise DataError(
            f"'{name}': the answers {pairs[0][0]!r} and {pairs[0][1]!r} have the same token ids "
            f"(at most {max_target} tokens). Raise the maximum target length or use other label "
            "words."
        )
    if pairs:
        return (f"{name}: {len(pairs)} sets of choices have two with the same tokens",)
    return ()


def _numbered(names: Iterable[str]) -> dict[str, int]:
    table: dict[str, int] = {}
    for name in names:
        table.setdefault(name, len(table))
    return table


def _renumber(ids: np.ndarray, names: tuple[str, ...], table: dict[str, int]) -> np.ndarray:
    return np.asarray([table[name] for name in names], np.int32)[ids]
