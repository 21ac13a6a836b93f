"""Answers in digits: the task's name before the input, numbers as targets, nothing to rank."""

import dataclasses

import pytest

from prompt_jax.data import Task, Template, definition, digits, registry, render
from prompt_jax.errors import DataError

from .conftest import NLI


def rendered(name, row, template=None):
    task = registry.get(name)
    return render.render(task, task.template(template), row)


def test_a_classification_has_the_numbers_of_its_labels():
    row = {"premise": "A", "hypothesis": "B", "label": "neutral"}
    example = rendered("super_glue/cb+digits", row)
    assert example.input == "superglue-cb premise: A hypothesis: B"
    assert (example.target, example.label, example.candidates) == ("2", 2, ("0", "1", "2"))
    assert example.generated
    assert not rendered("super_glue/cb", row).generated
    # Every template is kept, and no name stands there twice.
    task = registry.get("superglue_cb+digits")
    assert [t.name for t in task.templates] == [t.name for t in registry.get(task.name).templates]
    assert rendered("glue/mnli+digits", row, "t5").input == "mnli hypothesis: B premise: A"
    assert digits.with_digits(task) is task


def test_digits_follow_the_plain_cue():
    plain = digits.with_digits(registry.get("mr").continued).template()
    assert (plain.cue, plain.labels, plain.cue_labels) == ("Answer", ("0", "1"), ())
    assert digits.with_digits(registry.get("mr")).continued.template().labels == ("0", "1")


def test_a_target_pattern_is_left_out():
    task = digits.with_digits(dataclasses.replace(NLI, name="own"))
    row = {"premise": "p", "hypothesis": "h", "label": 1}
    assert render.render(task, task.template("question"), row).target == "1"


def test_a_model_that_continues_its_input_answers_in_digits_too():
    words = dataclasses.replace(NLI.templates[0], cue_labels=("Yes", "No"))
    task = digits.with_digits(dataclasses.replace(NLI, templates=(words,)))
    assert task.continued.words(task.continued.template("plain")) == ("0", "1")


def test_a_choice_is_answered_by_its_number():
    row = {"sentence": "He and _", "option1": "Ann", "option2": "Bob", "label": "option2"}
    example = rendered("winogrande+digits", row)
    assert example.input == "winogrande sentence: He and _ choices: 0: Ann 1: Bob"
    assert (example.target, example.candidates) == ("1", ("0", "1"))
    # Where the texts were answered, the input has to list them now.
    assert rendered("winogrande+digits", row, "text").input.endswith("The _ is 0: Ann 1: Bob")
    assert rendered("winogrande", row).target == "B"


def test_other_kinds_have_the_name_alone():
    pair = {"sentence1": "A", "sentence2": "B", "label": 2.57}
    example = rendered("glue/stsb+digits", pair)
    assert example.input == "stsb sentence1: A sentence2: B"
    assert (example.target, example.candidates, example.generated) == ("2.6", (), False)
    span = {"question": "Q", "context": "C", "answers": ["A"]}
    assert rendered("mrqa/search_qa+digits", span).input.startswith("searchqa ")


def test_the_definition_in_a_record_is_that_of_the_digits():
    task = registry.get("glue/rte+digits")
    again = definition.from_json(definition.to_json(task), "a record")
    assert again.generated
    assert again.templates == task.templates
    assert "generated" not in definition.to_json(registry.get("glue/rte"))


def test_a_choice_that_is_always_the_first_is_refused():
    with pytest.raises(DataError, match=r"'blimp' cannot be answered in digits"):
        registry.get("blimp+digits")


def test_answered():
    assert digits.answered(NLI, "words") is NLI
    assert digits.answered(NLI, "digits").generated
    plain = Task("t", "text", ("x",), (Template("a", "{x}"),))
    assert not digits.answered(plain, "digits").generated
