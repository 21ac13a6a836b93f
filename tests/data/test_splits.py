import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.config.values import parse_value
from prompt_jax.data import Limits, Task, Template, few_shot, load_splits, make_splits, registry
from prompt_jax.data.protocols import Protocol, other_splits
from prompt_jax.data.shots import draw_shots
from prompt_jax.data.sources import Mapped
from prompt_jax.data.splits import Splits
from prompt_jax.data.torch_order import torch_permutation
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.recipes import DataConfig

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


def test_size_rule_halves_a_small_validation_split():
    splits = cut(10_000, protocol="task_prompt_vectors", seed=1)
    assert len(splits.train) == 10_000
    assert (len(splits.dev), len(splits.test)) == (20, 20)
    assert sorted(ids(splits.dev) + ids(splits.test)) == ids(TEST)
    # Seed 42 whatever the seed of the run; not simply the first half.
    again = cut(10_000, protocol="task_prompt_vectors", seed=2)
    assert ids(again.dev) == ids(splits.dev)
    assert sorted(ids(splits.dev)) != ids(TEST)[:20]


def test_size_rule_takes_a_thousand_from_a_large_train():
    splits = cut(10_001, protocol="task_prompt_vectors")
    assert (len(splits.train), len(splits.dev)) == (9_001, 1_000)
    assert ids(splits.test) == ids(TEST)
    assert ids(cut(10_001, protocol="task_prompt_vectors", seed=7).dev) == ids(splits.dev)


class Rows:
    """Rows that are their numbers, of a file of any size."""

    def __init__(self, n, first=0):
        self.n, self.first = n, first

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return {"idx": self.first + index}

    def column(self, name):
        return [i % 2 for i in range(self.n)] if name == "label" else None


def published(name, protocol, **options):
    """The sets of a registered task whose files have the published numbers of rows."""
    task = registry.get(name)
    sizes = dict(task.sizes)
    others = {split: Rows(sizes[split]) for split in other_splits(task, protocol)}
    rows = (Rows(sizes[split]) for split in ("train", "validation"))
    return make_splits(task, *rows, protocol, others=others, **options)


# Train, dev and test rows of ATTEMPT, MPT, DePT and ULPT (the last prints them in its table 4).
ATTEMPT_SIZES = {
    "glue/mnli": (392_702, 9_832, 9_815),
    "glue/qqp": (362_846, 1_000, 40_430),  # the table prints 40,431; the published file has 40,430
    "glue/qnli": (103_743, 1_000, 5_463),
    "glue/sst2": (66_349, 1_000, 872),
    "glue/stsb": (5_749, 750, 750),
    "glue/mrpc": (3_668, 204, 204),
    "glue/rte": (2_490, 138, 139),
    "glue/cola": (8_551, 521, 522),
    "mrqa/natural_questions": (103_071, 1_000, 12_836),
    "mrqa/hotpot_qa": (71_928, 1_000, 5_901),
    "mrqa/search_qa": (116_384, 1_000, 16_980),
    "mrqa/news_qa": (73_160, 1_000, 4_212),
    "super_glue/multirc": (27_243, 2_424, 2_424),
    "super_glue/boolq": (9_427, 1_635, 1_635),
    "super_glue/wic": (5_428, 319, 319),
    "super_glue/wsc.fixed": (554, 52, 52),
    "super_glue/cb": (250, 28, 28),
    "scitail_snli": (23_596, 652, 652),
    "paws": (49_401, 8_000, 8_000),
    "yelp_polarity": (100_000, 1_000, 38_000),
    "winogrande": (39_398, 1_000, 1_267),
}


@pytest.mark.parametrize("name", ATTEMPT_SIZES)
def test_attempt_cuts_by_the_name_of_the_task(name):
    splits = published(name, "attempt")
    parts = (splits.train, splits.dev, splits.test)
    assert tuple(map(len, parts)) == ATTEMPT_SIZES[name]
    assert splits.notes == ()


def test_attempt_takes_the_rows_that_torch_takes():
    halved = published("super_glue/cb", "attempt", seed=3)
    order = torch_permutation(56).tolist()
    assert ids(halved.dev) == sorted(order[:28])
    assert ids(halved.test) == sorted(order[28:])
    assert {22, 8, 36, 39, 34, 28} < set(ids(halved.dev))  # as torch has them
    large = published("glue/sst2", "attempt", seed=3)
    order = torch_permutation(67_349, count=1_000)
    assert ids(large.dev) == sorted(order.tolist())
    assert not set(ids(large.dev)) & set(ids(large.train))
    # DePT keeps the first 100,000 of what is left, in torch's order.
    capped = published("yelp_polarity", "attempt")
    order = torch_permutation(560_000, count=101_000)
    np.testing.assert_array_equal(capped.train.indices, np.sort(order[1_000:]))


def test_attempt_has_splits_of_their_own_for_two_tasks():
    names = {"glue/mnli": "validation_mismatched", "paws": "test"}
    for name, split in names.items():
        assert other_splits(registry.get(name), "attempt") == (split,)
        assert other_splits(registry.get(name), "task_prompt_vectors") == ()
    task = registry.get("glue/mnli")
    splits = make_splits(
        task, Rows(50), Rows(9), "attempt", others={"validation_mismatched": Rows(8, 100)}
    )
    assert ids(splits.dev) == list(range(100, 108))
    assert ids(splits.test) == list(range(9))
    with pytest.raises(DataError, match="needs its validation_mismatched split"):
        make_splits(task, Rows(50), Rows(9), "attempt")


def test_attempt_reads_the_other_split_of_a_folder(tmp_path):
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "label": i % 2} for i in range(9)]
    write_jsonl(tmp_path / "paws" / "train.jsonl", rows)
    write_jsonl(tmp_path / "paws" / "validation.jsonl", rows[:4])
    paws = registry.get("paws")
    with pytest.raises(DataError, match=r"has no test split for task 'paws': put test\.jsonl"):
        load_splits(paws, tmp_path, "attempt")
    write_jsonl(tmp_path / "paws" / "test.jsonl", rows[4:9])
    splits = load_splits(paws, tmp_path, "attempt")
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [9, 4, 5]
    assert splits.test[0]["sentence1"] == "a4"
    # Not the published files: the sets are not those of the papers.
    assert splits.notes[0].startswith("paws: its train file has 9 rows, the published one 49,401:")


def test_attempt_refuses_a_task_that_it_does_not_name():
    with pytest.raises(DataError, match=r"goes by the name of the task .* 'toy/nli'"):
        cut(10, protocol="attempt")


def test_transfer_papers_names_its_successors():
    for refused in (
        lambda: cut(10, protocol="transfer_papers"),
        lambda: DataConfig(protocol="transfer_papers"),
        lambda: parse_value("transfer_papers", Protocol, "data.protocol"),
    ):
        with pytest.raises(ConfigError, match=r"replaced by attempt .* and task_prompt_vectors"):
            refused()


def test_few_shots_of_the_default_protocol_have_few_development_rows():
    splits = cut(100, k=4)
    for part in (splits.train, splits.dev):
        assert Counter(row["label"] for row in part) == {0: 4, 1: 4}
        assert max(ids(part)) < 100
    assert not set(ids(splits.train)) & set(ids(splits.dev))
    assert len(splits.test) == 40


def test_few_shots_of_published_protocols_keep_their_development_set():
    halved = published("super_glue/boolq", "attempt", k=4)
    assert [len(part) for part in (halved.train, halved.dev, halved.test)] == [8, 1_635, 1_635]
    large = published("glue/qnli", "attempt", k=16, shots_count="total")
    assert Counter(row["idx"] % 2 for row in large.train) == {0: 8, 1: 8}
    assert ids(large.dev) == ids(published("glue/qnli", "attempt").dev)
    assert not set(ids(large.train)) & set(ids(large.dev))
    vectors = published("super_glue/boolq", "task_prompt_vectors", k=4)
    assert (len(vectors.train), len(vectors.dev)) == (8, 250)
    whole = published("super_glue/boolq", "task_prompt_vectors")
    assert set(ids(vectors.dev)) < set(ids(whole.dev))
    assert ids(published("super_glue/boolq", "task_prompt_vectors", seed=5, k=4).dev) == ids(
        vectors.dev
    )


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
        make_splits(NLI, nli_rows(10), TEST[:1], protocol="task_prompt_vectors")
    with pytest.raises(ConfigError, match="Did you mean 'total'"):
        cut(10, k=1, shots_count="totl")


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


@given(
    classes=st.lists(st.integers(0, 2), min_size=2, max_size=60),
    k=st.integers(1, 20),
    seed=st.integers(0, 3),
    with_dev=st.booleans(),
)
def test_shots_in_total(classes, k, seed, with_dev):
    classes, names = np.asarray(classes), ("a", "b", "c")
    generator = np.random.default_rng(seed)
    train, dev, notes = draw_shots(classes, k, generator, names, "total", with_dev)
    assert not set(train.tolist()) & set(dev.tolist())
    assert len(set(train.tolist())) == len(train)
    n = len(classes)
    if not with_dev:
        assert (len(train), len(dev)) == (min(k, n), 0)
    elif n >= 2 * k:
        assert (len(train), len(dev)) == (k, k)
    else:  # all rows, split evenly as far as classes allow
        assert len(train) + len(dev) == n
        assert max(len(train), len(dev)) <= k
    for number in range(3):
        have = int((classes == number).sum())
        if have >= 2 * (k // 3):
            for part in (train, dev) if with_dev else (train,):
                assert int((classes[part] == number).sum()) >= k // 3
    assert any("too few for k" in note for note in notes) == (
        len(train) < k or (with_dev and len(dev) < k)
    )


def test_four_shots_in_total_are_four_rows():
    rows = [{"premise": "p", "hypothesis": "h", "label": i % 3, "idx": i} for i in range(60)]
    cb = dataclasses.replace(NLI, labels=("yes", "maybe", "no"), templates=NLI.templates[:1])
    for k, each in ((4, 1), (16, 5), (32, 10)):
        train, dev, notes = few_shot(cb, rows, k, 0, "total", with_dev=False)
        assert (len(train), len(dev), notes) == (k, 0, ())
        assert min(Counter(row["label"] for row in train).values()) == each
    assert len(few_shot(cb, rows, 4, 0, with_dev=False)[0]) == 12  # per class, the default


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


def test_tasks_and_splits_are_shown_in_one_line():
    task = registry.get("banking77")
    assert repr(task) == "Task('banking77', classification, 77 labels, 4 templates)"
    rows = [{"text": "what is this"}] * 3000
    shown = repr(Splits(rows, rows[:200], rows[:10]))
    assert shown == "Splits(3,000 training, 200 development and 10 test rows)"
