"""Averaged predictions and calibration, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError, DataError
from prompt_jax.evaluation import Job, calibration, evaluate, evaluate_ensemble, rank
from prompt_jax.evaluation.ensemble import probabilities

INF = np.inf


def test_probabilities_are_the_softmax_of_minus_the_nll():
    scores = np.asarray([[0.0, math.log(3), INF], [1e4, 1e4, 1e4]], np.float32)
    np.testing.assert_allclose(probabilities(scores), [[0.75, 0.25, 0], [1 / 3] * 3], rtol=1e-6)
    assert np.isnan(probabilities(np.asarray([[np.nan, 1.0]]))).all()


def prompts(count=3):
    return np.stack([toy.prompt(i, 2.0) for i in range(count)])


@pytest.mark.slow
@pytest.mark.parametrize("normalise", ["mean", "sum"])
def test_evaluate_ensemble_averages_probabilities(normalise):
    splits = [toy.make_split(rows=9, seed=1, labels=3), toy.make_split(rows=5, seed=2, labels=3)]
    both = np.stack([prompts(2), prompts(2)[::-1] + 0.5])  # [P, M, L, D]
    jobs = [Job(splits[0], 1), Job(splits[1], 0)]
    lm = toy.tiny_t5()
    made = evaluate_ensemble(lm, jobs, both, metrics=("accuracy",), normalise=normalise)
    for job, got in zip(jobs, made, strict=True):
        each = rank(
            lm, [Job(job.split, i) for i in range(2)], both[job.prompt], normalise=normalise
        )
        p = np.mean([probabilities(result.scores) for result in each], 0)
        np.testing.assert_allclose(np.exp(-got.scores), p, rtol=1e-5)
        np.testing.assert_array_equal(got.predictions, p.argmax(1))
        assert got.metrics["accuracy"] == np.mean(p.argmax(1) == job.split.label)
        np.testing.assert_array_equal(got.per_item["accuracy"], p.argmax(1) == job.split.label)


@pytest.mark.slow
def test_ensemble_of_one_prompt_is_that_prompt():
    split, one = toy.make_split(rows=8), prompts(1)
    (alone,) = evaluate(toy.tiny_t5(), [Job(split)], one, metrics=("accuracy",))
    (average,) = evaluate_ensemble(toy.tiny_t5(), [Job(split)], one[None], metrics=("accuracy",))
    assert alone.metrics == average.metrics
    np.testing.assert_array_equal(alone.predictions, average.predictions)
    first, second = (calibration(e.scores, split.label) for e in (alone, average))
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.slow
def test_ensemble_with_a_diverged_particle_is_nan():
    split, several = toy.make_split(rows=8), prompts(2)[None].copy()
    several[0, 1, 0, 0] = np.nan
    (got,) = evaluate_ensemble(toy.tiny_t5(), [Job(split)], several, metrics=("accuracy",))
    assert math.isnan(got.metrics["accuracy"])
    assert (got.predictions == -1).all()
    assert all(math.isnan(v) for v in calibration(got.scores, split.label))


def test_invalid_arguments_raise_before_the_model_runs():
    split = toy.make_split(rows=8)
    with pytest.raises((ConfigError, DataError), match="accurracy"):
        evaluate_ensemble(None, [Job(split)], prompts()[None], metrics=("accurracy",))


def test_calibration():
    p = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.35, 0.65]])
    labels = np.asarray([0, 1, 0, 1])
    got = calibration(-np.log(p), labels, bins=10)
    assert got.nll == pytest.approx(-np.mean(np.log([0.9, 0.1, 0.6, 0.65])))
    assert got.brier == pytest.approx(np.mean([2 * q**2 for q in (0.1, 0.9, 0.4, 0.35)]))
    # Bins (0.9: one of two right), (0.6 and 0.65, together 1.25 of 2 right).
    assert got.ece == pytest.approx((2 * abs(0.5 - 0.9) + abs(2 - 1.25)) / 4)
    certain = calibration(np.asarray([[0.0, INF], [0.0, INF]]), np.asarray([0, 1]))
    assert (certain.nll, certain.ece) == (INF, 0.5)
    nothing = np.asarray([[0.0, 1.0], [INF, INF]])  # no candidate of a row is possible
    for scores, labels in ((np.zeros((0, 2)), np.zeros(0, int)), (nothing, np.zeros(2, int))):
        assert all(math.isnan(v) for v in calibration(scores, labels))
