from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.data import Feed, Mixture, concat, process_slice
from prompt_jax.data.feed import MODES, ShuffledStream
from prompt_jax.errors import ConfigError, DataError

from .conftest import make_split

SPLITS = {n: make_split(n, f"task{n}") for n in range(13)}


def mixture(*sizes):
    return concat([SPLITS[n] for n in sizes])


@given(n=st.integers(1, 12), seed=st.integers(0, 3), epochs=st.integers(1, 4))
def test_shuffled_stream_epoch_is_a_permutation(n, seed, epochs):
    stream = ShuffledStream(n, seed, "order")
    numbers = stream.at(np.arange(n * epochs)).reshape(epochs, n)
    assert (np.sort(numbers, axis=1) == np.arange(n)).all()


@settings(max_examples=40)
@given(
    n=st.integers(1, 12),
    batch=st.integers(1, 30),
    mode=st.sampled_from([None, *MODES]),
    steps=st.lists(st.integers(0, 200), min_size=1, max_size=8),
)
def test_rows_do_not_depend_on_earlier_calls(n, batch, mode, steps):
    def make():
        if mode is None:
            return Feed(SPLITS[n], batch, 3)
        return Mixture(mixture(n, 5), max(batch, 2), 3, mode=mode, cap=7)

    feed = make()
    for step in steps:
        rows = feed.rows(step)
        assert rows.shape == (feed.batch_size,)
        assert rows.dtype == np.int64
        np.testing.assert_array_equal(rows, make().rows(step))


def test_batches_span_epochs():
    feed = Feed(SPLITS[10], 4, 0)
    rows = np.concatenate([feed.rows(step) for step in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()


def test_batch_larger_than_the_split_repeats_rows_evenly():
    feed = Feed(SPLITS[3], 7, 0)
    counts = Counter(np.concatenate([feed.rows(step) for step in range(3)]).tolist())
    assert counts == {0: 7, 1: 7, 2: 7}


def test_order_depends_on_seed_and_stream():
    orders = {
        (seed, stream): Feed(SPLITS[12], 12, seed, stream).rows(0).tolist()
        for seed in (0, 1)
        for stream in ("order", "source")
    }
    assert len({tuple(order) for order in orders.values()}) == 4


def test_scale_is_task_size_over_rows_in_the_batch():
    feed = Feed(mixture(10, 4), 6, 0)
    rows = np.asarray([0, 1, 2, 10, 11, 1])
    np.testing.assert_allclose(feed.scale(rows), [2.5, 2.5, 2.5, 2.0, 2.0, 2.5])
    assert feed.scale(rows).dtype == np.float32
    assert feed.task_sizes.tolist() == [10, 4]
    np.testing.assert_allclose(Feed(SPLITS[10], 5, 0).scale(np.arange(5)), 2.0)


def test_scaled_batches_estimate_the_sum_over_all_rows():
    split = mixture(12, 3, 7)
    values = np.random.default_rng(0).normal(size=len(split))
    feed = Mixture(split, 6, 0, mode="stratified")
    sums = [(values[rows] * feed.scale(rows)).sum() for rows in (feed.rows(s) for s in range(4000))]
    assert abs(np.mean(sums) - values.sum()) < 0.25


def tasks_of(feed, steps):
    return feed.split.task[np.concatenate([feed.rows(step) for step in range(steps)])]


def test_mixture_proportional_up_to_the_cap():
    # A virtual epoch has 5 + 2 + 5 rows, so 12 batches of 3 are three of them.
    feed = Mixture(mixture(12, 2, 6), 3, 0, mode="proportional", cap=5)
    assert np.bincount(tasks_of(feed, 12)).tolist() == [15, 6, 15]
    whole = Mixture(mixture(12, 2, 6), 4, 0)
    rows = np.concatenate([whole.rows(step) for step in range(5)])
    assert sorted(rows) == list(range(20))


def test_mixture_capped_tasks_use_all_their_rows():
    feed = Mixture(mixture(12, 4), 2, 0, cap=4)
    rows = np.concatenate([feed.rows(step) for step in range(12)])  # three virtual epochs of 8
    assert sorted(rows[rows < 12]) == list(range(12))


def test_mixture_uniform_has_equal_rows_per_task():
    feed = Mixture(mixture(12, 2, 7), 7, 0, mode="uniform")
    assert np.bincount(tasks_of(feed, 3)).tolist() == [7, 7, 7]
    rows = np.concatenate([feed.rows(step) for step in range(12)])
    counts = np.bincount(rows, minlength=21)
    assert np.ptp(counts[:12]) <= 1
    assert np.ptp(counts[12:14]) == 0
    assert np.ptp(counts[14:]) == 0


def test_mixture_sampled_draws_tasks_and_shares_the_batch_among_them():
    feed = Mixture(mixture(3, 5, 9), 7, 0, mode="sampled")
    numbers, tasks = Counter(), Counter()
    for step in range(200):
        rows = Counter(feed.split.task[feed.rows(step)].tolist())
        assert max(rows.values()) - min(rows.values()) <= 1
        numbers[len(rows)] += 1
        tasks.update(rows.keys())
    assert set(numbers) == {2, 3}
    assert min(numbers.values()) > 70
    assert min(tasks.values()) > 130  # 5 of 6 on average, of any size
    assert len(set(Mixture(mixture(4), 3, 0, mode="sampled").rows(0))) == 3  # one task alone
    assert len(set(Mixture(mixture(3, 5, 9), 1, 0, mode="sampled").rows(0))) == 1


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    extra=st.integers(0, 6),
)
@settings(max_examples=30)
def test_mixture_stratified_has_every_task_in_every_batch(sizes, extra):
    tasks = concat([make_split_named(n, i) for i, n in enumerate(sizes)])
    batch = len(sizes) + extra
    feed = Mixture(tasks, batch, 1, mode="stratified")
    total = np.zeros(len(sizes), np.int64)
    seen = []
    for step in range(len(sizes)):
        rows = feed.rows(step)
        seen.append(rows)
        counts = np.bincount(feed.split.task[rows], minlength=len(sizes))
        assert counts.min() >= 1
        assert np.ptp(counts) <= 1
        total += counts
    assert (total == batch).all()  # what is left over went round
    # Each task runs through its rows in epochs: no row twice before all were seen once.
    counts = np.bincount(np.concatenate(seen), minlength=len(tasks))
    for k in range(len(sizes)):
        assert np.ptp(counts[feed.split.task == k]) <= 1


def make_split_named(n, i):
    split = SPLITS[n]
    return type(split)(**{**vars(split), "task_names": (f"t{i}",)})


def test_mixture_ignores_tasks_without_rows():
    for mode in MODES:
        feed = Mixture(mixture(0, 4, 3), 2, 0, mode=mode)
        assert set(tasks_of(feed, 10).tolist()) == {1, 2}
        assert feed.task_sizes.tolist() == [0, 4, 3]


def test_mixture_and_feed_orders_differ():
    split = SPLITS[12]
    orders = [Feed(split, 12, 0).rows(0)]
    orders += [Mixture(split, 12, 0, mode=mode).rows(0) for mode in ("stratified", "uniform")]
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_invalid_arguments_raise():
    with pytest.raises(DataError, match="'task0' has no rows"):
        Feed(SPLITS[0], 4, 0)
    with pytest.raises(ConfigError, match="batch size"):
        Feed(SPLITS[3], 0, 0)
    with pytest.raises(ConfigError, match="unknown random stream"):
        Feed(SPLITS[3], 1, 0, "oder")
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        Mixture(SPLITS[3], 1, 0, mode="unifrom")
    with pytest.raises(ConfigError, match="cap"):
        Mixture(SPLITS[3], 1, 0, cap=0)
    with pytest.raises(DataError, match="each of 3 tasks: raise the batch size from 2"):
        Mixture(mixture(1, 2, 3), 2, 0, mode="stratified")


def test_process_slice():
    rows = Feed(SPLITS[12], 8, 0).rows(5)
    parts = [process_slice(rows, i, 4) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert {len(part) for part in parts} == {2}
    for index, count in ((0, 3), (4, 4), (-1, 4)):
        with pytest.raises(ConfigError, match="split evenly"):
            process_slice(rows, index, count)
