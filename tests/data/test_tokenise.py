import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.data import Example, Task, Template, concat, encode, render_rows, tokenise_rows
from prompt_jax.errors import DataError

from .conftest import NLI, WordTokenizer, make_split, nli_rows

QUIZ = Task(
    "quiz",
    "choice",
    ("question", "choices"),
    (Template("t", "{question}", choice_answers="text"),),
)


def words(*texts):
    return WordTokenizer().encode(texts)


def test_tokenise_rows_encodes_the_rendered_texts():
    split = make_split(5)
    assert len(split) == 5
    for i, example in enumerate(split.examples):
        assert split.inputs[i].tolist() == words(example.input)[0]
        assert split.targets[i].tolist() == words(example.target)[0]
        answers = [split.answers[j].tolist() for j in split.candidates[i]]
        assert answers == words(*example.candidates)
        assert answers[split.label[i]] == split.targets[i].tolist()
    assert split.label.tolist() == [0, 1, 0, 1, 0]
    assert split.task.tolist() == split.template.tolist() == [0] * 5
    assert (split.name, split.task_names) == ("toy/nli", ("toy/nli",))
    assert split.template_names == ("toy/nli/plain", "toy/nli/question")
    for array in (split.label, split.task, split.template):
        assert array.dtype == np.int32
    assert len(split.answers) == 2  # the whole task's answers, once


def test_truncation_keeps_the_end_of_sequence_and_counts_inputs():
    rows = [*nli_rows(3), {"premise": "long " * 30, "hypothesis": "h", "label": 0}]
    split = tokenise_rows(NLI, rows, WordTokenizer(), max_input=9, max_target=2)
    assert split.inputs.lengths.tolist() == [8, 8, 8, 9]
    assert split.inputs[3][-1] == 1
    assert split.inputs[3][:-1].tolist() == words("premise: " + "long " * 7)[0][:-1]
    assert (split.truncated_inputs, split.truncated_targets) == (1, 0)
    assert split.take([0, 3, 3]).truncated_inputs == 2
    assert split.take([0]).truncated_inputs == 0


def test_truncation_leaves_rows_of_the_maximum_length():
    assert make_split(1, max_input=8).truncated_inputs == 0
    assert make_split(1, max_input=7).truncated_inputs == 1


def test_truncation_counts_targets_and_applies_to_candidates():
    task = dataclasses.replace(NLI, labels=("yes it does", "no"), templates=NLI.templates[:1])
    split = tokenise_rows(task, nli_rows(4), WordTokenizer(), max_target=3)
    assert split.truncated_targets == 2
    assert split.targets[0].tolist() == [*words("yes it")[0][:-1], 1]
    assert split.answers[split.candidates[1][0]].tolist() == split.targets[0].tolist()


def test_label_words_with_equal_tokens_raise():
    task = dataclasses.replace(NLI, labels=("yes it is", "yes it may"), templates=NLI.templates[:1])
    with pytest.raises(
        DataError, match=r"'yes it is' and 'yes it may' have the same token ids .at most 3"
    ):
        tokenise_rows(task, nli_rows(4), WordTokenizer(), max_target=3)
    assert tokenise_rows(task, nli_rows(4), WordTokenizer(), max_target=4).notes == ()


def test_rows_with_ambiguous_choices_add_a_note():
    rows = [{"question": "q", "choices": [f"a {i}", f"b {i}"], "label": 0} for i in range(3)]
    rows.append({"question": "q", "choices": ["same words", "same  words"], "label": 0})
    rows.append({"question": "q", "choices": ["same", "same"], "label": 0})
    split = tokenise_rows(QUIZ, rows, WordTokenizer())
    assert split.notes == ("quiz: 1 sets of choices have two with the same tokens",)


@pytest.mark.parametrize("option", ["max_input", "max_target"])
def test_lengths_below_two_raise(option):
    with pytest.raises(DataError, match="at least 2 tokens"):
        make_split(1, **{option: 1})


def test_encode_without_rows():
    split = make_split(0)
    assert len(split) == len(split.inputs) == len(split.take([])) == 0
    assert split.candidate_matrix([]).shape == (0, 0, 0)


def test_template_modes():
    rows = nli_rows(40)
    assert {e.template for e in render_rows(NLI, rows, "first")} == {"plain"}
    assert {e.template for e in render_rows(NLI, rows, "question")} == {"question"}
    both = render_rows(NLI, rows, "all")
    assert [e.template for e in both[:4]] == ["plain", "question"] * 2
    assert len(both) == 80
    one, two = (render_rows(NLI, rows, "cycle", seed) for seed in (0, 1))
    assert len(one) == 40
    assert {e.template for e in one} == {"plain", "question"}
    assert [e.template for e in one] != [e.template for e in two]
    assert one == render_rows(NLI, rows, "cycle", 0)
    assert {e.template for e in render_rows(NLI, rows, "rest")} == {"question"}
    assert {e.template for e in render_rows(NLI, rows, "most")} == {"plain"}
    single = dataclasses.replace(NLI, templates=NLI.templates[:1])
    for mode in ("rest", "most"):
        with pytest.raises(DataError, match="has one template"):
            render_rows(single, rows, mode)
    with pytest.raises(DataError, match="Did you mean 'plain'"):
        render_rows(NLI, rows, "plein")
    split = make_split(10, templates="all")
    assert split.template.tolist() == [0, 1] * 10
    assert len(split.answers) == 4


def test_render_rows_error_names_the_row():
    rows = [*nli_rows(2), {"premise": "x", "hypothesis": "y", "label": "maybe"}]
    with pytest.raises(DataError, match=r"^row 3 has label 'maybe'"):
        tokenise_rows(NLI, rows, WordTokenizer())


def test_candidate_matrix():
    rows = [
        {"question": "q", "choices": ["a", "b c", "d"], "label": 0},
        {"question": "q", "choices": ["d", "a"], "label": 1},
    ]
    split = tokenise_rows(QUIZ, rows, WordTokenizer())
    a, bc, d = words("a", "b c", "d")
    assert split.candidate_matrix([0, 1]).tolist() == [
        [[*a, -100], bc, [*d, -100]],
        [[*d, -100], [*a, -100], [-100] * 3],
    ]
    assert split.candidate_matrix([1]).tolist() == [[d, a]]
    wide = split.candidate_matrix([1], choices=4, width=5)
    assert wide.shape == (1, 4, 5)
    assert wide.dtype == np.int32
    assert (wide[0, 2:] == -100).all()
    with pytest.raises(ValueError, match="does not fit"):
        split.candidate_matrix([0], choices=2)
    with pytest.raises(ValueError, match="does not fit"):
        split.candidate_matrix([0], width=2)


def test_candidate_matrix_without_candidates():
    task = Task("span", "span", ("q",), (Template("t", "{q}"),))
    split = tokenise_rows(task, [{"q": "who", "answers": ["Ada"]}], WordTokenizer())
    assert split.candidate_matrix([0]).shape == (1, 0, 0)
    assert split.label.tolist() == [-1]
    assert split.candidate_matrix([0], choices=2, width=3).tolist() == [[[-100] * 3] * 2]


def check_equal(split, i, other, j):
    assert split.inputs[i].tolist() == other.inputs[j].tolist()
    assert split.targets[i].tolist() == other.targets[j].tolist()
    assert split.examples[i] == other.examples[j]
    assert split.label[i] == other.label[j]
    assert split.input_truncated[i] == other.input_truncated[j]
    assert split.task_names[split.task[i]] == other.task_names[other.task[j]]
    assert split.template_names[split.template[i]] == other.template_names[other.template[j]]
    assert split.candidate_matrix([i]).tolist() == other.candidate_matrix([j]).tolist()


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    names=st.lists(st.sampled_from(["a", "b"]), min_size=4, max_size=4),
    draw=st.data(),
)
def test_concat_and_take(sizes, names, draw):
    parts = [
        make_split(n, name, templates="cycle", seed=n, max_input=7)
        for n, name in zip(sizes, names, strict=False)
    ]
    joined = concat(parts)
    where = [(part, i) for part in parts for i in range(len(part))]
    assert len(joined) == len(where)
    assert joined.task_names == tuple(dict.fromkeys(names[: len(sizes)]))
    for j, (part, i) in enumerate(where):
        check_equal(part, i, joined, j)
    if where:
        picked = draw.draw(st.lists(st.integers(0, len(where) - 1), max_size=6))
        taken = joined.take(picked)
        assert len(taken) == len(picked)
        for j, i in enumerate(picked):
            check_equal(joined, i, taken, j)


def test_concat_renumbers_tasks_and_sets_the_name():
    joined = concat([make_split(2, "a"), make_split(1, "b"), make_split(1, "a")])
    assert joined.task.tolist() == [0, 0, 1, 0]
    assert joined.template_names == ("a/plain", "a/question", "b/plain", "b/question")
    assert joined.template.tolist() == [0, 0, 2, 0]
    assert joined.name == "a+b+a"
    assert concat([make_split(1)], name="mix").name == "mix"
    with pytest.raises(ValueError, match="at least one"):
        concat([])


def test_parts_of_different_lengths_raise():
    split = make_split(3)
    with pytest.raises(ValueError, match="different lengths"):
        dataclasses.replace(split, label=split.label[:2])


def test_encode_examples_without_a_task():
    examples = [Example("in a", "out", template="x"), Example("in b", "other", template="y")]
    split = encode(examples, WordTokenizer(), 8, 8, name="mine")
    assert split.targets[1].tolist() == words("other")[0]
    assert split.template.tolist() == [0, 1]
    assert split.template_names == ("/x", "/y")


def test_cache_returns_equal_rows_without_tokenising(tmp_path):
    plain = make_split(6, max_input=7)
    tokenizer = WordTokenizer()
    for expected in (8, 0):
        tokenizer.texts = 0
        split = tokenise_rows(NLI, nli_rows(6), tokenizer, cache_dir=tmp_path, max_input=7)
        assert tokenizer.texts == expected  # 6 inputs and 2 answers
        for i in range(6):
            check_equal(split, i, plain, i)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("toy_nli-")


def test_damaged_cache_is_recomputed_with_a_warning(tmp_path, caplog):
    first = make_split(6, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert not caplog.records
    again = make_split(6, cache_dir=tmp_path)
    assert file.name in caplog.records[0].getMessage()
    check_equal(first, 5, again, 5)
    make_split(6, cache_dir=tmp_path)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "change", [{"max_input": 7}, {"max_target": 9}, {"templates": "question"}, {"rows": 5}]
)
def test_cache_file_depends_on_every_input(tmp_path, change):
    make_split(6, cache_dir=tmp_path)
    make_split(change.pop("rows", 6), cache_dir=tmp_path, **change)
    tokenise_rows(NLI, nli_rows(6), WordTokenizer("other"), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_long_task_name_is_no_long_file_name(tmp_path):
    task = dataclasses.replace(NLI, name="n" * 300)
    tokenise_rows(task, nli_rows(2), WordTokenizer(), cache_dir=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    assert len(path.name) < 160


def test_a_split_is_shown_in_one_line():
    rows = [*nli_rows(400), {"premise": "long " * 30, "hypothesis": "h", "label": 0}]
    split = tokenise_rows(NLI, rows, WordTokenizer(), max_input=9, max_target=2)
    assert repr(split) == (
        "TokenisedSplit('toy/nli', 401 rows, 2 different answers, 1 inputs and 0 targets truncated)"
    )
    assert repr(split.inputs).startswith("Ragged(values=int32[")
    assert repr(split.inputs).endswith("], offsets=int64[402])")
