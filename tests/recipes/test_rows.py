"""The rows of an experiment."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from world import TEST, TRAIN

from prompt_jax.data import Mixture
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.recipes import DataConfig, make_plan
from prompt_jax.recipes.resources import check_inputs
from prompt_jax.recipes.rows import RowStore
from prompt_jax.rundir import overlap as shared_rows
from prompt_jax.rundir import truncation
from prompt_jax.training.fingerprint import split_hash


@pytest.fixture
def store(world, tmp_path):
    def make(**changes):
        config = world.experiment(tmp_path).data
        return RowStore(dataclasses.replace(config, **changes), world.lm.tokenizer, None)

    return make


def test_rows_of_all(store, world):
    rows = store().rows(world.tasks["one"], 0)
    assert (len(rows.train), len(rows.dev), len(rows.test)) == (TRAIN - 8, 8, TEST)
    assert rows.task.name == "one"
    texts = [{e.input for e in part.examples} for part in (rows.train, rows.dev)]
    assert len(texts[0] | texts[1]) == TRAIN


@pytest.mark.parametrize("k", [1, 4])
def test_shots_are_per_class_and_set(store, world, k):
    rows = store().rows(world.tasks["one"], 0, k)
    for part in (rows.train, rows.dev):
        assert np.bincount(part.label).tolist() == [k, k]
    assert len(rows.test) == TEST


def test_draws_depend_on_the_seed_and_the_test_rows_do_not(store, world):
    made = store()
    draws = [made.rows(world.tasks["one"], seed, 4) for seed in (0, 1)]
    inputs = [[e.input for e in rows.train.examples] for rows in draws]
    assert inputs[0] != inputs[1]
    # The same object: evaluations of all seeds share its batches.
    assert draws[0].test is draws[1].test is made.rows(world.tasks["one"], 0).test


def test_rows_are_opened_once(store, world):
    made = store()
    assert made.rows(world.tasks["one"], 0) is made.rows(world.tasks["one"], 0)


def test_rows_are_limited_by_the_config(store, world):
    rows = store(train_rows=10, dev_rows=3, test_rows=5).rows(world.tasks["one"], 0)
    assert (len(rows.train), len(rows.dev), len(rows.test)) == (10, 3, 5)


def test_published_protocol(store, world):
    rows = store(protocol="task_prompt_vectors").rows(world.tasks["one"], 0)
    assert (len(rows.train), len(rows.dev), len(rows.test)) == (TRAIN, TEST // 2, TEST // 2)


def test_answers_in_digits(store, world):
    made = store(answers="digits")
    assert made.task(world.tasks["one"]).generated
    with pytest.raises(DataError, match="'0' and '1' have the same token ids"):
        made.rows(world.tasks["one"], 0)  # a vocabulary without digits
    words = store().rows(world.tasks["one"], 0).test
    examples = tuple(dataclasses.replace(e, generated=True) for e in words.examples)
    assert split_hash(words) != split_hash(dataclasses.replace(words, examples=examples))
    with pytest.raises(ConfigError, match="Did you mean 'digits'"):
        DataConfig(answers="digit")


def test_how_candidates_are_ranked(store, world):
    assert store().rows(world.tasks["one"], 0).test.rank_by == "mean"
    rows = store(rank_by="sum").rows(world.tasks["one"], 0)
    assert rows.dev.rank_by == rows.test.rank_by == "sum"
    with pytest.raises(ConfigError, match="rank_by is mean or sum, not 'total'"):
        DataConfig(rank_by="total")


def test_shots_in_total(store, world):
    rows = store(shots_count="total").rows(world.tasks["one"], 0, 4)
    assert np.bincount(rows.train.label).tolist() == [2, 2]
    assert len(rows.dev) == 4


def test_rows_have_the_templates_of_the_config(store, world):
    first = store().rows(world.tasks["one"], 0)
    assert set(first.train.template.tolist()) == {0}
    cycled = store(templates="cycle").rows(world.tasks["one"], 0)
    assert set(cycled.train.template.tolist()) == {0, 1}
    assert set(cycled.dev.template.tolist()) == {0, 1}
    assert set(cycled.test.template.tolist()) == {0}
    unseen = store(templates="rest", test_templates="all").rows(world.tasks["one"], 0)
    assert set(unseen.train.template.tolist()) == {1}
    assert set(unseen.dev.template.tolist()) == {1}
    assert unseen.test.template.tolist() == [0, 1] * TEST


def test_feeds_of_tasks_and_mixtures(store, world):
    made = store()
    feed = made.feed(world.tasks["one"], 3, 4, 5, "order")
    assert (feed.seed, feed.batch_size, feed.stream, len(feed.split)) == (3, 5, "order", 8)
    names = (world.tasks["first"], world.tasks["second"])
    mixture = made.mixture(names, 3, 6)
    assert isinstance(mixture, Mixture)
    assert (mixture.stream, mixture.mode, len(mixture.split)) == ("source", "proportional", 104)
    assert mixture.task_sizes.tolist() == [52, 52]


def test_report_and_truncation(store, world):
    made = store(max_input_tokens=5)
    made.rows(world.tasks["one"], 0)
    made.rows(world.tasks["one"], 1, 30)
    report = made.report()
    whole, few = report[world.tasks["one"]]
    assert (whole["seed"], whole["k"]) == (0, 0)
    assert whole["rows"] == {"train": TRAIN - 8, "dev": 8, "test": TEST}
    cut = made.rows(world.tasks["one"], 0).test.truncated_inputs
    assert whole["cut"]["test"] == {"inputs": cut, "targets": 0}
    assert cut > 0
    assert few["notes"]  # fewer than 2 x 30 rows per class
    target = world.tasks["one"]
    assert not any("test inputs" in line for line in truncation.notes(report, 5))  # a source's
    lines = truncation.notes(report, 5, [target])
    assert any(f"{cut / TEST:.0%} of the test inputs were longer than 5 tokens" in x for x in lines)
    assert any("fewer than 2 x 30" in line for line in lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("templates", ["first", "cycle", "rest"])
def test_rows_in_two_splits_are_counted(store, world, tmp_path, templates):
    """Whatever the wordings of training are, and whichever rows became the development set."""
    shutil.copytree(world.root / "one", tmp_path / "one")
    shutil.copy(world.tasks["one"], tmp_path / "one.toml")
    train, test = (tmp_path / "one" / f"{part}.jsonl" for part in ("train", "validation"))
    lines = train.read_text().splitlines()
    flipped = lines[2].replace('"label": "food"', '"label": "tool"')
    assert flipped != lines[2]
    test.write_text("\n".join([*lines[:2], flipped, *test.read_text().splitlines()]) + "\n")
    train.write_text("\n".join([*lines, *lines]) + "\n")  # the development set is trained on too
    name = str(tmp_path / "one.toml")
    made = store(templates=templates, test_templates="all")
    rows = made.rows(name, 0)
    assert rows.overlap["test"] == (2, 1, TEST + 3)
    assert rows.overlap["dev"].same > 0
    report = made.report()
    assert report[name][0]["overlap"]["test"] == {"same": 2, "other": 1, "rows": TEST + 3}
    assert shared_rows.notes(report, [name])[-1] == (
        f"one: 2 of {TEST + 3} test rows are training rows too, and 1 with another answer"
    )
    clean = store(templates=templates)
    clean.rows(world.tasks["one"], 0)
    assert shared_rows.notes(clean.report(), [world.tasks["one"]]) == []


def test_rows_that_a_source_trains_on_are_counted_among_those_of_targets(store, world, tmp_path):
    """Of the source's own training rows, whatever the wordings of the two tasks are."""
    source, target = world.tasks["first"], str(tmp_path / "one.toml")
    shutil.copytree(world.root / "one", tmp_path / "one")
    shutil.copy(world.tasks["one"], target)
    made = store()
    trained = made.rows(source, 0).train.examples[0].input.removeprefix("sentence: ")
    texts = [f" {trained.upper()}", *(f"text {i}" for i in range(TEST - 1))]
    rows = [{"text": text, "label": "food"} for text in texts]
    test = tmp_path / "one" / "validation.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.rows(target, 0)
    made.rows(target, 1)  # the source is not trained with this seed
    first, second = made.report([source], [target])[target]
    assert first["sources"]["first"]["test"] == {"same": 1, "rows": TEST}
    assert "sources" not in second
    assert "sources" not in made.report([source], [])[target][0]
    assert shared_rows.notes(made.report([source], [target]), [target])[-1] == (
        f"one: 1 of {TEST} test rows are training rows of the source first (their texts)"
    )


def test_a_source_that_is_the_test_set_of_a_target_is_refused(store, world, tmp_path):
    target = Path(world.tasks["one"]).read_text().replace('"one"', '"target"')
    target = target.replace("one/validation.jsonl", "first/train.jsonl")
    (tmp_path / "target.toml").write_text(target)
    for name in ("one", "first"):
        shutil.copytree(world.root / name, tmp_path / name)
    config = dataclasses.replace(
        world.experiment(tmp_path),
        sources=(world.tasks["first"],),
        targets=(str(tmp_path / "target.toml"),),
    )
    with pytest.raises(DataError, match="source 'first' trains on the 60 test texts of the target"):
        check_inputs(config, None, store())
    with pytest.raises(DataError, match="source 'first' trains on"):
        make_plan(config, world.lm)


def test_all_tasks_whose_data_is_not_here_are_in_one_error(store, world, tmp_path):
    config = dataclasses.replace(
        world.experiment(tmp_path),
        sources=("mr", world.tasks["first"]),
        targets=("trec", "sandbox/topic"),
    )
    # Before the model is looked at, and before any other task is opened.
    with pytest.raises(DataError, match="2 tasks need data that is not on this machine: mr, trec"):
        check_inputs(config, None, store(root=None))


def test_short_rows_are_not_truncated(store, world):
    made = store()
    made.rows(world.tasks["one"], 0)
    assert truncation.notes(made.report(), 128) == []


def test_token_ids_are_cached(world, tmp_path):
    config = DataConfig(max_input_tokens=8, max_target_tokens=4, dev_rows=8)
    for _ in range(2):
        made = RowStore(config, world.lm.tokenizer, tmp_path)
        rows = made.rows(world.tasks["one"], 0)
        assert len(list((tmp_path / "rows").glob("*.safetensors"))) == 3
    assert rows.train.inputs.values.max() < world.lm.vocab_size


def test_unknown_task_is_refused(store):
    with pytest.raises(DataError, match=r"unknown task 'glue/rtee'.*Did you mean 'glue/rte'"):
        store().rows("glue/rtee", 0)


def test_choices_that_are_the_same_tokens_are_reported(world, tmp_path):
    """Words that the tokenizer does not know are one token."""
    for part, shift in (("train", 0), ("validation", 9)):
        rows = [
            {"text": "the dog", "choices": [f"qq {i}", f"zz {i}"], "label": 0}
            for i in range(shift, shift + 4)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{part}.jsonl").write_text(text)
    task = tmp_path / "pairs.toml"
    task.write_text(
        """name = "pairs"
kind = "choice"
fields = ["text", "choices"]
choices = ["choices"]
description = "Pairs."
[[templates]]
name = "plain"
text = "{text}"
choice_answers = "text"
[files]
train = "train.jsonl"
validation = "validation.jsonl"
"""
    )
    config = dataclasses.replace(world.experiment(tmp_path).data, max_target_tokens=2)
    store = RowStore(config, world.lm.tokenizer, None)
    notes = store.rows(str(task), 0).notes
    (warning,) = [note for note in store.warnings if "test rows" in note]
    assert warning == (
        "pairs: in 4 of 4 test rows two choices are the same tokens (at most 2); a tie counts as 1"
        " / its number of choices; raise data.max_target_tokens"
    )
    assert warning in notes
    report = store.report()
    assert report[str(task)][0]["cut_answers"]["test"] == 4
    assert warning in truncation.notes(report, 8, [str(task)], 2)
    assert (
        "pairs: the answers of 100% of the test rows were longer than 2 tokens and were truncated"
        in truncation.notes(report, 8, [str(task)], 2)
    )
