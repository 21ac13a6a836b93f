"""The step of every registered method lowers for accelerators that this machine does not have."""

from __future__ import annotations

from typing import Any

import jax
import pytest
import toy
from jax import export
from jax.sharding import NamedSharding, PartitionSpec

from prompt_jax import sharding
from prompt_jax.methods import REGISTRY
from prompt_jax.models import LanguageModel
from prompt_jax.training.population import Population

from .test_conformance import METHODS, make_runs

PLATFORMS = ("tpu", "cuda")
BUDGET = toy.budget(2, learning_rate=0.1, unit="absolute", clip_norm=1.0)


def exported(lm: LanguageModel, name: str, mesh: Any) -> dict[str, export.Exported]:
    """The programs of a step, exported on the arguments that the step itself gives them."""
    method = METHODS[name]
    runs = make_runs(method, lm)
    if mesh is not None:
        lm = sharding.shard_tree(lm, lm.partition_rules, mesh)
    population = Population(lm, method, runs, BUDGET, mesh)
    found: dict[str, export.Exported] = {}

    def instead(part: str, program: Any) -> Any:
        def call(*args: Any) -> Any:
            found[part] = export.export(program, platforms=PLATFORMS)(*args)
            shapes = jax.eval_shape(program, *args)
            if mesh is None:
                return shapes
            whole = NamedSharding(mesh, PartitionSpec())
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes
            )

        return call

    programs = population.programs
    population.programs = programs._replace(
        **{part: instead(part, getattr(programs, part)) for part in ("prepare", "micro", "finish")}
    )
    population.step(0)
    return found


@pytest.mark.multidevice
@pytest.mark.parametrize("sizes", [None, (4, 2)], ids=["one", "data4model2"])
@pytest.mark.parametrize(
    ("family", "name"),
    # Of a decoder: a method that trains the weights, one prompt, and a prompt of each row.
    [("t5", name) for name in sorted(REGISTRY)]
    + [("decoder", name) for name in ("full_fine_tuning", "prompt_tuning", "spt")],
)
def test_the_step_lowers_for_tpu_and_cuda(
    family: str, name: str, sizes: tuple[int, int] | None
) -> None:
    """Export refuses what a platform cannot lower, and calls of libraries that only one has."""
    mesh = None if sizes is None else sharding.make_mesh(*sizes)
    found = exported(toy.tiny_t5() if family == "t5" else toy.tiny_decoder(), name, mesh)
    assert set(found) == {"prepare", "micro", "finish"}
    assert all(tuple(made.platforms) == PLATFORMS for made in found.values())
    devices = 1 if mesh is None else mesh.size
    # `prepare` of a method without prompts has nothing on any device.
    assert {found[part].nr_devices for part in ("micro", "finish")} == {devices}
    if mesh is not None:
        text = found["micro"].mlir_module()
        # The rows of a micro-batch over 'data', the weights over 'model', trained ones too.
        assert '{"data"}' in text
        assert '{"model"}' in text
