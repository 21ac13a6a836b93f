"""DMTG against its formulas in float64, its two forms, and what its stages hand on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod, Dmtg
from prompt_jax.training.deployed import prompt_of_row
from prompt_jax.training.protocol import Prompted, Rows

L, D, K, G = toy.L, toy.D, 3, 3
TASKS = np.array([0, 2, 1, 1, 0], np.int32)
KEY = 5


def context(stage="target", trained=None, **changes):
    """A target, three sources whose groups are trained, and one other target."""
    names = () if trained is None else ("groups", "targets")
    return toy.context(stage, dict.fromkeys(names, toy.trained_together(trained)), **changes)


def moved(tasks=K, unit=2.0):
    """Groups away from their start, with memberships of `tasks` tasks."""
    rng = np.random.default_rng(3)
    params = {
        "prompts": rng.normal(size=(G, L, D)).astype(np.float32),
        "membership": (unit * 2 * rng.normal(size=(tasks, G))).astype(np.float32),
    }
    return params, {"unit": np.float32(unit)}


def rows_of(tasks):
    task = np.asarray(tasks, np.int32)
    none = np.zeros((len(task), 0), np.int32)
    return Rows(none, none, task, np.zeros_like(task), np.ones(len(task), np.float32))


@functools.partial(jax.jit, static_argnums=0)
def made(method, params, consts, rows):
    prompted = method.prompts(params, consts, (), rows, jnp.int32(0), jax.random.key(KEY))
    return prompted.prompts, prompted.row_weights


@functools.cache
def noise(tasks):
    return np.float64(jax.random.gumbel(jax.random.key(KEY), (tasks, G)))


def memberships(params, consts, method):
    """G [K, G] in float64, from the formula."""
    logits = np.float64(params["membership"]) / np.float64(consts["unit"])
    noisy = np.exp((logits + noise(len(logits))) / method.temperature)
    if method.draw == "hard":
        return np.eye(G)[noisy.argmax(1)]
    return noisy / noisy.sum(1, keepdims=True)


@pytest.mark.parametrize("draw", ["soft", "hard"])
def test_rows_and_prompts_are_weighted_by_the_memberships(draw):
    for form in ("losses", "prompts"):
        method = Dmtg(form=form, draw=draw, temperature=1.5, shared=True)
        params, consts = moved()
        expected = memberships(params, consts, method)
        prompts, weights = made(method, params, consts, rows_of(TASKS))
        if form == "losses":
            assert method.views == G
            assert prompts.shape == (G, len(TASKS), L, D)
            for j in range(G):
                for b in range(len(TASKS)):
                    np.testing.assert_array_equal(prompts[j, b], params["prompts"][j])
            np.testing.assert_allclose(weights, expected[TASKS].T, rtol=1e-5, atol=1e-7)
        else:
            assert (method.views, weights) == (1, None)
            for b, task in enumerate(TASKS):
                mixed = sum(expected[task, j] * np.float64(params["prompts"][j]) for j in range(G))
                np.testing.assert_allclose(prompts[0, b], mixed, rtol=1e-5, atol=1e-6)


def test_a_single_task_has_one_prompt_for_each_group_or_their_mixture():
    params, consts = moved(1)
    for form, shape in (("losses", (G, L, D)), ("prompts", (1, L, D))):
        method = Dmtg(form=form)
        prompts, weights = made(method, params, consts, rows_of([0, 0, 1]))
        assert (prompts.shape, method.rowwise) == (shape, False)
        expected = memberships(params, consts, method)
        if form == "losses":
            np.testing.assert_array_equal(prompts, params["prompts"])
            np.testing.assert_allclose(weights, np.repeat(expected.T, 3, 1), rtol=1e-5)
        else:
            mixed = np.einsum("g,gld->ld", expected[0], np.float64(params["prompts"]))
            np.testing.assert_allclose(prompts[0], mixed, rtol=1e-5, atol=1e-6)


def loss_of(prompts):
    """Of each row under its prompt, [..., B]; not linear, so that mixing matters."""
    wanted = jnp.arange(len(TASKS), dtype=jnp.float32)[None, :, None, None]
    return ((prompts - wanted) ** 2).mean((-1, -2))


@pytest.mark.parametrize(("draw", "equal"), [("hard", True), ("soft", False)])
def test_both_forms_are_equal_where_memberships_are_hard(draw, equal):
    """The loss and its gradient for the prompts."""
    params, consts = moved()
    rows = rows_of(TASKS)

    def objective(form, params):
        method = Dmtg(form=form, draw=draw, temperature=1.5, shared=True)
        prompts, weights = made(method, params, consts, rows)
        losses = loss_of(prompts)
        return (losses if weights is None else losses * weights).sum()

    both = [
        jax.jit(jax.value_and_grad(functools.partial(objective, form)))(params)
        for form in ("losses", "prompts")
    ]
    (one, first), (two, second) = both
    assert np.allclose(one, two, rtol=1e-5) == equal
    assert np.allclose(first["prompts"], second["prompts"], rtol=1e-4, atol=1e-6) == equal
    for gradient in (first, second):  # a hard membership learns too
        assert np.abs(gradient["membership"]).max() > 1e-3


def test_the_gradient_of_a_membership_is_that_of_its_weighted_losses():
    method = Dmtg(temperature=1.5, shared=True)
    params, consts = moved()
    losses = np.random.default_rng(0).uniform(1, 5, (G, len(TASKS))).astype(np.float32)

    @jax.jit
    def gradient(membership):
        def weighted(membership):
            changed = {**params, "membership": membership}
            return jnp.vdot(made(method, changed, consts, rows_of(TASKS))[1], losses)

        return jax.grad(weighted)(membership)

    shares = memberships(params, consts, method)
    expected = np.zeros((K, G))
    for b, task in enumerate(TASKS):
        for k in range(G):
            for j in range(G):
                slope = shares[task, j] * ((j == k) - shares[task, k]) / method.temperature
                expected[task, k] += losses[j, b] * slope / consts["unit"]
    found = gradient(params["membership"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_answers_are_given_under_the_group_or_where_mixtures_were_trained_under_the_mixture():
    params, consts = moved()
    logits = np.float64(params["membership"]) / 2.0
    groups = [params["prompts"][j] for j in logits.argmax(1)]
    assert len(set(logits.argmax(1).tolist())) > 1
    shares = np.exp(logits / 4.0)
    mixed = np.einsum(
        "kg,gld->kld", shares / shares.sum(1, keepdims=True), np.float64(params["prompts"])
    )
    cases = (("losses", "soft", groups), ("prompts", "hard", groups), ("prompts", "soft", mixed))
    for form, draw, expected in cases:
        method = Dmtg(form=form, draw=draw, shared=True)
        assert method.deploy(params, consts) is None
        # As the evaluator asks for them: by replica and row.
        state = jax.tree.map(lambda x: x[None], (params, consts))
        row = tuple(rows_of(TASKS))[:4]
        found = jax.jit(prompt_of_row(method))(state, np.zeros_like(TASKS), (*row, None))
        np.testing.assert_allclose(
            found, np.stack([expected[k] for k in TASKS]), rtol=1e-5, atol=1e-6
        )
        one = {**params, "membership": params["membership"][1:2]}
        alone = dataclasses.replace(method, shared=False).deploy(one, consts)
        np.testing.assert_allclose(alone, expected[1], rtol=1e-5, atol=1e-6)


def test_groups_start_around_the_initialisation_with_even_memberships():
    method = Dmtg(shared=True, spread=0.5, branches=4)
    params, consts = method.init(context("groups"))
    assert (params["prompts"].shape, params["membership"].shape) == ((4, L, D), (K, 4))
    unit = float(toy.tiny_t5().embedding_rms())
    assert consts["unit"] == pytest.approx(unit)
    apart = params["prompts"] - toy.prompt()
    np.testing.assert_allclose(apart.std((1, 2)) / unit, 0.5, rtol=0.3)
    assert not params["membership"].any()
    joint, _ = method.init(context("targets"))
    assert joint["membership"].shape == (2, 4)
    np.testing.assert_array_equal(joint["prompts"], params["prompts"])
    other, _ = method.init(context("groups", seed=1))
    assert np.abs(other["prompts"] - params["prompts"]).max() > 0.01


def test_a_target_joins_the_groups_of_the_sources():
    first, last = Dmtg(draw="hard").stages()
    assert (first.on, first.mixing, first.trains) == (
        "mixture",
        "stratified",
        Dmtg(draw="hard", shared=True),
    )
    assert (last.trains, last.part) == (None, (0.0, 1.0))
    trained, _ = moved()
    params, _ = Dmtg().init(context(trained=trained))
    np.testing.assert_array_equal(params["prompts"], trained["prompts"])
    np.testing.assert_array_equal(params["membership"], np.zeros((1, G)))
    # The sources of its group are those it has chosen.
    groups = trained["membership"].argmax(1)
    for group in range(G):
        mine = {**params, "membership": 5 * np.eye(G, dtype=np.float32)[[group]]}
        found = Dmtg().selected_sources(context(trained=trained), mine)
        np.testing.assert_array_equal(found, groups == group)
    assert Dmtg(shared=True).selected_sources(context(trained=trained), params) is None


def test_targets_that_are_trained_together_take_the_prompt_of_their_group():
    method = Dmtg(shared=True)
    joint, last = method.stages()
    assert (joint.on, joint.trains, last.trains, last.part) == (
        "targets",
        None,
        BaseMethod(),
        (0.0, 0.0),
    )
    trained, consts = moved(2, float(toy.tiny_t5().embedding_rms()))
    params, none = method.init(context(trained=trained))
    expected = method.row_prompts(trained, consts, rows_of([1]))[0]
    np.testing.assert_array_equal(params["prompt"], expected)
    assert (set(params), none) == ({"prompt"}, {})


def test_entropy_is_of_every_membership():
    params, consts = moved()
    logits = np.float64(params["membership"]) / 2.0
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (-p * np.log(p) - (1 - p) * np.log(1 - p)).sum() / K
    found = Dmtg(entropy=0.3).penalty(params, consts, jnp.float32(logits), jnp.int32(0))
    assert float(found) == pytest.approx(0.3 * expected, rel=1e-5)
    assert float(Dmtg().penalty(params, consts, jnp.float32(logits), jnp.int32(0))) == 0
    decided = jnp.array([[100.0, 0.0, 0.0]])
    slope = jax.grad(lambda x: Dmtg(entropy=1.0).penalty(params, consts, x, jnp.int32(0)))(decided)
    assert np.isfinite(slope).all()


def test_memberships_are_logged_and_have_a_rate_of_their_own():
    method = Dmtg(membership_rate=0.25)
    assert method.groups({"prompts": 0, "membership": 0}) == {
        "prompts": "prompt",
        "membership": "membership",
    }
    assert method.group_rates() == {"membership": 0.25}
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]], np.float32))
    found = method.metrics({}, {}, Prompted(None, aux=logits))
    np.testing.assert_allclose(found["membership"], [0.3, 0.5, 0.2], rtol=1e-5)
    np.testing.assert_allclose(found["task_groups"], np.exp(logits), rtol=1e-5)
    assert set(method.metrics({}, {}, Prompted(None, aux=logits[:1]))) == {"membership"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": 0}, "branches must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"entropy": -1.0}, "entropy must not be negative"),
        ({"spread": float("inf")}, "spread must not be negative"),
        ({"membership_rate": -0.1}, "membership_rate must not be negative"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Dmtg(**options)
