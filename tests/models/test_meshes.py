"""A model on the meshes that callers bring: Explicit axes, `shard_map`, and 64-bit arrays."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prompt_jax import sharding
from prompt_jax.errors import ModelError, PromptError
from tests import toy

P = PartitionSpec
S, T = 8, 4


def batch():
    rng = np.random.default_rng(0)
    ids, labels = (rng.integers(2, toy.CONFIG.vocab_size, (toy.B, n)) for n in (S, T))
    return ids.astype(np.int32), np.ones((toy.B, S), np.int32), labels.astype(np.int32)


def mean_loss(prompt, lm, *rows):
    nll, tokens = lm.loss(*rows, prompt)
    return nll / tokens


@functools.cache
def reference():
    return jax.jit(jax.value_and_grad(mean_loss))(
        jnp.asarray(toy.prompt()), toy.tiny_t5(), *batch()
    )


@functools.cache
def weights_of():
    return jax.jit(jax.grad(mean_loss, 1))(toy.prompt(), toy.tiny_t5(), *batch())


def explicit(*sizes):
    return jax.make_mesh(sizes, ("data", "model")[: len(sizes)])


def close(have, want):
    np.testing.assert_allclose(np.asarray(have), np.asarray(want), rtol=1e-5, atol=1e-6)


@pytest.mark.multidevice
def test_rows_on_the_default_mesh_of_jax():
    """`jax.make_mesh` has Explicit axes: eagerly, under jit, and the gradient under `set_mesh`."""
    mesh = explicit(8)
    assert jax.sharding.AxisType.Explicit in mesh.axis_types
    lm, prompt = toy.tiny_t5(), toy.prompt()
    rows = jax.device_put(batch(), NamedSharding(mesh, P("data")))
    placed, on_all = jax.device_put((lm, prompt), NamedSharding(mesh, P()))
    value, grad = reference()
    close(mean_loss(prompt, lm, *rows), value)
    have, slope = jax.jit(jax.value_and_grad(mean_loss))(on_all, placed, *rows)
    close(have, value)
    close(slope, grad)
    per_row, _ = placed.loss(*rows, on_all, per_row=True)
    assert jax.typeof(per_row).sharding.spec == P("data")
    nll, _ = placed.rank(*rows[:2], batch()[2][:3], on_all)
    close(nll, lm.rank(*batch()[:2], batch()[2][:3], prompt)[0])
    have = placed.generate(*rows[:2], on_all, max_new_tokens=2)
    np.testing.assert_array_equal(have, lm.generate(*batch()[:2], prompt, max_new_tokens=2))
    close(placed.embed(rows[0]), lm.embed(batch()[0]))
    close(placed.embedding_rms(), lm.embedding_rms())


@pytest.mark.multidevice
def test_weights_split_over_a_mesh_of_explicit_axes():
    mesh = explicit(4, 2)
    lm = toy.tiny_t5()
    split = sharding.shard_tree(lm, lm.partition_rules, mesh)
    rows = jax.device_put(batch(), NamedSharding(mesh, P("data")))
    close(mean_loss(toy.prompt(), split, *rows), reference()[0])


@pytest.mark.multidevice
def test_a_decoder_over_data_and_model_and_inside_shard_map():
    """Loss, candidates, new tokens and the prompt's gradient are those of one device."""
    lm, prompt, rows = toy.tiny_decoder(), toy.prompt(), batch()
    value, grad = jax.jit(jax.value_and_grad(mean_loss))(prompt, lm, *rows)
    mesh = sharding.make_mesh(4, 2)
    split = sharding.shard_tree(lm, lm.partition_rules, mesh)
    assert split.params["layers"]["mlp"]["up"].sharding.spec == P(None, None, "model")
    placed = jax.device_put(rows, NamedSharding(mesh, P("data")))
    have, slope = jax.jit(jax.value_and_grad(mean_loss))(prompt, split, *placed)
    close(have, value)
    np.testing.assert_allclose(slope, grad, rtol=1e-4, atol=1e-5)
    close(
        split.rank(*placed[:2], rows[2][:3], prompt)[0], lm.rank(*rows[:2], rows[2][:3], prompt)[0]
    )
    want = lm.generate(*rows[:2], prompt, max_new_tokens=2)
    np.testing.assert_array_equal(split.generate(*placed[:2], prompt, max_new_tokens=2), want)

    def local(prompt, lm, *rows):
        def mean(prompt):
            nll, tokens = lm.loss(*rows, prompt)
            return jax.lax.psum(nll, "data") / jax.lax.psum(tokens, "data")

        return jax.grad(mean)(prompt)

    specs = (P(), P(), P("data"), P("data"), P("data"))
    mesh = sharding.make_mesh(8)
    program = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)
    slope = jax.jit(program)(prompt, lm, *rows)
    np.testing.assert_allclose(slope, grad, rtol=1e-4, atol=1e-5)


@pytest.mark.multidevice
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_the_gradient_inside_shard_map(kind):
    """Data parallel, with the types of varying arrays checked; for the prompt and the weights."""
    mesh = explicit(8) if kind == "Explicit" else sharding.make_mesh(8)
    rows, prompt, lm = batch(), toy.prompt(), toy.tiny_t5()
    if kind == "Explicit":
        rows = jax.device_put(rows, NamedSharding(mesh, P("data")))
        prompt, lm = jax.device_put((prompt, lm), NamedSharding(mesh, P()))

    def local(prompt, lm, *rows):
        def mean(prompt, lm):
            nll, tokens = lm.loss(*rows, prompt)
            return jax.lax.psum(nll, "data") / jax.lax.psum(tokens, "data")

        return jax.grad(mean, (0, 1))(prompt, lm)

    specs = (P(), P(), P("data"), P("data"), P("data"))
    program = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)
    slope, weights = jax.jit(program)(prompt, lm, *rows)
    close(slope, reference()[1])
    whole = weights_of()
    for have, want in zip(jax.tree.leaves(weights), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.multidevice
def test_a_prompt_per_device_inside_shard_map():
    """Rows that all devices share meet prompts that differ: scores, candidates and generation."""
    mesh, lm, rows = sharding.make_mesh(2), toy.tiny_t5(), batch()
    prompts = np.stack([toy.prompt(0), toy.prompt(1)])

    def local(lm, prompts, *rows):
        prompt = prompts[0]
        slope = jax.grad(lambda prompt: lm.loss(*rows, prompt)[0])(prompt)
        nll = lm.rank(*rows[:2], rows[2][:3], prompt)[0]
        greedy, beams = (
            lm.generate(*rows[:2], prompt, max_new_tokens=2, num_beams=n) for n in (1, 2)
        )
        return jax.tree.map(lambda x: x[None], (slope, nll, greedy, beams))

    specs = (P(), P("data"), P(), P(), P())
    program = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P("data"))
    slopes, nlls, greedy, beams = jax.jit(program)(lm, prompts, *rows)
    tokens = toy.B * T
    np.testing.assert_allclose(slopes[0] / tokens, reference()[1], rtol=1e-4, atol=1e-6)
    assert np.abs(slopes[1] - slopes[0]).max() > 1e-3
    for i, prompt in enumerate(prompts):
        close(nlls[i], lm.rank(*rows[:2], rows[2][:3], prompt)[0])
        for have, n in ((greedy, 1), (beams, 2)):
            want = lm.generate(*rows[:2], prompt, max_new_tokens=2, num_beams=n)
            np.testing.assert_array_equal(have[i], want)


def test_forward_mode_is_refused_and_says_what_works():
    lm, rows, prompt = toy.tiny_t5(), batch(), toy.prompt()
    for forward in (
        lambda f: jax.jvp(f, (prompt,), (prompt,)),
        lambda f: jax.jacfwd(f)(prompt),
    ):
        with pytest.raises(ModelError, match=r"forward-mode.*jax\.jacrev"):
            forward(lambda prompt: lm.loss(*rows, prompt)[0])


def test_float64_is_refused_where_it_would_be_rounded():
    lm, rows = toy.tiny_t5(), batch()
    with jax.enable_x64(True):
        for prompt in (np.zeros((4, toy.D)), jnp.zeros((4, toy.D), jnp.float64)):
            with pytest.raises(PromptError, match=r"prompt is float64.*astype\('float32'\)"):
                lm.loss(*rows, prompt)
        wide = lm.replace(params=jax.tree.map(lambda x: x.astype(jnp.float64), lm.params))
        for call in (lambda: wide.loss(*rows), lambda: wide.embed(rows[0])):
            with pytest.raises(ModelError, match="weights of 'tiny' are float64"):
                call()
    # Without 64-bit arrays there are none, and numpy's default is what JAX takes it for.
    prompt = toy.prompt()
    close(lm.loss(*rows, prompt.astype(np.float64))[0], lm.loss(*rows, prompt)[0])


def test_lists_of_prompts_are_prompts_of_rows():
    from prompt_jax import SoftPrompt

    lm, rows = toy.tiny_t5(), batch()
    draws = np.stack([toy.prompt(i % 2) for i in range(toy.B)])
    want, _ = lm.loss(*rows, draws, per_row=True)
    prompts = [SoftPrompt(draw) for draw in draws]
    for given in (prompts, list(draws), SoftPrompt(draws), [draws[0], *prompts[1:]]):
        if isinstance(given, list) and isinstance(given[0], np.ndarray):
            given = [np.asarray(each) for each in given]
        have, _ = lm.loss(*rows, given, per_row=True)
        np.testing.assert_array_equal(have, want)
    with pytest.raises(PromptError, match=r"item 1 of the list has shape \[2, 32\]"):
        lm.loss(*rows, [prompts[0], SoftPrompt(draws[1][:2])])
    with pytest.raises(PromptError, match="a prompt is not its path"):
        lm.loss(*rows, ["a.safetensors"] * toy.B)
