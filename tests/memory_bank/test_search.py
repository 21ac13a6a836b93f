"""Search against brute force in float64, sharded against whole, and its derivative."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax import sharding
from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank import (
    BANK_RULES,
    MemoryBank,
    attend,
    gather,
    key_pull,
    load_balance,
    num_blocks,
    place_keys,
    probabilities,
    retrieve,
    search,
)


def make(slots: int, queries: int, width: int = 16, seed: int = 0) -> tuple[MemoryBank, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(slots, width)).astype(np.float32)
    values = rng.normal(size=(slots, 2, width)).astype(np.float32)
    return MemoryBank(keys, values), rng.normal(size=(queries, width)).astype(np.float32)


def brute_force(keys, query, k):
    """A stable sort of all scores in float64."""
    scores = np.asarray(query, np.float64) @ np.asarray(keys, np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def recall(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)])


@pytest.fixture
def small_chunks(monkeypatch):
    """128 keys at a time for up to 8 queries, so that small banks are searched in many chunks."""
    monkeypatch.setattr(search, "_CHUNK_SCORES", 1024)


@pytest.mark.parametrize(
    ("slots", "queries", "k"), [(1, 1, 1), (7, 3, 7), (300, 5, 20), (1000, 8, 150), (257, 8, 1)]
)
def test_exact_search_matches_brute_force(slots, queries, k, small_chunks):
    bank, query = make(slots, queries)
    indices, scores = retrieve(bank, query, k)
    expected, values = brute_force(bank.keys, query, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-5, atol=1e-5)
    assert indices.dtype == jnp.int32
    assert scores.dtype == jnp.float32
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_exact_search_breaks_ties_by_the_lower_index(seed, k):
    """Keys of small integers: sums are exact and many are equal."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(-1, 2, (300, 3)).astype(np.float32)
    query = rng.integers(-1, 2, (8, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_CHUNK_SCORES", 1024)
        indices, _ = retrieve(MemoryBank(keys, keys[:, None]), query, k)
    np.testing.assert_array_equal(indices, brute_force(keys, query, k)[0])


def test_bfloat16_bank_is_searched_in_float32():
    bank, query = make(500, 4)
    low = MemoryBank(*(jnp.asarray(x, jnp.bfloat16) for x in bank))
    indices, scores = retrieve(low, query, 10)
    expected, values = brute_force(np.asarray(low.keys, np.float32), query, 10)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 10])
def test_block_wise_search_reaches_the_recall(k, monkeypatch):
    monkeypatch.setattr(search, "_CHUNK_SCORES", 1 << 16)  # several chunks, the last one overlaps
    bank, query = make(5000, 32)
    indices, scores = retrieve(bank, query, k, approximate=True)
    true, _ = brute_force(bank.keys, query, k)
    assert recall(np.asarray(indices), true) >= 0.95
    assert all(len(set(row)) == k for row in np.asarray(indices).tolist())
    # What it finds has its true score, and the best of all is never missed.
    products = np.einsum("bkd,bd->bk", bank.keys[np.asarray(indices)], query)
    np.testing.assert_allclose(scores, products, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(indices[:, 0], true[:, 0])
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.slow
def test_block_wise_search_returns_one_slot_per_block(monkeypatch):
    """It is approximate, also here: two best slots, L apart, are one answer."""
    many = num_blocks(2, 0.95)
    keys = np.zeros((4 * many, 2), np.float32)
    keys[[5, 5 + many, 9], 0] = [3.0, 2.0, 1.0]
    indices, _ = retrieve(
        MemoryBank(keys, keys[:, None]), np.ones((1, 2), np.float32), 2, approximate=True
    )
    assert np.asarray(indices).tolist() == [[5, 9]]


@pytest.mark.parametrize("queries", [100, 128, 512])
def test_block_wise_search_of_slots_in_round_robin_order(queries):
    """The order of `place_keys`: the best slots of a query follow each other with one period."""
    rng = np.random.default_rng(0)
    asked = rng.normal(size=(queries, 32)).astype(np.float32)
    keys = place_keys(asked, 8192, 0)
    bank, query = MemoryBank(keys, keys[:, None]), asked[:16]
    indices, _ = retrieve(bank, query, 12, approximate=True)
    true, _ = brute_force(keys, query, 12)
    assert recall(np.asarray(indices), true) >= 0.95


@pytest.mark.parametrize("approximate", [False, True])
def test_retrieve_with_non_finite_keys_and_queries(approximate):
    bank, query = make(2000, 5)
    keys = bank.keys.copy()
    keys[3], keys[1999] = np.nan, np.inf
    query[2, 0] = np.nan
    indices, scores = retrieve(MemoryBank(keys, bank.values), query, 4, approximate=approximate)
    sound = [0, 1, 3, 4]
    assert not np.isin(np.asarray(indices)[sound], [3, 1999]).any()
    assert np.isfinite(np.asarray(scores)[sound]).all()
    assert np.isnan(np.asarray(scores)[2]).all()
    if not approximate:
        rest = np.delete(np.arange(2000), [3, 1999])
        true, _ = brute_force(keys[rest], query[sound], 4)
        np.testing.assert_array_equal(np.asarray(indices)[sound], rest[true])


def test_num_blocks():
    for k, wanted in ((1, 0.95), (20, 0.95), (50, 0.99), (200, 0.8)):
        many = num_blocks(k, wanted)
        assert (1 - 1 / many) ** (k - 1) >= wanted
        assert many >= k
        assert all(many % divisor for divisor in range(2, many))
    assert num_blocks(50, 0.99) - 128 < math.ceil(49 / 0.01) < 2 * num_blocks(50, 0.99)
    # A bank that is hardly larger than the blocks is searched exactly.
    bank, query = make(900, 4)
    exact = retrieve(bank, query, 20)
    np.testing.assert_array_equal(retrieve(bank, query, 20, approximate=True)[0], exact[0])


def test_approx_max_k_path(small_chunks):
    """Off TPU `approx_max_k` is exact: chunking, merging and numbering are what is tested."""
    bank, query = make(1000, 8)
    options = search._Options(20, True, 0.95, None, "data")
    indices, scores = jax.jit(functools.partial(search._approx_max_k, options))(bank.keys, query)
    expected, values = brute_force(bank.keys, query, 20)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-5, atol=1e-5)


def test_tpu_lowering_uses_its_own_instruction():
    bank, query = make(5000, 4)

    def find(keys, query):
        return retrieve(MemoryBank(keys, keys[:, None]), query, 5, approximate=True)

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (bank.keys, query)]
    texts = {
        platform: jax.export.export(jax.jit(find), platforms=[platform])(*shapes).mlir_module()
        for platform in ("tpu", "cpu")
    }
    assert re.search("(?i)approx.?top.?k", texts["tpu"])
    assert not re.search("(?i)approx.?top.?k", texts["cpu"])


def test_retrieve_memory_is_bounded():
    """No [B, N] score matrix: temporaries stay far below it, with and without a gradient."""
    slots, queries, width = 200_000, 256, 8
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((slots, width), (queries, width))
    ]

    def find(keys, query, approximate):
        return retrieve(MemoryBank(keys, keys[:, None]), query, 10, approximate=approximate)

    def loss(query, keys):
        return find(keys, query, False)[1].sum()

    matrix = slots * queries * 4
    for function, arguments in (
        (functools.partial(find, approximate=False), shapes),
        (functools.partial(find, approximate=True), shapes),
        (jax.grad(loss), shapes[::-1]),
    ):
        compiled = jax.jit(function).lower(*arguments).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < matrix / 2


# Sharded


@pytest.mark.multidevice
@pytest.mark.parametrize("approximate", [False, True])
def test_sharded_search_equals_unsharded(approximate):
    bank, query = make(8 * 200, 6)
    keys = np.array(bank.keys)
    keys[1500] = keys[3]  # equal scores on two devices
    bank = MemoryBank(keys, bank.values)
    mesh = sharding.make_mesh(8)
    placed = sharding.shard_tree(bank._asdict(), BANK_RULES, mesh)
    placed = MemoryBank(**placed)
    assert len(placed.keys.addressable_shards) == 8
    assert placed.keys.addressable_shards[0].data.shape == (200, 16)
    assert placed.values.addressable_shards[0].data.shape == (200, 2, 16)

    @jax.jit
    def find(bank, query):
        indices, scores = retrieve(bank, query, 20, mesh=mesh, approximate=approximate)
        return indices, scores, gather(bank, indices)

    indices, scores, prompts = find(placed, query)
    # A slice of 200 slots is searched exactly either way.
    expected, values = retrieve(bank, query, 20)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-6)
    np.testing.assert_array_equal(prompts, gather(bank, expected))


@pytest.mark.multidevice
def test_sharded_block_wise_search_reaches_the_recall():
    """Slices that are large enough to be searched block by block."""
    bank, query = make(8 * 1200, 16)
    mesh = sharding.make_mesh(8)
    assert 2 * num_blocks(10, 0.95) < 1200
    placed = MemoryBank(**sharding.shard_tree(bank._asdict(), BANK_RULES, mesh))
    indices, scores = retrieve(placed, query, 10, mesh=mesh, approximate=True)
    indices = np.asarray(indices)
    true, _ = brute_force(bank.keys, query, 10)
    assert recall(indices, true) >= 0.95
    assert all(len(set(row)) == 10 for row in indices.tolist())
    products = np.einsum("bkd,bd->bk", bank.keys[indices], query)
    np.testing.assert_allclose(scores, products, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(indices[:, 0], true[:, 0])
    # That no slice was searched exactly: what shares a block on one device is one answer.
    keys, many = np.zeros((8 * 1200, 2), np.float32), num_blocks(3, 0.95)
    keys[[5, 5 + many, 9, 1207], 0] = [4.0, 3.0, 2.0, 1.0]
    found, _ = retrieve(
        MemoryBank(keys, keys[:, None]),
        np.ones((1, 2), np.float32),
        3,
        mesh=mesh,
        approximate=True,
    )
    assert np.asarray(found).tolist() == [[5, 9, 1207]]


@pytest.mark.multidevice
@pytest.mark.parametrize("told", [False, True])
def test_a_bank_on_the_default_mesh_of_jax(told):
    """Explicit axes: search, gather, attention and penalties, eagerly and under jit."""
    bank, query = make(8 * 8, 8)
    mesh = jax.make_mesh((8,), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    placed, queries = jax.device_put((bank, query), jax.sharding.NamedSharding(mesh, spec))
    options = {"mesh": mesh} if told else {}

    def read(bank, query, **options):
        indices, scores = retrieve(bank, query, 3, **options)
        shares = probabilities(bank, query)
        balance = load_balance(shares, indices), key_pull(bank, query, indices)
        return indices, scores, gather(bank, indices), attend(bank, query), shares, balance

    want = read(bank, query)
    for program in (read, jax.jit(read, static_argnames="mesh")):
        for asked in (queries, query):
            have = program(placed, asked, **options)
            for one, other in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(retrieve(bank, query, 3, mesh=mesh)[0], want[0])
    with jax.set_mesh(mesh):
        slope = jax.grad(lambda q: retrieve(placed, q, 3, **options)[1].sum())(queries)
    flat = jax.grad(lambda q: retrieve(bank, q, 3)[1].sum())(query)
    np.testing.assert_allclose(slope, flat, rtol=1e-5, atol=1e-6)


@pytest.mark.multidevice
def test_sharded_gradient_equals_unsharded():
    bank, query = make(64, 3)
    mesh = sharding.make_mesh(8)
    probe = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)

    def loss(keys, query, mesh):
        scores = retrieve(MemoryBank(keys, bank.values), query, 12, mesh=mesh)[1]  # k > N / 8
        return jnp.vdot(scores, probe)

    whole = jax.grad(loss, (0, 1))(bank.keys, query, None)
    split = jax.grad(loss, (0, 1))(bank.keys, query, mesh)
    for a, b in zip(split, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# Derivative, errors


def test_scores_have_the_derivative_of_the_inner_product():
    bank, query = make(40, 3)
    probe = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)

    def loss(keys, query):
        return jnp.vdot(retrieve(MemoryBank(keys, bank.values), query, 5)[1], probe)

    dkeys, dquery = jax.jit(jax.grad(loss, (0, 1)))(bank.keys, query)
    indices = brute_force(bank.keys, query, 5)[0]
    expected = np.zeros(bank.keys.shape)
    np.add.at(expected, indices, probe[..., None].astype(np.float64) * query[:, None])
    np.testing.assert_allclose(dkeys, expected, rtol=1e-5, atol=1e-6)
    expected = np.einsum("bk,bkd->bd", probe, bank.keys[indices])
    np.testing.assert_allclose(dquery, expected, rtol=1e-5, atol=1e-5)


def test_vmap_over_banks():
    """Runs of a population are vmapped."""
    banks = [make(200, 4, seed=i) for i in range(3)]
    keys, queries = np.stack([b.keys for b, _ in banks]), np.stack([q for _, q in banks])

    def find(keys, query, approximate):
        return retrieve(MemoryBank(keys, keys[:, None]), query, 6, approximate=approximate)[0]

    for approximate in (False, True):
        found = jax.jit(jax.vmap(functools.partial(find, approximate=approximate)))(keys, queries)
        for (bank, query), one in zip(banks, found, strict=True):
            np.testing.assert_array_equal(one, brute_force(bank.keys, query, 6)[0])


@pytest.mark.multidevice
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must lie in 1 .. 20"),
        ({"k": 21}, "k must lie in 1 .. 20"),
        ({"query": np.zeros((2, 3), np.float32)}, "do not match"),
        ({"query": np.zeros(16, np.float32)}, "do not match"),
        ({"recall": 1.0}, "between 0 and 1"),
        ({"mesh": 8}, "20 slots cannot be split over 8 devices"),
    ],
)
def test_invalid_arguments_raise(change, message):
    bank, query = make(20, 2)
    arguments = {"query": query, "k": 5, **change}
    if "mesh" in arguments:
        arguments["mesh"] = sharding.make_mesh(arguments["mesh"])
    with pytest.raises(ConfigError, match=message):
        retrieve(bank, **arguments)
