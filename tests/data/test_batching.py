"""Batches: every row once, few shapes, within the budget."""

from types import SimpleNamespace

import numpy as np
import pytest

from prompt_jax.data import batching
from prompt_jax.data.ragged import Ragged
from prompt_jax.errors import ConfigError


def lengths(seed, n, longest=120):
    return np.random.default_rng(seed).integers(1, longest + 1, n)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 300])
@pytest.mark.parametrize("budget", [1, 500, 4000, 10**6])
@pytest.mark.parametrize("multiple", [1, 4, 6])
def test_plan_covers_every_row_once_within_the_budget(n, budget, multiple):
    rows = lengths(n, n)
    batches = batching.plan(rows, 20, budget, multiple)
    np.testing.assert_array_equal(np.sort(np.concatenate([b.rows for b in batches])), np.arange(n))
    for batch in batches:
        assert len(batch.rows) <= batch.size
        assert batch.size % multiple == 0
        assert rows[batch.rows].max() <= batch.width
        assert batch.size == multiple or batch.size * (batch.width + 20) <= budget
    assert all(len(b.rows) == b.size for b in batches[:-1])
    widths = [b.width for b in batches]
    assert widths == sorted(widths, reverse=True)


def test_plan_has_one_size_per_width_except_for_the_last_batch():
    batches = batching.plan(lengths(0, 5000), 10, 3000)
    sizes = {(b.width, b.size) for b in batches[:-1]}
    assert len(sizes) == len({width for width, _ in sizes}) <= 9


@pytest.mark.parametrize(
    ("left", "size"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 6), (7, 8), (9, 12), (13, 16)]
)
def test_plan_rounds_the_last_batch_up_to_few_sizes(left, size):
    (batch,) = batching.plan(np.full(left, 10), 0, 10**6)
    assert (len(batch.rows), batch.size, batch.width) == (left, size, 16)


def test_plan_rounds_the_last_batch_to_a_multiple_of_the_devices():
    assert [b.size for b in batching.plan(np.full(5, 10), 0, 10**6, 4)] == [8]
    assert [b.size for b in batching.plan(np.full(9, 10), 0, 10**6, 4)] == [12]


def test_plan_has_little_padding():
    rows = lengths(1, 3000)
    cost = sum(b.size * b.width for b in batching.plan(rows, 0, 4000))
    assert cost < 1.25 * rows.sum()
    assert 3000 * rows.max() > 1.9 * rows.sum()  # one width for all would double the work


def test_plan_without_rows():
    assert batching.plan(np.zeros(0, np.int64), 5, 100) == []


@pytest.mark.parametrize(("length", "width"), [(0, 8), (8, 8), (9, 16), (1024, 1024), (1025, 2048)])
def test_input_width(length, width):
    assert batching.input_width(length) == width


def test_target_width():
    assert [batching.target_width(n) for n in (1, 2, 5, 129)] == [1, 2, 6, 256]


def fake_split(rows, task, answers=None):
    n = len(rows)

    class Split(SimpleNamespace):
        def __len__(self):
            return n

    return Split(
        inputs=Ragged.of(rows),
        task=np.full(n, task, np.int32),
        template=np.arange(n, dtype=np.int32),
        table=answers,
    )


def test_pool_gathers_rows_of_different_splits():
    a = fake_split([[5], [6, 7]], 0, np.array([[[1]], [[2]]], np.int32))
    b = fake_split([[8, 9, 10]], 3, np.array([[[3]]], np.int32))
    pool = batching.Pool([a, b, a])
    assert pool.splits == [a, b]
    assert (pool.number(a), pool.number(b)) == (0, 1)
    np.testing.assert_array_equal(pool.lengths, [1, 2, 3])
    np.testing.assert_array_equal(pool.rows_of(b), [2])
    rows, answers = pool.gather(np.array([2, 0, 1, 0]), 4, 99, [a.table, b.table])
    expected = [[8, 9, 10, 99], [5, 99, 99, 99], [6, 7, 99, 99], [5, 99, 99, 99]]
    np.testing.assert_array_equal(rows.input_ids, expected)
    np.testing.assert_array_equal(rows.mask, (np.array(expected) != 99).astype(np.int32))
    np.testing.assert_array_equal(rows.task, [3, 0, 0, 0])
    np.testing.assert_array_equal(rows.template, [0, 0, 1, 0])
    np.testing.assert_array_equal(answers[:, 0, 0], [3, 1, 2, 1])
    assert rows.input_ids.dtype == rows.mask.dtype == rows.task.dtype == np.int32
    assert pool.gather(np.array([0]), 8, 0, [None, None])[1] is None


def test_pool_skips_an_empty_split():
    empty, full = fake_split([], 0), fake_split([[1], [2]], 1)
    pool = batching.Pool([empty, full])
    rows, _ = pool.gather(pool.rows_of(full), 8, 0, [None, None])
    np.testing.assert_array_equal(rows.input_ids[:, 0], [1, 2])
    assert len(pool.rows_of(empty)) == 0


def test_assign_views_covers_every_task():
    task = np.asarray([[0, 1, 0, 1, 0, 1, 0, 1], [2, 2, 2, 0, 0, 0, 0, 0]])
    view, factor = batching.assign_views(task, 2)
    np.testing.assert_array_equal(view, [[0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0, 1, 0]])
    even = [1.5, 3.0, 1.5]
    np.testing.assert_allclose(factor[0], 2.0)
    np.testing.assert_allclose(factor[1], [*even, 5 / 3, 2.5, 5 / 3, 2.5, 5 / 3], rtol=1e-6)
    # Each view's rows, weighted, stand for the whole batch.
    for run in range(2):
        for v in range(2):
            for k in np.unique(task[run]):
                mine = (view[run] == v) & (task[run] == k)
                assert factor[run][mine].sum() == pytest.approx((task[run] == k).sum())
    with pytest.raises(ConfigError, match="a task with 3 rows, but each of 4 particles"):
        batching.assign_views(task, 4)
