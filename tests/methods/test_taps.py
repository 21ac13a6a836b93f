"""TAPS against its formulas in float64, the gradient of its scores, and what its stages hand on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, BaseMethod, Taps
from prompt_jax.training.protocol import Prompted, Rows

L, D, K = toy.L, toy.D, 3
UNIT = 2.0
TASKS = np.array([0, 2, 1, 2], np.int32)
SCORES = np.array([[0.1, 0.0999, 0.3, -0.5], [0.05, 0.2, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])


def context(stage="target", joint=None):
    """A target after the mixture of the sources, and one other target."""
    artefacts = {"mixture": Artefact(("",), toy.prompt(9)[None], np.zeros(1))}
    if joint is not None:
        artefacts["targets"] = toy.trained_together(joint)
    return toy.context(stage, artefacts)


def moved(tasks=K, unit=UNIT):
    rng = np.random.default_rng(2)
    params = {
        "prompt": rng.normal(size=(L, D)).astype(np.float32),
        "residual": rng.normal(size=(tasks, L, D)).astype(np.float32),
        # A little above what the threshold is in float32, where they should be equal.
        "scores": ((SCORES[:tasks] + 1e-6) * unit).astype(np.float32),
    }
    return params, {"unit": np.float32(unit)}


def rows_of(tasks=TASKS):
    none = np.zeros((len(tasks), 0), np.int32)
    return Rows(none, none, tasks, np.zeros_like(tasks), np.ones(len(tasks), np.float32))


@functools.partial(jax.jit, static_argnums=0)
def made(method, params, consts):
    prompted = method.prompts(params, consts, (), rows_of(), jnp.int32(0), jax.random.key(0))
    return prompted.prompts, prompted.aux


def expected(params, task):
    """The prompt of a task, token by token."""
    prompt = np.float64(params["prompt"]).copy()
    for token in range(L):
        if SCORES[task, token] >= 0.1:
            prompt[token] += params["residual"][task, token]
    return prompt


def test_a_task_replaces_the_tokens_whose_score_reaches_the_threshold():
    params, consts = moved()
    prompts, scores = made(Taps(shared=True), params, consts)
    np.testing.assert_allclose(scores, SCORES, atol=1e-5)
    assert prompts.shape == (1, len(TASKS), L, D)
    for b, task in enumerate(TASKS):
        np.testing.assert_allclose(prompts[0, b], expected(params, task), rtol=1e-6, atol=1e-6)
    # One target over a prompt that is not trained.
    one = {name: params[name][:1] for name in ("residual", "scores")}
    consts = {**consts, "prompt": params["prompt"]}
    np.testing.assert_allclose(made(Taps(), one, consts)[0][0], expected(params, 0), rtol=1e-6)
    np.testing.assert_allclose(Taps().deploy(one, consts), expected(params, 0), rtol=1e-6)
    assert Taps(shared=True).deploy(params, consts) is None


def test_scores_learn_as_if_the_step_were_the_identity():
    params, consts = moved()
    method = Taps(shared=True)
    slope = np.random.default_rng(4).normal(size=(1, len(TASKS), L, D)).astype(np.float32)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.vdot(made(method, p, consts)[0], slope))(params)

    found = gradient(params)
    by_score, by_residual = np.zeros((K, L)), np.zeros((K, L, D))
    for b, task in enumerate(TASKS):
        for token in range(L):
            pull = np.float64(slope[0, b, token])
            by_score[task, token] += pull @ params["residual"][task, token] / UNIT
            by_residual[task, token] += pull * (SCORES[task, token] >= 0.1)
    np.testing.assert_allclose(found["scores"], by_score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["residual"], by_residual, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["prompt"], slope[0].sum(0), rtol=1e-5, atol=1e-5)


def test_the_penalty_is_the_mean_score_after_the_warm_up():
    method = Taps(sparsity=0.5, warm_up=3)
    value = 0.5 * np.abs(SCORES).mean()
    found = [float(method.penalty({}, {}, jnp.float32(SCORES), jnp.int32(n))) for n in (0, 2, 3, 9)]
    assert found == pytest.approx([0, 0, value, value], rel=1e-5)


def test_a_target_starts_at_the_prompt_of_the_sources():
    first, last = Taps().stages()
    # The same replica as that of SPoT's mixture.
    assert (first.name, first.on, first.trains, first.part) == (
        "mixture",
        "mixture",
        BaseMethod(),
        (0.0, 1.0),
    )
    assert (last.trains, Taps().rowwise) == (None, False)
    params, consts = Taps(start=0.2).init(context())
    unit = float(toy.tiny_t5().embedding_rms())
    np.testing.assert_allclose(params["scores"], np.full((1, L), 0.2 * unit), rtol=1e-6)
    assert (params["residual"].shape, params["residual"].any()) == ((1, L, D), False)
    np.testing.assert_array_equal(Taps().deploy(params, consts), toy.prompt(9))


def test_targets_that_are_trained_together_take_their_own_tokens():
    method = Taps(shared=True)
    joint, last = method.stages()
    assert (joint.on, joint.trains, last.trains, last.part) == (
        "targets",
        None,
        BaseMethod(),
        (0.0, 0.0),
    )
    start, _ = method.init(context("targets"))
    np.testing.assert_array_equal(start["prompt"], toy.prompt())
    assert start["scores"].shape == (2, L)
    trained, _ = moved(2, float(toy.tiny_t5().embedding_rms()))
    params, consts = method.init(context(joint=trained))
    np.testing.assert_allclose(params["prompt"], expected(trained, 1), rtol=1e-5, atol=1e-6)
    assert (set(params), consts) == ({"prompt"}, {})


def test_what_is_logged_and_the_rates():
    method = Taps(score_rate=0.5)
    assert method.groups(moved()[0]) == {
        "prompt": "prompt",
        "residual": "prompt",
        "scores": "scores",
    }
    assert method.group_rates() == {"scores": 0.5}
    found = method.metrics({}, {}, Prompted(None, aux=np.float32(SCORES + 1e-6)))
    assert float(found["own_tokens"]) == pytest.approx((2 + 2 + 0) / 3)
    np.testing.assert_array_equal(found["token_scores"], np.float32(SCORES + 1e-6))
    alone = method.metrics({}, {}, Prompted(None, aux=np.float32(SCORES[:1])))
    assert set(alone) == {"own_tokens"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": float("nan")}, "threshold must be finite"),
        ({"start": float("inf")}, "start must be finite"),
        ({"sparsity": -1.0}, "sparsity must not be negative"),
        ({"warm_up": -1}, "warm_up must not be negative"),
        ({"score_rate": 0.0}, "score_rate must be positive"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Taps(**options)


def test_options_differ_from_the_defaults_in_the_spec():
    assert Taps().spec == "taps"
    assert dataclasses.replace(Taps(), warm_up=5).spec == "taps(warm_up=5)"
