"""Answers in digits, as the models of ATTEMPT, MPT and their followers generate them.

Their rows are the task's name, then `field: value`, and the answer is the number of the label. What
is generated is compared with it; nothing is ranked.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Literal, get_args

from prompt_jax.data.tasks import CUE, Task, Template
from prompt_jax.errors import ConfigError, DataError, did_you_mean

Answers = Literal["words", "digits"]

SUFFIX = "+digits"
"""After the name of a task: the task with answers in digits."""

_PREFIXES = MappingProxyType(
    {
        "mrqa/natural_questions": "nq",
        "mrqa/hotpot_qa": "hotpotqa",
        "mrqa/search_qa": "searchqa",
        "mrqa/news_qa": "newsqa",
        "scitail_snli": "scitail",
    }
)


def prefix(task: Task) -> str:
    """The name that ATTEMPT's code has for a task, or the task's own.

    >>> from prompt_jax.data import registry
    >>> " ".join(prefix(registry.get(name)) for name in ("glue/sst2", "super_glue/cb"))
    'sst2 superglue-cb'
    """
    family, _, name = task.name.rpartition("/")
    families = {"glue": name, "super_glue": f"superglue-{name}"}
    return _PREFIXES.get(task.name) or families.get(family, task.name)


def with_digits(task: Task) -> Task:
    """The task with its name before every input, and with generated digits for label words.

    Only classifications and choices have digits; the answers of other tasks stay what they are.

    Raises:
      DataError: the right choice has the same number in every row.
    """
    if task.generated:
        return task
    if task.fixed_label is not None:
        raise DataError(
            f"task '{task.name}' cannot be answered in digits: its right choice is always the same"
            " one. Leave it out, or use data.answers=words."
        )
    numbered = task.kind in ("classification", "choice")
    templates = tuple(_digits(task, template) for template in task.templates)
    return dataclasses.replace(task, templates=templates, generated=numbered)


def check_answers(answers: str) -> None:
    """Refuses an unknown kind of answers.

    Raises:
      ConfigError: it is neither `words` nor `digits`.
    """
    if answers not in get_args(Answers):
        raise ConfigError(
            f"unknown answers '{answers}'.{did_you_mean(answers, get_args(Answers))}"
            f" Known: {', '.join(get_args(Answers))}."
        )


def answered(task: Task, answers: Answers) -> Task:
    """The task with its answers in words or digits."""
    return with_digits(task) if answers == "digits" else task


def _digits(task: Task, template: Template) -> Template:
    first = prefix(task) + " "
    text = template.text if template.text.startswith(first) else first + template.text
    if task.kind == "classification":
        labels = tuple(map(str, range(len(task.labels))))
        # A digit is no sentiment or category.
        return dataclasses.replace(
            template, text=text, target="{answer}", labels=labels, cue=CUE, cue_labels=()
        )
    if task.kind == "choice":
        # A number says nothing about choices that the input does not list.
        text += "" if "choices" in template.fields else " {choices}"
        return dataclasses.replace(template, text=text, target="{answer}", choice_answers="digit")
    return dataclasses.replace(template, text=text)
