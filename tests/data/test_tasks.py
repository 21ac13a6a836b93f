import dataclasses

import pytest

from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource, format_fields
from prompt_jax.errors import DataError

from .conftest import NLI


def change(**changes):
    return dataclasses.replace(NLI, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>10}",
        "{}",
        "{0}",
        "{a b}",
        "{",
        "}",
        "{a",
        "a}",
        "{a.__class__.__mro__}",
        "{a:{b}}",
    ],
)
def test_format_fields_accepts_only_plain_fields(text):
    with pytest.raises(DataError):
        Template("t", text)


def test_format_fields_are_unique_and_in_order():
    assert format_fields("{b} {a} {b} {{not}} é") == ("b", "a")


def test_instruction_is_the_text_without_fields():
    template = Template("t", "Premise: {premise}\n\nDoes it follow that {hypothesis}? {{x}}")
    assert template.instruction == "Premise: Does it follow that ? {x}"
    assert Template("t", "{only}").instruction == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Template("", "{a}"), "needs a name"),
        (lambda: Template("cycle", "{a}"), "needs a name"),
        (lambda: Template("t", "  "), "empty"),
        (lambda: Template("t", "{a}", target="yes"), "answer"),
        (lambda: Template("t", "{a}", target="{answer} {a}"), "answer"),
        (lambda: Template("t", "{a}", labels=("x", "x")), "labels"),
        (lambda: Template("t", "{a}", choice_answers="number"), "letter"),
        (lambda: change(name="../etc"), "name"),
        (lambda: change(name="a//b"), "name"),
        (lambda: change(local="a/b"), "folder"),
        (lambda: change(local=".."), "folder"),
        (lambda: change(kind="clasification"), "Did you mean 'classification'"),
        (lambda: change(split_protocol="mine"), "split_protocol"),
        (lambda: change(fields=("premise", "hypothesys")), "Did you mean 'hypothesys'"),
        (lambda: change(fields=("premise", "premise")), "each once"),
        (lambda: change(fields=()), "fields"),
        (lambda: change(templates=()), "at least one template"),
        (lambda: change(templates=(NLI.templates[0],) * 2), "differ"),
        (lambda: change(labels=("a", "a")), "labels"),
        (
            lambda: change(labels=("Bug", "bug")),
            "'Bug' and 'bug' differ only in case, white space or the spelling of accents",
        ),
        (
            lambda: change(labels=("a b", "a  b ")),
            "differ only in case, white space or the spelling of accents",
        ),
        (
            lambda: Template("t", "{a}", labels=("Yes", "yes ")),
            "differ only in case, white space or the spelling of accents",
        ),
        (lambda: change(labels=("a",)), "two labels"),
        (lambda: change(labels=("a", " ")), "non-empty"),
        (lambda: change(labels=("a", "b", "c")), "2 labels, but the task has 3"),
        (lambda: change(metrics=()), "metric"),
        (lambda: change(max_input=1), "at least 2"),
        (lambda: change(group_fields=("question",)), "unknown field 'question'"),
        (lambda: change(optional_fields=("question",)), "unknown field 'question'"),
        (lambda: change(kind="span"), "has no labels"),
        (
            lambda: Task("t", "regression", ("a",), (Template("t", "{a}"),), value_step=0.0),
            "value_step",
        ),
        (
            lambda: Task("t", "regression", ("a",), (Template("t", "{a}"),), value_range=(5, 0)),
            "value_range",
        ),
        (lambda: Task("t", "choice", ("q",), (Template("t", "{q}"),)), "unknown field 'choices'"),
        (
            lambda: Task(
                "t",
                "choice",
                ("q", "choices"),
                (Template("t", "{q}", labels=("a",)),),
                labels=("a",),
            ),
            "only a classification",
        ),
        (lambda: TfdsSource("../glue"), "plain name"),
        (lambda: TfdsSource("glue/rte", splits=(("train", "../x"),)), "plain name"),
        (lambda: HubSource("a/b", config="../c"), "plain name"),
        (lambda: HubSource("/abs"), "plain name"),
    ],
)
def test_invalid_tasks_raise(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_task_folder_and_template_lookup():
    assert NLI.folder == "toy_nli"
    assert change(local="mine").folder == "mine"
    assert NLI.template().name == "plain"
    assert NLI.template("question").name == "question"
    assert NLI.words(NLI.templates[0]) == NLI.labels
    assert NLI.words(NLI.templates[1]) == ("yes", "no")
    assert NLI.answer_field == "label"
    assert change(kind="span", labels=(), templates=NLI.templates[:1]).answer_field == "answers"
    with pytest.raises(DataError, match="Did you mean 'question'"):
        NLI.template("questions")


def test_tasks_are_hashable():
    assert len({NLI, change(), change(name="other")}) == 2
