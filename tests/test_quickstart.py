"""The packaged quickstart: its generated tasks, its toy T5, and a shrunken run from end to end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from prompt_jax.configs import _quickstart_tasks as tasks
from prompt_jax.configs import quickstart
from prompt_jax.data import registry
from prompt_jax.data.sources import open_split
from prompt_jax.models.t5 import FrozenT5
from tests.cli.conftest import call

SOURCES = [task for task in tasks.TASKS if task.is_source]
TARGETS = [task for task in tasks.TASKS if not task.is_source]
NAMES = [task.name for task in tasks.TASKS]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The task files, at the sizes of the quickstart."""
    folder = tmp_path_factory.mktemp("quickstart")
    return tasks.write_tasks(folder, quickstart.SOURCE_ROWS, quickstart.TARGET_ROWS)


def texts(path: Path) -> list[str]:
    """Every sentence of a task, of both splits."""
    task = registry.get(str(path))
    return [
        str(row["text"]) for split in ("train", "validation") for row in open_split(task, split)
    ]


# --- the generated tasks -------------------------------------------------------------------------


def test_there_are_sources_a_related_and_an_unrelated_target() -> None:
    known = {task.aspect for task in SOURCES}
    assert len(SOURCES) == 3
    assert [target.aspect in known for target in TARGETS] == [True, False]
    related = TARGETS[0]
    (source,) = [task for task in SOURCES if task.aspect == related.aspect]
    assert not set(related.forms) & set(source.forms)
    assert not {*related.labels} & {word for words in source.wordings for word in words}
    for target in TARGETS:  # but the T5 can say the label words
        assert target.labels in {words for task in SOURCES for words in task.wordings}


def test_the_same_seed_gives_the_same_sentences_and_no_other_does() -> None:
    sizes = dict.fromkeys(NAMES, 30)
    once = tasks.sentences(sizes, 1)
    assert once == tasks.sentences(sizes, 1)
    other = tasks.sentences(sizes, 2)
    assert all(once[name] != other[name] for name in NAMES)


def test_no_sentence_occurs_twice() -> None:
    drawn = tasks.sentences(dict.fromkeys(NAMES, 200))
    seen = [text for rows in drawn.values() for text, _ in rows]
    assert len(seen) == len(set(seen)) == 200 * len(NAMES)


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
def test_labels_are_balanced_and_right(task: tasks.ToyTask) -> None:
    rows = tasks.sentences(dict.fromkeys(NAMES, 120))[task.name]
    assert set(Counter(label for _, label in rows).values()) == {120 // len(task.labels)}
    classes = tasks.ASPECTS[task.aspect]
    for text, label in rows:
        hits = [len(set(words) & set(text.split())) for words in classes]
        assert hits == [int(name == label) for name in task.labels], text


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
def test_nothing_else_in_a_sentence_tells_the_label(task: tasks.ToyTask) -> None:
    rows = tasks.sentences(dict.fromkeys(NAMES, 1200))[task.name]
    own = {word for words in tasks.ASPECTS[task.aspect] for word in words}
    own |= {word for verbs in tasks._VERBS for word in verbs} if task.aspect == "time" else set()
    share = 1 / len(task.labels)
    counts = Counter((word, label) for text, label in rows for word in set(text.split()) - own)
    for word in {word for word, _ in counts}:
        total = sum(counts[word, label] for label in task.labels)
        spread = 5 * (total * share * (1 - share)) ** 0.5
        for label in task.labels:
            assert abs(counts[word, label] - total * share) <= spread, (word, label)


def test_task_files_load_and_writing_again_changes_nothing(paths: dict[str, Path]) -> None:
    folder = paths["mood"].parent
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert tasks.write_tasks(folder, quickstart.SOURCE_ROWS, quickstart.TARGET_ROWS) == paths
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    for task in tasks.TASKS:
        loaded = registry.get(str(paths[task.name]))
        assert (loaded.name, loaded.labels) == (f"quickstart/{task.name}", task.labels)
        assert len(loaded.templates) == 1 + len(task.wordings)
        sizes = tuple(len(open_split(loaded, split)) for split in ("train", "validation"))
        assert sizes == (quickstart.SOURCE_ROWS if task.is_source else quickstart.TARGET_ROWS)


# --- what the toy T5 is made from ----------------------------------------------------------------


def tokenizer(paths: dict[str, Path]) -> FrozenT5:
    """The untrained T5 with its tokenizer."""
    file = paths["mood"].parent / tasks.TOKENIZER
    return FrozenT5.from_config(quickstart.SHAPE, tokenizer=file)


def test_every_word_is_known_and_every_input_fits(paths: dict[str, Path]) -> None:
    known = tokenizer(paths).tokenizer
    assert known.vocab_size == 3 + len(tasks.vocabulary()) <= quickstart.SHAPE.vocab_size
    assert known.encode(["<pad> </s> <unk> nonsense"]) == [[0, 1, 2, 2, 1]]
    config = quickstart.get_config()
    for task in tasks.TASKS:
        sentences = texts(paths[task.name])
        for _, template, words in tasks.templates(task):
            rows = known.encode([template.format(text=text) for text in sentences])
            assert all(2 not in row for row in rows)
            # One width of input for all: few programs to compile.
            assert {8 < len(row) <= config.data.max_input_tokens for row in rows} == {True}
            assert all(len(row) == 2 and row[0] > 2 for row in known.encode(list(words)))
    assert known.decode(known.encode(["the lovely dog"])[0]) == "the lovely dog"


def test_no_target_and_no_plain_template_is_in_the_mixture(paths: dict[str, Path]) -> None:
    run = quickstart.mixture(tokenizer(paths), paths, quickstart.TRAINING)
    assert run.dev is not None
    forbidden = {text for target in TARGETS for text in texts(paths[target.name])}
    for split in (run.feed.split, run.dev):
        assert set(split.task_names) == {f"quickstart/{task.name}" for task in SOURCES}
        used = {split.template_names[i] for i in set(split.template.tolist())}
        assert not {name for name in used if name.endswith("/plain")}
        seen = {example.input.partition(" : ")[2] for example in split.examples}
        assert seen
        assert not seen & forbidden
    trained = {example.input for example in run.feed.split.examples}
    assert not trained & {example.input for example in run.dev.examples}
    wanted = sum(len(task.wordings) for task in SOURCES)
    assert len(run.feed.split) == wanted * quickstart.SOURCE_ROWS[0]


# --- from end to end -----------------------------------------------------------------------------

SMALL = (
    "shots=2", "seeds=1", "methods=prompt_tuning,spot", "prompt.tokens=2", "source.steps=2",
    "probe.steps=1", "few_shot.steps=2", "few_shot.eval_every=2", "source.eval_every=2",
    "source.batch_size=4", "probe.batch_size=4", "few_shot.batch_size=4",
    "target.batch_size=4", "source.micro_batch_tokens=72", "probe.micro_batch_tokens=72",
    "few_shot.micro_batch_tokens=72", "target.micro_batch_tokens=72",
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The quickstart in a folder of its own, with a smaller T5, fewer rows and 3 steps."""
    shape = quickstart.SHAPE.replace(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_decoder_layers=1, num_heads=2
    )
    budget = type(quickstart.TRAINING)(steps=3, batch_size=8, eval_every=0)
    for name, value in (
        ("SHAPE", shape), ("TRAINING", budget), ("SOURCE_ROWS", (30, 6)), ("TARGET_ROWS", (12, 8)),
    ):  # fmt: skip
        monkeypatch.setattr(quickstart, name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "quickstart"


def test_a_run_makes_the_model_once_and_leaves_prompts_and_a_table(small: Path) -> None:
    dry = call(["run", "quickstart", *SMALL, "--dry-run", "--json"])
    assert dry.code == 0, dry.err
    plan = json.loads(dry.out)
    assert {task["train"] for task in plan["tasks"]} == {30, 12}
    assert plan["parameters"] == quickstart.SHAPE.parameter_count
    assert {path.name for path in small.iterdir()} == {"data"}  # nothing trained, no run

    first = call(["run", "quickstart", *SMALL])
    assert first.code == 0, first.err
    assert "say nothing about real tasks" in first.out
    assert "First, once: " in first.out
    assert {path.name for path in small.iterdir()} == {"data", "model", "cache", "run"}
    assert "quickstart/opinion" in first.out[first.out.index("Test rows, in points") :]
    prompts = {path.relative_to(small / "run/prompts").parts[0]
               for path in small.glob("run/prompts/*/*.safetensors")}  # fmt: skip
    assert prompts == {"prompt_tuning", "spot", "sources"}
    weights = (small / "model" / "model.safetensors").read_bytes()

    second = call(["run", "quickstart", *SMALL])
    assert second.code == 0, second.err
    assert "First, once: " not in second.out
    assert "prompt_tuning: sources: 3 of 3 runs" in second.out[second.out.index("Reused") :]
    assert (small / "model" / "model.safetensors").read_bytes() == weights


def test_an_interrupted_model_is_made_again_and_other_models_are_left_alone(small: Path) -> None:
    lines: list[str] = []
    config = quickstart.get_config()
    assert quickstart.prepare(config, lines.append) is None
    weights = (small / "model" / "model.safetensors").read_bytes()
    (small / "model" / "made_by.txt").write_text("something else", "utf-8")
    assert isinstance(quickstart.prepare(config, lines.append, True), FrozenT5)
    assert quickstart.prepare(config, lines.append, False) is None
    assert sum(line.startswith("First, once") for line in lines) == 2
    # The same recipe gives the same T5.
    assert (small / "model" / "model.safetensors").read_bytes() == weights


def test_another_model_and_a_wrong_task_cost_no_training(small: Path) -> None:
    other = call(["run", "quickstart", "model=nowhere/at/all"])
    assert (other.code, "There is no directory" in other.err) == (2, True)
    wrong = call(["run", "quickstart", "targets=glue/rt"])
    assert (wrong.code, "Did you mean 'glue/rte'?" in wrong.err) == (2, True)
    assert not (small / "model").exists()
