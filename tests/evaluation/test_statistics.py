"""Statistics against scipy, hand examples and simulation under the null."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from prompt_jax.errors import DataError
from prompt_jax.evaluation import bounded, statistics, summarise

RUNS = 400


def null(rng, seeds, items, spread):
    seed, item, rest = spread
    return (
        seed * rng.normal(size=(seeds, 1))
        + item * rng.normal(size=(1, items))
        + rest * rng.normal(size=(seeds, items))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "spread"),
    [
        (3, (1.0, 0.0, 0.5)),
        (5, (1.0, 0.0, 0.3)),
        (10, (1.0, 0.0, 0.3)),
        (10, (0.1, 0.5, 1.0)),
        (1, (0.0, 1.0, 0.0)),
    ],
)
def test_bootstrap_is_calibrated_under_the_null(seeds, spread):
    rng = np.random.default_rng(0)
    p, covered = [], 0
    for run in range(RUNS):
        d = null(rng, seeds, 60, spread)
        c = statistics.paired_bootstrap(d, np.zeros_like(d), samples=400, seed=run)
        p.append(c.p)
        covered += c.low <= 0.0 <= c.high
    error = 3.5 * math.sqrt(0.05 * 0.95 / RUNS)  # sampling error of a rate of 5 %
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < error
    assert abs(covered / RUNS - 0.95) < error


@pytest.mark.slow
def test_bootstrap_is_calibrated_when_the_residual_dominates():
    rng = np.random.default_rng(1)
    rejected = sum(
        statistics.paired_bootstrap(d, 0 * d, samples=400).p < 0.05
        for d in (null(rng, 5, 60, (0.0, 0.0, 1.0)) for _ in range(RUNS))
    )
    assert rejected / RUNS < 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_bootstrap_detects_an_effect_and_its_direction():
    rng = np.random.default_rng(2)
    b = (rng.random((10, 200)) < 0.6).astype(float)
    a = (rng.random((10, 200)) < 0.7).astype(float)
    up = statistics.paired_bootstrap(a, b, samples=2000)
    down = statistics.paired_bootstrap(b, a, samples=2000)
    assert up.difference == pytest.approx(a.mean() - b.mean())
    assert up.p < 0.01
    assert 0 < up.low < up.difference < up.high
    assert down.difference == pytest.approx(-up.difference)
    assert down.p == pytest.approx(up.p, abs=0.01)
    assert (up.seeds, up.items) == (10, 200)


@pytest.mark.slow
def test_bootstrap_of_one_seed_matches_scipy():
    d = np.random.default_rng(3).normal(0.1, 1.0, 300)
    ours = statistics.paired_bootstrap(d, np.zeros(300), samples=20_000)
    theirs = stats.bootstrap(
        (d,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    assert ours.p == pytest.approx(stats.ttest_1samp(d, 0.0).pvalue, abs=0.01)


def test_bootstrap_of_one_item_is_the_t_test_over_seeds():
    d = np.random.default_rng(4).normal(0.5, 1.0, (40, 1))
    ours = statistics.paired_bootstrap(d, np.zeros_like(d), samples=20_000)
    assert ours.p == pytest.approx(stats.ttest_1samp(d[:, 0], 0.0).pvalue, abs=0.02)


def test_bootstrap_of_few_seeds_is_student():
    d = np.random.default_rng(5).normal(size=(3, 1)) + 1.0
    ours = statistics.paired_bootstrap(d, np.zeros_like(d))
    theirs = stats.ttest_1samp(d[:, 0], 0.0)
    interval = theirs.confidence_interval()
    assert ours[:4] == pytest.approx((d.mean(), interval.low, interval.high, theirs.pvalue))


def test_two_way_variance_is_unbiased():
    rng = np.random.default_rng(6)
    spread = (0.7, 1.5, 2.0)
    estimates = [statistics._two_way_variance(null(rng, 8, 20, spread))[0] for _ in range(4 * RUNS)]
    truth = 0.7**2 / 8 + 1.5**2 / 20 + 2.0**2 / 160
    assert np.mean(estimates) == pytest.approx(truth, rel=0.05)


def test_bootstrap_is_deterministic_given_its_seed():
    a, b = np.random.default_rng(7).random((2, 6, 50))
    first = statistics.paired_bootstrap(a, b, samples=300, seed=1)
    assert statistics.paired_bootstrap(a, b, samples=300, seed=1) == first
    assert statistics.paired_bootstrap(a, b, samples=300, seed=2) != first


def test_bootstrap_does_not_depend_on_its_chunks(monkeypatch):
    a, b = np.random.default_rng(8).random((2, 6, 50))
    monkeypatch.setattr(statistics, "_CHUNK", 50 * 7)
    small = statistics.paired_bootstrap(a, b, samples=3000)
    monkeypatch.undo()
    large = statistics.paired_bootstrap(a, b, samples=3000)
    assert small.p == pytest.approx(large.p, abs=0.05)


def test_bootstrap_of_equal_methods_and_constant_differences():
    a = np.random.default_rng(9).random((5, 20))
    same = statistics.paired_bootstrap(a, a)
    assert same[:4] == (0.0, 0.0, 0.0, 1.0)
    ones = statistics.paired_bootstrap(np.ones((5, 20)), np.zeros((5, 20)))
    assert ones[:4] == (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("test", [statistics.paired_bootstrap, statistics.sign_flip])
def test_unpaired_values_raise(test):
    with pytest.raises(DataError, match="same seeds and items"):
        test(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="not finite"):
        test(np.array([1.0, math.nan]), np.zeros(2))
    with pytest.raises(DataError):
        test(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    with pytest.raises(DataError):
        test(np.zeros(0), np.zeros(0))


# Permutation over seeds


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flip_matches_scipy_exactly(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    theirs = stats.permutation_test(
        (a - b, np.zeros(n)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    ours = statistics.sign_flip(a, b)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.difference == pytest.approx(theirs.statistic)
    assert (ours.seeds, ours.items) == (n, 1)


def test_sign_flip_smallest_p_and_ties():
    assert statistics.sign_flip([1.0] * 5, [0.9] * 5).p == pytest.approx(0.0625)
    assert statistics.sign_flip([0.3, 0.1], [0.1, 0.3]).p == 1.0
    assert statistics.sign_flip([0.5], [0.1]).p == 1.0


def test_sign_flip_random_approximates_the_exact_test():
    d = np.random.default_rng(10).normal(0.4, 1, 12)
    zero = np.zeros(12)
    exact, rough = statistics.sign_flip(d, zero), statistics.sign_flip(d, zero, samples=4000)
    assert rough.p == pytest.approx(exact.p, abs=0.03)
    assert rough.p != exact.p


# Families, summaries, the rule


def test_holm_by_hand():
    # Holm's steps: 0.005 x 4, 0.01 x 3, max(0.03 x 2, .), max(0.04 x 1, .).
    np.testing.assert_allclose(
        statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], atol=1e-12
    )
    assert statistics.holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert statistics.holm([]).shape == (0,)


def test_holm_matches_the_closed_test():
    # Holm is the closure of Bonferroni: a hypothesis falls if every set that holds it falls.
    rng = np.random.default_rng(11)
    for _ in range(30):
        p = rng.random(5) ** 3
        closed = [
            max(
                min(1.0, len(s) * min(p[list(s)]))
                for size in range(1, 6)
                for s in itertools.combinations(range(5), size)
                if i in s
            )
            for i in range(5)
        ]
        np.testing.assert_allclose(statistics.holm(p), closed)


def test_summarise_matches_scipy_and_counts_failed_seeds():
    values = np.array([0.8, 0.7, math.nan, 0.9, 0.75])
    got = statistics.summarise(values)
    finite = values[np.isfinite(values)]
    interval = stats.ttest_1samp(finite, 0.0).confidence_interval(0.95)
    assert got[:4] == pytest.approx(
        (finite.mean(), finite.std(ddof=1), interval.low, interval.high)
    )
    assert (got.n, got.failed) == (4, 1)


def test_summarise_one_and_no_seed():
    one = statistics.summarise([0.5, math.nan])
    assert (one.mean, one.n, one.failed) == (0.5, 1, 1)
    assert math.isnan(one.std)
    assert math.isnan(statistics.summarise([math.nan]).mean)


@pytest.mark.parametrize(
    ("p", "difference", "counts"),
    [(0.01, 0.06, True), (0.01, -0.06, True), (0.01, 0.04, False), (0.05, 0.06, False)],
)
def test_effect_requires_significance_and_size(p, difference, counts):
    assert statistics.effect(p, difference, statistics.MINIMUM_EFFECT["sandbox"]) is counts


def test_effect_at_exactly_the_minimum():
    assert statistics.effect(0.01, 0.85 - 0.80, 0.05)


def test_judge_adjusts_over_the_whole_family():
    def comparison(p, difference=0.1):
        return statistics.Comparison(difference, 0.0, 0.2, p, 10, 100)

    alone = statistics.judge({"x": comparison(0.03)}, 0.05)
    both = statistics.judge({"x": comparison(0.03), "y": comparison(0.04)}, 0.05)
    assert alone["x"].effect
    assert (both["x"].p_holm, both["x"].effect, list(both)) == (0.06, False, ["x", "y"])


def test_judge_large_difference_over_five_seeds_is_significant():
    """A tail that no replicate reaches is Student's, not a floor of 0.02."""
    rng = np.random.default_rng(0)
    seeds = 0.02 * rng.standard_normal((5, 1))
    a = (rng.random((5, 300)) < 0.9 + seeds).astype(float)
    b = (rng.random((5, 300)) < 0.5 + seeds).astype(float)
    comparison = statistics.paired_bootstrap(a, b)
    assert comparison.p < 0.05 / 40
    assert comparison.low > 0.3


def test_bounded_intervals():
    summary = summarise([0.2, 0.9])
    assert summary.low < 0.0 < 1.0 < summary.high
    none = bounded(summary, 0.0, 1.0)
    assert math.isnan(none.low)
    assert math.isnan(none.high)
    assert none[:2] == summary[:2]
    near = summarise([0.95, 0.99, 0.97])
    assert bounded(near, 0.0, 1.0) == near._replace(high=1.0)
    inside = summarise([0.5, 0.6, 0.55])
    assert bounded(inside, 0.0, 1.0) == inside
    one = bounded(summarise([0.5]), 0.0, 1.0)
    assert one.mean == 0.5
    assert math.isnan(one.low)


def test_quantiles_are_those_of_scipy_stats():
    """To the last bit, from the functions that `scipy.stats` calls."""
    d = np.random.default_rng(0).normal(0.1, 1.0, (6, 9))
    made = statistics.paired_bootstrap(d, np.zeros_like(d))
    summary = summarise(d[:, 0])
    half = float(stats.t.ppf(0.975, 5)) * d[:, 0].std(ddof=1) / np.sqrt(6)
    assert summary.high == d[:, 0].mean() + half
    few = statistics.paired_bootstrap(d[:2], np.zeros((2, 9)))
    variance, freedom = statistics._two_way_variance(d[:2])
    assert few.p == 2 * float(stats.t.sf(abs(few.difference) / np.sqrt(variance), freedom))
    assert 0 < made.p < 1
