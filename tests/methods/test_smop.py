"""SMoP against its formulas in float64, what its router knows, and what its stages hand on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod, Smop
from prompt_jax.training.deployed import prompt_of_row
from prompt_jax.training.protocol import Prompted, Rows

L, D, K, G = toy.L, toy.D, 3, 4
LENGTHS, TASKS = (3, 5, 1, 8), np.array([0, 2, 1, 2], np.int32)
UNIT = 2.0
KEY = 7


def context(stage="target", trained=None, **changes):
    """A target, three sources whose experts are trained, and one other target."""
    names = () if trained is None else ("experts", "targets")
    return toy.context(stage, dict.fromkeys(names, toy.trained_together(trained)), **changes)


def moved(router="both", tasks=K):
    """Parameters away from their start, and constants."""
    rng = np.random.default_rng(3)
    params = {"experts": rng.normal(size=(G, L, D)).astype(np.float32)}
    if router != "task":
        params["router"] = (UNIT * 0.1 * rng.normal(size=(D, G))).astype(np.float32)
    if router != "input":
        params["task"] = (UNIT * rng.normal(size=(tasks, G))).astype(np.float32)
    return params, {"unit": np.float32(UNIT)}


def rows_of(rubbish=0.0, tasks=TASKS):
    """Rows of normal embeddings, and of `rubbish` at padding."""
    rng = np.random.default_rng(1)
    embedded = np.full((len(LENGTHS), max(LENGTHS), D), rubbish, np.float32)
    mask = np.zeros(embedded.shape[:2], np.int32)
    for i, length in enumerate(LENGTHS):
        embedded[i, :length], mask[i, :length] = rng.normal(size=(length, D)), 1
    return Rows(mask, mask, tasks, np.zeros_like(tasks), np.ones(len(tasks), np.float32), embedded)


@functools.partial(jax.jit, static_argnums=0)
def made(method, params, consts, rows):
    key = jax.random.key(KEY)
    prompted = method.prompts(params, consts, (), rows, jnp.int32(0), key)
    penalty = method.penalty(params, consts, prompted.aux, jnp.int32(0))
    return prompted.prompts, prompted.aux, penalty


def reference(method, params, rows, noise):
    """Prompts, p and the chosen experts of each row in float64, from the formulas."""
    prompts, every, chosen = [], [], []
    for b in range(len(rows.task)):
        scores = np.zeros(G)
        if "router" in params:
            tokens = np.float64(rows.embedded[b, : rows.mask[b].sum()])
            scores += tokens.mean(0) @ (params["router"] / UNIT) / (method.temperature * UNIT)
        if "task" in params:
            scores += params["task"][rows.task[b]] / UNIT
        scores += method.noise * noise[b] * scores
        p = np.exp(scores - scores.max())
        p /= p.sum()
        best = sorted(range(G), key=lambda j: -p[j])[: method.top or G]
        prompts.append(sum(p[j] * np.float64(params["experts"][j]) for j in best))
        every.append(p)
        chosen.append(best)
    return np.stack(prompts), np.stack(every), np.asarray(chosen)


@pytest.mark.parametrize(("router", "top"), [("input", 1), ("task", 0), ("both", 2)])
def test_prompts_and_balance_are_those_of_the_formulas(router, top):
    method = Smop(router=router, top=top, shared=True, noise=0.5, balance=0.3)
    params, consts = moved(router)
    rows = rows_of()
    noise = np.float64(jax.random.normal(jax.random.key(KEY), (len(TASKS), G)))
    expected, p, chosen = reference(method, params, rows, noise)
    prompts, aux, penalty = made(method, params, consts, rows)
    assert prompts.shape == (1, len(TASKS), L, D)
    np.testing.assert_allclose(prompts[0], expected, rtol=1e-4, atol=1e-5)
    shares = np.bincount(chosen.ravel(), minlength=G) / chosen.size
    np.testing.assert_allclose(aux["chosen"], shares, rtol=1e-6)
    assert float(penalty) == pytest.approx(0.3 * G * (shares * p.mean(0)).sum(), rel=1e-4)


def test_evaluation_has_no_noise_and_does_not_depend_on_padding():
    method = Smop(noise=5.0)
    params, consts = moved("input")
    rows = rows_of(rubbish=1e6)
    expected, _, _ = reference(
        dataclasses.replace(method, noise=0.0), params, rows, np.ones((9, G))
    )
    state = jax.tree.map(lambda x: x[None], (params, consts))
    row = (rows.input_ids, rows.mask, rows.task, rows.template, rows.embedded)
    found = jax.jit(prompt_of_row(method))(state, np.zeros_like(TASKS), row)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(made(method, params, consts, rows)[0][0] - expected).max() > 0.01


def test_experts_and_router_learn():
    method = Smop(router="both", shared=True, top=1)
    params, consts = moved()

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: (made(method, p, consts, rows_of())[0] ** 2).sum())(params)

    slopes = {name: np.abs(x) for name, x in gradient(params).items()}
    assert all(x.max() > 1e-3 for x in slopes.values())
    _, _, chosen = reference(
        method, params, rows_of(), np.float64(jax.random.normal(jax.random.key(KEY), (4, G)))
    )
    unused = sorted(set(range(G)) - set(chosen.ravel().tolist()))
    assert unused
    assert slopes["experts"][unused].max() == 0  # of a row the chosen expert alone


def test_a_router_that_knows_the_task_alone_deploys_one_prompt():
    method = Smop(router="task", top=2)
    assert (method.rowwise, method.needs_embeddings) == (False, False)
    params, consts = moved("task", 1)
    p = np.exp(np.float64(params["task"][0]) / UNIT)
    p /= p.sum()
    best = np.argsort(-p)[:2]
    expected = np.einsum("g,gld->ld", p[best], np.float64(params["experts"][best]))
    np.testing.assert_allclose(method.deploy(params, consts), expected, rtol=1e-5, atol=1e-6)
    prompts, aux, penalty = made(dataclasses.replace(method, noise=0.0), params, consts, rows_of())
    np.testing.assert_allclose(prompts[0], expected, rtol=1e-5, atol=1e-6)
    assert set(aux) == {"chosen"}  # the one task is meant to prefer an expert
    assert float(penalty) == 0
    for router in ("input", "both"):
        assert Smop(router=router).deploy(*moved(router, 1)) is None


def test_starts():
    method = Smop(router="both", spread=0.5)
    params, consts = method.init(context())
    unit = float(toy.tiny_t5().embedding_rms())
    assert consts["unit"] == pytest.approx(unit)
    shapes = {name: x.shape for name, x in params.items()}
    assert shapes == {"experts": (G, L, D), "router": (D, G), "task": (1, G)}
    apart = (params["experts"] - toy.prompt()).std((1, 2)) / unit
    np.testing.assert_allclose(apart, 0.5, rtol=0.3)
    router = np.float64(params["router"]) / unit
    np.testing.assert_allclose(router.T @ router, np.eye(G), atol=1e-5)
    assert set(Smop().init(context())[0]) == {"experts", "router"}
    assert set(Smop(router="task").init(context())[0]) == {"experts", "task"}
    assert np.abs(method.init(context(seed=1))[0]["router"] - params["router"]).max() > 0.01


def test_experts_may_be_trained_on_the_sources_first():
    method = Smop(router="both", pretrained=True, tuned="router")
    first, last = method.stages()
    assert (first.on, first.budget, last.trains) == ("mixture", "source", None)
    assert first.trains == Smop(router="both", shared=True)
    assert first.trains.init(context("experts"))[0]["task"].shape == (K, G)
    trained, _ = moved()
    params, consts = method.init(context(trained=trained))
    assert set(params) == {"router", "task"}  # the experts stay as they are
    np.testing.assert_array_equal(consts["experts"], trained["experts"])
    np.testing.assert_array_equal(params["router"], trained["router"])
    np.testing.assert_allclose(params["task"], trained["task"].mean(0)[None], rtol=1e-6)
    whole, _ = dataclasses.replace(method, tuned="all").init(context(trained=trained))
    np.testing.assert_array_equal(whole["experts"], trained["experts"])
    alike = {**whole, **params}
    for one, two in zip(
        made(method, params, {**consts, "unit": np.float32(UNIT)}, rows_of()),
        made(dataclasses.replace(method, tuned="all"), alike, {"unit": UNIT}, rows_of()),
        strict=True,
    ):
        jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("tuned", ["all", "router"])
def test_targets_that_are_trained_together_take_their_own_preferences(tuned):
    trained, _ = moved("task", 2)
    method = Smop(router="task", shared=True, pretrained=tuned == "router", tuned=tuned, top=0)
    *_, joint, last = method.stages()
    assert (joint.on, last.trains, last.part) == ("targets", BaseMethod(), (0.0, 0.0))
    params, _ = method.init(context(trained=trained))
    unit = np.float64(toy.tiny_t5().embedding_rms())
    p = np.exp(np.float64(trained["task"][1]) / unit)
    expected = np.einsum("g,gld->ld", p / p.sum(), np.float64(trained["experts"]))
    np.testing.assert_allclose(params["prompt"], expected, rtol=1e-5, atol=1e-6)
    method = dataclasses.replace(method, router="both")
    assert method.stages()[-1].trains is None
    trained, _ = moved("both", 2)
    params, _ = method.init(context(trained=trained))
    np.testing.assert_array_equal(params["task"], trained["task"][1:])
    np.testing.assert_array_equal(params["router"], trained["router"])


def test_what_is_logged_and_the_rates():
    method = Smop(router="both", router_rate=0.5)
    params, consts = moved()
    assert method.groups(params) == {"experts": "prompt", "router": "router", "task": "router"}
    assert method.group_rates() == {"router": 0.5}
    prompted = Prompted(None, aux={"chosen": np.array([0.25, 0.75], np.float32)})
    found = method.metrics(params, consts, prompted)
    np.testing.assert_array_equal(found["expert_share"], [0.25, 0.75])
    np.testing.assert_allclose(found["task_experts"].sum(1), 1, rtol=1e-6)
    assert set(method.metrics(moved(tasks=1)[0], consts, prompted)) == {"expert_share"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "experts must be at least 1, not 0"),
        ({"top": 5}, "top is from 1 to experts=4, or 0 for all of them, not 5"),
        ({"top": -1}, "top is from 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"noise": float("nan")}, "noise must not be negative"),
        ({"balance": -1.0}, "balance must not be negative"),
        ({"tuned": "router"}, "add pretrained=true"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Smop(**options)
