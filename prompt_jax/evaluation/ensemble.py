"""Ensembles of several prompts, and calibration of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from prompt_jax.arrays import stack
from prompt_jax.errors import DataError
from prompt_jax.evaluation import ties as tied
from prompt_jax.evaluation.evaluators import (
    Evaluation,
    check_metrics,
    names_per_job,
    rank,
    score_predictions,
)
from prompt_jax.evaluation.sweep import Job

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from prompt_jax.models.base import LanguageModel


class Calibration(NamedTuple):
    """Calibration of the probabilities of candidates."""

    nll: float  # nats per row, of the right candidate
    brier: float  # mean squared distance to the right answer, in [0, 2]
    ece: float  # expected calibration error, in [0, 1]


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of - NLL over the candidates of each row.

    Args:
      scores: [n, C], `RankResult.scores`; inf where there is no such candidate.

    Returns:
      [n, C] float64; NaN rows stay NaN.
    """
    scores = scores.astype(np.float64)
    weights = np.exp(scores.min(1, keepdims=True) - scores)
    return weights / weights.sum(1, keepdims=True)


def evaluate_ensemble(
    lm: LanguageModel,
    jobs: Sequence[Job],
    prompts: Any,
    *,
    metrics: Sequence[str] | Sequence[Sequence[str]],
    normalise: Literal["mean", "sum"] | None = None,
    mesh: Mesh | None = None,
) -> list[Evaluation]:
    """Rank classification by the average of M prompts' predictions.

    With particles of a posterior this is the posterior predictive distribution,
    p(y | x) = (1/M) sum_i p(y | x, theta_i), over the candidates of each row.

    Args:
      lm: The model.
      jobs: Splits whose rows have candidates; `Job.prompt` is a row of `prompts`.
      prompts: [P, M, L, D].
      metrics: Names for all jobs, or one sequence of names per job.
      normalise: See `evaluators.rank`.
      mesh: Rows are split over its axis 'data'.

    Returns:
      One evaluation per job; `scores` are - log of the averaged probabilities.

    Raises:
      ConfigError: An unknown metric or option, or a job's prompt that is not in `prompts`.
      DataError: A row has no candidates, a metric does not fit the rows, or the task generates its
        answers.
    """
    for job in jobs:
        if any(example.generated for example in job.split.examples):
            raise DataError(
                f"the answers of '{job.split.name}' are generated, but an ensemble averages the"
                " probabilities of candidates: use data.answers=words, or a method that deploys one"
                " prompt."
            )
    prompts = stack(prompts, "prompts")
    names, count = names_per_job(metrics, len(jobs)), prompts.shape[1]
    check_metrics(jobs, names)
    member_jobs = [Job(job.split, job.prompt * count + i) for job in jobs for i in range(count)]
    ranked = rank(
        lm, member_jobs, prompts.reshape(-1, *prompts.shape[2:]), normalise=normalise, mesh=mesh
    )
    evaluations = []
    for number, job in enumerate(jobs):
        members = ranked[number * count : (number + 1) * count]
        member_probabilities = [probabilities(result.scores) for result in members]
        with np.errstate(divide="ignore"):
            scores = -np.log(np.mean(member_probabilities, axis=0))
        finite = all(bool((result.prediction >= 0).all()) for result in members)
        ties = tied.of(scores)
        best = tied.choose(scores, job.split, ties)
        evaluation = score_predictions(job.split, names[number], best, finite, ties)
        evaluations.append(evaluation._replace(scores=scores.astype(np.float32)))
    return evaluations


def calibration(scores: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """Calibration of candidate scores, of one prompt or of an ensemble.

    The probabilities are those of `probabilities`. With NLL per token, the default, they are
    normalised by length and not the probabilities of whole answers.

    Args:
      scores: [n, C], `Evaluation.scores`.
      labels: int [n], the right candidate.
      bins: of equal width in the largest probability, for the expected calibration error (Guo et
        al. 2017, arXiv 1706.04599, equation 3).

    Returns:
      All NaN without rows or if a row has no finite score; an NLL of inf if a right candidate has
      probability 0.
    """
    # The minimum of a row is NaN if one of its scores is, and inf if it has no candidate.
    if not len(scores) or not np.isfinite(scores.min(1)).all():
        return Calibration(math.nan, math.nan, math.nan)
    p = probabilities(scores)
    right = np.arange(p.shape[1])[None] == labels[:, None]
    with np.errstate(divide="ignore"):
        nll = -np.log(p[right]).mean()
    best = p == p.max(1, keepdims=True)  # of several, the right one is correct in 1 of n cases
    confidence, correct = p.max(1), (best & right).sum(1) / best.sum(1)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, bins)  # |sum| per bin = rows x |gap|
    return Calibration(
        float(nll), float(((p - right) ** 2).sum(1).mean()), float(np.abs(gaps).sum() / len(p))
    )
