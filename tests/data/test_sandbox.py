"""The sandbox suite: deterministic, balanced, without leaks, and what it says about itself."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

import prompt_jax
from prompt_jax.data import registry, sandbox
from prompt_jax.data.render import render
from prompt_jax.data.sandbox import grammar, suite, words
from prompt_jax.data.sandbox.grammar import Writer
from prompt_jax.data.sources import open_split
from prompt_jax.data.splits import load_splits
from prompt_jax.data.tasks import Task
from prompt_jax.errors import DataError

HELPERS = ", a in the so it is was true that did by no who"
NAMES = [task.name for task in sandbox.TASKS]
# The edition of docs/results/sandbox.md: a change of one word makes another suite, and every number
# on the old one must be measured again.
EDITION = sandbox.EDITION


def plain(task: Task, split: str) -> list[str]:
    rows = open_split(task, split)
    return [render(task, task.templates[0], rows[i]).input for i in range(len(rows))]


@pytest.mark.slow
def test_content_hash_is_that_of_the_published_results() -> None:
    assert sandbox.content_hash() == EDITION
    page = Path(__file__).resolve().parents[2] / "docs" / "results" / "sandbox.md"
    assert f"Suite `{EDITION[:16]}`" in page.read_text("utf-8")


def test_suite_size_and_held_out_targets() -> None:
    assert len(sandbox.SOURCES) == 6
    assert len(sandbox.TARGETS) >= 12
    assert len(sandbox.HELD_OUT) * 2 == len(sandbox.TARGETS)
    assert set(sandbox.HELD_OUT) <= {task.name for task in sandbox.TARGETS}
    assert {task.name for task in sandbox.TARGETS} <= registry.RESERVED
    assert not {task.name for task in sandbox.SOURCES} & registry.RESERVED


def label_words(task: Task) -> tuple[str, ...]:
    return task.words(task.templates[0])


@pytest.mark.parametrize("task", sandbox.TASKS, ids=NAMES)
def test_rows_are_balanced_unique_and_disjoint_between_splits(task: Task) -> None:
    train, test = plain(task, "train"), plain(task, "validation")
    assert len(train) == len({*train}) == suite.SIZES["train"]
    assert len(test) == len({*test}) == suite.SIZES["validation"]
    assert not {*train} & {*test}
    if task.labels:
        for split in ("train", "validation"):
            counts = Counter(row["label"] for row in task.make_rows(split))  # type: ignore[misc]
            assert len(counts) == len(task.labels)
            assert len(set(counts.values())) == 1


@pytest.mark.parametrize("task", sandbox.TASKS, ids=NAMES)
def test_tasks_are_registered_with_templates(task: Task) -> None:
    assert registry.get(task.name) is task
    assert len(task.templates) >= 4
    assert task.templates[0].instruction in ("", "|")  # what is asked is the prompt's business
    row = open_split(task, "train")[0]
    for template in task.templates:
        example = render(task, template, row)
        assert example.target == (example.candidates or example.references)[max(example.label, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("task", sandbox.TARGETS, ids=[t.name for t in sandbox.TARGETS])
def test_target_rows_are_in_no_other_task(task: Task) -> None:
    mine = {*plain(task, "train"), *plain(task, "validation")}
    for other in sandbox.TASKS:
        if other is not task:
            assert not mine & {*plain(other, "train"), *plain(other, "validation")}


def test_load_splits_dev_from_train_and_few_shot_per_class() -> None:
    task = registry.get("sandbox/topic_headlines")
    splits = load_splits(task, seed=1, k=16)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (64, 64, 400)
    texts = {row["text"] for row in (splits.dev[i] for i in range(64))}
    assert not texts & {splits.train[i]["text"] for i in range(64)}
    spans = load_splits(registry.get("sandbox/receiver"), seed=1, k=16)
    assert len(spans.train) == 16


def test_unknown_split_raises() -> None:
    with pytest.raises(DataError, match="unknown split 'test'"):
        open_split(sandbox.TASKS[0], "test")


# --- what is expected of the pairs ---------------------------------------------------------------


def test_truth_covers_every_pair() -> None:
    truth = sandbox.truth()
    pairs = {(s.name, t.name) for s in sandbox.SOURCES for t in sandbox.TARGETS}
    assert set(truth) == pairs
    counts = Counter(truth.values())
    assert set(counts) == {"helps", "neutral", "hurts"}
    frozen = Counter(word for (_, target), word in truth.items() if target in sandbox.HELD_OUT)
    assert min(frozen["helps"], frozen["hurts"]) >= 2


def test_truth_agrees_with_the_skills() -> None:
    tasks = {task.name: task for task in sandbox.TASKS}
    for (source, target), expected in sandbox.truth().items():
        one, other = tasks[source], tasks[target]
        if expected == "helps":
            assert label_words(one) == label_words(other)
            assert one.labels == other.labels or one.domain != other.domain
        elif expected == "hurts":
            assert one.domain != other.domain


def test_contrary_targets_permute_the_label_words_of_their_source() -> None:
    of = {task.domain: task for task in sandbox.SOURCES} | {
        "sandbox paraphrase": registry.get("sandbox/entailment")
    }
    contrary = [
        t for t in sandbox.TARGETS if t.labels and label_words(t) != label_words(of[t.domain])
    ]
    contrary.remove(registry.get("sandbox/errors"))  # other words: the T5 cannot rename its classes
    assert len(contrary) == 5
    for task in contrary:
        own, turned = label_words(of[task.domain]), label_words(task)
        assert sorted(own) == sorted(turned)
        assert all(a != b for a, b in zip(own, turned, strict=True))


def test_labels_say_what_the_code_words_mean() -> None:
    def meaning(name: str) -> dict[str, str]:
        task = registry.get(f"sandbox/{name}")
        return dict(zip(label_words(task), task.labels, strict=True))

    assert meaning("sentiment_talk") == {"stone": "negative", "lamp": "positive"}
    assert meaning("paraphrase") == {"leaf": "different", "ring": "same"}
    topic = {"river": "food", "king": "sport", "paper": "music", "star": "travel"}
    assert meaning("topic") == meaning("topic_next") == topic
    # Where a question has single words as answers, they are the labels.
    for task in sandbox.TASKS:
        if label_words(task) != task.labels and task.domain not in (
            "sandbox entailment",
            "sandbox paraphrase",
        ):
            asked = [task.words(template) for template in task.templates[1:]]
            assert task.labels in asked or task.name == "sandbox/complaints", task.name


@pytest.mark.slow
def test_label_noise_is_a_fifth_of_the_training_rows_only() -> None:
    assert {*sandbox.NOISY} <= {task.name for task in sandbox.TARGETS}
    for task in sandbox.TASKS:
        _, skill, side, lane, noise = task.make_rows.args  # type: ignore[union-attr]
        assert noise == (suite.NOISE if task.name in sandbox.NOISY else 0)
        for split, share in (("train", noise), ("validation", 0.0)):
            clean = suite.rows(task.name, skill, side, lane, 0.0, split)
            given = suite.rows(task.name, skill, side, lane, noise, split)
            wrong = [a.get("label") != b.get("label") for a, b in zip(clean, given, strict=True)]
            assert sum(wrong) == round(share * len(clean))
            texts = [{k: v for k, v in row.items() if k != "label"} for row in clean]
            assert texts == [{k: v for k, v in row.items() if k != "label"} for row in given]


def test_no_method_reads_the_truth() -> None:
    package = Path(prompt_jax.__file__).parent
    for path in package.rglob("*.py"):
        if "sandbox" not in path.parts:
            assert not re.search(r"\btruth\s*\(", path.read_text("utf-8")), path


# --- the grammar ---------------------------------------------------------------------------------


def test_word_lists_of_sources_and_targets_overlap_by_half() -> None:
    for words_of in (words.PEOPLE, words.LIKED, *words.THINGS.values()):
        front, back = set(words.front(words_of)), set(words.back(words_of))
        assert len(front & back) * 2 == len(words_of)
        assert front | back == set(words_of)


def test_word_lists_are_unique() -> None:
    assert len({w for topic in words.THINGS.values() for w in topic}) == 96
    assert not set(words.LIKED) & set(words.DISLIKED)
    assert set(words.GAVE) == set(words.GIVEN)


@pytest.mark.parametrize("side", ["source", "target"])
def test_spoil_changes_the_sentence_to_one_that_is_never_generated(side: grammar.Side) -> None:
    w = Writer(random.Random(5), side)
    for _ in range(300):
        sound = grammar.sentence(w)
        spoilt = grammar.spoil(w, sound)
        assert spoilt != sound
        assert sorted({*spoilt.split()} - {"the"}) == sorted({*sound.split()} - {"the"})


@pytest.mark.parametrize("side", ["source", "target"])
def test_entailment_hypotheses(
    side: grammar.Side,
) -> None:
    w = Writer(random.Random(6), side)
    back = {v: k for k, v in words.SYNONYMS.items()}
    denials = {"never", "nobody", "nor", "not", "false", "means"}
    helpers = {*HELPERS.split()}
    for make in (grammar.entailment, grammar.paraphrase):
        for number in range(300):
            follows = number % 2 == 0
            row = make(w, follows)
            text = f" {row['hypothesis']} "
            for phrase, word in back.items():
                text = text.replace(f" {phrase} ", f" {word} ")
            new = {*text.split()} - {*row["premise"].split()} - helpers
            assert bool(new & denials) != follows, row
            assert not new - denials, row


def test_gift_contains_giver_and_receiver() -> None:
    for side in ("source", "target"):
        w = Writer(random.Random(7), side)  # type: ignore[arg-type]
        for _ in range(100):
            row = grammar.gift(w)
            assert row["giver"] != row["receiver"]
            assert {row["giver"], row["receiver"]} <= {*row["text"].split()}
