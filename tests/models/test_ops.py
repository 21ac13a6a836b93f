"""Hand-written derivatives against automatic ones of the plain formulas."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from prompt_jax.models import ops
from prompt_jax.models.t5.config import ACTIVATIONS

from .conftest import load_case, numbers


def plain_attention(q, kt, v, bias, mask):
    scores = jnp.einsum("bhqd,bhdk->bhqk", q, kt)
    for extra in (bias, mask):
        if extra is not None:
            scores = scores + jnp.broadcast_to(extra, scores.shape)
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, axis=-1), v)


@pytest.mark.slow
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_mask", [True, False])
def test_attention_and_its_gradient(with_bias, with_mask):
    q, kt, v = numbers((2, 3, 4, 5)), numbers((2, 3, 5, 6), 1), numbers((2, 3, 6, 5), 2)
    bias = jnp.asarray(numbers((1, 3, 4, 6), 3)) if with_bias else None
    keep = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 1]])
    mask = jnp.where(jnp.asarray(keep) > 0, 0.0, ops.MASKED)[:, None, None] if with_mask else None
    weight = numbers((2, 3, 4, 5), 4)
    where = (0, 1, 2, 3) if with_bias else (0, 1, 2)

    def value(attention):
        return lambda q, kt, v, bias: jnp.sum(attention(q, kt, v, bias, mask) * weight)

    have = jax.value_and_grad(value(ops.attend), where)(q, kt, v, bias)
    want = jax.value_and_grad(value(plain_attention), where)(q, kt, v, bias)
    chex.assert_trees_all_close(have, want, rtol=1e-5, atol=1e-5)


def test_masked_keys_get_exactly_nothing():
    mask = jnp.array([0.0, ops.MASKED, 0.0], jnp.float32)[None, None, None]
    q, kt = jnp.asarray(numbers((1, 1, 2, 4))), jnp.asarray(numbers((1, 1, 4, 3)))
    p = ops.probabilities(q, kt, None, mask)
    assert (p[..., 1] == 0).all()
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-6)


def test_nll_is_the_stable_log_softmax_and_ignores():
    logits = numbers((3, 4, 7)) * 100  # naive exp would overflow
    labels = np.array([[0, 6, 2, -100], [1, -100, 3, 4], [-100] * 4])
    want = -scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    want = np.take_along_axis(want, np.maximum(labels, 0)[..., None], -1)[..., 0]
    want = np.where(labels == -100, 0.0, want)
    have = ops.logits_nll(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_head_nll_gradient():
    hidden, head = jnp.asarray(numbers((2, 5, 4))), jnp.asarray(numbers((9, 4), 1))
    labels = jnp.array([[1, 2, 3, -100, -100], [8, 0, -100, 4, 5]])
    weight = jnp.asarray(numbers((2, 5), 2))

    def plain(hidden, head):
        log_probs = jax.nn.log_softmax(jnp.einsum("btd,vd->btv", hidden, head))
        hit = jax.nn.one_hot(labels, 9)
        return -jnp.sum(jnp.einsum("btv,btv->bt", log_probs, hit) * weight)

    def own(hidden, head):
        return jnp.sum(ops.head_nll(hidden, head, labels) * weight)

    have = jax.value_and_grad(own, (0, 1))(hidden, head)
    want = jax.value_and_grad(plain, (0, 1))(hidden, head)
    chex.assert_trees_all_close(have, want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_scoring_in_chunks_changes_nothing(monkeypatch):
    hidden, head = jnp.asarray(numbers((5, 3, 4))), jnp.asarray(numbers((9, 4), 1))
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 9, (5, 3)))
    want = ops.head_nll(hidden, head, labels)
    monkeypatch.setattr(ops, "CHUNK", 2 * 3 * 9)  # two rows at once, one left over
    jaxpr = jax.make_jaxpr(lambda h: ops.head_nll(h, head, labels))(hidden)
    assert "f32[5,3,9]" not in str(jaxpr)
    np.testing.assert_allclose(ops.head_nll(hidden, head, labels), want, rtol=1e-6)


@pytest.mark.slow
def test_a_nan_at_an_ignored_position_has_no_gradient():
    hidden = jnp.asarray(numbers((1, 3, 4))).at[0, 1].set(jnp.nan)
    labels = jnp.array([[2, -100, 1]])
    head = jnp.asarray(numbers((6, 4), 1))
    nll, grad = jax.value_and_grad(lambda h: jnp.sum(ops.head_nll(h, head, labels)))(hidden)
    assert np.isfinite(nll)
    assert np.isfinite(np.asarray(grad)[0, [0, 2]]).all()


def test_rms_norm_has_no_mean_and_float32_statistics():
    x = numbers((3, 8)) * 1e3
    weight = numbers((8,), 1)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(ops.rms_norm(jnp.asarray(x), weight, 1e-6), want, rtol=1e-5)
    narrow = ops.rms_norm(jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight), 1e-6)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), want, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False])
def test_activation_and_its_gradient(name, gated):
    plain = {
        "relu": jax.nn.relu,
        "gelu_new": lambda x: 0.5 * x * (1 + jnp.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "gelu": lambda x: 0.5 * x * (1 + jax.scipy.special.erf(x / 2**0.5)),
        "silu": lambda x: x / (1 + jnp.exp(-x)),
    }[name]
    x, weight = jnp.asarray(numbers((3, 5)) * 2), jnp.asarray(numbers((3, 5), 1))
    if gated:
        gate = jnp.asarray(numbers((3, 5), 2))
        have = jax.value_and_grad(lambda x, b: jnp.sum(ops.activate(name, x, b) * weight), (0, 1))
        want = jax.value_and_grad(lambda x, b: jnp.sum(plain(x) * b * weight), (0, 1))
        have, want = have(x, gate), want(x, gate)
    else:
        have = jax.value_and_grad(lambda x: jnp.sum(ops.activate(name, x, None) * weight))(x)
        want = jax.value_and_grad(lambda x: jnp.sum(plain(x) * weight))(x)
    chex.assert_trees_all_close(have, want, rtol=1e-5, atol=1e-5)


def test_rms_norm_gradient():
    x, weight = jnp.asarray(numbers((2, 3, 8))), jnp.asarray(numbers((8,), 1))
    out = jnp.asarray(numbers((2, 3, 8), 2))

    def plain(x, w):
        y = x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
        return jnp.sum(y * jnp.broadcast_to(w, y.shape) * out)

    have = jax.grad(lambda x, w: jnp.sum(ops.rms_norm(x, w, 1e-6) * out), (0, 1))(x, weight)
    want = jax.grad(plain, (0, 1))(x, weight)
    chex.assert_trees_all_close(have, want, rtol=1e-5, atol=1e-5)


def test_every_product_of_a_bf16_backward_pass_is_bf16():
    args = [jnp.zeros(s, jnp.bfloat16) for s in ((1, 2, 3, 4), (1, 2, 4, 3), (1, 2, 3, 4))]
    bias = jnp.zeros((1, 2, 3, 3), jnp.float32)
    head = jnp.zeros((9, 4), jnp.bfloat16)
    labels = jnp.zeros((2, 3), jnp.int32)

    def loss(q, kt, v):
        out = ops.attend(q, kt, v, bias, None)
        return jnp.sum(ops.head_nll(out.reshape(2, 3, 4), head, labels))

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(*args))
    products = [line for line in text.splitlines() if "= dot_general" in line]
    assert len(products) >= 6
    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(*args)
    for equation in walk(jaxpr.jaxpr):
        if equation.primitive.name == "dot_general":
            assert all(v.aval.dtype == jnp.bfloat16 for v in equation.invars)


def walk(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from walk(inner)


@pytest.mark.parametrize(("family", "name"), [("t5", "v1_0"), ("decoder", "llama3")])
def test_layers_are_traced_once(family, name, monkeypatch):
    """Tracing is most of the time until the first step where programs are compiled already."""
    case = load_case(name, family)
    traced = []
    activate = ops.activate
    monkeypatch.setattr(ops, "activate", lambda *a: (traced.append(a), activate(*a))[1])
    ids, mask, labels = case.batch
    rest = (jnp.asarray(ids), jnp.asarray(mask), jnp.asarray(labels), None, None, None)
    jax.eval_shape(lambda lm: lm._score(*rest, frozenset()), case.lm)
    assert len(traced) == {"t5": 2, "decoder": 1}[family]  # a T5 has two kinds of layer
