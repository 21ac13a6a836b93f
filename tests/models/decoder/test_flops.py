"""The hand count against the matrix products in the traced program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.models.decoder.flops import flops

from ..t5.test_flops import dots
from .conftest import Case

ROWS, PROMPT, INPUTS, TARGETS = 3, 4, 6, 5


@pytest.mark.parametrize("backward", ["none", "prompt", "full"])
def test_count_equals_the_traced_products(qwen3: Case, backward: str) -> None:
    lm = qwen3.lm
    ids = np.ones((ROWS, INPUTS), np.int32)
    labels = np.ones((ROWS, TARGETS), np.int32)

    def loss(p, params):
        return lm.replace(params=params).loss(ids, np.ones_like(ids), labels, p)[0]

    which = {"none": loss, "prompt": jax.grad(loss), "full": jax.grad(loss, (0, 1))}[backward]
    traced = jax.make_jaxpr(which)(jnp.zeros((PROMPT, lm.d_model)), lm.params).jaxpr
    count = flops(lm.config, ROWS, PROMPT + INPUTS, TARGETS, backward)
    # The head's own gradient is traced, but nothing reads it: the compiler drops it.
    dead = 2 * ROWS * TARGETS * lm.d_model * lm.vocab_size if backward == "prompt" else 0
    assert dots(traced) == count + dead


def test_unknown_backward_pass(qwen3: Case) -> None:
    with pytest.raises(ConfigError, match="none, prompt, full"):
        flops(qwen3.lm.config, 1, 1, 1, "half")
