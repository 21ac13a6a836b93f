from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from prompt_jax.data import registry, sandbox
from prompt_jax.data.render import render
from prompt_jax.data.sources import open_split
from prompt_jax.data.tasks import Task, Template
from prompt_jax.errors import DataError

DOCS = Path(__file__).resolve().parents[2] / "docs"
TASKS = {name: registry.get(name) for name in registry.names()}
LOCAL = [
    "add_one_rte",
    "ag_news",
    "amazon_review_full",
    "arc_challenge",
    "arc_easy",
    "banking77",
    "blimp",
    "commonsenseqa",
    "dbpedia",
    "dpr",
    "glue_cola",
    "glue_mnli",
    "glue_mrpc",
    "glue_qnli",
    "glue_qqp",
    "glue_rte",
    "glue_sst2",
    "glue_stsb",
    "glue_wnli",
    "hotpotqa_small",
    "imdb",
    "joci",
    "mpe",
    "mpqa",
    "mr",
    "nq_qed",
    "openbookqa",
    "quoref",
    "sciq_sni",
    "snli",
    "squad_small",
    "sst5",
    "subj",
    "superglue_boolq",
    "superglue_cb",
    "superglue_multirc",
    "trec",
    "tweeteval_emotion",
    "winogrande",
    "wsc273",
    "yelp_polarity",
    "yelp_review_full",
]

# The targets of the main comparison, and all that the shared model never saw.
NEVER_SEEN = [
    "mr",
    "sst5",
    "subj",
    "trec",
    "imdb",
    "glue/rte",
    "glue/mrpc",
    "glue/stsb",
    "glue/wnli",
    "super_glue/boolq",
    "super_glue/cb",
    "super_glue/copa",
    "super_glue/multirc",
    "super_glue/wic",
    "super_glue/wsc.fixed",
    "dpr",
    "winogrande",
    "wsc273",
    "quoref",
    "openbookqa",
    "arc_easy",
    "arc_challenge",
    "commonsenseqa",
    "commonsenseqa_v1.1",
    "sciq",
    "blimp",
    "hellaswag",
    "story_cloze",
]

# What TensorFlow Datasets and the Hub name the labels, in their order; None: no such label here.
THEIR_LABELS = {
    ("trec", "tfds"): ["description", "entity", "abbreviation", "human", "number", "location"],
    ("trec", "hf"): ["abbreviation", "entity", "description", "human", "location", "number"],
    ("snli", "tfds"): ["entailment", "neutral", "contradiction"],
    ("snli", "hf"): ["entailment", "neutral", "contradiction"],
}


@pytest.fixture(params=TASKS, name="task")
def _task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def made_up_row(task: Task) -> dict[str, object]:
    """A row of the task whose texts tell the fields apart."""
    row: dict[str, object] = {field: f"<{field}>" for field in task.fields}
    if task.kind == "choice" and task.choices == ("choices",):
        row["choices"] = ["<one>", "<two>", "<three>"]
    if task.kind == "regression":
        row["label"] = 2.5
    elif task.kind == "choice" and task.answers:
        row[task.answers] = "<two>"
    elif task.answer_field == "answers":
        row["answers"] = ["<right>", "<also right>"]
    elif task.fixed_label is None:
        row["label"] = 1
    return row


def test_tasks_have_three_templates_and_a_description(task: Task) -> None:
    assert len(task.templates) >= 3
    assert len({template.text for template in task.templates}) == len(task.templates)
    assert task.description.endswith((".", "?"))
    assert task.domain
    assert task.licence
    assert dict(task.sizes)["validation"] > 0
    assert ("train" in dict(task.sizes)) == (task.split_protocol != "evaluation")


def test_templates_render_every_field_they_name(task: Task) -> None:
    row = made_up_row(task)
    for template in task.templates:
        example = render(task, template, row)
        for field in template.fields:
            if field not in ("choices", *task.choices):
                assert f"<{field}>" in example.input
        assert "{" not in example.input + example.target
        assert "}" not in example.input + example.target
        if task.kind in ("classification", "choice"):
            assert example.target == example.candidates[example.label]
            assert len(set(example.candidates)) == len(example.candidates)


def test_templates_contain_the_row_or_rank_it(task: Task) -> None:
    """No template hides everything that tells the answer: candidates or input hold the fields."""
    row = made_up_row(task)
    for template in task.templates:
        example = render(task, template, row)
        assert "<" in example.input + "".join(example.candidates)


def test_first_template_is_plain_with_single_word_labels(task: Task) -> None:
    first = task.templates[0]
    assert first.name == "plain"
    if task.kind == "classification" and task.name != "banking77":
        assert all(word == word.lower() and " " not in word for word in task.words(first))


def test_long_fields_come_last(task: Task) -> None:
    """Cutting an input at its end must not remove the question."""
    long = {"passage", "paragraph", "context"} & set(task.fields)
    for template in task.templates:
        for field in long & set(template.fields):
            assert template.fields[-1] == field, template.name


def test_label_words_match_their_labels() -> None:
    """Rendered label words, spelled out by hand for tasks whose label order differs."""
    expected = {
        "glue/rte": ("yes", "no"),
        "glue/wnli": ("no", "yes"),
        "glue/qnli": ("yes", "no"),
        "glue/mnli": ("yes", "maybe", "no"),
        "super_glue/cb": ("yes", "no", "maybe"),
        "scitail": ("yes", "no"),
        "glue/qqp": ("no", "yes"),
        "super_glue/boolq": ("no", "yes"),
        "glue/sst2": ("bad", "good"),
        "subj": ("opinion", "fact"),
    }
    for name, words in expected.items():
        assert TASKS[name].words(TASKS[name].template("plain")) == words, name
    assert TASKS["super_glue/cb"].words(TASKS["super_glue/cb"].template("certainty")) == (
        "certain",
        "impossible",
        "possible",
    )
    assert TASKS["glue/wnli"].words(TASKS["glue/wnli"].template("conclusion")) == ("wrong", "right")


def test_metrics_exist_and_match_the_kind(task: Task) -> None:
    from prompt_jax.evaluation.metrics import METRICS

    forms = {METRICS[name].form for name in task.metrics}
    wanted = {"classification": "label", "choice": "label", "regression": "number"}
    assert forms == {wanted.get(task.kind, "text")}
    if {"f1", "multirc_f1a"} & set(task.metrics):
        assert len(task.labels) == 2
    if "multirc_em" in task.metrics:
        assert task.group_fields == ("paragraph", "question")


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("glue/cola", ("matthews", "accuracy")),
        ("glue/stsb", ("pearson", "spearman")),
        ("glue/mrpc", ("accuracy", "f1")),
        ("glue/qqp", ("accuracy", "f1")),
        ("super_glue/multirc", ("multirc_f1a", "multirc_em")),
        ("super_glue/cb", ("accuracy", "macro_f1")),
        ("squad", ("squad_f1", "squad_em")),
        ("super_glue/record", ("squad_f1", "squad_em")),
        ("trec", ("accuracy",)),
    ],
)
def test_metrics_of_the_literature(name: str, metrics: tuple[str, ...]) -> None:
    assert TASKS[name].metrics == metrics


@pytest.mark.parametrize(("name", "place"), THEIR_LABELS)
def test_label_maps_keep_the_meaning(name: str, place: str) -> None:
    source = getattr(TASKS[name], place)
    theirs = THEIR_LABELS[name, place]
    assert [TASKS[name].labels[i] for i in source.label_map] == theirs


def test_banking77_follows_the_hub_in_its_own_order() -> None:
    task = TASKS["banking77"]
    assert task.hf is not None
    hub = [task.labels[i] for i in task.hf.label_map if i is not None]
    assert sorted(hub) == sorted(task.labels)
    assert (hub[0], hub[51], hub[52]) == (
        "activate_my_card",
        "Refund_not_showing_up",
        "request_refund",
    )


@pytest.mark.slow
def test_tfds_builders_and_fields_exist(tmp_path: Path) -> None:
    """Fields and label names as TFDS itself declares them (no data is needed)."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("tensorflow_datasets.text")
    checked = 0
    for task in TASKS.values():
        # The others of super_glue and trec cannot be constructed without tensorflow.
        if task.tfds is None or not task.name.startswith(("glue/", "scitail", "paws", "anli")):
            continue
        name, _, config = task.tfds.builder.partition("/")
        info = tfds.builder_cls(name)(config=config or None, data_dir=tmp_path).info
        mapped = dict(task.tfds.fields)
        for field in (*task.fields, "label"):
            assert mapped.get(field, field) in info.features, (task.name, field)
        if task.kind == "classification" and not task.tfds.label_map:
            names = info.features["label"].names
            assert len(names) == len(task.labels)
            if task.name.startswith(("glue/", "scitail")):
                assert tuple(names) == task.labels
        checked += 1
    assert checked >= 12


# Names -----------------------------------------------------------------------------------------


def test_paper_tasks_are_registered() -> None:
    wanted = [
        "glue/cola",
        "glue/mnli",
        "glue/mrpc",
        "glue/qnli",
        "glue/qqp",
        "glue/rte",
        "glue/sst2",
        "glue/stsb",
        "glue/wnli",
        "super_glue/boolq",
        "super_glue/cb",
        "super_glue/copa",
        "super_glue/multirc",
        "super_glue/record",
        "super_glue/wic",
        "super_glue/wsc.fixed",
        "mrqa/natural_questions",
        "mrqa/hotpot_qa",
        "mrqa/search_qa",
        "mrqa/news_qa",
        "squad",
        "winogrande",
        "yelp_polarity",
        "scitail",
        "paws",
        "snli",
        "ag_news",
        "dbpedia",
        "yahoo_answers",
        "trec",
        "imdb",
        "sst5",
    ]
    assert set(wanted) <= set(registry.names())


def test_get_by_local_folder() -> None:
    assert len(LOCAL) == 42
    for folder in LOCAL:
        assert registry.get(folder).folder == folder


def test_names_and_aliases_do_not_collide() -> None:
    assert len(set(registry.names())) == len(registry.names())
    assert not set(registry.ALIASES) & set(registry.names())
    folders = Counter(task.folder for task in TASKS.values())
    assert folders.most_common(1)[0][1] == 1
    assert registry.get("super_glue/rte") is registry.get("glue/rte")
    assert registry.get("anli").name == "anli/r1"


def test_families_partition_the_tasks() -> None:
    grouped = [task.name for tasks in registry.families().values() for task in tasks]
    assert tuple(grouped) == registry.names()


@pytest.mark.parametrize(
    ("wrong", "near"), [("glue/rt", "glue/rte"), ("imbd", "imdb"), ("superglue_multrc", "multirc")]
)
def test_get_unknown_name_suggests_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(DataError, match=f"unknown task '{wrong}'.*Did you mean '.*{near}"):
        registry.get(wrong)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("rte", "'glue/rte'"),
        ("RTE", "'glue/rte'"),
        ("sst2", "'glue/sst2'"),
        ("SST-2", "'glue/sst2'"),
        ("mnli", "'glue/mnli'"),
        ("boolq", "'super_glue/boolq'"),
        ("glue/boolq", "'super_glue/boolq'"),
        ("superglue/cb", "'super_glue/cb'"),
        ("sentiment", "'sandbox/sentiment'"),
        ("mnlii", "'glue/mnli'"),
        ("glue_rtee", "'glue/rte'"),
        ("imbd", "'imdb'"),
    ],
)
def test_a_name_without_its_collection_is_suggested_with_it(wrong: str, meant: str) -> None:
    with pytest.raises(DataError, match=f"unknown task '{wrong}'. Did you mean {meant}[?] See"):
        registry.get(wrong)


def test_a_name_like_no_other_has_no_suggestion() -> None:
    with pytest.raises(DataError, match=r"unknown task 'xxxxxxxx'\. See"):
        registry.get("xxxxxxxx")
    with pytest.raises(DataError, match=r"unknown task ''\. See"):
        registry.get("")


def test_get_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nkind = "text"\nfields = ["q"]\n[[templates]]\ntext = "q: {q}"\n'
    )
    assert registry.get(str(file)).templates == (Template("template1", "q: {q}"),)


def test_story_cloze_reads_the_file_that_its_authors_send(tmp_path: Path) -> None:
    (tmp_path / "story_cloze").mkdir()
    names = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4"
    names += ",RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding"
    (tmp_path / "story_cloze" / "validation.csv").write_text(f"{names}\n7,A.,B.,C.,D.,E.,F.,2\n")
    task = registry.get("story_cloze")
    (row,) = open_split(task, "validation", tmp_path)
    example = render(task, task.template("text"), row)
    assert example.input == "A. B. C. D. The story ends:"
    assert (example.candidates, example.label) == (("E.", "F."), 1)


# Leakage ---------------------------------------------------------------------------------------


def test_reserved_contains_every_target() -> None:
    targets = {task.name for task in sandbox.TARGETS}
    assert targets | {*NEVER_SEEN} == registry.RESERVED
    assert set(registry.names()) >= registry.RESERVED
    assert not registry.RESERVED & set(registry.PAPER_SOURCES)
    assert set(registry.PAPER_SOURCES) <= set(registry.names())


def test_check_conflicts_in_both_directions_and_through_aliases() -> None:
    for one, other, _ in registry.CONFLICTS:
        assert {one, other} <= set(registry.names())
    for sources, targets in [
        (["glue/mnli", "glue/wnli"], ["wsc273"]),
        (["glue_wnli"], ["wsc273"]),
        (["superglue_wsc.fixed"], ["glue/wnli"]),
        (["nq_qed"], ["mrqa_natural_questions"]),
    ]:
        with pytest.raises(DataError, match="cannot be a source of"):
            registry.check_conflicts(sources, targets)
        with pytest.raises(DataError, match="cannot be a source of"):
            registry.check_conflicts(targets, sources)


def test_paper_sources_conflict_with_no_target() -> None:
    registry.check_conflicts(registry.PAPER_SOURCES, registry.RESERVED)
    # The same task on both sides is what multi-task training does, not a leak between tasks.
    registry.check_conflicts(["wsc273"], ["wsc273"])
    registry.check_conflicts([], ["wsc273"])


# The real files --------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", LOCAL)
def test_real_rows_render_under_every_template(folder: str, shared_dir: Path) -> None:
    root = shared_dir / "data"
    if not (root / folder).is_dir():
        pytest.skip(f"{folder} is not among the shared data sets")
    task = registry.get(folder)
    splits = ["validation"] if task.split_protocol == "evaluation" else ["train", "validation"]
    for split in splits:
        source = open_split(task, split, root)
        for index in range(min(50, len(source))):
            row = source[index]
            for template in task.templates:
                example = render(task, template, row, f"{split} {index}")
                for field in task.fields:
                    assert f"{{{field}}}" not in example.input
                assert example.input.strip()
                assert example.references
                if task.kind in ("classification", "choice"):
                    assert example.target == example.candidates[example.label]
                    assert example.label == row.get("label", 0)


@pytest.mark.parametrize("folder", LOCAL)
def test_label_order_matches_the_files(folder: str, shared_dir: Path) -> None:
    file = shared_dir / "data" / folder / "labels.json"
    task = registry.get(folder)
    if not file.is_file():
        assert task.kind != "classification" or not file.parent.is_dir()
        return
    names = json.loads(file.read_text("utf-8"))
    if task.labels:
        assert tuple(names) == task.labels
    else:
        assert names == list("ABCDEFGH"[: len(names)])


# The page --------------------------------------------------------------------------------------


def task_table() -> str:
    """The table of docs/tasks.md, family by family; the page is checked against it."""
    lines: list[str] = []
    for family, tasks in registry.families().items():
        lines += [f"## {family}", "", "| task | kind | metrics | templates | rows | from | notes |"]
        lines += ["|-|-|-|-|-|-|-|"]
        for task in tasks:
            sizes = " / ".join(f"{rows:,}" for _, rows in task.sizes)
            places = ["TFDS"] * (task.tfds is not None) + ["Hub"] * (task.hf is not None)
            where = "generated" if task.make_rows else "files"
            notes = task.description + (" **Reserved.**" if task.reserved else "")
            lines.append(
                f"| `{task.name}` | {task.kind} | {', '.join(task.metrics)} |"
                f" {len(task.templates)} | {sizes} | {', '.join(places) or where} | {notes} |"
            )
        lines.append("")
    return "\n".join(lines)


def test_docs_page_lists_every_task() -> None:
    page = (DOCS / "tasks.md").read_text("utf-8")
    assert task_table().rstrip() in page, (
        "docs/tasks.md is out of date; its tables should be:\n" + (task_table())
    )
    for alias, name in registry.ALIASES.items():
        if registry.get(name).folder != alias:
            assert f"`{alias}`" in page


@pytest.mark.parametrize("name", ["tickets.csv", "a/rows.jsonl.gz", "rows.parquet"])
def test_a_table_is_no_task(name):
    with pytest.raises(DataError) as caught:
        registry.get(name)
    assert str(caught.value) == (
        f"'{name}' is a table, not a task: `prompt-jax tune {name}` tunes a prompt for it, and"
        f" `prompt-jax tasks new {name}` writes its task file."
    )
