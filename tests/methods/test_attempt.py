"""ATTEMPT against the paper's formulas in float64, its limits, and what its stages hand on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, Attempt, trained
from prompt_jax.prompts import PromptRecord
from prompt_jax.training.protocol import Rows

L, D, K = toy.L, toy.D, 3
METHOD = Attempt(width=5)


def reference(row, own, sources, down, up, tau):
    """P(x) in float64, from the paper's formulas.

    Args:
      row: [s, D], the embeddings of a row's real tokens.
      own: [L, D], P_T.
      sources: [K, L, D].
      down, up: [D, W], [W, D].
      tau: the temperature.
    """
    row, own, sources, down, up = (np.float64(x) for x in (row, own, sources, down, up))
    hidden = row.max(axis=0) @ down
    hidden = hidden / (1 + np.exp(-hidden))  # SiLU
    h = hidden @ up
    h = (h - np.mean(h)) / np.std(h)
    prompts = [*sources, own]
    logits = np.array([prompt.max(axis=0) @ h for prompt in prompts]) / tau
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    return own + sum(a * prompt for a, prompt in zip(weights, prompts, strict=True)), weights


def context(stage="target", **changes):
    """A target with three sources and one other target."""
    prompts = np.stack([toy.prompt(10 + k) for k in range(K)])
    sources = Artefact(("a", "b", "c"), prompts, np.zeros(K))
    return toy.context(stage, **{"artefacts": {"sources": sources}, **changes})


def moved(method=METHOD, seed=0, **changes):
    """Params and constants, the parameters away from their start."""
    params, consts = method.init(context(**changes))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32), params)
    return params, consts


def rows_of(lengths, width, tasks=None, rubbish=0.0):
    """Rows of normal embeddings, and of `rubbish` at padding."""
    rng = np.random.default_rng(1)
    embedded = np.full((len(lengths), width, D), rubbish, np.float32)
    mask = np.zeros((len(lengths), width), np.int32)
    for i, length in enumerate(lengths):
        embedded[i, :length], mask[i, :length] = 3 * rng.normal(size=(length, D)), 1
    task = np.zeros(len(lengths), np.int32) if tasks is None else np.asarray(tasks, np.int32)
    return Rows(mask, mask, task, np.zeros_like(task), np.ones(len(task), np.float32), embedded)


@functools.partial(jax.jit, static_argnums=0)
def made(method, params, consts, rows):
    prompted = method.prompts(params, consts, (), rows, np.int32(0), jax.random.key(0))
    return prompted.prompts, prompted.aux


@pytest.mark.parametrize("temperature", [1.0, 0.02])
def test_prompts_are_those_of_the_formulas(temperature):
    method = dataclasses.replace(METHOD, temperature=temperature, shared=True)
    params, consts = moved(method, stage="targets")
    assert params["prompt"].shape == (2, L, D)
    lengths, tasks = (3, 5, 1, 8), (0, 1, 1, 0)
    rows = rows_of(lengths, 8, tasks)
    prompts, attention = made(method, params, consts, rows)
    assert prompts.shape == (1, 4, L, D)
    for i, (length, task) in enumerate(zip(lengths, tasks, strict=True)):
        expected, weights = reference(
            rows.embedded[i, :length],
            params["prompt"][task],
            consts["sources"],
            params["down"],
            params["up"],
            temperature * np.e * D,  # of this model, not T5-base's 2087
        )
        np.testing.assert_allclose(prompts[0, i], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(attention[i], weights, rtol=2e-5, atol=2e-6)
    assert np.ptp(np.asarray(attention), axis=0).max() > (0.5 if temperature < 1 else 0.01)


def test_prompts_do_not_depend_on_padding():
    method = dataclasses.replace(METHOD, temperature=0.02)
    params, consts = moved(method)
    narrow, wide = rows_of((3, 5), 8), rows_of((3, 5), 16, rubbish=1e6)
    np.testing.assert_array_equal(
        made(method, params, consts, narrow)[0], made(method, params, consts, wide)[0]
    )


def test_at_an_infinite_temperature_all_prompts_weigh_alike():
    method = dataclasses.replace(METHOD, temperature=float("inf"))
    params, consts = moved(method)
    own = params["prompt"][0]
    expected = own + (consts["sources"].sum(0) + own) / (K + 1)
    for prompt in made(method, params, consts, rows_of((3, 5), 8))[0][0]:
        np.testing.assert_allclose(prompt, expected, rtol=1e-5, atol=1e-5)


def test_a_single_source_that_is_the_target_s_prompt_doubles_it():
    params, consts = moved()
    consts = {**consts, "sources": params["prompt"]}
    for prompt in made(METHOD, params, consts, rows_of((3, 5), 8))[0][0]:
        np.testing.assert_allclose(prompt, 2 * params["prompt"][0], rtol=1e-5, atol=1e-5)


def test_a_trained_norm_starts_at_the_identity():
    method = dataclasses.replace(METHOD, norm="trained", temperature=0.02)
    params, consts = method.init(context())
    frozen = {name: params[name] for name in ("prompt", "down", "up")}
    rows = rows_of((3, 5), 8)
    prompts, attention = made(method, params, consts, rows)
    np.testing.assert_allclose(
        prompts, made(dataclasses.replace(method, norm="frozen"), frozen, consts, rows)[0], 1e-6
    )
    # No scale: H is the shift, the same for all rows.
    nothing = {**params, "scale": np.zeros(D, np.float32)}
    np.testing.assert_allclose(made(method, nothing, consts, rows)[1], 1 / (K + 1), rtol=1e-6)
    assert np.ptp(np.asarray(attention)[0]) > 0.01


def test_starts():
    sources = context().artefact("sources").prompts
    params, consts = METHOD.init(context())
    np.testing.assert_array_equal(params["prompt"], sources[:1])  # the first source
    np.testing.assert_array_equal(consts["sources"], sources)
    assert (params["down"].shape, params["up"].shape) == ((D, 5), (5, D))
    for name, inputs in (("down", D), ("up", 5)):
        assert 0.8 * inputs**-0.5 < np.abs(params[name]).max() <= inputs**-0.5
    initial, _ = dataclasses.replace(METHOD, start="initial").init(context())
    np.testing.assert_array_equal(initial["prompt"][0], toy.prompt())
    np.testing.assert_array_equal(initial["down"], params["down"])
    other, _ = METHOD.init(context(seed=1))
    assert np.abs(other["down"] - params["down"]).max() > 0.1


def test_targets_that_are_trained_together_take_their_own_prompts():
    method = dataclasses.replace(METHOD, shared=True)
    assert [(s.name, s.on, s.part[1]) for s in method.stages()] == [
        ("sources", "source", 1.0),
        ("targets", "targets", 1.0),
        ("target", "target", 0.0),
    ]
    joint, _ = moved(method, stage="targets")
    left = Artefact(("",), np.zeros((0, 0, 0)), np.zeros(1), (joint,))
    after = context(artefacts={**context().artefacts, "targets": left})
    params, _ = method.init(after)
    np.testing.assert_array_equal(params["prompt"], joint["prompt"][1:])
    np.testing.assert_array_equal(params["up"], joint["up"])


def test_the_attention_may_be_trained_on_the_sources_first():
    method = dataclasses.replace(METHOD, pretrained=True, norm="trained")
    first, pretraining, last = method.stages()
    assert (first.on, pretraining.on, last.part) == ("source", "mixture", (0.0, 1.0))
    params, _ = moved(method, stage="attention")
    assert params["prompt"].shape == (K, L, D)
    left = Artefact(("",), np.zeros((0, 0, 0)), np.zeros(1), (params,))
    new, _ = method.init(context(artefacts={**context().artefacts, "attention": left}))
    np.testing.assert_array_equal(new["prompt"], context().artefact("sources").prompts[:1])
    for name in ("down", "up", "scale", "shift"):
        np.testing.assert_array_equal(new[name], params[name])
    # Both forms share the pre-training.
    together = dataclasses.replace(method, shared=True)
    assert together.stages()[1].trains == method
    assert pretraining.trains is None


def test_what_is_kept_computes_the_prompt_of_any_row(tmp_path):
    params, consts = moved()
    lm = toy.tiny_t5()
    record = PromptRecord(lm.weights_hash, "tiny", METHOD.spec, "one", d_model=D)
    trained.save(tmp_path / "m", trained.TrainedMethod(METHOD, params, consts, record))
    after = trained.load(tmp_path / "m", model=lm)
    assert (after.method, after.record.tokens) == (METHOD, L)
    rows = rows_of((3, 5), 8)
    np.testing.assert_array_equal(
        made(METHOD, after.params, after.consts, rows)[0], made(METHOD, params, consts, rows)[0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"attention_rate": -1.0}, "attention_rate must not be negative"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Attempt(**options)


def test_attention_is_logged_and_has_a_rate_of_its_own():
    method = dataclasses.replace(METHOD, attention_rate=0.1)
    params, _ = method.init(context())
    assert method.groups(params) == {"prompt": "prompt", "down": "attention", "up": "attention"}
    assert method.group_rates() == {"attention": 0.1}
    attention = np.array([[0.5, 0.2, 0.1, 0.2], [0.3, 0.2, 0.3, 0.2]], np.float32)
    from prompt_jax.training.protocol import Prompted

    found = method.metrics({}, {}, Prompted(None, aux=attention))
    np.testing.assert_allclose(found["attention"], [0.4, 0.2, 0.2], rtol=1e-6)
    assert float(found["own_attention"]) == pytest.approx(0.2)
