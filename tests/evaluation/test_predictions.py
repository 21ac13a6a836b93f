"""Text in, answer out: what is asked of the model, and what comes back; the model is simulated."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from prompt_jax import PromptRecord, SoftPrompt, TaskVector, predict
from prompt_jax.data import Task, Template, definition, digits, registry
from prompt_jax.errors import ConfigError, DataError, ModelError, PromptError
from prompt_jax.evaluation import evaluators, predictions, questions, sweep, ties
from prompt_jax.evaluation.evaluators import RankResult
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.questions import answer_limit, ask
from prompt_jax.prompts.record import TASK_DEFINITION as DEFINITION

from .test_evaluators import Letters

TOPIC = Task(
    "topic",
    "classification",
    ("text",),
    (Template("plain", "{text}"), Template("asked", "what is {text}", labels=("eat", "play"))),
    labels=("food", "sport"),
    max_input=16,
)
PAIR = Task(
    "pair",
    "classification",
    ("one", "two"),
    (Template("t", "{one} and {two}", target="it is {answer}"),),
    labels=("no", "yes"),
    group_fields=("one",),
)
QUIZ = Task("quiz", "choice", ("question", "choices"), (Template("t", "{question} {choices}"),))
PICK = Task(
    "pick",
    "choice",
    ("text", "a", "b"),
    (Template("t", "{text}", choice_answers="text"),),
    labels=("first", "second"),
    choices=("a", "b"),
)
SCORE = Task("score", "regression", ("text",), (Template("t", "{text}"),), max_target=4)
SPAN = Task("span", "span", ("text",), (Template("t", "who {text}"),), max_target=6)


class Letterbox(Letters):
    """Reads capitals and punctuation as well."""

    def encode(self, texts, add_eos=True):
        return super().encode([re.sub("[^a-z ]", "z", text.lower()) for text in texts], add_eos)


class Counting(Letterbox):
    """Reads digits as well."""

    def encode(self, texts, add_eos=True):
        return super().encode([text.translate({48: "a", 49: "b"}) for text in texts], add_eos)


LM = SimpleNamespace(tokenizer=Letterbox(), d_model=16, name="toy", weights_hash="ab12", pad_id=0)


def prompt(number=0, length=5, **record):
    values = np.full((length, 16), number, np.float32)
    return SoftPrompt(values, PromptRecord(**record) if record else None)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Every row that a model is asked: (input, prompt's number, candidates or length)."""
    seen = []

    def rows(jobs, state):
        for job in jobs:
            number = None if state is None else int(state[job.prompt][0, 0])
            for example, ids in zip(job.split.examples, job.split.inputs, strict=True):
                yield job, example, number, ids

    def rank(lm, jobs, state, **options):
        seen.extend((e.input, n, e.candidates) for _, e, n, _ in rows(jobs, state))
        # Longer words are less likely; prompt 9 prefers the last candidate by far, and
        # under prompt 8 ties are told.
        results = []
        for job in jobs:
            scores = [[float(len(c)) for c in e.candidates] for e in job.split.examples]
            if state is not None and state[job.prompt][0, 0] == 9:
                scores = [[*row[:-1], -100.0] for row in scores]
            table = np.array([row + [np.inf] * (3 - len(row)) for row in scores], np.float32)
            told = state is not None and state[job.prompt][0, 0] == 8
            results.append(RankResult(table, table.argmin(1), ties.of(table) if told else {}))
        return results

    def generate(lm, jobs, state, *, max_new_tokens, **options):
        seen.extend((e.input, n, max_new_tokens) for _, e, n, _ in rows(jobs, state))
        return [[e.input[-3:] for e in job.split.examples] for job in jobs]

    monkeypatch.setattr(evaluators, "rank", rank)
    monkeypatch.setattr(evaluators, "generate", generate)
    return seen


def test_a_classification_has_the_name_and_the_words(asked):
    (answer,) = predict(LM, ["a pie"], task=TOPIC, template="asked")
    assert (answer.label, answer.text) == ("food", "eat")
    share = 1 / (1 + np.exp(-1.0))  # words of 3 and 4 letters
    assert answer.score == pytest.approx(share)
    assert answer.scores == pytest.approx({"food": share, "sport": 1 - share})
    assert answer.nll == {"food": 3.0, "sport": 4.0}
    assert (answer.value, answer.truncated) == (None, False)
    assert asked == [("what is a pie", None, ("eat", "play"))]


def test_a_prompt_that_answers_in_digits_generates_them(asked):
    """Whether the task comes from its record or is named as it stands in the registry."""
    lm = SimpleNamespace(**vars(LM) | {"tokenizer": Counting()})
    task = digits.with_digits(dataclasses.replace(TOPIC, templates=TOPIC.templates[:1]))
    known = {"answers": "digits", DEFINITION: definition.to_json(task)}
    trained = prompt(task="topic", config=known)
    for options in ({}, {"task": TOPIC}):
        answers = predict(lm, ["a 1", "a pie"], trained, **options)
        assert [(a.label, a.text) for a in answers] == [(None, "a 1"), (None, "pie")]
    assert asked[0] == ("topic a 1", 0, 32)
    (answer,) = predict(lm, ["  1"], task=task)
    assert (answer.label, answer.text, answer.scores) == ("sport", "  1", {})


def test_a_prompt_ranks_as_in_its_training(monkeypatch):
    seen = []

    def rank(lm, jobs, state, **options):
        seen.extend(job.split.rank_by for job in jobs)
        scores = np.zeros((1, 2), np.float32)
        return [RankResult(scores, np.zeros(1, np.int64)) for _ in jobs]

    monkeypatch.setattr(evaluators, "rank", rank)
    known = {"rank_by": "sum", DEFINITION: definition.to_json(TOPIC)}
    trained = prompt(task="topic", config=known)
    predict(LM, ["a pie"], trained)
    predict(LM, {"one": "a", "two": "b"}, trained, task=PAIR)
    assert seen == ["sum", "mean"]


def test_one_text_is_a_batch_of_one_and_none_is_none():
    assert predict(LM, "a pie", task=TOPIC) == predict(LM, ["a pie"], task=TOPIC)
    assert predict(LM, {"one": "a", "two": "b"}, task=PAIR)[0].text == "it is no"
    assert predict(LM, [], task=TOPIC) == []


def test_answers_in_a_row_are_not_read(asked):
    for label in (0, "yes", None, -1, float("nan"), ["x"], "nonsense"):
        row = {"one": "a", "two": "b", "label": label}
        assert predict(LM, row, task=PAIR)[0].label == "no"
    with pytest.raises(DataError, match=r"row 0 has no field 'two' .*; it has one\."):
        predict(LM, {"one": "a"}, task=PAIR)
    assert predict(LM, {"text": "a b", "answers": []}, task=SPAN)[0].text == "a b"


def test_choices_are_letters_or_names_with_their_texts():
    row = {"question": "which", "choices": ["a lamp", "a pie", "a bed"]}
    (answer,) = predict(LM, row, prompt(9), task=QUIZ)
    assert (answer.label, answer.text, list(answer.scores)) == ("C", "a bed", ["A", "B", "C"])
    (answer,) = predict(LM, {"text": "which", "a": "a lamp", "b": "a pie"}, task=PICK)
    assert (answer.label, answer.text) == ("second", "a pie")
    (same,) = predict(LM, {"text": "which", "a": "pie", "b": "pie"}, prompt(9), task=PICK)
    assert (same.label, list(same.scores)) == ("second", ["first", "second"])


def test_rows_of_fewer_choices_than_others_have_no_others(asked):
    rows = [{"question": "q", "choices": list("abc")}, {"question": "q", "choices": list("ab")}]
    long, short = predict(LM, rows, task=QUIZ)
    assert (len(long.scores), len(short.scores)) == (3, 2)
    assert sum(short.scores.values()) == pytest.approx(1)


def test_generated_answers_have_a_text_and_numbers_a_value(asked):
    numbers = predict(LM, ["it is 3.8", "it is few"], task=SCORE)
    assert [answer.text for answer in numbers] == ["3.8", "few"]
    assert numbers[0].value == 3.8
    assert np.isnan(numbers[1].value)
    assert numbers[0].label is numbers[0].score is None
    (span,) = predict(LM, ["gave it"], task=SPAN, max_new_tokens=9)
    assert (span.text, span.value, span.scores) == (" it", None, {})
    assert [length for _, _, length in asked] == [4, 4, 9]


def test_the_task_comes_from_the_prompt_s_record(asked):
    recorded = prompt(3, task="topic", config={DEFINITION: definition.to_json(TOPIC)})
    assert predict(LM, ["a pie"], recorded)[0].label == "food"
    assert asked == [("a pie", 3, ("food", "sport"))]
    registered = prompt(3, task="sandbox/topic")
    topic = registry.get("sandbox/topic")
    words = topic.words(topic.template())
    (answer,) = predict(LM, ["a pie"], registered)
    assert answer.text == min(words, key=len)
    assert answer.label == topic.labels[words.index(answer.text)]
    assert asked[-1] == ("a pie", 3, words)


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"template": "asked"}, "what is a pie"),
        ({"templates": "rest"}, "what is a pie"),
        ({"templates": "most"}, "a pie"),
        ({"templates": "cycle"}, "a pie"),
    ],
)
def test_the_template_is_that_of_the_training(asked, config, seen):
    config = {DEFINITION: definition.to_json(TOPIC), **config}
    predict(LM, ["a pie"], prompt(task="topic", config=config))
    predict(LM, ["a pie"], prompt(task="topic", config=config), template="plain")
    predict(LM, ["a pie"], prompt(task="topic", config=config), task=SPAN)
    assert [text for text, _, _ in asked] == [seen, "a pie", "who a pie"]


def test_a_task_that_only_its_name_is_known_of_is_asked_for():
    with pytest.raises(DataError, match=r"task 'tickets'.*pass task=NAME or task='FILE.toml'"):
        predict(LM, ["a"], prompt(task="tickets"))
    assert predict(LM, ["a"], prompt(task="tickets"), task=TOPIC)[0].label == "food"


def test_without_a_task_the_text_is_the_input(asked):
    assert predict(LM, ["one day"], prompt(2))[0] == Prediction(None, "day")
    assert predict(LM, {"input": "one day"})[0].text == "day"
    assert asked == [("one day", 2, 32), ("one day", None, 32)]
    with pytest.raises(DataError, match="row 0 has the fields one, two, but no task"):
        predict(LM, {"one": "a", "two": "b"})


def test_a_prompt_per_row_and_prompts_by_task(asked):
    one, other, long = prompt(1), prompt(2), prompt(3, length=7)
    predict(LM, list("abcd"), [one, long, other, one], task=TOPIC)
    assert sorted((text, n) for text, n, _ in asked) == [("a", 1), ("b", 3), ("c", 2), ("d", 1)]
    asked.clear()
    predict(LM, list("ab"), np.stack([one.embeddings, other.embeddings]), task=TOPIC)
    assert sorted((text, n) for text, n, _ in asked) == [("a", 1), ("b", 2)]
    asked.clear()
    rows = ["a", {"one": "b", "two": "c"}]
    answers = predict(LM, rows, {"pair": one, "topic": other}, task=[TOPIC, PAIR])
    assert [answer.label for answer in answers] == ["food", "no"]
    assert sorted((text, n) for text, n, _ in asked) == [("a", 2), ("b and c", 1)]


def test_the_order_of_rows_is_kept(asked):
    tasks = [TOPIC, SPAN, SCORE, TOPIC, SPAN]
    answers = predict(LM, ["aaa", "bbb", "ccc", "ddd", "eee"], task=tasks)
    assert [answer.text for answer in answers] == ["food", "bbb", "ccc", "food", "eee"]


def test_long_inputs_are_truncated_with_a_warning():
    texts = ["abcdefghijklmnop", "abc"]
    with pytest.warns(UserWarning, match="1 of 2 inputs were too long"):
        answers = predict(LM, texts, task=TOPIC)
    assert [answer.truncated for answer in answers] == [True, False]
    trained = prompt(task="topic", config={"max_input_tokens": 20})
    assert not predict(LM, texts, trained, task=TOPIC)[0].truncated
    assert not predict(LM, texts, task=TOPIC, max_input_tokens=20)[0].truncated


def test_every_kind_of_table_is_rows():
    rows = [{"one": "a", "two": "b"}] * 2
    polars = SimpleNamespace(columns=["one", "two"], to_dicts=lambda: rows, to_dict=dict)
    arrow = SimpleNamespace(column_names=["one", "two"], columns=[1], to_pylist=lambda: rows)
    for table in (polars, arrow):
        assert len(predict(LM, table, task=PAIR)) == 2


def test_a_data_frame_is_rows():
    frame = SimpleNamespace(
        columns=["one", "two"], to_dict=lambda kind: [{"one": "a", "two": "b"}] * 2
    )
    assert len(predict(LM, frame, task=PAIR)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": [3], "task": TOPIC}, DataError, "row 0 is int: give a text, or a mapping"),
        ({"texts": 3, "task": TOPIC}, DataError, "not int"),
        ({"texts": b"abc", "task": TOPIC}, DataError, "not bytes"),
        ({"texts": ["a", float("nan")], "task": TOPIC}, DataError, "row 1 is float"),
        ({"texts": ["a"], "task": PAIR}, DataError, "row 0 is a text, .* fields one, two"),
        ({"texts": [" "]}, DataError, "row 0 is empty"),
        ({"texts": ["a"], "task": "topik"}, DataError, "unknown task 'topik'"),
        ({"texts": ["a"], "task": 3}, ConfigError, "a name, a TOML file or a Task, not int"),
        ({"texts": ["a"], "task": [3]}, ConfigError, "a name, a TOML file or a Task, not int"),
        ({"texts": ["a"], "task": [TOPIC] * 2}, ConfigError, "2 tasks were given for 1 rows"),
        ({"texts": ["a"], "prompt": {"topic": "p"}, "task": TOPIC}, PromptError, "not its path"),
        ({"texts": ["a"], "prompt": TaskVector(np.ones((2, 4)))}, PromptError, "a task vector is"),
        ({"texts": ["a"], "prompt": [prompt()] * 2}, ConfigError, "2 prompts were .* for 1 rows"),
        ({"texts": ["a"], "prompt": {"topic": prompt()}}, ConfigError, "need the task of every"),
        (
            {"texts": ["a"], "prompt": {"topik": prompt()}, "task": TOPIC},
            ConfigError,
            "row 0 is of task 'topic', for which there is no prompt. Did you mean 'topik'",
        ),
        ({"texts": ["a"], "prompt": np.zeros(16)}, PromptError, r"not \[16\]"),
        ({"texts": ["a"], "prompt": "p.safetensors"}, PromptError, "SoftPrompt.load"),
        ({"texts": ["a"], "prompt": np.zeros((5, 8), np.float32)}, PromptError, "width 8"),
        ({"texts": ["a"], "prompt": np.zeros((5, 16), int)}, PromptError, "floating-point"),
        ({"texts": ["a"], "prompt": prompt(np.nan)}, PromptError, "NaN or infinity"),
        ({"texts": ["a"], "prompt": prompt(model_hash="cd34")}, PromptError, "made for base model"),
        ({"texts": ["a"], "task": TOPIC, "template": "x"}, DataError, "unknown template 'x'"),
        ({"texts": ["a"], "max_new_tokens": 0}, ConfigError, "max_new_tokens must be at least 1"),
    ],
)
def test_what_is_refused(asked, arguments, error, message):
    with pytest.raises(error, match=message):
        predict(LM, **arguments)
    assert asked == []


def test_a_prompt_of_another_model_can_be_allowed():
    foreign = prompt(model_hash="cd34")
    assert predict(LM, ["a"], foreign, task=TOPIC, allow_other_model=True)[0].label == "food"


def test_a_repr_is_one_short_line():
    scores = {f"label{i}": i / 10 for i in range(77)}
    text = repr(Prediction("label3", "three", 0.3, scores, scores, truncated=True))
    assert text == (
        "Prediction(label='label3', text='three', score=0.300, scores={'label76': 7.600, 'label75':"
        " 7.500, 'label74': 7.400, 'label73': 7.300, ...}, truncated=True)"
    )
    assert (
        repr(Prediction(None, "3.8", value=3.8)) == "Prediction(label=None, text='3.8', value=3.8)"
    )


@pytest.mark.parametrize("name", registry.names())
def test_every_task_survives_its_record(name):
    """All that renders a row or reads its answer comes back; where its data lies does not."""
    task = registry.get(name)
    data = {"make_rows": None, "tfds": None, "hf": None, "sizes": (), "local": None, "files": ()}
    other = {"split_protocol": "own", "domain": "", "reserved": False, "fixed_label": None}
    again = definition.from_json(definition.to_json(task), "a record")
    assert again == dataclasses.replace(task, **data, **other)


def test_a_damaged_definition_is_an_error_of_the_record():
    broken = prompt(task="topic", config={DEFINITION: {"name": "topic"}})
    with pytest.raises(DataError, match=r"record of the prompt of task 'topic'.*'kind' is missing"):
        predict(LM, ["a"], broken)


def test_a_model_without_a_tokenizer_says_so():
    class Mute:
        d_model, name = 16, "mute"

        @property
        def tokenizer(self):
            raise ModelError("The model 'mute' has no tokenizer")

    with pytest.raises(ModelError, match="no tokenizer"):
        predict(Mute(), ["a"], task=TOPIC)


def test_choices_are_ranked_whole_but_on_the_task_that_truncated_them_in_training():
    row = {"text": "a", "a": "x" * 40 + "a", "b": "x" * 40 + "b"}
    lengths = {}
    for name in (None, "pick", "topic"):
        own = None if name is None else prompt(task=name, config={"max_target_tokens": 8})
        questions, _ = ask(LM, [row], own, PICK, None, True)
        (group,) = predictions._groups(LM, questions, [0], predictions.Limits())
        lengths[name] = group.split.answers.lengths.tolist()[:2]
    assert lengths == {None: [42, 42], "topic": [42, 42], "pick": [8, 8]}
    assert answer_limit(None, SPAN) == 6
    assert answer_limit(PromptRecord(config={"max_target_tokens": 4}), SPAN) == 6


def test_prompts_of_equal_length_share_batches():
    prompts = [prompt(0, 3), prompt(1, 2), prompt(2, 3)]
    groups = questions.populations(LM, prompts)
    assert [(group.numbers, group.state.shape[1:]) for group in groups] == [
        ([0, 2], (3, 16)),
        ([1], (2, 16)),
    ]
    np.testing.assert_array_equal(groups[0].state[1], np.full((3, 16), 2))


def test_ties_and_truncated_candidates_are_reported():
    tied = dataclasses.replace(TOPIC, labels=("abcd", "efgh"), templates=TOPIC.templates[:1])
    with pytest.warns(UserWarning, match=r"^1 of 1 rows have several answers with the best score"):
        (answer,) = predict(LM, ["a pie"], prompt(8), task=tied)
    assert (answer.label, answer.tied) == ("abcd", ("abcd", "efgh"))
    assert "tied=('abcd', 'efgh')" in repr(answer)
    with pytest.warns(UserWarning, match=r"^the answers of 1 of 1 rows were too long and were"):
        predict(LM, ["a pie"], task=TOPIC, max_target_tokens=5)
    with pytest.raises(ConfigError, match="max_target_tokens must be at least 1, not 0"):
        predict(LM, ["a pie"], task=TOPIC, max_target_tokens=0)


def test_rows_under_the_columns_of_the_task(asked):
    task = dataclasses.replace(TOPIC, columns=(("text", "body"),))
    predict(LM, [{"body": "a pie", "label": "food"}], task=task)
    assert asked[0][0] == "a pie"


def test_evaluators_take_prompts_in_lists_and_stacks():
    one, other = prompt(1), prompt(2)
    both = np.stack([one, other])
    for given in ([one, other], (one, other), SoftPrompt(both), both, list(both)):
        np.testing.assert_array_equal(sweep._stacked(given), both)
    np.testing.assert_array_equal(sweep._stacked(one), both[:1])
    with pytest.raises(PromptError, match=r"the prompts: item 1 of the list has shape \[7, 16\]"):
        sweep._stacked([one, prompt(1, length=7)])
