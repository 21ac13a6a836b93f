"""Rows of test sets: hidden answers, and what is no hidden answer."""

from __future__ import annotations

import dataclasses

import pytest

from prompt_jax.data import registry
from prompt_jax.data.unlabelled import is_hidden, render_to_answer
from prompt_jax.errors import DataError


@pytest.mark.parametrize(
    ("name", "hidden", "known"),
    [
        (
            "glue/rte",
            [-1, -1.0, None, float("nan"), "", " ", "-1", "-1.0", "-", "?", "nan", "None", []],
            [0, 1.0, "0", "entailment", "maybe", 7],
        ),
        ("glue/stsb", [-1, -1.0, "-1", None, ""], [0, 2.5, "5", -2]),
        ("squad", [[], None, "", [""], {"text": [], "answer_start": []}], ["-", ["none"], "-1"]),
        ("super_glue/copa", [-1, None, ""], [0, "A"]),
    ],
)
def test_hidden_answers(name: str, hidden: list[object], known: list[object]) -> None:
    task = registry.get(name)
    assert [value for value in hidden if not is_hidden(task, value)] == []
    assert [value for value in known if is_hidden(task, value)] == []


def test_what_hides_elsewhere_may_be_an_answer_here() -> None:
    signs = dataclasses.replace(
        registry.get("glue/rte"), labels=("-1", "-"), templates=registry.get("glue/rte").templates
    )
    for value in (-1, -1.0, "-1", " -1 "):  # as `values.match_label` reads it in every format
        assert not is_hidden(signs, value)
    assert not is_hidden(signs, "-")
    change = dataclasses.replace(registry.get("glue/stsb"), value_range=(-5.0, 5.0))
    assert not is_hidden(change, -1)
    assert not is_hidden(change, "-1.0")
    assert is_hidden(change, "")


def test_the_answer_is_never_in_a_row_without_one() -> None:
    task = registry.get("glue/rte")
    row = {"sentence1": "a", "sentence2": "b"}
    examples = [
        render_to_answer(task, task.templates[0], {**row, **more})
        for more in ({}, {"label": -1}, {"label": None}, {"label": 1}, {"label": "entailment"})
    ]
    assert len({example.input for example, _ in examples}) == 1
    assert [known for _, known in examples] == [False, False, False, True, True]
    assert [example.label for example, _ in examples] == [-1, -1, -1, 1, 0]
    for example, _ in examples[:3]:
        assert (example.target, example.references) == ("", ())
        assert example.candidates == examples[3][0].candidates


@pytest.mark.parametrize("value", [True, "entailed", 2, -2, 0.5])
def test_a_wrong_label_is_not_a_hidden_one(value: object) -> None:
    task = registry.get("glue/rte")
    row = {"sentence1": "a", "sentence2": "b", "label": value}
    if value is True:
        return  # the reader of rows decides what a boolean means
    with pytest.raises(DataError, match="a row has label"):
        render_to_answer(task, task.templates[0], row)


def test_messages_list_what_was_given() -> None:
    task = registry.get("glue/rte")
    with pytest.raises(DataError) as error:
        render_to_answer(task, task.templates[0], {"sentence1": "a"}, "line 1")
    assert str(error.value) == (
        "line 1 has no field 'sentence2' (task 'glue/rte'); it has sentence1."
    )


def test_every_kind_can_be_answered_without_an_answer() -> None:
    for name in ("glue/rte", "glue/stsb", "squad", "super_glue/copa", "super_glue/multirc"):
        task = registry.get(name)
        row: dict[str, object] = dict.fromkeys(task.fields, "text")
        for field in task.choices if task.kind == "choice" else ():
            row[field] = ["a", "b"] if len(task.choices) == 1 else field
        example, known = render_to_answer(task, task.templates[0], row)
        assert not known
        assert "text" in example.input


def test_a_fixed_label_is_known() -> None:
    task = registry.get("blimp")
    row = {"sentence_good": "a", "sentence_bad": "b"}
    example, known = render_to_answer(task, task.templates[0], row)
    assert known
    assert example.label == 0


def test_columns_of_other_names() -> None:
    task = dataclasses.replace(
        registry.get("glue/rte"),
        columns=(("sentence1", "premise"), ("sentence2", "claim"), ("label", "gold")),
    )
    row = {"premise": "a", "claim": "b", "gold": "entailment"}
    example, known = render_to_answer(task, task.templates[0], row)
    assert known
    assert example.label == 0
    hidden, known = render_to_answer(task, task.templates[0], {**row, "gold": ""})
    assert not known
    assert hidden.input == example.input
