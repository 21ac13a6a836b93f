"""The hand count against the matrix products in the traced program."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.models.t5 import FrozenT5, flops

from ..conftest import TINY


def dots(jaxpr) -> int:
    """Operations of all matrix products of a program, loops counted as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contract, _), (batch, _)) = equation.params["dimension_numbers"]
            left, right = (v.aval.shape for v in equation.invars)
            shared = math.prod(left[i] for i in (*contract, *batch))
            total += 2 * math.prod(left) * math.prod(right) // shared
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * dots(inner)
    return total


def program(lm: FrozenT5, backward: str, rows: int, prompt: int, inputs: int, targets: int):
    ids = np.zeros((rows, inputs), np.int32)
    labels = np.zeros((rows, targets), np.int32)

    def loss(p, params):
        return lm.replace(params=params).loss(ids, np.ones_like(ids), labels, p)[0]

    which = {"none": loss, "prompt": jax.grad(loss), "full": jax.grad(loss, (0, 1))}[backward]
    return jax.make_jaxpr(which)(jnp.zeros((prompt, lm.d_model)), lm.params).jaxpr


@pytest.mark.parametrize("backward", ["none", "full"])
def test_count_equals_the_traced_products(tiny, backward):
    rows, prompt, inputs, targets = 3, 4, 6, 5
    have = dots(program(tiny, backward, rows, prompt, inputs, targets))
    assert have == flops(TINY, rows, prompt + inputs, targets, backward)


def test_prompt_gradient_needs_one_forward_pass_more(tiny):
    none, prompt, full = (flops(TINY, 3, 10, 5, kind) for kind in ("none", "prompt", "full"))
    assert none < prompt < full
    # Attention has activations on both sides: 4 more; everything else 1 more.
    assert 2 * none < prompt < 3 * none
    # The head's own gradient is traced, but nothing reads it: the compiler drops it.
    dead = 2 * 3 * 5 * TINY.d_model * TINY.vocab_size
    assert dots(program(tiny, "prompt", 3, 4, 6, 5)) == prompt + dead
