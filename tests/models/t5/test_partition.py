"""What one device of a mesh computes and holds, without the mesh: against programs of the mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prompt_jax import sharding
from prompt_jax.methods import PromptTuning
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.models.t5.partition import T5_RULES, part_of
from prompt_jax.training import memory
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.step import MicroBatch, Sums, Table, micro_program

# Wide enough for activations to outweigh what XLA keeps beside them.
CONFIG = T5Config(
    vocab_size=1024, d_model=128, d_kv=32, d_ff=512, num_layers=2, num_decoder_layers=2, num_heads=8
)
ROWS, WIDTH, PROMPT, TARGETS = 8, 64, 16, 8


def test_a_part_is_a_share_of_what_divides() -> None:
    part = part_of(T5Config.known("t5-11b"), 8)
    assert (part.num_heads, part.d_ff, part.vocab_size) == (16, 8192, 4016)
    assert (part.d_model, part.d_kv, part.num_layers) == (1024, 128, 24)
    assert part_of(CONFIG, 1) == CONFIG
    odd = part_of(CONFIG.replace(num_heads=3), 2)
    assert (odd.num_heads, odd.d_ff) == (3, 256)


@pytest.mark.parametrize(("data", "model"), [(4, 2), (1, 8), (32, 1), (4, 8)])
def test_bytes_per_device_are_counted_by_the_rules(data: int, model: int) -> None:
    """Norms stay whole, and everything else of this shape divides by 8."""
    lm = FrozenT5.abstract(T5Config.known("t5-3b"))
    leaves = jax.tree_util.tree_leaves_with_path(lm)
    norms = sum(x.size for path, x in leaves if "norm" in jax.tree_util.keystr(path))
    others = sum(x.size for _, x in leaves) - norms
    found = sharding.bytes_per_device(lm, T5_RULES, data, model)
    assert found == 4 * (norms + others // model)


def on_the_mesh(data: int, model: int) -> jax.stages.Compiled:
    """The micro-batch of the whole model, with `ROWS` rows on every device of 'data'."""
    mesh = sharding.make_mesh(data, model)
    lm = FrozenT5.abstract(CONFIG)

    def shape(*dims: int, dtype: object = jnp.float32, axis: str | None = None) -> object:
        spec = NamedSharding(mesh, PartitionSpec(axis) if axis else PartitionSpec())
        return jax.ShapeDtypeStruct(dims, dtype, sharding=spec)

    def placed(leaf: jax.ShapeDtypeStruct, spec: NamedSharding) -> object:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=spec)

    rows, i = ROWS * data, jnp.int32
    table = Table(shape(8, PROMPT, CONFIG.d_model), None)
    batch = MicroBatch(
        shape(rows, WIDTH, dtype=i, axis="data"),
        shape(rows, WIDTH, dtype=i, axis="data"),
        shape(rows, TARGETS, dtype=i, axis="data"),
        shape(rows, dtype=i, axis="data"),
        shape(rows, dtype=i, axis="data"),
        shape(rows, axis="data"),
        shape(rows, dtype=jnp.bool_, axis="data"),
    )
    weights = jax.tree.map(placed, lm, sharding.shardings(lm, T5_RULES, mesh))
    sums = Sums(table.prompts, None, shape(8), shape(8))
    return micro_program(PromptTuning()).lower(weights, None, table, sums, batch).compile()


@pytest.mark.multidevice
def test_a_part_needs_the_memory_of_a_device() -> None:
    """What `--dry-run --mesh` compiles for one device, and what one of eight devices gets."""
    lm = FrozenT5.abstract(part_of(CONFIG, 2))
    planned = memory.compile_micro(
        lm,
        PromptTuning(),
        OptimizerConfig(),
        rows=ROWS,
        width=WIDTH,
        targets=TARGETS,
        prompt_tokens=PROMPT,
    )
    real = on_the_mesh(4, 2)
    ratio = memory.temporary_bytes(planned) / memory.temporary_bytes(real)
    print(f"planned / real: {ratio:.3f}")
    assert 0.9 < ratio < 1.1
    held = planned.memory_analysis().argument_size_in_bytes
    assert held == pytest.approx(real.memory_analysis().argument_size_in_bytes, rel=0.05)
