"""What one device of a mesh computes and holds, and lowering for accelerators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from prompt_jax import sharding
from prompt_jax.methods import PromptTuning
from prompt_jax.models.decoder import KNOWN, FrozenDecoder
from prompt_jax.models.decoder.partition import DECODER_RULES, part_of
from prompt_jax.training.step import MicroBatch, Sums, Table, micro_program

from .conftest import Case


def test_a_part_is_a_share_of_what_divides() -> None:
    part = part_of(KNOWN["Qwen/Qwen3-8B"], 4)
    assert (part.num_heads, part.num_kv_heads, part.d_ff, part.vocab_size) == (8, 2, 3072, 37984)
    assert (part.d_model, part.head_dim, part.num_layers) == (4096, 128, 36)
    odd = part_of(KNOWN["HuggingFaceTB/SmolLM2-135M"], 2)
    assert (odd.num_heads, odd.num_kv_heads, odd.d_ff) == (9, 3, 768)
    many = part_of(KNOWN["meta-llama/Llama-3.2-1B"], 16)
    assert (many.num_heads, many.num_kv_heads) == (2, 2)


@pytest.mark.parametrize(("data", "model"), [(4, 2), (1, 8)])
def test_bytes_per_device_are_counted_by_the_rules(data: int, model: int) -> None:
    """Norms stay whole, and everything else of this shape divides by 8."""
    lm = FrozenDecoder.abstract(KNOWN["meta-llama/Llama-3.2-3B"], "bfloat16")
    leaves = jax.tree_util.tree_leaves_with_path(lm)
    norms = sum(x.size for path, x in leaves if "norm" in jax.tree_util.keystr(path))
    others = sum(x.size for _, x in leaves) - norms
    found = sharding.bytes_per_device(lm, DECODER_RULES, data, model)
    assert found == 4 * norms + 2 * (others // model)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_accelerators(qwen3: Case, platform: str) -> None:
    lm = FrozenDecoder.abstract(qwen3.lm.config, "bfloat16", remat=True)

    def shape(*dims: int, dtype: object = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype)

    rows, width, targets = 8, 16, 4
    table = Table(shape(8, 5, lm.d_model, dtype=jnp.float32), None)
    batch = MicroBatch(
        shape(rows, width),
        shape(rows, width),
        shape(rows, targets),
        shape(rows),
        shape(rows),
        shape(rows, dtype=jnp.float32),
        shape(rows, dtype=jnp.bool_),
    )
    sums = Sums(table.prompts, None, *(shape(8, dtype=jnp.float32) for _ in range(2)))
    traced = micro_program(PromptTuning()).trace(lm, None, table, sums, batch)
    assert "stablehlo" in traced.lower(lowering_platforms=(platform,)).as_text()
