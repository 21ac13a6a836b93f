"""Grouping against the authors' cases, a float64 oracle from the spec, and brute force."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax import SoftPrompt, TaskVector
from prompt_jax import task_vectors as tv
from prompt_jax.errors import ConfigError, PromptError

# The oracle: loops over float64 numbers, written from the paper's formulas and the rulings.


def sim(a: np.ndarray, b: np.ndarray, cosine: bool = False) -> float:
    one, two = a.mean(0), b.mean(0)
    dot = float(sum(x * y for x, y in zip(one, two, strict=True)))
    norm = float(np.linalg.norm(one) * np.linalg.norm(two))
    return (dot / norm if norm else 0.0) if cosine else dot


def mean_pairwise(gram: np.ndarray, members: tuple[int, ...]) -> float:
    pairs = [gram[i, j] for i in members for j in members if i != j]
    return float(np.mean(pairs)) if pairs else 0.0


class Chosen(NamedTuple):
    group: tuple[int, ...]
    margin: float  # by how much the decision could have gone the other way, relative


def prefix_oracle(target_dot: np.ndarray, gram: np.ndarray, threshold: float = 0.0) -> Chosen:
    scale = np.abs(gram).max()
    reach = max(np.abs(target_dot).max(), 1e-300)
    ranked = sorted(range(len(target_dot)), key=lambda s: (-target_dot[s], s))
    gaps = [abs(target_dot[s] - threshold) / reach for s in range(len(target_dot))]
    kept = [s for s in ranked if target_dot[s] >= threshold]
    gaps += [(target_dot[a] - target_dot[b]) / reach for a, b in itertools.pairwise(kept)]
    if not kept:
        return Chosen((), min(gaps))
    values = [mean_pairwise(gram, tuple(kept[:m])) for m in range(1, len(kept) + 1)]
    best = max(values)
    length = next(m for m, v in enumerate(values, 1) if v >= best - 1e-5 * scale)
    others = [abs(best - v) / scale for m, v in enumerate(values, 1) if m != length]
    return Chosen(tuple(sorted(kept[:length])), min(gaps + others))


def objective(target_dot: np.ndarray, gram: np.ndarray, members: tuple[int, ...], weight: float):
    if not members:
        return 0.0
    return float(np.mean([target_dot[s] for s in members])) + weight * mean_pairwise(gram, members)


def brute_force(target_dot: np.ndarray, gram: np.ndarray, weight: float) -> Chosen:
    k = len(target_dot)
    groups = [g for n in range(k + 1) for g in itertools.combinations(range(k), n)]
    values = [objective(target_dot, gram, g, weight) for g in groups]
    first, second = sorted(range(len(groups)), key=lambda i: -values[i])[:2]
    scale = max(np.abs(target_dot).max(), np.abs(weight * gram).max())
    return Chosen(groups[first], (values[first] - values[second]) / scale)


def members(mask: Any) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.asarray(mask)).tolist())


def padded(values: np.ndarray, k: int, fill: float) -> np.ndarray:
    width = [(0, k - n) if n == len(values) else (0, 0) for n in values.shape]
    return np.pad(values, width, constant_values=fill)


# The authors' own code


@pytest.mark.slow
def test_select_group_on_the_authors_cases(shared_dir: Path) -> None:
    with np.load(shared_dir / "data/fixtures/dtvg_cases.npz", allow_pickle=False) as cases:
        sizes = set()
        for n in range(6):
            case = {k.split(".")[1]: v for k, v in cases.items() if k.startswith(f"{n}.")}
            group = tv.select_group(
                case["at"][:, None] * case["T"], case["as_"][..., None] * case["S"]
            )
            np.testing.assert_array_equal(group, case["mask"])
            mixed = tv.merge(case["init"], case["T"], case["S"], case["at"], case["as_"], group)
            np.testing.assert_allclose(mixed, case["mix"], atol=1e-5)
            sizes.add(int(case["mask"].sum()))
        assert sizes == {0, 1, 2}  # the cases differ


# Random cases


def random_case(rng: np.random.Generator, kind: str) -> tuple[Any, ...]:
    """Vectors and scales; sources share a direction with the target to a varying degree."""
    k, length, d = int(rng.integers(1, 13)), 5, 12
    common = rng.normal(size=d)
    target = rng.normal(size=(length, d)) + rng.normal() * common
    lean = rng.normal(size=k) * rng.uniform(0, 2)
    sources = rng.normal(size=(k, length, d)) + lean[:, None, None] * common
    target_scale = rng.normal(1.0, 0.3, length)
    source_scales = rng.normal(1.0, 0.3, (k, length))
    if kind == "negative":  # no source helps: all point away
        signs = np.sign(
            [
                sim(target * target_scale[:, None], s * a[:, None])
                for s, a in zip(sources, source_scales, strict=True)
            ]
        )
        source_scales = -signs[:, None] * source_scales
    if kind == "duplicates":
        twins = rng.integers(0, k, size=k)
        sources, source_scales = sources[twins], source_scales[twins]
    if kind == "scales":
        source_scales = source_scales * 10.0 ** rng.uniform(-1, 1, (k, 1))
        target_scale = target_scale * 10.0 ** rng.uniform(-6, 6)
    return tuple(x.astype(np.float32) for x in (target, sources, target_scale, source_scales))


K = 12


@jax.jit
def batched(target: Any, sources: Any, target_scale: Any, source_scales: Any, valid: Any) -> Any:
    def one(t: Any, s: Any, a: Any, b: Any, v: Any) -> Any:
        scaled = (a[:, None] * t, b[..., None] * s)
        return tv.select_group(*scaled, valid=v), tv.target_similarity(*scaled)

    return jax.vmap(one)(target, sources, target_scale, source_scales, valid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [("plain", 400), ("negative", 100), ("duplicates", 100), ("scales", 400)]
)
def test_select_group_matches_a_float64_reference(kind: str, count: int) -> None:
    rng = np.random.default_rng(sum(map(ord, kind)))
    cases = [random_case(rng, kind) for _ in range(count)]
    fills = (None, 1e9, None, 7.0)  # what padding holds must not matter
    stacked = [
        np.stack(
            [
                x
                if f is None
                else np.concatenate([x, np.full((K - len(x), *x.shape[1:]), f, np.float32)])
                for x in column
            ]
        )
        for column, f in zip(zip(*cases, strict=True), fills, strict=True)
    ]
    valid = np.stack([np.arange(K) < len(case[1]) for case in cases])
    groups, similarities = jax.device_get(batched(*stacked, valid))
    sizes, compared, twins = set(), 0, 0
    for case, group, found in zip(cases, groups, similarities, strict=True):
        target, sources, target_scale, source_scales = (x.astype(np.float64) for x in case)
        target = target_scale[:, None] * target
        sources = source_scales[..., None] * sources
        dots = np.asarray([sim(target, s) for s in sources])
        gram = np.asarray([[sim(a, b) for b in sources] for a in sources])
        reach = np.linalg.norm(target.mean(0)) * np.linalg.norm(sources.mean(1), axis=1)
        assert (np.abs(found[: len(dots)] - dots) <= 1e-5 * reach + 1e-30).all()
        expected = prefix_oracle(dots, gram)
        if kind == "duplicates":  # equal by construction: the rulings decide, not a margin
            chosen = members(group)
            firsts = [next(j for j, b in enumerate(sources) if (a == b).all()) for a in sources]
            for n in chosen:  # of equal sources, the lower indices come first
                assert all(m in chosen for m in range(n) if firsts[m] == firsts[n])
            twins += len({firsts[n] for n in chosen}) < len(chosen)
        if expected.margin > 2e-5:
            assert members(group) == expected.group
            sizes.add(len(expected.group))
            compared += 1
        if kind == "negative":
            assert not group.any()
    assert not (groups & ~valid).any()
    assert twins > 3 or kind != "duplicates"
    assert compared > (0.1 if kind == "duplicates" else 0.8) * count
    assert sizes == {0} if kind == "negative" else len(sizes) > 2


def test_ties_do_not_depend_on_rounding() -> None:
    """Equal sources: the shortest of the equally consistent prefixes, ranked by index."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        target = rng.normal(size=(4, 8)).astype(np.float32)
        source = (target + 0.3 * rng.normal(size=(4, 8))).astype(np.float32)
        # The mean pairwise similarity of equal sources is the same for every prefix above one.
        assert members(tv.select_group(target, np.stack([source] * 7))) == (0, 1)
        # A scale of its own changes the rank, not the rule.
        group = tv.select_group(target, np.stack([source, 3 * source, 2 * source]))
        assert members(group) == (1, 2)


def test_select_group_of_a_zero_target_is_empty() -> None:
    """Without stage 1 every similarity is 0, which passes the threshold and means nothing."""
    sources = np.random.default_rng(1).normal(size=(3, 4, 8)).astype(np.float32)
    zero = np.zeros((4, 8), np.float32)
    for rule in ("prefix", "objective", "positive"):
        assert not tv.select_group(zero, sources, rule=rule, threshold=-1.0).any()
    assert tv.select_group(zero, sources, rule="all").all()


@pytest.mark.parametrize("rule", ["prefix", "objective", "consistency", "positive", "all"])
def test_non_finite_source_is_ignored(rule: tv.Rule) -> None:
    rng = np.random.default_rng(2)
    target = rng.normal(size=(4, 8)).astype(np.float32)
    sources = (target + 0.5 * rng.normal(size=(3, 4, 8))).astype(np.float32)
    alone = members(tv.select_group(target, sources, rule=rule))
    assert len(alone) > 1
    for bad in (np.nan, np.inf):
        broken = np.insert(sources, 1, bad, axis=0)
        found = members(tv.select_group(target, broken, rule=rule))
        assert found == tuple(n if n < 1 else n + 1 for n in alone)


@pytest.mark.slow
def test_padding_at_any_position() -> None:
    rng = np.random.default_rng(3)
    target = rng.normal(size=(4, 8)).astype(np.float32)
    sources = (target + 0.5 * rng.normal(size=(4, 4, 8))).astype(np.float32)
    for rule in tv.RULES:
        assert not tv.select_group(target, sources, rule=rule, valid=np.zeros(4, bool)).any()
        kept = tv.select_group(target, sources[[0, 2]], rule=rule)
        valid = np.asarray([True, False, True, False])
        found = tv.select_group(target, sources, rule=rule, valid=valid)
        assert members(found) == tuple(2 * n for n in members(kept))


def test_threshold() -> None:
    dots = jnp.array([0.5, 0.2, -0.1])
    gram = jnp.ones((3, 3)) + jnp.eye(3)
    kept = {
        t: members(tv.group_from_gram(dots, gram, rule="positive", threshold=t))
        for t in (-1.0, 0.0, 0.2, 0.3, 0.6)
    }
    assert kept == {-1.0: (0, 1, 2), 0.0: (0, 1), 0.2: (0, 1), 0.3: (0,), 0.6: ()}
    assert members(tv.group_from_gram(dots, gram, threshold=0.3)) == (0,)
    assert members(tv.group_from_gram(dots, gram, threshold=0.6)) == ()


def test_prefix_adds_a_second_source_only_if_similar() -> None:
    dots = jnp.array([2.0, 1.0])
    for agreement, expected in ((-0.5, (0,)), (0.5, (0, 1))):
        gram = jnp.array([[1.0, agreement], [agreement, 1.0]])
        assert members(tv.group_from_gram(dots, gram)) == expected


# Searches


@pytest.mark.parametrize("k", [1, 2, 5, 8])
@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_objective_matches_exhaustive_search(k: int, weight: float) -> None:
    rng = np.random.default_rng(k)
    sizes = set()
    for _ in range(25):
        vectors = rng.normal(size=(k, 4)) + rng.normal(size=4)
        gram, dots = vectors @ vectors.T, vectors @ rng.normal(size=4)
        # Far enough from the target that often no pair is worth it.
        dots -= rng.uniform(0, 3 if k == 1 else 3 + 20 * weight)
        expected = brute_force(dots, gram, weight)
        got = tv.group_from_gram(
            dots.astype(np.float32),
            gram.astype(np.float32),
            rule="objective",
            consistency_weight=weight,
            threshold=1e6,
        )
        if expected.margin > 1e-4:
            assert members(got) == expected.group
            sizes.add(len(expected.group))
    assert len(sizes) > 1
    if k == 8:  # padding changes nothing, whatever it holds
        wide = tv.group_from_gram(
            padded(dots, 11, np.nan).astype(np.float32),
            padded(gram, 11, 1e9).astype(np.float32),
            np.arange(11) < k,
            rule="objective",
            consistency_weight=weight,
        )
        assert members(wide) == members(got)


def test_consistency_does_not_depend_on_the_target() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        vectors = rng.normal(size=(6, 4)) + 0.5 * rng.normal(size=4)
        gram = vectors @ vectors.T
        expected = brute_force(np.zeros(6), gram, 1.0)
        for dots in (rng.normal(size=6), np.zeros(6)):
            got = tv.group_from_gram(
                dots.astype(np.float32), gram.astype(np.float32), rule="consistency"
            )
            assert members(got) == expected.group or expected.margin < 1e-4
    # Nothing agrees: a group of two would be worse than none.
    assert not tv.group_from_gram(jnp.ones(3), 2 * jnp.eye(3) - 1.0, rule="consistency").any()


def test_equal_groups_resolve_to_the_smallest_and_first() -> None:
    gram = np.ones((4, 4), np.float32)
    for valid, single, pair in (((1, 1, 1, 1), (0,), (0, 1)), ((0, 1, 0, 1), (1,), (1, 3))):
        mask = np.asarray(valid, bool)
        for weight, expected in ((0.0, single), (1.0, pair)):
            got = tv.group_from_gram(
                np.ones(4, np.float32), gram, mask, rule="objective", consistency_weight=weight
            )
            assert members(got) == expected
        assert (
            members(tv.group_from_gram(np.ones(4, np.float32), gram, mask, rule="consistency"))
            == pair
        )


def test_objective_of_many_sources() -> None:
    """Exact where brute force cannot follow: no group of three or more beats the best two."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(200, 6))
    dots, gram = vectors @ rng.normal(size=6), vectors @ vectors.T
    got = members(
        tv.group_from_gram(
            dots.astype(np.float32),
            gram.astype(np.float32),
            rule="objective",
            consistency_weight=0.7,
        )
    )
    value = objective(dots, gram, got, 0.7)
    pairs = itertools.combinations(range(200), 2)
    assert value >= max(objective(dots, gram, g, 0.7) for g in pairs) - 1e-4
    for n in rng.integers(3, 20, 300).tolist():
        random = tuple(rng.choice(200, n, replace=False).tolist())
        assert value > objective(dots, gram, random, 0.7)
    near = np.argsort(-dots)[:30].tolist()
    assert value > max(objective(dots, gram, g, 0.7) for g in itertools.combinations(near, 3))


# Transformations


def vectors(k: int = 4, length: int = 3, d: int = 5, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(length, d))
    made = {
        "init": rng.normal(size=(length, d)),
        "target": target,
        "sources": rng.normal(size=(k, length, d)) + 0.5 * target,
        "target_scale": rng.uniform(0.5, 1.5, length),
        "source_scales": rng.uniform(0.5, 1.5, (k, length)),
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in made.items()}


def grouped_loss(scales: Any, v: dict[str, Any], weights: Any) -> Any:
    """The group is chosen by the very scales that the loss is differentiated by."""
    target_scale, source_scales = scales
    group = tv.select_group(
        target_scale[:, None] * v["target"], source_scales[..., None] * v["sources"]
    )
    mixed = tv.merge(v["init"], v["target"], v["sources"], target_scale, source_scales, group)
    return jnp.sum(weights * mixed**2), group


@pytest.mark.slow
def test_merge_gradients_are_zero_outside_the_group() -> None:
    weights = jnp.asarray(np.random.default_rng(9).normal(size=(3, 5)), jnp.float32)
    seen = set()
    for seed in range(6):
        v = vectors(seed=seed)
        scales = (v["target_scale"], v["source_scales"])
        (own, borrowed), group = jax.jit(jax.grad(grouped_loss, has_aux=True))(scales, v, weights)
        group = np.asarray(group)
        assert (np.asarray(borrowed)[~group] == 0.0).all()
        mixed = tv.merge(v["init"], v["target"], v["sources"], *scales, group)
        pull = 2 * weights * mixed
        np.testing.assert_allclose(own, (pull * v["target"]).sum(-1), rtol=1e-4, atol=1e-5)
        expected = (pull[None] * v["sources"]).sum(-1) * group[:, None].astype(np.float32)
        np.testing.assert_allclose(borrowed, expected, rtol=1e-4, atol=1e-5)
        assert np.asarray(borrowed)[group].all()
        seen.add(int(group.sum()))
    assert len(seen) > 1


@pytest.mark.parametrize("rule", tv.RULES)
def test_select_group_has_no_derivative(rule: str) -> None:
    v = vectors()

    def loss(target: Any, sources: Any) -> Any:
        group = tv.select_group(target, sources, rule=rule)
        return jnp.sum(jnp.where(group[:, None, None], sources, 0.0))

    to_target, to_sources = jax.grad(loss, (0, 1))(v["target"], v["sources"])
    assert not np.asarray(to_target).any()
    group = tv.select_group(v["target"], v["sources"], rule=rule)
    np.testing.assert_array_equal(to_sources[:, 0, 0], np.asarray(group, np.float32))


@pytest.mark.parametrize("rule", tv.RULES)
def test_vmap_equals_a_loop(rule: str) -> None:
    many = [vectors(seed=s) for s in range(5)]
    stacked = {name: jnp.stack([v[name] for v in many]) for name in ("target", "sources")}
    together = jax.vmap(lambda t, s: tv.select_group(t, s, rule=rule))(*stacked.values())
    for v, group in zip(many, together, strict=True):
        np.testing.assert_array_equal(group, tv.select_group(v["target"], v["sources"], rule=rule))


def test_numbers_are_traced_and_rules_are_static() -> None:
    """A grid of thresholds is one program."""
    v = vectors(k=7)
    before = tv.select_group._cache_size()
    for threshold in (0.0, 0.1, 1.0):
        tv.select_group(v["target"], v["sources"], threshold=threshold, consistency_weight=2.0)
    assert tv.select_group._cache_size() == before + 1


# Parts


def test_similarity_is_the_product_of_means() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 3, 5)).astype(np.float32)
    expected = [sim(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(tv.similarity(a, b), expected, rtol=1e-4, atol=1e-6)
    summed = (a.sum(1) * b.sum(1)).sum(1) / 3**2  # the paper's form, 1 / L^2
    np.testing.assert_allclose(tv.similarity(a, b), summed, rtol=1e-4, atol=1e-6)
    cosines = [sim(x, y, cosine=True) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(tv.similarity(a, b, "cosine"), cosines, rtol=1e-4, atol=1e-6)
    assert np.abs(tv.similarity(a, a, "cosine") - 1).max() < 1e-6


def test_cosine_is_finite_at_any_scale() -> None:
    a = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    for scale in (1e-30, 1e30):
        np.testing.assert_allclose(tv.similarity(a * scale, a, "cosine"), 1.0, rtol=1e-5)
    assert tv.similarity(0 * a, a, "cosine") == 0.0
    slope = jax.grad(lambda x: tv.similarity(x, a, "cosine"))(0 * a)
    assert np.isfinite(slope).all()


def test_cosine_does_not_depend_on_the_norm() -> None:
    v = vectors()
    stretch = jnp.array([1e-3, 1.0, 50.0, 1e4])[:, None, None]
    for rule in ("prefix", "objective"):
        plain, long = (
            tv.select_group(v["target"], s, rule=rule, metric="cosine")
            for s in (v["sources"], v["sources"] * stretch)
        )
        np.testing.assert_array_equal(plain, long)


def test_pool_with_scales_equals_pool_of_scaled_vectors() -> None:
    v = vectors()
    pooled = tv.pool(v["sources"], v["source_scales"])
    scaled = v["sources"] * v["source_scales"][..., None]
    np.testing.assert_allclose(pooled, np.asarray(scaled).mean(1), rtol=1e-5, atol=1e-6)
    dots, gram = tv.pairwise(tv.pool(v["target"]), pooled)
    np.testing.assert_allclose(dots, tv.target_similarity(v["target"], scaled), rtol=1e-5)
    np.testing.assert_allclose(gram, gram.T)
    np.testing.assert_array_equal(
        tv.group_from_gram(dots, gram), tv.select_group(v["target"], scaled)
    )


def test_knowledge_consistency() -> None:
    v = vectors()
    gram = np.asarray([[sim(a, b) for b in v["sources"]] for a in v["sources"]])
    for chosen in ((), (2,), (0, 3), (0, 1, 2, 3)):
        group = np.isin(np.arange(4), chosen)
        expected = mean_pairwise(gram, chosen)
        got = tv.knowledge_consistency(v["sources"], group)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_merge() -> None:
    v = vectors()
    group = np.asarray([True, False, True, False])
    got = tv.merge(
        v["init"], v["target"], v["sources"], v["target_scale"], v["source_scales"], group
    )
    expected = np.asarray(v["init"], np.float64)
    expected = expected + np.asarray(v["target_scale"])[:, None] * np.asarray(v["target"])
    for s in (0, 2):
        expected += np.asarray(v["source_scales"])[s][:, None] * np.asarray(v["sources"])[s]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_merge_takes_numbers_lists_and_prompts() -> None:
    v = vectors()
    L, K = v["init"].shape[0], len(v["sources"])
    ones, all_ones, group = np.ones(L, "f"), np.ones((K, L), "f"), jnp.ones(K, bool)
    want = tv.merge(v["init"], v["target"], v["sources"], ones, all_ones, group)
    np.testing.assert_array_equal(tv.merge(v["init"], v["target"], v["sources"]), want)
    half = tv.merge(v["init"], v["target"], v["sources"], 0.5, np.float32(2))
    expected = tv.merge(v["init"], v["target"], v["sources"], ones / 2, 2 * all_ones, group)
    np.testing.assert_array_equal(half, expected)
    init, target = SoftPrompt(v["init"]), TaskVector(v["target"])
    sources = [TaskVector(source) for source in v["sources"]]
    np.testing.assert_array_equal(tv.merge(init, target, sources, group=[True] * K), want)
    np.testing.assert_array_equal(tv.merge(init, target, list(v["sources"])), want)


def test_lists_of_vectors_are_stacked() -> None:
    v = vectors()
    listed = [TaskVector(source) for source in v["sources"]]
    target = TaskVector(v["target"])
    for rule in tv.RULES:
        want = tv.select_group(v["target"], v["sources"], rule=rule)
        np.testing.assert_array_equal(tv.select_group(target, listed, rule=rule), want)
    want = tv.target_similarity(v["target"], v["sources"])
    np.testing.assert_array_equal(tv.target_similarity(target, listed), want)
    np.testing.assert_array_equal(tv.pool(listed), tv.pool(v["sources"]))
    group = jnp.ones(len(listed), bool)
    want = tv.knowledge_consistency(v["sources"], group)
    assert tv.knowledge_consistency(listed, group) == want
    assert tv.similarity(target, target) == tv.similarity(v["target"], v["target"])


def test_float64_is_computed_in_float64() -> None:
    with jax.enable_x64(True):
        v = {name: np.asarray(value, np.float64) for name, value in vectors().items()}
        wide = [v["init"], v["target"], v["sources"], v["target_scale"], v["source_scales"]]
        group = np.ones(len(v["sources"]), bool)
        mixed = tv.merge(*wide, group)
        assert mixed.dtype == jnp.float64
        expected = v["init"] + v["target_scale"][:, None] * v["target"]
        expected = expected + np.einsum("kl,kld->ld", v["source_scales"], v["sources"])
        np.testing.assert_allclose(mixed, expected, rtol=1e-13)
        some = [np.asarray(x, np.float32) for x in wide]
        assert tv.merge(*some[:2], v["sources"], *some[3:], group).dtype == jnp.float64
        assert tv.merge(*some, group).dtype == jnp.float32
        assert tv.merge(*some[:3], 0.5, 2.0).dtype == jnp.float32  # numbers do not decide
        have = tv.target_similarity(v["target"], v["sources"])
        means = v["sources"].mean(1) @ v["target"].mean(0)
        assert have.dtype == jnp.float64
        np.testing.assert_allclose(have, means, rtol=1e-13)
        assert tv.knowledge_consistency(v["sources"], group).dtype == jnp.float64
        for rule in tv.RULES:
            narrow = tv.select_group(some[1], some[2], rule=rule)
            chosen = tv.select_group(v["target"], v["sources"], rule=rule)
            np.testing.assert_array_equal(chosen, narrow)
            tv.select_group(some[1], v["sources"], rule=rule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": np.ones(3, "f")}, r"init must have shape \[\.\., L, D\], not \[3\]"),
        ({"target_vector": np.ones((2, 5), "f")}, r"target_vector must have shape \[L, D\] = "),
        ({"source_vectors": np.ones((4, 2, 5), "f")}, r"source_vectors must .* not \[4, 2, 5\]"),
        ({"target_scale": np.ones(2, "f")}, r"target_scale must have shape \[L\] = "),
        ({"source_scales": np.ones(4, "f")}, r"source_scales must have shape \[K, L\] = "),
        ({"group": np.ones(3, bool)}, r"group must have shape \[K\] = \[4\], not \[3\]"),
        ({"group": np.array([0, 2])}, r"group is a mask, bool \[K\], not int32"),
        ({"source_vectors": [np.ones((2, 5), "f"), np.ones((3, 5), "f")]}, "item 1 of the list"),
    ],
)
def test_merge_names_the_argument_that_is_wrong(change: dict[str, Any], message: str) -> None:
    v = vectors()
    good = {"init": v["init"], "target_vector": v["target"], "source_vectors": v["sources"]}
    with pytest.raises(PromptError, match=message):
        tv.merge(**{**good, **change})


def test_only_public_names_are_listed() -> None:
    assert dir(tv) == sorted(tv.__all__)
    assert "jax" not in dir(tv)


def test_select_group_and_merge_without_sources() -> None:
    none = jnp.zeros((0, 3, 5))
    v = vectors()
    for rule in tv.RULES:
        assert tv.select_group(v["target"], none, rule=rule).shape == (0,)


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda v: tv.select_group(v["target"], v["sources"], rule="prefixes"),
            ConfigError,
            "rule must be one of prefix.*Did you mean 'prefix'",
        ),
        (
            lambda v: tv.similarity(v["target"], v["target"], "cos"),
            ConfigError,
            "metric must be one of dot, cosine",
        ),
        (lambda v: tv.select_group(v["target"], v["sources"][..., :4]), PromptError, r"\[K, D\]"),
        (lambda v: tv.select_group(v["sources"], v["sources"]), PromptError, "pooled"),
        (lambda v: tv.similarity(v["target"], v["target"][:, :3]), PromptError, "do not match"),
        (lambda v: tv.pool(v["sources"], v["target_scale"]), PromptError, "one scale per token"),
        (lambda v: tv.pool(jnp.ones(3)), PromptError, r"\[\.\., L, D\]"),
        (lambda v: tv.group_from_gram(jnp.ones(3), jnp.ones((3, 4))), PromptError, r"\[K, K\]"),
        (lambda v: tv.knowledge_consistency(v["target"], jnp.ones(4, bool)), PromptError, "pooled"),
        (
            lambda v: tv.group_from_gram(jnp.ones(3), jnp.eye(3), jnp.ones(1, bool)),
            AssertionError,
            r"shape \(1,\) but expected \(3\)",
        ),
        (
            lambda v: tv.consistency_from_gram(jnp.ones((3, 1)), jnp.ones(3, bool)),
            AssertionError,
            r"\(3, 3\)",
        ),
    ],
)
def test_invalid_arguments_raise(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(vectors())
