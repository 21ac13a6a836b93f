"""As many runs as devices: each device keeps some of them, and nothing else changes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec
from methods.toy_methods import Dying

from prompt_jax import sharding
from prompt_jax.errors import ConfigError
from prompt_jax.models.t5.partition import T5_RULES
from prompt_jax.training import loop
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.loop import train
from prompt_jax.training.population import Population

from .test_resume import facts, killed_before

pytestmark = pytest.mark.multidevice

R, STEPS = 8, 20


def budget(devices: int) -> Any:
    """All rows of a step are one micro-batch, on any number of devices."""
    tokens = R * toy.B * (toy.L + 8) // devices
    return toy.budget(
        STEPS,
        learning_rate=0.3,
        unit="absolute",
        clip_norm=1.0,
        eval_every=10,
        micro_batch_tokens=tokens,
    )


def make_runs(count: int = R, dies: int = -1) -> list[Any]:
    """Runs with development sets; number 3 dies at a step."""
    return [
        toy.make_run(seed, dev=True, consts={"dies": np.int32(dies if seed == 3 else -1)})
        for seed in range(count)
    ]


def mesh_and_model(data: int = 8) -> tuple[Any, Any]:
    mesh = sharding.make_mesh(data, 1)
    return mesh, sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)


@functools.cache
def whole() -> tuple[Any, list[float]]:
    """Eight runs on eight devices, and their losses."""
    mesh, lm = mesh_and_model()
    recorder = toy.Recorder()
    return train(lm, Dying(), make_runs(), budget(8), mesh=mesh, tracker=recorder), recorder.of(
        "loss"
    )


def parts(tree: Any) -> set[Any]:
    """Of how many runs a device holds each leaf."""
    return {shard.data.shape[0] for x in jax.tree.leaves(tree) for shard in x.addressable_shards}


def test_losses_do_not_depend_on_where_the_runs_are() -> None:
    """20 steps within 1e-5 of one device, the same development metrics and choices."""
    plain = toy.Recorder()
    alone = train(toy.tiny_t5(), Dying(), make_runs(), budget(1), tracker=plain)
    trained, losses = whole()
    expected = np.asarray(plain.of("loss"))
    assert expected.shape == (R * STEPS,)
    worst = np.abs(np.asarray(losses) / expected - 1).max()
    print(f"{worst:.1e}")
    assert worst < 1e-5
    for one, two in zip(alone, trained, strict=True):
        assert (one.history, one.best_step) == (two.history, two.best_step)
        assert toy.distance(two.prompt, one.prompt)[0] < 1e-4


def test_a_device_keeps_its_runs_and_nothing_is_compiled_twice() -> None:
    mesh, lm = mesh_and_model()
    population = Population(lm, Dying(), make_runs(), budget(8), mesh)
    programs = population.programs
    known = programs.micro._cache_size()
    population.step(0)
    first = programs.micro._cache_size()
    assert first - known <= 1
    for step in (1, 2):
        population.step(step)
    assert parts((population.state, population.best, population.consts)) == {1}
    assert programs.micro._cache_size() == first
    assert (programs.prepare._cache_size(), programs.finish._cache_size()) == (1, 1)


@pytest.mark.parametrize("axes", [("data",), ("data", "model")])
def test_the_default_mesh_of_jax_trains_as_ours(axes: tuple[str, ...]) -> None:
    """`jax.make_mesh` has Explicit axes, and no axis 'model' unless one is asked for."""
    mesh = jax.make_mesh((8, 1)[: len(axes)], axes)
    lm = jax.device_put(toy.tiny_t5(), NamedSharding(mesh, PartitionSpec()))
    clean, _ = whole()
    assert facts(train(lm, Dying(), make_runs(), budget(8), mesh=mesh)) == facts(clean)


def test_a_mesh_of_other_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"an axis 'data' .* not x"):
        train(toy.tiny_t5(), Dying(), make_runs(), budget(8), mesh=jax.make_mesh((8,), ("x",)))


def test_a_run_that_dies_leaves_the_others_their_bits() -> None:
    mesh, lm = mesh_and_model()
    trained = train(lm, Dying(), make_runs(dies=4), budget(8), mesh=mesh)
    assert [run.healthy for run in trained] == [seed != 3 for seed in range(R)]
    assert (trained[3].steps, [step for step, _ in trained[3].history]) == (5, [0])
    clean, _ = whole()
    others = [seed for seed in range(R) if seed != 3]
    assert facts([trained[s] for s in others]) == facts([clean[s] for s in others])


def test_going_on_gives_the_same_bits(tmp_path: Any) -> None:
    mesh, lm = mesh_and_model()
    kept = Checkpoints(tmp_path / "c", every_steps=4, say=lambda line: None)
    with killed_before(14):
        train(lm, Dying(), make_runs(), budget(8), mesh=mesh, checkpoints=kept)
    seen: list[Any] = []
    original = loop.Population.step

    def step(self: Population, at: int) -> Any:
        seen.append((at, parts((self.state, self.best))))
        return original(self, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Population, "step", step)
        again = train(lm, Dying(), make_runs(), budget(8), mesh=mesh, checkpoints=kept)
    assert seen[0] in [(8, {1}), (12, {1})]
    assert facts(again) == facts(whole()[0])


@pytest.mark.parametrize(
    ("count", "data", "held"), [(6, 4, {6}), (3, 4, {3}), (8, 4, {2}), (2, 1, {2})]
)
def test_runs_are_split_where_the_devices_divide_them(
    count: int, data: int, held: set[int]
) -> None:
    mesh, lm = mesh_and_model(data)
    population = Population(lm, Dying(), make_runs(count), budget(1), mesh)
    assert parts((population.state, population.best, population.consts)) == held
    assert population.split == (held != {count})
