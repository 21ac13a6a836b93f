"""Trained T5 weights on a mesh: split by the rule table with all that is shaped like them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import toy

from prompt_jax import sharding
from prompt_jax.methods import BaseMethod, Context, FullFineTuning, SptFull
from prompt_jax.models.t5.partition import T5_RULES
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.loop import train
from prompt_jax.training.population import Population
from prompt_jax.training.types import Replica

from .test_resume import WORDINGS, facts, killed_before

pytestmark = pytest.mark.multidevice

STEPS = 4
METHODS: dict[str, BaseMethod] = {"spt_full": SptFull(slots=6, tokens=2), "all": FullFineTuning()}


def make_run(method: BaseMethod) -> Replica:
    start = Context(
        toy.tiny_t5(), toy.prompt(), 0, "t", templates=WORDINGS, source_templates=WORDINGS
    )
    params, consts = method.init(start)
    return toy.make_run(params=params, consts=consts, dev=True, tasks=2, templates=2)


def budget(devices: int, **options: Any) -> Any:
    """All rows of a step are two micro-batches, on any number of devices."""
    tokens = toy.B * (toy.L + 8) // 2 // devices
    rate = {"learning_rate": 0.01, "unit": "absolute", "clip_norm": 1.0}
    return toy.budget(STEPS, eval_every=2, micro_batch_tokens=tokens, **{**rate, **options})


def mesh_and_model() -> tuple[Any, Any]:
    mesh = sharding.make_mesh(4, 2)
    return mesh, sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)


def shares(tree: Any) -> dict[str, float]:
    """What part of each leaf one device holds, by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x.addressable_shards[0].data.size
        / x.size
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_device_holds_half_of_the_weights_and_of_what_is_shaped_like_them(optimizer: str) -> None:
    mesh, lm = mesh_and_model()
    method = METHODS["spt_full"]
    population = Population(lm, method, [make_run(method)], budget(4, name=optimizer), mesh)
    expected = {f"lm/{name}": share for name, share in shares(lm.params).items()}
    assert set(expected.values()) == {0.5, 1.0}
    sums: list[Any] = []
    micro, known = population.programs.micro, population.programs.micro._cache_size()

    def seen(*args: Any) -> Any:
        before = shares(args[3].lm)
        sums.append((before, shares((made := micro(*args)).lm)))
        return made

    population.programs = population.programs._replace(micro=seen)
    for step in range(3):
        population.step(step)
        for tree in (population.state.params, population.best):
            found = shares(tree)
            assert {name: found[name] for name in expected} == expected
        moments = {n: s for n, s in shares(population.state.opt_state).items() if "/lm/" in n}
        full = [s for n, s in moments.items() if "/mu/" in n or "/nu/" in n]
        assert optimizer == "adafactor" or sorted(full) == sorted([*expected.values()] * 2)
        population.evaluate(step + 1, toy.Recorder())
    assert all(before == after == shares(lm.params) for before, after in sums)
    # One program a width, whichever step or micro-batch it is.
    assert micro._cache_size() - known <= 2
    assert population.programs.finish._cache_size() == 1


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_weights_are_those_of_one_device(name: str) -> None:
    method, (mesh, lm) = METHODS[name], mesh_and_model()
    plain, split = toy.Recorder(), toy.Recorder()
    (alone,) = train(toy.tiny_t5(), method, [make_run(method)], budget(1), tracker=plain)
    (there,) = train(lm, method, [make_run(method)], budget(4), mesh=mesh, tracker=split)
    expected = np.asarray(plain.of("loss"))
    assert len(expected) == STEPS
    worst = np.abs(np.asarray(split.of("loss")) / expected - 1).max()
    print(f"{worst:.1e}")
    assert worst < 1e-5
    assert there.history == alone.history


def test_going_on_gives_the_same_bits(tmp_path: Any) -> None:
    method, (mesh, lm) = METHODS["all"], mesh_and_model()
    whole = train(lm, method, [make_run(method)], budget(4), mesh=mesh)
    kept = Checkpoints(tmp_path / "c", every_steps=1, say=lambda line: None)
    with killed_before(3):
        train(lm, method, [make_run(method)], budget(4), mesh=mesh, checkpoints=kept)
    again = train(lm, method, [make_run(method)], budget(4), mesh=mesh, checkpoints=kept)
    assert facts(again) == facts(whole)
