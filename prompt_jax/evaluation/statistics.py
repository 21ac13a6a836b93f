"""Paired comparisons of methods over seeds and items, and the rule for an effect.

The unit of a comparison is the paired difference `d[seed, item] = a[seed, item] - b[seed, item]`:
both methods have the same few-shot draw (seed) and the same test rows (item). Seeds and items are
crossed, so the model of the bootstrap is `d = mu + seed + item + residual`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from prompt_jax.errors import DataError

ALPHA = 0.05
#: Minimum effect (a fraction): 5 points on the sandbox, 2 on text.
MINIMUM_EFFECT: dict[str, float] = {"sandbox": 0.05, "text": 0.02}
_CHUNK = 4_000_000  # resampled values in memory at once
_MIN_CROSSINGS = 10  # replicates beyond zero from which on their share estimates the p-value
_MIN_SEEDS = 5  # with fewer seeds, seeds are not resampled: three seeds have only ten resamples


class Summary(NamedTuple):
    """Mean, standard deviation and confidence interval over seeds."""

    mean: float  # over the finite values; NaN when there is none
    std: float  # with n - 1; NaN for n < 2
    low: float  # Student interval of the mean
    high: float
    n: int  # finite values
    failed: int  # NaN or infinite values (diverged replicas), excluded from all of the above


class Comparison(NamedTuple):
    """A paired comparison of a with b."""

    difference: float  # mean of a - b
    low: float  # interval of the difference
    high: float
    p: float  # two-sided
    seeds: int
    items: int


Estimate = TypeVar("Estimate", Summary, Comparison)


class Verdict(NamedTuple):
    """A comparison with its Holm-adjusted p-value within a family of tests."""

    comparison: Comparison
    p_holm: float
    effect: bool  # significant and at least the minimum effect


def summarise(values: np.ndarray | Sequence[float], *, level: float = 0.95) -> Summary:
    """Mean, standard deviation and Student interval over seeds.

    Args:
      values: float [seeds]; NaN for a diverged replica.
      level: Coverage of the interval.

    Returns:
      The summary; std and interval are NaN with fewer than two finite values.
    """
    from scipy import special  # `scipy.stats` calls it, and takes a second to import

    values = np.asarray(values, np.float64).ravel()
    finite = values[np.isfinite(values)]
    n, failed = len(finite), len(values) - len(finite)
    if n < 2:
        mean = float(finite[0]) if n else np.nan
        return Summary(mean, np.nan, np.nan, np.nan, n, failed)
    mean, std = float(finite.mean()), float(finite.std(ddof=1))
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * std / np.sqrt(n)
    return Summary(mean, std, mean - half, mean + half, n, failed)


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Comparison:
    """Paired bootstrap over seeds x items, calibrated for few seeds.

    Seeds are drawn with replacement, then items (one draw for all seeds of a replicate, because all
    seeds have the same test rows), and a replicate is the mean of `d`. Two corrections calibrate
    the plain percentile interval for 5-10 seeds; docs/evaluation.md shows their effect:

    1. The spread of the replicates is rescaled to the unbiased two-way variance
       `V = var(seed means)/S + var(item means)/n - residual/(S n)`. Without it the variance of the
       seeds is too small by (S - 1)/S, and the residual variance counts three times (Owen 2007,
       "The pigeonhole bootstrap").
    2. Percentiles are expanded from normal to Student quantiles (Hesterberg 2015, "What teachers
       should know about the bootstrap") with Satterthwaite's degrees of freedom for V.

    The number of replicates limits the smallest p-value: 10,000, expanded for 5 seeds, reach
    p = 0.02. If fewer than 10 replicates lie beyond zero, p is from Student's t with variance V.

    With one seed only the items are resampled, and the result holds for that seed only: it has no
    between-seed variance. With two to four seeds a resampled seed mean takes few distinct values,
    so the interval and p-value are from Student's t with the same V and degrees of freedom.

    Args:
      a: float [S, n], or [n] for one seed: per-item values of the first method.
      b: The same shape: the second method, with the same seeds and items.
      samples: Number of replicates.
      level: Coverage of the interval.
      seed: Seed of the resampling; equal seeds give equal results.

    Returns:
      Mean difference a - b, its interval and the two-sided p-value.

    Raises:
      DataError: When shapes differ, values are not finite, or there is a single value.
    """
    from scipy import special

    d = _paired(a, b)
    d = d[None, :] if d.ndim == 1 else d
    if d.ndim != 2 or d.size < 2:
        raise DataError(
            f"the bootstrap needs [seeds, items] with two values or more, not {d.shape}."
        )
    n_seeds, n_items = d.shape
    mean = float(d.mean())
    variance, freedom = _two_way_variance(d)
    if variance == 0.0:  # all differences are equal
        return Comparison(mean, mean, mean, 1.0 if mean == 0.0 else 0.0, n_seeds, n_items)

    if 1 < n_seeds < _MIN_SEEDS:
        half = float(special.stdtrit(freedom, (1 + level) / 2)) * np.sqrt(variance)
        p = 2 * float(special.stdtr(freedom, -abs(mean) / np.sqrt(variance)))
        return Comparison(mean, mean - half, mean + half, p, n_seeds, n_items)

    draws = _replicates(d, samples, np.random.default_rng(seed))
    spread = float(draws.std())
    if spread > 0.0:
        draws = mean + (draws - mean) * (np.sqrt(variance) / spread)
    # The Student quantile serves as a normal quantile: the tail is smaller than (1 - level) / 2.
    tail = float(special.ndtr(-special.stdtrit(freedom, (1 + level) / 2)))
    low, high = (float(q) for q in np.quantile(draws, [tail, 1 - tail]))
    crossing = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    if crossing < _MIN_CROSSINGS:
        p = 2 * float(special.stdtr(freedom, -abs(mean) / np.sqrt(variance)))
    else:
        one_sided = min((crossing + 1) / (samples + 1), 0.5)
        p = 2 * float(special.stdtr(freedom, special.ndtri(one_sided)))
    return Comparison(mean, low, high, min(p, 1.0), n_seeds, n_items)


def sign_flip(
    a: np.ndarray | Sequence[float],
    b: np.ndarray | Sequence[float],
    *,
    samples: int = 65_536,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired permutation test over seeds, for metrics without per-item values (F1, Matthews).

    Under the null hypothesis each seed's difference has a random sign. All 2^S sign vectors are
    enumerated if there are at most `samples` (S <= 16 by default), otherwise `samples` random ones
    are drawn. The smallest possible p with S seeds is 2^(1 - S): 0.0625 with five.

    Args:
      a: float [S]: the metric of each seed, first method.
      b: float [S]: second method, same seeds.
      samples: Largest number of sign vectors.
      level: Coverage of the (Student) interval.
      seed: Seed of the random sign vectors.

    Returns:
      Mean difference a - b, its interval and the two-sided p-value; `items` is 1.

    Raises:
      DataError: When shapes differ, values are not finite, or there is no seed.
    """
    d = _paired(a, b)
    if d.ndim != 1 or d.size < 1:
        raise DataError(f"the sign-flip test needs one value per seed, not the shape {d.shape}.")
    n = len(d)
    exact = n < 63 and 2**n <= samples
    if exact:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (samples, n))
    sums = np.abs((1.0 - 2.0 * bits) @ d)
    observed = abs(float(d.sum()))
    # The tolerance counts sums as equal that differ by rounding only.
    extreme = int((sums >= observed - 1e-9 * max(1.0, observed)).sum())
    p = extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)
    summary = summarise(d, level=level)
    return Comparison(summary.mean, summary.low, summary.high, p, n, 1)


def bounded(estimate: Estimate, low: float, high: float) -> Estimate:
    """Limits an interval to the values that can be: accuracy has no 120 points.

    Student's interval of two seeds may be many times as wide as the metric's range. An interval
    that reaches beyond both ends carries no information and becomes NaN: too few seeds.

    Args:
      estimate: of a mean or a difference; its p-value is not changed.
      low: the smallest possible value.
      high: the largest.
    """
    if estimate.low < low and estimate.high > high:
        return estimate._replace(low=np.nan, high=np.nan)
    return estimate._replace(low=max(estimate.low, low), high=min(estimate.high, high))


def holm(p: np.ndarray | Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment of a family of p-values.

    Args:
      p: float [m].

    Returns:
      float64 [m], adjusted values in the order given: comparing them with alpha controls the
      family-wise error rate at alpha (Holm 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, np.float64)
    order = np.argsort(raw, kind="stable")
    step_down = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(step_down, 1.0)
    return adjusted


def effect(p_holm: float, difference: float, minimum: float) -> bool:
    """Whether a difference is an effect: p < 0.05 after Holm and at least the minimum effect.

    Args:
      p_holm: p-value after `holm`.
      difference: Difference of the metric (fraction).
      minimum: Minimum effect, see `MINIMUM_EFFECT`.
    """
    # 0.85 - 0.80 is 0.0499...: the tolerance includes a difference of exactly the minimum.
    return bool(p_holm < ALPHA and abs(difference) >= minimum - 1e-9)


def judge(family: Mapping[str, Comparison], minimum: float) -> dict[str, Verdict]:
    """Holm correction and the effect rule for one declared family of comparisons.

    Args:
      family: Name -> comparison; all comparisons that were made, not a selection.
      minimum: Minimum effect.

    Returns:
      Name -> verdict, in the order given.
    """
    adjusted = holm([c.p for c in family.values()]).tolist()
    return {
        name: Verdict(comparison, p, effect(p, comparison.difference, minimum))
        for (name, comparison), p in zip(family.items(), adjusted, strict=True)
    }


def _paired(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> np.ndarray:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise DataError(
            f"a paired test needs the same seeds and items: {first.shape} against {second.shape}."
        )
    d = first - second
    if not np.isfinite(d).all():
        raise DataError(
            "a paired test got a value that is not finite (a diverged replica?): exclude that seed "
            "from both methods and report it."
        )
    return d


def _two_way_variance(d: np.ndarray) -> tuple[float, float]:
    """Unbiased variance of the mean of [S, n] crossed values, and its degrees of freedom."""
    n_seeds, n_items = d.shape
    if n_seeds == 1 or n_items == 1:
        n = d.size
        return float(d.var(ddof=1)) / n, n - 1
    by_seed, by_item = d.mean(1), d.mean(0)
    v_seed = float(by_seed.var(ddof=1)) / n_seeds
    v_item = float(by_item.var(ddof=1)) / n_items
    residual = d - by_seed[:, None] - by_item[None, :] + d.mean()
    f_residual = (n_seeds - 1) * (n_items - 1)
    v_residual = float((residual**2).sum()) / f_residual / d.size
    # In expectation the sum is at least each component, but not in every sample.
    variance = max(v_seed + v_item - v_residual, v_seed, v_item)
    spread = v_seed**2 / (n_seeds - 1) + v_item**2 / (n_items - 1) + v_residual**2 / f_residual
    return variance, variance**2 / spread if spread > 0 else 1.0


def _replicates(d: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap means, float64 [samples]."""
    n_seeds, n_items = d.shape
    chunk = max(1, min(samples, _CHUNK // n_items))
    means = []
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        seeds = rng.integers(0, n_seeds, (count, n_seeds))
        weights = np.zeros((count, n_seeds))
        np.add.at(weights, (np.arange(count)[:, None], seeds), 1.0 / n_seeds)
        items = rng.integers(0, n_items, (count, n_items), dtype=np.int32)
        # Row by row fits the cache: five times as fast as one gather over the whole chunk.
        means += [row[drawn].mean() for row, drawn in zip(weights @ d, items, strict=True)]
    return np.array(means)
