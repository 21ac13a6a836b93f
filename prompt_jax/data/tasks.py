"""Tasks and templates: the meaning of the rows of a data set, and discrete prompts for them.

Everything here is a frozen, hashable description; nothing reads a file. `sources` opens the rows,
and `render` turns a row into an `Example`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from prompt_jax.data.values import comparable
from prompt_jax.errors import DataError, did_you_mean

Kind = Literal["classification", "choice", "span", "regression", "text"]
ChoiceAnswers = Literal["letter", "text", "digit"]
SplitProtocol = Literal["official", "own", "evaluation"]

KINDS: tuple[str, ...] = get_args(Kind)
TEMPLATE_MODES = ("first", "all", "cycle", "rest", "most")
LETTERS = string.ascii_uppercase
CUE = "Answer"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*(/[A-Za-z0-9][A-Za-z0-9_.\-]*)*")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def format_fields(text: str, where: str = "template") -> tuple[str, ...]:
    """Returns the names of the fields of a format string, in order, each once.

    Only plain `{field}` is allowed (and `{{` for a brace): no attribute, index, conversion or
    format specification, so a task file cannot reach into Python objects.

    Raises:
      DataError: for anything but a plain field.

    >>> format_fields("premise: {premise} hypothesis: {hypothesis}")
    ('premise', 'hypothesis')
    """
    names: dict[str, None] = {}
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise DataError(f"{where}: {text!r} has unbalanced braces ({error}).") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise DataError(
                f"{where}: only plain fields like {{premise}} are allowed, not "
                f"'{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}'"
                " (write {{ for a brace)."
            )
        names[name] = None
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Template:
    """A hand-written prompt.

    Attributes:
      name: unique within its task.
      text: format string of the input over the row's fields; in a task of kind "choice",
        `{choices}` stands for 'A: ... B: ...', or '0: ... 1: ...' where digits are answered.
      target: format string of the target; its only field is `{answer}` (the label word, letter,
        choice text, number or first reference).
      labels: label words of this template, in the order of the task's labels; empty: the task's.
      choice_answers: whether the answer of a "choice" task is the letter or the text of the choice,
        or its number, counted from 0.
      discrete_prompt: the part of the prompt that all rows share, if the rows contain it already
        and `text` does not (P3); it is not rendered.
      cue: what the answer is called: a model that continues its input reads it, on a line of its
        own and with a colon, before the answer.
      cue_labels: label words of such models; empty: `labels`.
    """

    name: str
    text: str
    target: str = "{answer}"
    labels: tuple[str, ...] = ()
    choice_answers: ChoiceAnswers = "letter"
    discrete_prompt: str = ""
    cue: str = CUE
    cue_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"template '{self.name}'"
        if not self.name or self.name in TEMPLATE_MODES:
            raise DataError(
                f"a template needs a name other than {', '.join(TEMPLATE_MODES)}, not "
                f"'{self.name}' (its text is {self.text!r})."
            )
        if not self.text.strip():
            raise DataError(f"{where}: its text is empty.")
        format_fields(self.text, where)
        if format_fields(self.target, where) != ("answer",):
            raise DataError(
                f"{where}: target {self.target!r} must contain the field {{answer}} and no other."
            )
        if self.choice_answers not in get_args(ChoiceAnswers):
            raise DataError(f"{where}: choice_answers is 'letter', 'text' or 'digit'.")
        if not self.cue.strip() or self.cue != self.cue.strip() or "\n" in self.cue:
            raise DataError(f"{where}: its cue {self.cue!r} must be words on one line.")
        _check_labels(self.labels, where)
        _check_labels(self.cue_labels, where)

    @property
    def continued(self) -> Template:
        """The template for a model that continues its input: its label words follow the cue."""
        return dataclasses.replace(self, labels=self.cue_labels or self.labels, cue_labels=())

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in `text`, in order of first appearance."""
        return format_fields(self.text, f"template '{self.name}'")

    @property
    def instruction(self) -> str:
        """The part that all rows share: `discrete_prompt` if given, else the text without fields.

        >>> Template("t", "Premise: {premise} Does it follow that {hypothesis}?").instruction
        'Premise: Does it follow that ?'
        """
        text = self.discrete_prompt
        if not text:
            parts = string.Formatter().parse(self.text)
            text = "".join(words + ("" if name is None else " ") for words, name, _, _ in parts)
        return " ".join(text.split())


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """Location of a task in TensorFlow Datasets.

    Attributes:
      builder: builder name with configuration, like "glue/rte".
      fields: (task field, TFDS field) pairs, only for fields whose names differ.
      splits: (task split, TFDS split) pairs.
      label_map: label i of TFDS is label `label_map[i]` of the task; None drops the row, and so
        does a label outside the map (SNLI's -1, no gold label). Empty: labels are the same.
    """

    builder: str
    fields: tuple[tuple[str, str], ...] = ()
    splits: tuple[tuple[str, str], ...] = (("train", "train"), ("validation", "validation"))
    label_map: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        _check_names(f"TFDS source '{self.builder}'", self.builder, *dict(self.splits).values())


@dataclasses.dataclass(frozen=True)
class HubSource:
    """Location of a task on the Hugging Face Hub, as parquet files (no remote code is run).

    Attributes:
      path: repository of the data set, like "nyu-mll/glue".
      config: configuration (subset) in it, or None.
      fields: (task field, Hub field) pairs, only for fields whose names differ.
      splits: (task split, Hub split) pairs.
      label_map: as in `TfdsSource`.
      revision: commit or branch, for provenance.
    """

    path: str
    config: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    splits: tuple[tuple[str, str], ...] = (("train", "train"), ("validation", "validation"))
    label_map: tuple[int | None, ...] = ()
    revision: str | None = None

    def __post_init__(self) -> None:
        names = (self.path, self.config or "default", *dict(self.splits).values())
        _check_names(f"Hub source '{self.path}'", *names)


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set with its labels, templates and metrics.

    The answer in a row depends on `kind`:

    | kind | the row's answer |
    |-|-|
    | classification | `label`: one of `labels`, or its index (see `values.match_label`) |
    | choice | `label`: index of the right choice, its letter, or one of `labels` if given |
    | regression | `label`: a number within `value_range` |
    | span, text | `answers`: list of acceptable texts (or one text); the first is trained on |
    | choice with `answers` | the text of the right choice, under the key named by `answers` |

    Attributes:
      name: like "glue/rte".
      kind: see above.
      fields: the row's input fields; all are texts, except a list of choices.
      templates: at least one; the first is the default.
      labels: label words of a classification, in the order of the label numbers; for a "choice"
        task, optional names that the rows use instead of numbers.
      metrics: names of metrics of `prompt_jax.evaluation`; the first is the primary one.
      local: folder of the task under `data.root`; None: the name with "/" as "_".
      tfds: location in TensorFlow Datasets.
      hf: location on the Hugging Face Hub.
      split_protocol: "official" splits, "own" (split by the author of the files) or "evaluation"
        (no training rows).
      sizes: known (split, rows) pairs, for plans without the data.
      licence: licence of the data, as stated by its publisher.
      description: one sentence.
      max_input: input tokens kept, with the end of sequence.
      domain: free word for grouping ("nli", "sentiment", ...).
      reserved: True for targets that no pre-training mixture may contain.
      max_target: target tokens kept, with the end of sequence.
      choices: of a "choice" task: the field with the list of choices, or one field per choice.
      answers: of a "span" or "text" task: the row's key of the acceptable texts ("": `answers`);
        of a "choice" task: the key of the text of the right choice ("": the answer is in `label`).
      group_fields: fields whose values define which rows are scored together (MultiRC's question).
      fixed_label: answer of rows without a label (minimal pairs: the good one comes first).
      optional_fields: fields that may be empty in a row (three rows of QQP lack a question);
        any other empty field is an error.
      files: (split, absolute path) pairs of a user's task (set by `data.toml`); if given, no other
        source of the data is tried.
      make_rows: returns the rows of a split, for tasks whose data is generated (the sandbox).
      columns: (field or key of the answer, column of the files) pairs, where their names differ.
      holdout: fraction of the rows of the train file that are test rows instead; 0: the test rows
        have a file of their own.
      holdout_seed: of that draw.
      value_range: smallest and largest label of a regression.
      value_step: a regression's label is rendered rounded to the nearest multiple of this (T5,
        Raffel et al. 2020, section 2.4: STS-B in steps of 0.2).
      generated: whether the answer of a classification or choice is generated and compared with the
        label's word or the choice, instead of ranked among them; other kinds always generate.
    """

    name: str
    kind: Kind
    fields: tuple[str, ...]
    templates: tuple[Template, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    local: str | None = None
    tfds: TfdsSource | None = None
    hf: HubSource | None = None
    split_protocol: SplitProtocol = "official"
    sizes: tuple[tuple[str, int], ...] = ()
    licence: str = ""
    description: str = ""
    max_input: int = 256
    domain: str = ""
    reserved: bool = False
    max_target: int = 32
    choices: tuple[str, ...] = ("choices",)
    answers: str = ""
    group_fields: tuple[str, ...] = ()
    fixed_label: int | None = None
    optional_fields: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    make_rows: Callable[[str], Sequence[Mapping[str, Any]]] | None = None
    columns: tuple[tuple[str, str], ...] = ()
    holdout: float = 0.0
    holdout_seed: int = 0
    value_range: tuple[float, float] = (0.0, 5.0)
    value_step: float = 0.2
    generated: bool = False

    def __repr__(self) -> str:
        return (
            f"Task({self.name!r}, {self.kind}, {len(self.labels)} labels, {len(self.templates)}"
            " templates)"
        )

    def __post_init__(self) -> None:
        where = f"task '{self.name}'"
        if not _NAME.fullmatch(self.name):
            raise DataError(f"{where}: a name consists of letters, digits, '_', '-', '.' and '/'.")
        if self.local is not None and not _FOLDER.fullmatch(self.local):
            raise DataError(f"{where}: local '{self.local}' must be one folder name.")
        _check_choice(self.kind, KINDS, where, "kind")
        _check_choice(self.split_protocol, get_args(SplitProtocol), where, "split_protocol")
        if not self.fields or len(set(self.fields)) != len(self.fields):
            raise DataError(f"{where}: fields must be names, each once, not {self.fields}.")
        if not self.metrics:
            raise DataError(f"{where}: name at least one metric.")
        if self.max_input < 2 or self.max_target < 2:
            raise DataError(f"{where}: max_input and max_target must be at least 2.")
        _check_labels(self.labels, where)
        if self.kind == "classification" and len(self.labels) < 2:
            raise DataError(f"{where}: a classification needs at least two labels.")
        if self.kind not in ("classification", "choice") and self.labels:
            raise DataError(f"{where}: a task of kind '{self.kind}' has no labels.")
        if self.kind == "regression" and not (
            self.value_range[0] < self.value_range[1] and self.value_step > 0
        ):
            raise DataError(f"{where}: value_range must increase and value_step must be positive.")
        used = self.group_fields + self.optional_fields
        used += self.choices if self.kind == "choice" else ()
        for name in used:
            _check_choice(name, self.fields, where, "field")
        names = (*self.fields, self.answer_field, *self.group_fields)
        for name, other in self.columns:
            _check_choice(name, names, where, "field")
            if other in names or [c for _, c in self.columns].count(other) > 1:
                raise DataError(
                    f"{where}: column '{other}' cannot be read as '{name}': it is the name of"
                    " another field, or read twice. Rename one of them."
                )
        if not 0 <= self.holdout < 1 or self.holdout_seed < 0:
            raise DataError(
                f"{where}: holdout is a fraction like 0.2, and holdout_seed is not negative; not"
                f" {self.holdout:g} and {self.holdout_seed}."
            )
        self._check_templates(where)

    def _check_templates(self, where: str) -> None:
        if not self.templates:
            raise DataError(f"{where}: write at least one template.")
        names = [template.name for template in self.templates]
        if len(set(names)) != len(names):
            raise DataError(f"{where}: template names must differ, not {names}.")
        known = self.fields + (("choices",) if self.kind == "choice" else ())
        for template in self.templates:
            inside = f"{where}, template '{template.name}'"
            for field in template.fields:
                _check_choice(field, known, inside, "field")
            for words in filter(None, (template.labels, template.cue_labels)):
                if len(words) != len(self.labels):
                    raise DataError(
                        f"{inside}: {len(words)} labels, but the task has "
                        f"{len(self.labels)} ({', '.join(self.labels)})."
                    )
                if self.kind != "classification":
                    raise DataError(f"{inside}: only a classification has label words.")

    @property
    def folder(self) -> str:
        """Name of the task's folder under `data.root`."""
        return self.local or self.name.replace("/", "_")

    @property
    def answer_field(self) -> str:
        """The row's key of the answer."""
        return self.answers or ("answers" if self.kind in ("span", "text") else "label")

    def renamed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row of a file under the task's names for its columns; other rows as they are."""
        own = {name: row[other] for name, other in self.columns if other in row}
        if not own:
            return row
        columns = {other for _, other in self.columns}
        return {**{name: row[name] for name in row if name not in columns}, **own}

    def template(self, name: str | None = None) -> Template:
        """Returns the template of that name (None: the first).

        Raises:
          DataError: for an unknown name.
        """
        if name is None:
            return self.templates[0]
        by_name = {template.name: template for template in self.templates}
        _check_choice(name, tuple(by_name), f"task '{self.name}'", "template")
        return by_name[name]

    @functools.cached_property
    def continued(self) -> Task:
        """The task for a model that continues its input; see `Template.continued`."""
        templates = tuple(template.continued for template in self.templates)
        return (
            self if templates == self.templates else dataclasses.replace(self, templates=templates)
        )

    def words(self, template: Template) -> tuple[str, ...]:
        """Label words of a classification under a template."""
        return template.labels or self.labels

    def named(self, answer: str, number: int) -> str:
        """A candidate answer with the label that it stands for, where that is another word.

        Args:
          answer: text of the candidate.
          number: of the candidate.

        >>> asked = Template("asked", "{text}", labels=("no", "yes"))
        >>> review = Task("review", "classification", ("text",), (asked,), ("bad", "good"))
        >>> review.named("yes", 1)
        'yes (good)'
        """
        labels = self.labels if self.kind == "classification" else ()
        label = labels[number] if 0 <= number < len(labels) else answer
        return answer if answer == label else f"{answer} ({label})"


def _check_names(where: str, *names: str) -> None:
    # These become parts of paths and must not leave their folder.
    for name in names:
        if not _NAME.fullmatch(name):
            raise DataError(f"{where}: '{name}' is not a plain name.")


def _check_choice(value: str, choices: Iterable[str], where: str, what: str) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise DataError(
            f"{where}: unknown {what} '{value}'.{did_you_mean(value, choices)}"
            f" Known: {', '.join(choices)}."
        )


def _check_labels(labels: tuple[str, ...], where: str) -> None:
    # Two labels with the same words tie at every row, and a row could mean either.
    first: dict[str, str] = {}
    for label in labels:
        word = comparable(label)
        if not word:
            raise DataError(f"{where}: labels must be different, non-empty words, not {labels}.")
        if word in first:
            same = (
                "is there twice"
                if first[word] == label
                else "differ only in case, white space or the spelling of accents"
            )
            pair = f"'{label}'" if first[word] == label else f"'{first[word]}' and '{label}'"
            raise DataError(f"{where}: labels must be different words, but {pair} {same}.")
        first[word] = label
