import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.data import Limits, Task, Template, few_shot, load_splits, make_splits
from prompt_jax.data.sources import Mapped
from prompt_jax.data.splits import draw_shots
from prompt_jax.errors import ConfigError, DataError

from .conftest import NLI, nli_rows, write_jsonl

SPAN = Task("span", "span", ("question",), (Template("t", "{question}"),))
TEST = nli_rows(40, start=100_000)


def ids(source):
    return [source[i]["idx"] for i in range(len(source))]


def cut(n, task=NLI, **options):
    return make_splits(task, nli_rows(n), TEST, **options)


def test_development_set_is_drawn_from_train_and_test_is_unchanged():
    splits = cut(1000, seed=3)
    assert ids(splits.test) == ids(TEST)
    assert len(splits.dev) == 200
    assert sorted(ids(splits.train) + ids(splits.dev)) == list(range(1000))
    assert ids(cut(1000, seed=3).dev) == ids(splits.dev)
    assert ids(cut(1000, seed=4).dev) != ids(splits.dev)
    other = dataclasses.replace(NLI, name="other")
    assert ids(cut(1000, task=other, seed=3).dev) != ids(splits.dev)


@pytest.mark.parametrize(("n", "dev"), [(2, 1), (5, 1), (50, 10), (999, 199), (5000, 200)])
def test_development_set_is_at_most_a_fifth(n, dev):
    splits = cut(n)
    assert (len(splits.train), len(splits.dev)) == (n - dev, dev)


def test_limits():
    limits = Limits(train=100, dev=50, test=10)
    one, two = (cut(1000, seed=seed, limits=limits) for seed in (1, 2))
    assert [len(part) for part in (one.train, one.dev, one.test)] == [100, 50, 10]
    assert not set(ids(one.train)) & set(ids(one.dev))
    assert ids(one.test) == ids(two.test)
    assert ids(one.train) != ids(two.train)
    # The development set is the same whatever the limit on train.
    assert ids(cut(1000, seed=1, limits=Limits(dev=50)).dev) == ids(one.dev)
    for wrong in ({"train": -1}, {"dev": 0}, {"test": -1}):
        with pytest.raises(ConfigError):
            Limits(**wrong)


def test_transfer_papers_small_halves_validation():
    splits = cut(10_000, protocol="transfer_papers", seed=1)
    assert len(splits.train) == 10_000
    assert (len(splits.dev), len(splits.test)) == (20, 20)
    assert sorted(ids(splits.dev) + ids(splits.test)) == ids(TEST)
    # Seed 42 whatever the seed of the run; not simply the first half.
    again = cut(10_000, protocol="transfer_papers", seed=2)
    assert ids(again.dev) == ids(splits.dev)
    assert sorted(ids(splits.dev)) != ids(TEST)[:20]


def test_transfer_papers_large_takes_a_thousand_from_train():
    splits = cut(10_001, protocol="transfer_papers")
    assert (len(splits.train), len(splits.dev)) == (9_001, 1_000)
    assert ids(splits.test) == ids(TEST)


@pytest.mark.parametrize("protocol", ["development", "transfer_papers"])
def test_few_shot_draws_from_train_under_every_protocol(protocol):
    splits = cut(100, k=4, protocol=protocol)
    for part in (splits.train, splits.dev):
        assert Counter(row["label"] for row in part) == {0: 4, 1: 4}
        assert max(ids(part)) < 100
    assert not set(ids(splits.train)) & set(ids(splits.dev))
    assert len(splits.test) == (40 if protocol == "development" else 20)


def test_invalid_arguments_raise():
    with pytest.raises(ConfigError, match="Did you mean 'development'"):
        cut(10, protocol="developement")
    with pytest.raises(ConfigError, match="k must not be negative"):
        cut(10, k=-1)
    with pytest.raises(DataError, match="train split has 1 rows"):
        cut(1)
    with pytest.raises(DataError, match="validation split has no rows"):
        make_splits(NLI, nli_rows(10), [])
    with pytest.raises(DataError, match="cannot be halved"):
        make_splits(NLI, nli_rows(10), TEST[:1], protocol="transfer_papers")


def test_evaluation_only_task_has_no_train(tmp_path):
    task = dataclasses.replace(NLI, split_protocol="evaluation")
    write_jsonl(tmp_path / "toy_nli" / "validation.jsonl", TEST)
    splits = load_splits(task, tmp_path, limits=Limits(test=7))
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (0, 0, 7)
    with pytest.raises(DataError, match="evaluation only"):
        load_splits(task, tmp_path, k=1)


def test_load_splits(tmp_path):
    write_jsonl(tmp_path / "toy_nli" / "train.jsonl.gz", nli_rows(100))
    write_jsonl(tmp_path / "toy_nli" / "validation.tsv", [])
    (tmp_path / "toy_nli" / "validation.tsv").write_text("premise\thypothesis\tlabel\nx\ty\t1\n")
    splits = load_splits(NLI, tmp_path, seed=5)
    direct = cut(100, seed=5)
    assert ids(splits.train) == ids(direct.train)
    assert splits.test[0]["premise"] == "x"


def test_dropped_rows_are_noted():
    rows = Mapped(nli_rows(20), label_map=(0, None))
    splits = make_splits(NLI, rows, TEST)
    assert len(splits.train) + len(splits.dev) == 10
    assert splits.notes == ("10 rows of the train split have no label of this task: dropped",)


@given(
    classes=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    k=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_draw_shots_is_disjoint_and_balanced(classes, k, seed):
    classes = np.asarray(classes)
    names = ("a", "b", "c", "d")
    train, dev, notes = draw_shots(classes, k, np.random.default_rng(seed), names)
    assert not set(train.tolist()) & set(dev.tolist())
    assert len(set(train.tolist())) == len(train)
    assert (np.diff(train) > 0).all()
    for number, name in enumerate(names):
        have = int((classes == number).sum())
        drawn = [int((classes[part] == number).sum()) for part in (train, dev)]
        if have >= 2 * k:
            assert drawn == [k, k]
        else:
            assert drawn == [min(k, have - have // 2), min(k, have // 2)]
        assert any(note.startswith(name) for note in notes) == (have < 2 * k)
    again = draw_shots(classes, k, np.random.default_rng(seed), names)
    np.testing.assert_array_equal(again[0], train)


def test_draw_shots_splits_rare_classes_with_a_note():
    rows = [{"label": 0, "idx": i} for i in range(40)] + [{"label": 1, "idx": i} for i in range(5)]
    train, dev, notes = few_shot(NLI, rows, 16, 0)
    assert Counter(row["label"] for row in train) == {0: 16, 1: 3}
    assert Counter(row["label"] for row in dev) == {0: 16, 1: 2}
    assert notes == ("toy/nli: not_entailment has 5 rows, fewer than 2 x 16: 3 train, 2 dev",)


def test_few_shot_of_other_kinds_has_k_rows_in_total():
    rows = [{"question": str(i), "answers": ["x"], "idx": i} for i in range(50)]
    train, dev, notes = few_shot(SPAN, rows, 16, 0)
    assert (len(train), len(dev), notes) == (16, 16, ())
    with pytest.raises(DataError, match="too few"):
        few_shot(SPAN, rows[:1], 16, 0)
    with pytest.raises(ConfigError, match="k >= 1"):
        few_shot(SPAN, rows, 0, 0)


def test_draws_depend_on_the_seed_and_larger_k_extends_them():
    rows = nli_rows(200)
    small, large = (set(ids(few_shot(NLI, rows, k, 0)[0])) for k in (4, 16))
    assert small < large  # 4 shots are part of 16 shots of the same seed
    assert set(ids(few_shot(NLI, rows, 16, 1)[0])) != large


def test_few_shot_on_real_folders(shared_dir):
    root = shared_dir / "data"
    trec = Task(
        "trec",
        "classification",
        ("sentence",),
        (Template("t", "{sentence}"),),
        ("description", "entity", "abbreviation", "human", "location", "number"),
    )
    splits = load_splits(trec, root, k=16)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (96, 96, 500)
    assert splits.notes == ()
    cb = Task(
        "superglue/cb",
        "classification",
        ("premise", "hypothesis"),
        (Template("t", "{premise} {hypothesis}"),),
        ("entailment", "contradiction", "neutral"),
    )
    splits = load_splits(cb, root, k=16)
    assert len(splits.test) == 56
    assert len(splits.train) == len(splits.dev) < 48
    assert "neutral has" in splits.notes[0]
