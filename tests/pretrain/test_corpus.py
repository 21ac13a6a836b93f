"""What the pre-training recipe reads, and above all what it must not."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import prompt_jax
from experiments.pretrain import corpus, embedding, instructions, vocabulary
from experiments.pretrain.corpus import CorpusConfig
from prompt_jax.data import registry, sandbox
from prompt_jax.data.render import render
from prompt_jax.data.sources import open_split
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError
from prompt_jax.models.t5.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("pieces") / "spiece.model"
    asked = (f"{e.input} {e.target}" for e in itertools.islice(instructions.asked(0), 600))
    vocabulary.train([*asked, *itertools.islice(instructions.prose(0), 600)], 700, path)
    return load_tokenizer(path)


def targets_and_tests() -> set[str]:
    """Plain texts of all rows of sandbox targets and of the sources' test rows."""
    found = set()
    for task in sandbox.TASKS:
        for split in ("train", "validation") if task.reserved else ("validation",):
            rows = open_split(task, split)
            found |= {render(task, task.templates[0], rows[i]).input for i in range(len(rows))}
    return found


# --- what is kept out ----------------------------------------------------------------------------


def test_corpus_config_refuses_reserved_tasks() -> None:
    for name in ("sandbox/complaints", "glue/rte", "trec"):
        assert name in registry.RESERVED
        with pytest.raises(ConfigError, match="reserved as a target"):
            CorpusConfig(tasks=("snli", name))


def shipped() -> tuple[dict[str, int], dict[str, list[str]]]:
    """Rows of each part of the corpus of the T5 that ships, and what it was made from."""
    path = Path(prompt_jax.__file__).parent / "models" / "mini" / "pretraining.json"
    facts = json.loads(path.read_text("utf-8"))
    return facts["rows"], facts["config"]["corpus"]


def asked_of(text: str) -> Iterator[str]:
    """What an instruction may be about: what follows a colon or a question mark of it."""
    yield text
    yield from (text[mark.end() :] for mark in re.finditer(r" [:?] ", text))


@pytest.mark.slow
def test_shipped_corpus_has_no_held_out_row_and_no_contrary_template() -> None:
    """Every row over the sandbox world, made again from the recipe's seed."""
    held, (rows, _) = instructions.held_out(), shipped()

    def leads(tasks: tuple[Task, ...]) -> set[str]:
        return {t.text.split("{")[0].rstrip(" :") for task in tasks for t in task.templates[1:]}

    wordings = tuple(leads(sandbox.TARGETS) - leads(sandbox.SOURCES))
    assert len(wordings) == 8 * 3
    made = itertools.chain(
        itertools.islice(instructions.asked(0), rows["instructions"]),
        itertools.islice(instructions.worded(0), rows["source tasks"]),
    )
    for example in made:
        assert held.isdisjoint(asked_of(example.input)), example.input
        assert not example.input.startswith(wordings)
    for text in itertools.islice(instructions.prose(0), rows["prose"]):
        parts = text.removesuffix(" .").split(" . ")
        assert held.isdisjoint(parts)
        assert held.isdisjoint(part.replace(" , so ", " | ") for part in parts), text


@pytest.mark.slow
def test_shipped_corpus_shares_no_phrase_with_held_out_rows(
    shared_dir: Path,
) -> None:
    """The paragraphs and rows that the recipe's seed draws, from the files it was given."""
    root, (rows, given) = str(shared_dir / "data"), shipped()
    drop = corpus.forbidden(root)
    assert len(drop) > 100_000
    files = [str(shared_dir / "data" / "corpus" / name) for name in given["texts"]]
    texts = corpus.english(files, rows["english"], 0, drop)
    assert len(texts) > 0.9 * rows["english"]  # one file has fewer paragraphs than its share
    for text in texts:
        assert drop.isdisjoint(corpus.runs(text))
    for example in corpus.task_rows(given["tasks"], root, 0, drop):
        assert drop.isdisjoint(corpus.runs(example.input))


@pytest.mark.slow
def test_held_out_covers_targets_and_test_rows_of_sources() -> None:
    held = instructions.held_out()
    assert held == targets_and_tests()
    assert len(held) == 14 * 2000 + 6 * 400


def test_labels_are_never_those_of_a_contrary_target() -> None:
    draw = random.Random(0)
    contrary = {
        tuple(labels)
        for task in sandbox.TARGETS
        for source in sandbox.SOURCES
        for labels in (task.labels, *(t.labels for t in task.templates if t.labels))
        if task.domain == source.domain
        and labels != source.labels
        and labels not in [t.labels for t in source.templates]
    }
    assert len(contrary) > 12
    for name, aspect in instructions.ASPECTS.items():
        for _ in range(2000):
            _, answers = instructions.instruction(draw, name)
            assert answers not in contrary or answers in aspect.classes
            if answers not in aspect.classes:
                assert {*answers} not in [{*way} for way in aspect.classes]


def test_corpus_drops_rows_that_share_eight_words_with_a_reserved_task(
    tmp_path: Path,
) -> None:
    held = "a film that nobody who has seen it once will ever want to see again"
    for name, rows in {
        "mr": [{"sentence": held, "label": 0}],
        "snli": [
            {"premise": f"He said: {held.upper()}!", "hypothesis": "He spoke.", "label": 0},
            {"premise": "A man sleeps.", "hypothesis": "A man is awake.", "label": 2},
        ],
    }.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    root = str(tmp_path / "data")
    drop = corpus.forbidden(root)
    assert len(drop) == len(held.split()) - 7
    (kept,) = corpus.task_rows(["snli"], root, 0, drop)
    assert "sleeps" in kept.input

    clean = "this paragraph of plain english shares nothing at all with any task of the registry."
    with gzip.open(tmp_path / "text.txt.gz", "wt", encoding="utf-8") as file:
        file.write(f"{clean}\n\nIt was, she wrote, {held}, and so on and so forth.\n\nshort\n")
    assert corpus.english([str(tmp_path / "text.txt.gz")], 10, 0, drop) == [clean]


# --- what it is made of --------------------------------------------------------------------------


def test_instructions_depend_on_the_seed_alone() -> None:
    def some(seed: int) -> list[str]:
        return [e.input for e in itertools.islice(instructions.asked(seed), 50)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_instructions_name_their_answer() -> None:
    draw = random.Random(4)
    for name, aspect in instructions.ASPECTS.items():
        for _ in range(200):
            text, answers = instructions.instruction(draw, name)
            assert len(set(answers)) == len(aspect.classes[0])
            assert {*answers} <= {*text.replace(",", " ").replace("=", " ").split()}


def test_corrupt_loses_no_token() -> None:
    draw, config = random.Random(1), CorpusConfig()
    sentinels = list(range(900, 924))
    for length in (2, 3, 9, 40, 62):
        ids = [draw.randrange(10, 800) for _ in range(length)]
        source, target = corpus.corrupt(ids, draw, config, sentinels)
        assert source[-1] == target[-1] == 1
        taken: dict[int, list[int]] = {}
        for token in target[:-1]:
            if token >= 900:
                taken[token] = []
            else:
                taken[list(taken)[-1]].append(token)
        rebuilt = []
        for token in source[:-1]:
            rebuilt += taken[token] if token >= 900 else [token]
        assert rebuilt == ids
        missing = sum(map(len, taken.values()))
        assert missing == max(1, round(0.15 * length))


def test_build_gives_parts_their_shares(tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    lines = [f"paragraph number {i} of a text that is long enough to be taken" for i in range(30)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = CorpusConfig(rows=400, texts=(str(path),), max_input=40, max_target=12)
    built = corpus.build(config, tokenizer, 0)
    sizes = {name: int((built.task == i).sum()) for i, name in enumerate(built.task_names)}
    # No tasks are named, so the other parts share the rows in their proportions.
    assert sizes == {
        "instructions": 270,
        "recall": 44,
        "source tasks": 44,
        "prose": 21,
        "english": 21,
    }
    assert built.inputs.lengths.max() <= 40
    assert built.targets.lengths.max() <= 12
    again = corpus.build(config, tokenizer, 0)
    np.testing.assert_array_equal(built.inputs.values, again.inputs.values)
    other = corpus.build(config, tokenizer, 1)
    assert not np.array_equal(built.inputs.values, other.inputs.values)


def test_corpus_config_refuses_shares_above_one() -> None:
    with pytest.raises(ConfigError, match="must not exceed 1"):
        CorpusConfig(worlds=0.9, prose=0.2)
    with pytest.raises(ConfigError, match="at least 100 rows"):
        CorpusConfig(rows=10)


# --- vocabulary and embedding --------------------------------------------------------------------


def test_vocabulary_is_deterministic_and_has_the_special_ids(tmp_path: Path) -> None:
    texts = list(itertools.islice(instructions.prose(0), 500))
    for name in ("a", "b"):
        vocabulary.train(texts, 400, tmp_path / name / "spiece.model")
    one, other = ((tmp_path / name / "spiece.model").read_bytes() for name in ("a", "b"))
    assert one == other
    made = load_tokenizer(tmp_path / "a")
    assert (made.pad_id, made.eos_id, made.vocab_size) == (0, 1, 400)
    assert made.decode(made.encode([texts[0]])[0]) == texts[0]
    assert made.sentinel_id(0) == 399


def test_ppmi_svd_places_words_with_equal_neighbours_near_each_other() -> None:
    # Tokens 2..5 keep company with each other, and so do 6..9.
    draw = random.Random(0)
    rows = [[draw.choice(group) for _ in range(12)] for group in ((2, 3, 4, 5), (6, 7, 8, 9)) * 200]
    made = embedding.ppmi_svd(rows, 12, 4)
    assert made.shape == (12, 4)
    assert np.sqrt((made[2:10] ** 2).mean()) == pytest.approx(1.0, rel=1e-5)
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    near = unit @ unit.T
    assert near[2:6, 2:6].min() > 0.8
    assert near[2:6, 6:10].max() < 0.3
    np.testing.assert_array_equal(made, embedding.ppmi_svd(rows, 12, 4))
