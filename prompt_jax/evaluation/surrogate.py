"""Surrogate models of source selection (Li et al. 2023, arXiv 2303.14582).

Few random subsets of the sources are scored, and a linear model of their scores says what each
source adds. So a choice among 2^K subsets costs a number of scores that grows linearly with K.

    f(S) ~ b + sum over j in S of theta_j          sources with theta_j > 0 are taken
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.errors import ConfigError

DRAW_SEED = 0
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A linear model of the score of a subset.

    Attributes:
      intercept: b, the score of no source.
      effects: theta [K].
      explained: share of the variance of the scores, over those of subsets that are not empty,
        that the model explains; NaN where they are all equal.
      left_out: how many subsets had no finite score.
    """

    intercept: float
    effects: np.ndarray
    explained: float
    left_out: int = 0

    __repr__ = fields_repr

    @property
    def chosen(self) -> np.ndarray:
        """The sources that add something, bool [K]: the subset of the highest predicted score."""
        return self.effects > 0

    def predict(self, groups: np.ndarray) -> np.ndarray:
        """Scores [N] of subsets, bool [N, K]."""
        return self.intercept + np.asarray(groups, np.float64) @ self.effects


def random_subsets(count: int, size: int, number: int, seed: int = DRAW_SEED) -> np.ndarray:
    """Different random subsets of one size, after the empty one; bool [n + 1, K].

    Args:
      count: sources, K.
      size: of each subset.
      number: how many; all there are where these are fewer.
      seed: of the draw.

    Raises:
      ConfigError: the size is not below the number of sources (of several), or the draw cannot tell
        the sources apart: too few subsets.

    >>> random_subsets(3, 1, 9).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    most = max(1, count - 1)
    if not 1 <= size <= most:
        raise ConfigError(
            f"the size of a subset is from 1 to {most} of {count} sources, not {size}: with all of"
            " them in every subset, no source can be told from another."
        )
    if number < count:
        raise ConfigError(
            f"{number} subsets cannot tell {count} sources apart: score at least {count}."
        )
    rng = np.random.default_rng([seed, count, size])
    found: set[tuple[int, ...]] = set()
    while len(found) < min(number, math.comb(count, size)):
        found.add(tuple(sorted(rng.permutation(count)[:size].tolist())))
    groups = np.zeros((len(found) + 1, count), bool)
    for group, members in zip(groups[1:], sorted(found), strict=True):
        group[list(members)] = True
    if np.linalg.matrix_rank(groups.astype(np.float64)) < count:
        raise ConfigError(
            f"the {number} random subsets of {size} sources cannot tell {count} sources apart:"
            " score more of them."
        )
    return groups


def fit(groups: np.ndarray, scores: np.ndarray) -> Surrogate:
    """The least-squares fit, with an intercept, to the scores of subsets.

    Subsets of one size alone leave the intercept open: only with the empty subset among them, which
    `random_subsets` puts first, is it known what adds to the target alone. It is then the score of
    the empty subset.

    Args:
      groups: bool [N, K].
      scores: [N]; those that are not finite are left out.

    Raises:
      ConfigError: the finite scores do not determine the model.
    """
    finite = np.isfinite(scores)
    design = np.column_stack([np.ones(len(groups)), groups]).astype(np.float64)[finite]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ConfigError(
            f"{int(finite.sum())} of {len(scores)} subsets have a finite score: too few to tell"
            f" {groups.shape[1]} sources apart. Score more subsets."
        )
    values = np.asarray(scores, np.float64)[finite]
    found = np.linalg.lstsq(design, values, rcond=None)[0]
    found[np.abs(found) < _ROUNDING] = 0.0  # a source that adds nothing would seem to add some
    some = design[:, 1:].any(1)
    rest = ((values - design @ found)[some] ** 2).sum()
    spread = ((values[some] - values[some].mean()) ** 2).sum()
    explained = 1 - rest / spread if spread > 0 else math.nan
    return Surrogate(float(found[0]), found[1:], float(explained), int((~finite).sum()))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two lists of numbers; NaN where one of them is constant.

    >>> round(rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.3, 0.2])), 6)
    0.5
    """
    from scipy import stats  # imported where it is used: it takes a second

    ranks = [stats.rankdata(x) for x in (one, other)]
    a, b = (x - x.mean() for x in ranks)
    norm = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / norm if norm else math.nan
