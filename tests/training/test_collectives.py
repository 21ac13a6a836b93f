"""What the devices of a data-parallel step send to each other, from its compiled program."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec
from methods.test_conformance import METHODS, make_runs

from prompt_jax import sharding
from prompt_jax.methods import PromptTuning
from prompt_jax.models.t5.partition import T5_RULES
from prompt_jax.training.population import Population

pytestmark = pytest.mark.multidevice

BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}
COLLECTIVE = re.compile(
    r"= (?P<shapes>[^=]*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|collective-broadcast)(-start)?\("
)


def collectives(text: str) -> list[tuple[str, int]]:
    """(kind, bytes) of every array that the collectives of a compiled program move."""
    found = []
    for match in COLLECTIVE.finditer(text):
        for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", match["shapes"]):
            size = math.prod(int(n) for n in dims.split(",") if n)
            found.append((match["kind"], BYTES[kind] * size))
    return found


def compiled(mesh: Any, runs: int) -> tuple[dict[str, str], Any]:
    """The text of the programs of a step on a mesh, and its sums."""
    lm = sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)
    made = [toy.make_run(seed) for seed in range(runs)]
    population = Population(lm, PromptTuning(), made, toy.budget(2), mesh)
    texts: dict[str, str] = {}
    kept: list[Any] = []

    def instead(part: str, program: Any) -> Any:
        def call(*args: Any) -> Any:
            texts.setdefault(part, program.lower(*args).compile().as_text())
            if part == "micro":
                kept.append(jax.eval_shape(program, *args))
            return program(*args)

        return call

    programs = population.programs
    population.programs = programs._replace(
        **{part: instead(part, getattr(programs, part)) for part in ("prepare", "micro", "finish")}
    )
    population.step(0)
    population.step(1)
    return texts, kept[0]


def test_the_reader_of_programs() -> None:
    text = """
      %all-reduce.1 = f32[8,4,32]{2,1,0} all-reduce(f32[8,4,32]{2,1,0} %x), channel_id=1
      %ar = (f32[8]{0}, bf16[2,3]{1,0}) all-reduce-start(%a, %b), replica_groups={}
      %g = s32[] collective-permute(%all-reduce.1)
      %no = f32[8]{0} add(%all-reduce.1, %ar)
    """
    assert collectives(text) == [
        ("all-reduce", 4096),
        ("all-reduce", 32),
        ("all-reduce", 12),
        ("collective-permute", 4),
    ]


def test_only_prompt_gradients_and_sums_are_reduced() -> None:
    """Neither weights, activations nor optimizer state travel."""
    texts, sums = compiled(sharding.make_mesh(8, 1), runs=3)
    assert collectives(texts["prepare"]) == []
    assert collectives(texts["finish"]) == []
    moved = collectives(texts["micro"])
    print(moved, sums)
    assert {kind for kind, _ in moved} == {"all-reduce"}
    expected = sorted(4 * leaf.size for leaf in jax.tree.leaves(sums))
    assert sorted(size for _, size in moved) == expected


def test_runs_on_devices_of_their_own_gather_their_prompts() -> None:
    """As many runs as devices: the prompts travel once a step, the optimizer state never."""
    texts, sums = compiled(sharding.make_mesh(8, 1), runs=8)
    assert collectives(texts["prepare"]) == [("all-gather", 4 * 8 * toy.L * toy.D)]
    assert collectives(texts["finish"]) == []
    moved = collectives(texts["micro"])
    print(moved)
    assert {kind for kind, _ in moved} == {"all-reduce"}
    expected = sorted(4 * leaf.size for leaf in jax.tree.leaves(sums))
    assert sorted(size for _, size in moved) == expected


@pytest.mark.parametrize("name", ["bmtpt", "dtvg"])
def test_particles_and_groups_stay_on_the_device_of_their_run(name: str) -> None:
    """Two runs on two devices: what couples a run's parameters stays on the run's device."""
    method, mesh = METHODS[name], sharding.make_mesh(2, 1)
    whole = NamedSharding(mesh, PartitionSpec())
    budget = toy.budget(2, clip_norm=1.0)
    population = Population(toy.tiny_t5(), method, make_runs(method), budget, mesh)
    texts: dict[str, str] = {}
    tables: list[Any] = []

    def instead(part: str, program: Any) -> Any:
        def call(*args: Any) -> Any:
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
                jax.eval_shape(program, *args),
            )
            if part == "prepare":
                tables.append(shapes[0])
            if part != "micro":
                texts[part] = program.lower(*args).compile().as_text()
            return shapes

        return call

    programs = population.programs
    population.programs = programs._replace(
        **{part: instead(part, getattr(programs, part)) for part in ("prepare", "micro", "finish")}
    )
    population.step(0)
    per_run = method.views * (toy.B if method.rowwise else 1)
    each = 4 * 2 * per_run * toy.L * toy.D
    expected = [("all-gather", each) for _ in jax.tree.leaves(tables[0])]
    assert collectives(texts["prepare"]) == expected
    assert collectives(texts["finish"]) == []
