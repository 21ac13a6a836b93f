from __future__ import annotations

import datetime
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompt_jax.data import registry
from prompt_jax.data.render import render
from prompt_jax.data.sources import labels, open_split
from prompt_jax.data.tasks import KINDS, Task
from prompt_jax.data.toml import METRICS_OF_KIND, load_task, parse_task
from prompt_jax.errors import DataError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user_tasks.md"
GOOD = """
name = "mood"
kind = "classification"
fields = ["a", "b"]
labels = ["low", "high"]

[[templates]]
text = "a: {a} b: {b}"
"""


def written(folder: Path, text: str, name: str = "mood.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def with_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"a": "x", "b": "y", "label": 1}\n')


def test_minimal_file(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, GOOD))
    assert (task.name, task.kind, task.labels) == ("mood", "classification", ("low", "high"))
    assert task.metrics == ("accuracy",)
    assert task.template().name == "template1"
    assert task.files == ()
    assert task.split_protocol == "own"
    hash(task)


def test_every_key_reaches_the_task(tmp_path: Path) -> None:
    text = """
        name = "likeness"
        kind = "regression"
        fields = ["a", "b"]
        metrics = ["spearman", "pearson"]
        group_fields = ["a"]
        optional_fields = ["b"]
        value_range = [-1, 1.0]
        value_step = 0.5
        max_input = 64
        max_target = 8
        domain = "similarity"
        licence = "mine"
        description = "How alike."
        [[templates]]
        name = "t"
        text = "{a} {b}"
        target = "It is {answer}."
    """
    task = load_task(written(tmp_path, text))
    assert task.metrics == ("spearman", "pearson")
    assert (task.group_fields, task.optional_fields) == (("a",), ("b",))
    assert (task.value_range, task.value_step) == ((-1.0, 1.0), 0.5)
    assert (task.max_input, task.max_target) == (64, 8)
    assert (task.domain, task.licence, task.description) == ("similarity", "mine", "How alike.")
    example = render(task, task.template("t"), {"a": "x", "b": "", "label": 0.7})
    assert (example.input, example.target) == ("x ", "It is 0.5.")


def test_choice_task_with_one_field_per_choice(tmp_path: Path) -> None:
    text = """
        name = "pick"
        kind = "choice"
        fields = ["q", "left", "right"]
        choices = ["left", "right"]
        [[templates]]
        text = "{q} {choices}"
        choice_answers = "text"
    """
    task = load_task(written(tmp_path, text))
    example = render(
        task, task.template(), {"q": "Where?", "left": "here", "right": "there", "label": "B"}
    )
    assert (example.input, example.target) == ("Where? A: here B: there", "there")


def test_docs_example(tmp_path: Path) -> None:
    page = PAGE.read_text("utf-8")
    toml = re.search(r"```toml\n(.*?)```", page, re.S)
    data = re.search(r"```json\n(.*?)```", page, re.S)
    assert toml
    assert data
    (tmp_path / "tickets").mkdir()
    for name in ("train", "held_out"):
        (tmp_path / "tickets" / f"{name}.jsonl").write_text(data[1], "utf-8")
    task = load_task(written(tmp_path, toml[1], "tickets.toml"))
    rows = [json.loads(line) for line in data[1].splitlines()]
    for split in ("train", "validation"):
        source = open_split(task, split)
        assert [source[i] for i in range(len(source))] == rows
        for template, words in [("plain", ("bug", "wish")), ("team", ("developers", "product"))]:
            examples = [render(task, task.template(template), source[i]) for i in range(2)]
            assert tuple(example.target for example in examples) == words
            assert examples[0].input.endswith("error 500.")


def rendered(text: str, answer: str, **more: object) -> dict[str, object]:
    return {
        "inputs": [8, 2, 1],
        "inputs_pretokenized": f"{text}. Does it follow? Yes or no?",
        "targets": [465, 1],
        "targets_pretokenized": f"\n{answer}",
        **more,
    }


def p3_task(tmp_path: Path, rows: list[dict[str, object]], text: str) -> Task:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "rte").mkdir()
    for split in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rte" / f"{split}.parquet")
    return load_task(written(tmp_path, text, "p3.toml"))


def the_p3_example() -> str:
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.S)[1]


def test_p3_rows_are_ranked(tmp_path: Path) -> None:
    choices = {"answer_choices": ["Yes", "No"]}
    rows = [rendered("It rains {today}", "No", **choices), rendered("It is late", "Yes", **choices)]
    task = p3_task(tmp_path, rows, the_p3_example())
    assert task.template().instruction == "Does it follow that? Yes or no?"
    source = open_split(task, "train")
    examples = [render(task, task.template(), source[i]) for i in range(2)]
    assert [e.input for e in examples] == [row["inputs_pretokenized"] for row in rows]
    assert [e.candidates for e in examples] == [("Yes", "No")] * 2
    assert [e.label for e in examples] == labels(task, source).tolist() == [1, 0]
    with pytest.raises(DataError, match="'Maybe', which is not exactly one of the choices 'Yes'"):
        render(task, task.template(), {**source[0], "targets_pretokenized": "Maybe"})
    twice = {**source[0], "answer_choices": ["No", "No "]}
    with pytest.raises(DataError, match="not exactly one of the choices"):
        render(task, task.template(), twice)


def test_p3_rows_without_choices_are_generated(tmp_path: Path) -> None:
    text = the_p3_example()
    for key in ("choices", "choice_answers"):
        text = re.sub(rf"(?m)^{key} = .*\n", "", text)
    text = text.replace('"choice"', '"text"\nmetrics = ["squad_em"]')
    text = text.replace(', "answer_choices"', "")
    task = p3_task(tmp_path, [rendered("It rains {today}", "No")], text)
    assert (task.kind, task.answer_field) == ("text", "targets_pretokenized")
    example = render(task, task.template(), open_split(task, "train")[0])
    assert (example.target, example.candidates) == ("\nNo", ())
    with pytest.raises(DataError, match="has no field 'targets_pretokenized'"):
        render(task, task.template(), {"inputs_pretokenized": "x"})


def test_docs_page_lists_every_metric_and_kind() -> None:
    page = PAGE.read_text("utf-8")
    assert set(METRICS_OF_KIND) == set(KINDS)
    for kind, metrics in METRICS_OF_KIND.items():
        assert kind in page
        for metric in metrics:
            assert metric in page


def test_metrics_are_those_of_evaluation() -> None:
    from prompt_jax.evaluation.metrics import METRICS

    form = {"classification": "label", "choice": "label", "regression": "number"}
    for kind, names in METRICS_OF_KIND.items():
        assert {METRICS[name].form for name in names} == {form.get(kind, "text")}


# Files -----------------------------------------------------------------------------------------


def test_files_are_relative_to_the_task_file(tmp_path: Path) -> None:
    with_files(tmp_path, "data/t.jsonl", "v.jsonl")
    path = written(tmp_path, GOOD + '[files]\ntrain = "data/t.jsonl"\nvalidation = "v.jsonl"\n')
    task = load_task(path)
    assert dict(task.files) == {
        "train": str((tmp_path / "data/t.jsonl").resolve()),
        "validation": str((tmp_path / "v.jsonl").resolve()),
    }
    # A root that is given for other tasks does not hide the task's own files.
    assert len(open_split(task, "train", tmp_path / "not there")) == 1


def test_file_without_train_is_for_evaluation(tmp_path: Path) -> None:
    with_files(tmp_path, "v.jsonl")
    task = load_task(written(tmp_path, GOOD + '[files]\nvalidation = "v.jsonl"\n'))
    assert task.split_protocol == "evaluation"
    with pytest.raises(DataError, match="of 'mood' lists no train file"):
        open_split(task, "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../v.jsonl", "leaves the folder"),
        ("sub/../../v.jsonl", "leaves the folder"),
        ("sub/../v.jsonl", "leaves the folder"),
        ("/v.jsonl", "leaves the folder"),
        ("C:/v.jsonl", "leaves the folder"),
        ("C:v.jsonl", "leaves the folder"),
        (r"..\\v.jsonl", "leaves the folder"),
        (r"\\\\server\\share\\v.jsonl", "leaves the folder"),
        ("link.jsonl", "link that leaves"),
        ("folder/v.jsonl", "link that leaves"),
        ("absent.jsonl", "no file 'absent.jsonl'"),
        ("v.pkl", "must end with one of .jsonl"),
        ("", "must end with one of"),
        ("sub.jsonl", "no file"),
        ("a\\u0000.jsonl", "no file|cannot be opened"),
        ("x" * 5000 + ".jsonl", "no file|cannot be opened"),
        ("round.jsonl", "no file|cannot be opened"),
    ],
)
def test_paths_stay_inside_the_folder(tmp_path: Path, name: str, message: str) -> None:
    home = tmp_path / "home"
    with_files(tmp_path, "v.jsonl")
    (home / "sub.jsonl").mkdir(parents=True)
    (home / "link.jsonl").symlink_to(tmp_path / "v.jsonl")
    (home / "folder").symlink_to(tmp_path)
    (home / "round.jsonl").symlink_to(home / "round.jsonl")
    path = written(home, GOOD + f'[files]\nvalidation = "{name}"\n')
    with pytest.raises(DataError, match=message) as caught:
        load_task(path)
    assert "mood.toml: files: 'validation'" in str(caught.value)


def test_link_inside_the_folder_is_accepted(tmp_path: Path) -> None:
    with_files(tmp_path, "v.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "v.jsonl")
    load_task(written(tmp_path, GOOD + '[files]\nvalidation = "link.jsonl"\n'))


# Mistakes --------------------------------------------------------------------------------------


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("name = ", "not valid TOML", id="syntax"),
        pytest.param("x = " + "[" * 5000, "not valid TOML", id="deep"),
        pytest.param(edited('name = "mood"', ""), "'name' is missing", id="no name"),
        pytest.param(edited('"mood"', '"my mood"'), "a name consists of", id="bad name"),
        pytest.param(edited('"mood"', '"../mood"'), "a name consists of", id="name is a path"),
        pytest.param(edited('"mood"', '"imdb"'), "a task of the registry", id="taken"),
        pytest.param(edited('"mood"', '"glue_rte"'), "a task of the registry", id="alias taken"),
        pytest.param(edited('"mood"', "7"), "'name' must be a text, not 7", id="name type"),
        pytest.param(
            edited('"classification"', '"clasification"'),
            "Did you mean 'classification'",
            id="kind",
        ),
        pytest.param(
            "metric = ['accuracy']\n" + GOOD,
            "unknown key 'metric'. Did you mean 'metrics'",
            id="unknown key",
        ),
        pytest.param(
            GOOD + 'txt = "x"\n', "templates 1: unknown key 'txt'. Did you mean 'text'", id="tkey"
        ),
        pytest.param(edited('"a: {a} b: {b}"', '"a: {c}"'), "unknown field 'c'", id="field"),
        pytest.param(edited('"a: {a} b: {b}"', '"{a.x}"'), "only plain fields", id="attribute"),
        pytest.param(edited('"a: {a} b: {b}"', '"{a"'), "unbalanced braces", id="braces"),
        pytest.param(edited('"a: {a} b: {b}"', '" "'), "text is empty", id="empty text"),
        pytest.param(edited('text = "a: {a} b: {b}"', ""), "'text' is missing", id="no text"),
        pytest.param(GOOD + 'target = "x"\n', r"must contain the field \{answer\}", id="target"),
        pytest.param(GOOD + 'labels = ["one"]\n', "1 labels, but the task has 2", id="word count"),
        pytest.param(GOOD + 'labels = ["x", "x"]\n', "labels must be different", id="same words"),
        pytest.param('generated = "yes"\n' + GOOD, "'generated' must be true or false", id="made"),
        pytest.param(
            GOOD + 'choice_answers = "word"\n', "'letter', 'text' or 'digit'", id="answers"
        ),
        pytest.param(edited('labels = ["low", "high"]', ""), "at least two labels", id="no labels"),
        pytest.param(
            edited('["low", "high"]', '["low", 1]'), "'labels' item '2' must be a text", id="item"
        ),
        pytest.param(edited('["low", "high"]', '"low"'), "'labels' must be a list", id="list"),
        pytest.param(
            edited('kind = "classification"', 'kind = "text"'),
            "'labels' is only for a task of kind classification or choice",
            id="labels of text",
        ),
        pytest.param("value_step = 1\n" + GOOD, "'value_step' is only for", id="step"),
        pytest.param('choices = ["a"]\n' + GOOD, "'choices' is only for", id="choices"),
        pytest.param('metrics = ["acuracy"]\n' + GOOD, "Did you mean 'accuracy'", id="metric name"),
        pytest.param('metrics = ["pearson"]\n' + GOOD, "does not fit", id="metric kind"),
        pytest.param('metrics = ["multirc_em"]\n' + GOOD, "needs 'group_fields'", id="group"),
        pytest.param(
            'metrics = ["f1"]\n' + edited('["low", "high"]', '["low", "mid", "high"]'),
            "exactly two labels",
            id="f1",
        ),
        pytest.param("metrics = []\n" + GOOD, "at least one metric", id="no metric"),
        pytest.param('group_fields = ["c"]\n' + GOOD, "unknown field 'c'", id="group field"),
        pytest.param("max_input = 1\n" + GOOD, "at least 2", id="short"),
        pytest.param("max_input = 2.5\n" + GOOD, "'max_input' must be a whole", id="length"),
        pytest.param("max_input = true\n" + GOOD, "'max_input' must be a whole", id="bool"),
        pytest.param(edited('["a", "b"]', "[]"), "fields must be names", id="no fields"),
        pytest.param(GOOD.partition("[[")[0], r"at least one \[\[templates\]\]", id="no templates"),
        pytest.param('templates = ["x"]\n' + GOOD.partition("[[")[0], "be a table", id="texts"),
        pytest.param(
            GOOD + '[[templates]]\nname = "template1"\ntext = "{a}"\n', "names must differ", id="2"
        ),
        pytest.param("files = 3\n" + GOOD, "files must be a table", id="files"),
        pytest.param(GOOD + '[files]\ntest = "t.jsonl"\n', "is 'validation' here", id="test"),
        pytest.param(GOOD + '[files]\ntrain = "t.jsonl"\n', "'validation' is missing", id="train"),
        pytest.param(GOOD + "[files]\nvalidation = 1\n", "must be a text", id="file type"),
    ],
)
def test_mistakes_raise_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        registry.get(str(written(tmp_path, text)))
    error = str(caught.value)
    assert "mood.toml" in error
    assert error.count("mood.toml") == 1
    assert "\n" not in error


@pytest.mark.parametrize(
    "step", ["0.0", "-0.2", "nan", "inf", "1e-9", "true", '"x"', "1" + "0" * 400]
)
def test_regression_step_out_of_range_raises(tmp_path: Path, step: str) -> None:
    text = edited('"classification"', '"regression"').replace('labels = ["low", "high"]', "")
    with pytest.raises(DataError, match="value_step"):
        load_task(written(tmp_path, f"value_step = {step}\n" + text))


@pytest.mark.parametrize("value", ["[1]", "[1, nan]", '["a", "b"]', "[2, 1]", "[0, inf]", "3"])
def test_regression_range_out_of_order_raises(tmp_path: Path, value: str) -> None:
    text = edited('"classification"', '"regression"').replace('labels = ["low", "high"]', "")
    with pytest.raises(DataError, match="value_range"):
        load_task(written(tmp_path, f"value_range = {value}\n" + text))


def test_unreadable_files_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.toml cannot be read"):
        load_task(tmp_path / "absent.toml")
    with pytest.raises(DataError, match="cannot be read"):
        load_task(tmp_path)
    (tmp_path / "latin.toml").write_bytes('name = "café"'.encode("latin-1"))
    with pytest.raises(DataError, match="not valid TOML"):
        load_task(tmp_path / "latin.toml")
    with pytest.raises(DataError, match="mood"):
        load_task("mood\0.toml")


# Anything that tomllib can give: only a task or a DataError comes out.

_texts = st.sampled_from(
    ["", "a", "b", "{a}", "{a} {b}", "{", "{a!r}", "{answer}", "x.jsonl", "../x", "/", "\0", "mood"]
) | st.text(max_size=8)
_scalars = (
    _texts
    | st.booleans()
    | st.integers(-(10**3), 10**3)
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, math.nan, math.inf, *KINDS, "accuracy", "f1", "letter"])
    | st.just(datetime.date(2024, 1, 1))
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_VALID: dict[str, dict[str, Any]] = {
    "classification": {"labels": ["low", "high"], "metrics": ["f1"]},
    "choice": {"choices": ["a", "b"]},
    "regression": {"value_range": [0, 1.5], "value_step": 0.5},
    "span": {"group_fields": ["a"]},
    "text": {"optional_fields": ["a"], "max_input": 9},
}
_KEYS = st.sampled_from(
    [
        "labels",
        "metrics",
        "files",
        "choices",
        "answers",
        "group_fields",
        "optional_fields",
        "value_range",
        "value_step",
        "max_input",
        "max_target",
        "domain",
        "licence",
        "description",
        "unknown",
        "name",
        "kind",
        "fields",
        "templates",
    ]
)
_TEMPLATE_KEYS = st.sampled_from(["name", "text", "target", "labels", "choice_answers", "other"])


@st.composite
def _tables(draw: st.DrawFn) -> dict[str, Any]:
    """A right task of any kind with up to two keys of it, and of its template, made arbitrary."""
    kind = draw(st.sampled_from(KINDS))
    template = {"text": draw(st.sampled_from(["{a}", "{b} {a}", "x: {a}"])), "name": "t"}
    template |= draw(st.dictionaries(_TEMPLATE_KEYS, _values, max_size=1))
    table = {"name": "mood", "kind": kind, "fields": ["a", "b"], "templates": [template]}
    return table | _VALID[kind] | draw(st.dictionaries(_KEYS, _values, max_size=2))


@pytest.mark.slow
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
@given(_tables())
def test_only_data_errors_escape(table: dict[str, Any]) -> None:
    try:
        result: Task | str = parse_task(table, Path("mood.toml"))
    except DataError as error:
        result = str(error)
    assert isinstance(result, Task) or result.startswith("mood.toml: ")


@settings(max_examples=100, derandomize=True, database=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_only_data_errors_escape_from_any_bytes(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("toml") / "any.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_task(path)
