import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.data import registry
from prompt_jax.data.render import Example, format_value, label_of, render
from prompt_jax.data.tasks import Task, Template
from prompt_jax.errors import DataError

from .conftest import NLI

ROW = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0}
LETTER = Template("letter", "{question} {choices}")
TEXT = Template("text", "{question}", choice_answers="text", target="answer: {answer}")
QUIZ = Task("quiz", "choice", ("question", "choices"), (LETTER, TEXT))
QUIZ_ROW = {"question": "Which?", "choices": ["red", "blue", "green"], "label": 1}
PAIR = Task(
    "pair",
    "choice",
    ("sentence", "option1", "option2"),
    (Template("t", "{sentence} {option1} or {option2}", choice_answers="text"),),
    labels=("option1", "option2"),
    choices=("option1", "option2"),
)
SPAN = Task("span", "span", ("question",), (Template("t", "{question}"),))
SCORE = Task("score", "regression", ("a",), (Template("t", "{a}"),))


class NAType:
    """Like the missing value of pandas, which is neither equal nor unequal to anything."""

    def __ne__(self, other):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


def test_render_classification():
    assert render(NLI, NLI.templates[0], ROW) == Example(
        input="premise: It rains. hypothesis: It is wet.",
        target="entailment",
        label=0,
        candidates=("entailment", "not_entailment"),
        references=("entailment",),
        template="plain",
    )


def test_render_with_template_label_words_and_target():
    example = render(NLI, NLI.templates[1], {**ROW, "label": 1})
    assert example.input == "It rains. So It is wet. ?"
    assert (example.target, example.label) == ("It is no", 1)
    assert example.candidates == ("It is yes", "It is no")


@pytest.mark.parametrize(
    "label",
    [1, "not_entailment", "1", "1.0", 1.0, np.int64(1), np.float32(1), " Not_Entailment\n", " 1 "],
)
def test_label_of_numbers_and_names(label):
    assert label_of(NLI, {"label": label}) == 1


@pytest.mark.parametrize(
    "label",
    [
        *(
            "entails",
            2,
            -1,
            "2",
            "-1",
            0.5,
            float("nan"),
            float("inf"),
            None,
            [1],
            "B",
            "",
            10**400,
        ),
        *(
            True,
            False,
            np.bool_(True),
            "True",
            "false",
            {"label": 1},
            b"1",
            "1_0",
            "0x1",
            "nan",
            " ",
        ),
    ],
)
def test_unknown_label_raises_with_the_row(label):
    with pytest.raises(DataError, match=r"^row 812 of train\.jsonl has label") as caught:
        render(NLI, NLI.templates[0], {**ROW, "label": label}, "row 812 of train.jsonl")
    assert "which is not one of entailment, not_entailment (task 'toy/nli')" in str(caught.value)


@pytest.mark.parametrize("labels", [("True", "False"), ("yes", "no"), ("TRUE", "maybe", "FALSE")])
@pytest.mark.parametrize("spelling", [bool, np.bool_, str, lambda value: str(value).upper()])
def test_booleans_are_matched_in_every_spelling(labels, spelling):
    task = dataclasses.replace(NLI, labels=labels, templates=NLI.templates[:1])
    # The order of the labels does not matter: true is never label number 1 because it equals 1.
    assert label_of(task, {"label": spelling(True)}) == 0
    assert label_of(task, {"label": spelling(False)}) == len(labels) - 1


def test_error_about_a_boolean_says_what_labels_it_could_be():
    with pytest.raises(DataError, match="Name the labels true and false, or yes and no"):
        label_of(NLI, {"label": True})


@pytest.mark.parametrize(
    ("labels", "value", "number"),
    [
        (("1", "2", "3"), 1, 0),
        (("1", "2", "3"), 3.0, 2),
        (("1", "2", "3"), "3.0", 2),
        (("1", "2", "3"), " 2", 1),
        (("1", "0"), "1", 0),
        (("1", "0"), 1, 0),
        (("-1", "1"), -1, 0),
        (("-1", "1"), np.int8(1), 1),
        (("0.5", "1.5"), 1.5, 1),
        (("007", "008"), 8, 1),
    ],
)
def test_labels_that_are_numbers_are_matched_by_value(labels, value, number):
    task = dataclasses.replace(NLI, labels=labels, templates=NLI.templates[:1])
    assert label_of(task, {"label": value}) == number


def test_a_number_that_two_labels_spell_is_refused():
    task = dataclasses.replace(NLI, labels=("1", "1.0"), templates=NLI.templates[:1])
    assert [label_of(task, {"label": word}) for word in ("1", "1.0")] == [0, 1]
    with pytest.raises(DataError, match="not one of"):
        label_of(task, {"label": 1})


@pytest.mark.parametrize("value", [0, "0", 4, "4.0", True, "two", 1.5])
def test_labels_that_are_numbers_have_no_indices(value):
    task = dataclasses.replace(NLI, labels=("1", "2", "3"), templates=NLI.templates[:1])
    with pytest.raises(DataError, match="which is not one of 1, 2, 3"):
        label_of(task, {"label": value})


def test_template_words_that_are_numbers_do_not_change_what_rows_mean():
    task = registry.get("sst5")
    assert ("1", "2", "3", "4", "5") in [template.labels for template in task.templates]
    for value in (1, 1.0, "1", "negative"):
        assert label_of(task, {"label": value}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"premise": None}, "field 'premise' must be a text"),
        ({"premise": ["x"]}, "field 'premise' must be a text"),
        ({"premise": True}, "field 'premise' must be a text, but is True"),
        ({"premise": np.bool_(True)}, "field 'premise' must be a text"),
        ({"premise": float("nan")}, "field 'premise' must be a text, but is missing"),
        ({"premise": np.float32("nan")}, "field 'premise' must be a text, but is missing"),
        ({"premise": float("inf")}, "field 'premise' must be a text, but is inf"),
        ({"premise": np.datetime64("NaT", "s")}, "field 'premise' must be a text, but is missing"),
        ({"premise": NAType()}, "field 'premise' must be a text, but is missing"),
        ({"hypothesis": None}, "field 'hypothesis' must be a text, but is missing"),
        ({"premise": ""}, "field 'premise' is empty"),
        ({"premise": " \t\n"}, "field 'premise' is empty"),
        ({"premise": "a \ud83d b"}, "surrogate"),
    ],
)
def test_bad_field_raises_with_the_row(change, message):
    with pytest.raises(DataError, match=f"^row 3: .*{message}"):
        render(NLI, NLI.templates[0], {**ROW, **change}, "row 3")


@pytest.mark.parametrize("field", ["premise", "hypothesis", "label"])
def test_missing_field_raises(field):
    row = {name: value for name, value in ROW.items() if name != field}
    with pytest.raises(DataError, match=f"^row 3 has no field '{field}' .*it has "):
        render(NLI, NLI.templates[0], row, "row 3")


@pytest.mark.parametrize("name", ["train.csv", "train.tsv.gz"])
def test_a_table_without_a_header_is_explained(name):
    with pytest.raises(DataError, match="first line of a CSV or TSV file names its columns"):
        render(NLI, NLI.templates[0], {"It rains.;wet": "x"}, f"row 1 of {name}")
    with pytest.raises(DataError, match=r"it has x\.$"):
        render(NLI, NLI.templates[0], {"x": "x"}, "row 1 of train.jsonl")


def test_optional_field_may_be_empty_but_not_missing():
    task = dataclasses.replace(NLI, optional_fields=("premise",))
    example = render(task, task.templates[0], {**ROW, "premise": ""})
    assert example.input == "premise:  hypothesis: It is wet."
    with pytest.raises(DataError, match="no field"):
        render(task, task.templates[0], {"hypothesis": "x", "label": 0})


@pytest.mark.parametrize("value", [None, float("nan"), np.float64("nan"), NAType(), "", " "])
def test_missing_values_of_an_optional_field_are_empty(value):
    task = dataclasses.replace(NLI, optional_fields=("premise",))
    assert render(task, task.templates[0], {**ROW, "premise": value}).input.split() == [
        "premise:", "hypothesis:", "It", "is", "wet.",
    ]  # fmt: skip
    for wrong in (float("inf"), True, ["x"]):
        with pytest.raises(DataError, match="must be a text"):
            render(task, task.templates[0], {**ROW, "premise": wrong})


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "NA", "inf", "NaT", "True"])
def test_words_that_look_like_missing_values_stay_words(word):
    assert render(NLI, NLI.templates[0], {**ROW, "premise": word}).input.startswith(
        f"premise: {word} "
    )
    assert render(SPAN, SPAN.templates[0], {"question": "q", "answers": word}).target == word
    task = dataclasses.replace(NLI, labels=("x", word), templates=NLI.templates[:1])
    assert label_of(task, {"label": word}) == 1


def test_numbers_in_fields_are_rendered():
    assert render(NLI, NLI.templates[0], {**ROW, "premise": 1984}).input.startswith("premise: 1984")


@given(st.text(min_size=1).filter(lambda s: s.strip() and s.isprintable()))
def test_braces_in_values_are_not_interpreted(text):
    for value in (text, "{" + text + "}", text + "{hypothesis}{0.__class__}"):
        example = render(NLI, NLI.templates[0], {**ROW, "premise": value})
        assert example.input == f"premise: {value} hypothesis: It is wet."


def test_choices_by_letter_and_by_text():
    by_letter = render(QUIZ, LETTER, QUIZ_ROW)
    assert by_letter.input == "Which? A: red B: blue C: green"
    assert (by_letter.target, by_letter.candidates) == ("B", ("A", "B", "C"))
    by_text = render(QUIZ, TEXT, QUIZ_ROW)
    assert by_text.candidates == ("answer: red", "answer: blue", "answer: green")
    assert by_text.target == "answer: blue" == by_text.candidates[by_text.label]
    assert render(QUIZ, LETTER, {**QUIZ_ROW, "label": "C"}).label == 2


def test_choices_from_several_fields():
    row = {"sentence": "_ is big.", "option1": "Ann", "option2": "Bo", "label": "option2"}
    example = render(PAIR, PAIR.templates[0], row)
    assert example.input == "_ is big. Ann or Bo"
    assert (example.candidates, example.label) == (("Ann", "Bo"), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, "label 3, which is not one of A, B, C"),
        ({"label": "D"}, "label 'D'"),
        ({"choices": ["one"]}, "1 choices"),
        ({"choices": [str(i) for i in range(27)]}, "27 choices"),
        ({"choices": "red"}, "list of texts"),
        ({"choices": ["a", ""]}, "list of texts"),
        ({"choices": ["a", 1]}, "list of texts"),
        ({"choices": ["a", None]}, "list of texts"),
        ({"choices": ["a", float("nan")]}, "list of texts"),
        ({"choices": None}, "list of texts"),
        ({"label": True}, "label True, which is not one of A, B, C"),
        ({"label": None}, "label None, which is not one of A, B, C"),
    ],
)
def test_bad_choices_raise(change, message):
    with pytest.raises(DataError, match=f"^row 9.*{message}"):
        render(QUIZ, LETTER, {**QUIZ_ROW, **change}, "row 9")


def test_fixed_label_of_rows_without_label():
    row = {name: value for name, value in QUIZ_ROW.items() if name != "label"}
    with pytest.raises(DataError, match="no field 'label'"):
        render(QUIZ, LETTER, row)
    assert render(dataclasses.replace(QUIZ, fixed_label=0), LETTER, row).target == "A"


def test_span_references_are_unique():
    row = {"question": "Who?", "answers": ["Ada", " ", "Ada", "Ada Lovelace"]}
    example = render(SPAN, SPAN.templates[0], row)
    assert (example.target, example.references) == ("Ada", ("Ada", "Ada Lovelace"))
    assert (example.label, example.candidates) == (-1, ())
    assert render(SPAN, SPAN.templates[0], {**row, "answers": "Bo"}).references == ("Bo",)


def test_the_text_of_the_right_choice_is_never_an_index():
    task = dataclasses.replace(QUIZ, answers="right")
    row = {"question": "How many?", "choices": ["1", "2", "3"]}
    for right in ("1", " 1", 1, np.int64(1)):
        assert label_of(task, {**row, "right": right}) == 0
    for wrong in (0, True, None, float("nan"), 1.5, "", ["1"], "A"):
        with pytest.raises(DataError, match="not exactly one of the choices '1', '2', '3'"):
            label_of(task, {**row, "right": wrong})


def test_a_missing_option_is_refused():
    row = {"sentence": "_ is big.", "option1": "Ann", "option2": float("nan"), "label": 0}
    with pytest.raises(DataError, match="field 'option2' must be a text, but is missing"):
        render(PAIR, PAIR.templates[0], row)


def test_a_question_without_an_answer_says_what_to_do():
    for answers in ([], None, float("nan")):
        with pytest.raises(DataError, match='such as "unanswerable"; or leave the row out'):
            render(SPAN, SPAN.templates[0], {"question": "Who?", "answers": answers})


@pytest.mark.parametrize(
    "answers", [[], [""], None, 3, ["a", 1], {"text": "a"}, ["a", None], [float("nan")], True]
)
def test_span_without_answer_raises(answers):
    with pytest.raises(DataError, match=r"^row 1: 'answers'"):
        render(SPAN, SPAN.templates[0], {"question": "Who?", "answers": answers}, "row 1")


def test_regression_rounds_as_t5_does():
    # Every label STS-B uses (halves, thirds, quarters, fifths of 0 .. 5), against
    # Raffel et al.'s own formula "%.1f" % (np.round(label * 5) / 5).
    for value in np.unique([i / d for d in (1, 2, 3, 4, 5, 10) for i in range(5 * d + 1)]):
        assert format_value(SCORE, float(value)) == f"{np.round(value * 5) / 5:.1f}"
    fine = dataclasses.replace(SCORE, value_step=0.25)
    assert format_value(fine, 1.3) == "1.25"
    assert format_value(dataclasses.replace(SCORE, value_step=1.0), 2.7) == "3"
    assert format_value(dataclasses.replace(SCORE, value_range=(-1.0, 1.0)), -0.05) == "0.0"


def test_regression_keeps_the_exact_label():
    example = render(SCORE, SCORE.templates[0], {"a": "x", "label": "2.57"})
    assert (example.target, example.references, example.label) == ("2.6", ("2.57",), -1)
    wrongs = ("high", 5.1, -0.1, None, float("nan"), "nan", True, np.bool_(True), "1_0", "", [1.0])
    for wrong in wrongs:
        with pytest.raises(DataError, match=r"^row 2 has label .*number from 0 to 5"):
            render(SCORE, SCORE.templates[0], {"a": "x", "label": wrong}, "row 2")


def test_group_depends_on_its_fields():
    task = dataclasses.replace(NLI, group_fields=("premise",))
    groups = [
        render(task, task.templates[0], {**ROW, "premise": premise, "hypothesis": hypothesis}).group
        for premise, hypothesis in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    assert groups[0] == groups[1] != groups[2]
    assert render(NLI, NLI.templates[0], ROW).group == ""


def test_ids_of_groups_are_equal_in_every_format_and_never_missing():
    task = dataclasses.replace(NLI, fields=(*NLI.fields, "q"), group_fields=("q",))
    groups = {render(task, task.templates[0], {**ROW, "q": q}).group for q in (7, 7.0, "7")}
    assert len(groups) == 1
    assert render(task, task.templates[0], {**ROW, "q": 8}).group not in groups
    for missing in (None, float("nan"), "", " "):
        with pytest.raises(DataError, match="group field 'q' is missing or empty"):
            render(task, task.templates[0], {**ROW, "q": missing})


def test_rows_to_predict_need_no_answer():
    unlabelled = {"premise": "a", "hypothesis": "b"}
    example = render(NLI, NLI.templates[0], unlabelled, answered=False)
    assert (example.input, example.label) == ("premise: a hypothesis: b", -1)
    assert example.candidates == ("entailment", "not_entailment")
    # An answer that is there is not read.
    labelled = {**unlabelled, "label": "?"}
    assert render(NLI, NLI.templates[0], labelled, answered=False) == example
    for task, row in ((SPAN, {"question": "q"}), (SCORE, {"a": "x"})):
        example = render(task, task.templates[0], row, answered=False)
        assert (example.input, example.target, example.references) == (
            *row.values(),
            "",
            (),
        )
