"""Retrieval strategies without a method: sizes, fixed slots, counts and penalties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import memory_bank as mb

N, M, D, K_SLOTS = 6, 2, 8, 2
RNG = np.random.default_rng(0)
BANK = mb.MemoryBank(
    RNG.normal(size=(N, D)).astype(np.float32), RNG.normal(size=(N, M, D)).astype(np.float32)
)
QUERY = RNG.normal(size=(3, D)).astype(np.float32)
KNOWN = mb.Texts(("a", "a", "b"), np.eye(3, D, dtype=np.float32))


def read(strategy, assigned=None):
    return jax.jit(lambda bank, query: strategy.read(bank, query, K_SLOTS, assigned))(BANK, QUERY)


@pytest.mark.parametrize(
    ("strategy", "shape"),
    [
        (mb.TopK(), (12, 2)),
        (mb.Attention(), (4, 6)),
        (mb.RandomSlots(), (12, 2)),
        (mb.TaskSlots(), (15, 2)),
        (mb.SharedSlots(), (3, 2)),
        (mb.InstanceLibrary(), (15, 2)),
    ],
)
def test_bank_shape_of_12_slots_of_2_tokens_for_prompts_of_3_slots_and_5_tasks(strategy, shape):
    assert strategy.bank_shape(12, 2, 3, 5) == shape


@pytest.mark.slow
def test_top_k_reads_the_slots_of_the_largest_scores_weighted():
    retrieved = read(mb.TopK(temperature=2.0))
    scores = QUERY @ BANK.keys.T
    order = np.argsort(-scores, 1)[:, :K_SLOTS]
    np.testing.assert_array_equal(retrieved.indices, order)
    weights = np.exp(np.take_along_axis(scores, order, 1) / (2 * np.sqrt(D)))
    weights *= K_SLOTS / weights.sum(1, keepdims=True)
    expected = (BANK.values[order] * weights[..., None, None]).reshape(3, -1, D)
    np.testing.assert_allclose(retrieved.prompts, expected, rtol=1e-5)


@pytest.mark.slow
def test_top_k_computes_only_the_penalties_that_are_asked_for():
    of = jnp.asarray([0, 2, 2, 1])
    retrieved = read(mb.TopK())
    both = mb.TopK().penalties(BANK, retrieved, of)
    shares = mb.probabilities(BANK, QUERY)
    balance = mb.load_balance(shares[of], retrieved.indices[of])
    pull = mb.key_pull(BANK, QUERY[of], retrieved.indices[of])
    np.testing.assert_allclose(both["balance"], balance, rtol=1e-6)
    np.testing.assert_allclose(both["pull"], pull, rtol=1e-6)
    assert mb.TopK(balanced=False).penalties(BANK, retrieved, of)["balance"] == 0
    assert mb.TopK(pulled=False).penalties(BANK, retrieved, of)["pull"] == 0


@pytest.mark.slow
def test_attention_reads_and_counts_all_slots_by_weight():
    strategy, of, task = mb.Attention(), jnp.asarray([0, 2]), jnp.asarray([1, 1])
    retrieved = read(strategy)
    weights = np.asarray(mb.probabilities(BANK, QUERY))
    assert retrieved.indices is None
    np.testing.assert_allclose(
        retrieved.prompts, np.einsum("bn,nmd->bmd", weights, BANK.values), rtol=1e-4, atol=1e-6
    )
    counts = strategy.count(jnp.zeros((2, N)), BANK, retrieved, of, task)
    np.testing.assert_allclose(counts[1], weights[0] + weights[2], rtol=1e-6)
    assert not np.any(counts[0])
    assert not any(strategy.penalties(BANK, retrieved, of).values())


def test_fixed_slots_are_read_unweighted_and_counted_by_task_without_penalty():
    strategy = mb.SharedSlots()
    assigned = np.asarray([[4, 1], [0, 3], [4, 1]], np.int32)
    retrieved = read(strategy, assigned)
    np.testing.assert_array_equal(retrieved.prompts, BANK.values[assigned].reshape(3, -1, D))
    of, task = jnp.asarray([0, 0, 1]), jnp.asarray([0, 1, 1])
    counts = strategy.count(jnp.zeros((2, N)), BANK, retrieved, of, task)
    np.testing.assert_array_equal(counts, [[0, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0]])
    assert not any(strategy.penalties(BANK, retrieved, of).values())


def test_assigned_slots_by_strategy():
    queries = np.zeros((3, D), np.float32)
    queries[2, 2] = 1.0  # "new" is nearest to b
    texts = mb.Texts(("b", "a", "new"), queries)
    assert mb.TaskSlots().assign(texts, KNOWN, 9, 2, 0).tolist() == [[2, 3], [0, 1], [2, 3]]
    assert mb.SharedSlots().assign(texts, KNOWN, 9, 2, 0).tolist() == [[0, 1]] * 3
    drawn = mb.RandomSlots().assign(texts, KNOWN, 900, 2, 0)
    assert len({tuple(row) for row in drawn.tolist()}) == 3
    alone = mb.RandomSlots().assign(mb.Texts(("a",), queries[:1]), KNOWN, 900, 2, 0)
    np.testing.assert_array_equal(alone[0], drawn[1])
    assert (mb.RandomSlots().assign(texts, KNOWN, 900, 2, 1) != drawn).any()


def test_texts_without_fixed_slots_are_refused():
    assert mb.TopK.by_query
    with pytest.raises(NotImplementedError):
        mb.TopK().assign(KNOWN, KNOWN, N, K_SLOTS, 0)


def test_an_instance_library_has_slots_for_each_text():
    """Texts of a task that the bank was not trained under share its nearest; a new task, of all."""
    known = mb.Texts(("a", "a", "b"), np.eye(4, dtype=np.float32)[:3])
    queries = np.asarray([[0, 1, 0, 9], [0, 0, 1, 0], [1, 0, 5, 0], [0, 2, 3, 0]], np.float32)
    texts = mb.Texts(("a", "b", "a", "new"), queries)
    assigned = mb.InstanceLibrary().assign(texts, known, 99, 2, 0)
    assert assigned.tolist() == [[2, 3], [4, 5], [0, 1], [4, 5]]


def test_rows_get_the_slots_of_the_nearest_instance():
    library = np.asarray([[1, 0], [0, 1], [-1, 0]], np.float32)
    bank = mb.MemoryBank(np.zeros((4, 2)), np.arange(8, dtype=np.float32).reshape(4, 1, 2))
    query = np.asarray([[3, 1], [-2, 1], [1, 2]], np.float32)
    found = mb.InstanceLibrary().nearest(bank, query, 2, library, np.asarray([1, 1, 0]))
    assert found.indices.tolist() == [[2, 3], [0, 1], [2, 3]]
    np.testing.assert_array_equal(found.prompts[1], bank.values[:2, 0])
