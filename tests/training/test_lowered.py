"""What the pass of a micro-batch is lowered to for accelerators, and that it reuses its buffers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import toy

from prompt_jax.methods import PromptTuning
from prompt_jax.models import LanguageModel
from prompt_jax.training.population import Population
from prompt_jax.training.step import MicroBatch, Sums, Table, micro_program

ROWS, WIDTH, TARGETS, TOKENS = 3, 11, 5, 7  # none of them is a dimension of a weight


def abstract(family: str) -> LanguageModel:
    """The shapes of a toy model in bfloat16."""
    lm = toy.tiny_t5() if family == "t5" else toy.tiny_decoder()
    return type(lm).abstract(lm.config, "bfloat16")


def traced(lm: LanguageModel) -> Any:
    """The pass of a micro-batch, traced on shapes alone."""

    def shape(*dims: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    table = Table(shape(8, TOKENS, lm.d_model, dtype=jnp.float32), None)
    batch = MicroBatch(
        shape(ROWS, WIDTH),
        shape(ROWS, WIDTH),
        shape(ROWS, TARGETS),
        shape(ROWS),
        shape(ROWS),
        shape(ROWS, dtype=jnp.float32),
        shape(ROWS, dtype=jnp.bool_),
    )
    sums = Sums(table.prompts, None, *(shape(8, dtype=jnp.float32) for _ in range(2)))
    return micro_program(PromptTuning()).trace(lm, None, table, sums, batch)


def operations(text: str) -> Iterator[tuple[str, tuple[int, ...], str, str]]:
    """Transpositions and conversions: the operation, its argument's shape, and both types."""
    pattern = (
        r"stablehlo\.(transpose|convert) [^\n]*: \(?tensor<((?:\d+x)*)(\w+)>\)?"
        r" -> tensor<(?:\d+x)*(\w+)>"
    )
    for name, dims, before, after in re.findall(pattern, text):
        yield name, tuple(map(int, dims.split("x")[:-1])), before, after


@pytest.mark.parametrize("family", ["t5", "decoder"])
def test_no_weight_is_transposed_or_widened(family: str) -> None:
    """In bfloat16 the weights go into the products as they are stored, one layer or all at once."""
    lm = abstract(family)
    matrices = [x for x in jax.tree.leaves(lm.params) if x.ndim > 1 and x.dtype == jnp.bfloat16]
    weights = {shape for x in matrices for shape in (x.shape, x.shape[1:]) if len(shape) > 1}
    program = traced(lm)
    for platform in ("cuda", "tpu"):
        text = program.lower(lowering_platforms=(platform,)).as_text()
        found = list(operations(text))
        assert ("convert", (ROWS, WIDTH + TOKENS, lm.d_model), "bf16", "f32") in [
            (name, (dims[0], WIDTH + TOKENS, dims[2]), *types)
            for name, dims, *types in found
            if len(dims) == 3
        ], "the pattern finds the norms' conversions of activations"
        assert not [one for one in found if one[1] in weights]
        # What a step adds up is donated: its buffers become those of the result.
        assert text.count("tf.aliasing_output") == len(jax.tree.leaves(program.out_info))


def test_the_buffers_of_a_step_are_reused() -> None:
    """The state and the sums that go into a step are gone after it."""
    run = toy.make_run()
    population = Population(toy.tiny_t5(), PromptTuning(), [run], toy.budget())
    before, given = population.state, []
    micro = population.programs.micro

    def kept(lm: Any, state: Any, table: Any, sums: Any, batch: Any) -> Any:
        given.append(sums)
        return micro(lm, state, table, sums, batch)

    population.programs = population.programs._replace(micro=kept)
    population.step(0)
    assert given
    leaves = jax.tree.leaves((before, given))
    assert all(leaf.is_deleted() for leaf in leaves)
