"""Dropout of a stage: a function of seed, step and row; off in evaluation, free where it is 0."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from methods.toy_methods import Particles

from prompt_jax.errors import ConfigError
from prompt_jax.methods import PromptTuning
from prompt_jax.models.dropout import Dropout, drop_attention
from prompt_jax.training.loop import train
from prompt_jax.training.population import Population
from prompt_jax.training.step import Table, _dropout, micro_program, programs
from prompt_jax.training.types import TrainConfig

PLAIN = PromptTuning()
RATE = 0.25


def config(steps: int = 3, **options) -> TrainConfig:
    return toy.budget(steps, learning_rate=0.3, unit="absolute", **{"dropout": RATE, **options})


def losses(population: Population, steps: range) -> list[list[float]]:
    return [np.asarray(population.step(step).loss).tolist() for step in steps]


@jax.jit
def nll(lm, ids, mask, labels, keys):
    return lm.score(ids, mask, labels, dropout=Dropout(keys, RATE)).nll


def row_keys(*seeds: int) -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in seeds])


ROWS = np.random.default_rng(0).integers(40, 128, (4, 8)).astype(np.int32)
LABELS = np.random.default_rng(1).integers(8, 20, (4, 2)).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [toy.tiny_t5, toy.tiny_decoder], ids=["t5", "decoder"])
def test_a_mask_is_a_function_of_the_key_of_its_row(make):
    lm = make()
    ids, mask = np.tile(ROWS[:1], (4, 1)), np.ones_like(ROWS)
    mask[:, 5:] = 0
    labels = np.tile(LABELS[:1], (4, 1))
    keys = row_keys(5, 5, 5, 6)
    found = np.asarray(nll(lm, ids, mask, labels, keys))
    assert found[0] == found[1] == found[2] != found[3]
    # Another place in the batch, other neighbours and other padding: the same mask.
    ids[0], labels[0] = ROWS[1], LABELS[1]
    order = np.asarray([3, 0, 2, 1])
    moved = np.asarray(nll(lm, ids[order], mask[order], labels[order], keys[order]))
    np.testing.assert_allclose(moved[[0, 2, 3]], found[[3, 2, 1]], rtol=1e-5)
    wide = np.pad(ids, ((0, 0), (0, 4))), np.pad(mask, ((0, 0), (0, 4)))
    np.testing.assert_allclose(nll(lm, *wide, labels, keys)[1:], found[1:], rtol=1e-5)


def test_the_share_that_is_dropped_and_the_mean():
    p = np.full((3, 40, 50), 0.5, np.float32)
    dropped = np.asarray(drop_attention(jax.random.key(1), p, RATE))
    assert set(np.unique(dropped)) == {0.0, np.float32(0.5 / (1 - RATE))}
    assert (dropped == 0).mean() == pytest.approx(RATE, abs=0.02)
    # Positions that skip padding have the masks of their numbers.
    at = np.asarray([0, 1, 1, 2])
    shifted = drop_attention(jax.random.key(1), p[:, :4, :4], RATE, at)
    first = drop_attention(jax.random.key(1), p[:, :3, :3], RATE)
    np.testing.assert_array_equal(np.asarray(shifted)[:, [0, 1, 3]][:, :, [0, 1, 3]], first)


@pytest.mark.slow
def test_deterministic_for_a_seed_and_step_and_other_for_another():
    def made(seed: int = 0, **options):
        replica = toy.make_run(seed, split=toy.make_split())
        return Population(toy.tiny_t5(), PLAIN, [replica], config(**options))

    one, again, without = made(), made(), made(dropout=0.0)
    first = losses(one, range(3))
    assert losses(again, range(3)) == first
    assert losses(without, range(1)) != first[:1]
    # A run that resumes after step 1 draws what the whole run drew: keys depend on the step alone.
    resumed = made()
    resumed.state = made().state
    losses(resumed, range(2))
    fresh = made()
    fresh.state = resumed.state
    assert losses(fresh, range(2, 3)) == first[2:]


def row_keys_of(population: Population, replica: int) -> dict[tuple[int, int], bytes]:
    """(view, place in the batch) -> the key of the row's mask, at step 0."""
    method, found = population.method, {}
    index = population.first[:, None] + np.arange(toy.B)
    table = Table(None, None, keys=population.dropout_keys)
    for batch in population._micro_batches(index, np.ones(index.shape, np.float32)):
        keys = jax.random.key_data(_dropout(method, RATE, table, batch).keys)
        for key, view, place, real in zip(
            np.asarray(keys), batch.view, batch.place, batch.real, strict=True
        ):
            if real and view // method.views == replica:
                found[int(view) % method.views, int(place)] = key.tobytes()
    return found


def test_neighbours_do_not_change_what_is_dropped():
    runs = [toy.make_run(seed) for seed in range(3)]
    together = Population(toy.tiny_t5(), PLAIN, runs, config())
    alone = Population(toy.tiny_t5(), PLAIN, runs[2:], config())
    keys = row_keys_of(alone, 0)
    assert sorted(keys) == [(0, place) for place in range(toy.B)]
    assert len(set(keys.values())) == toy.B
    assert row_keys_of(together, 2) == keys
    assert not set(row_keys_of(together, 1).values()) & set(keys.values())


def test_all_views_of_a_row_have_one_mask():
    method = Particles()
    params = {"particles": np.repeat(toy.prompt()[None], method.views, 0)}
    consts = {"mean": toy.prompt(), "width": np.float32(2.0)}
    runs = [toy.make_run(seed, params=params, consts=consts) for seed in range(2)]
    keys = row_keys_of(Population(toy.tiny_t5(), method, runs, config()), 1)
    assert len(keys) == method.views * toy.B
    for (_, place), key in keys.items():
        assert key == keys[0, place]
    assert len(set(keys.values())) == toy.B


@pytest.mark.slow
def test_evaluation_drops_nothing():
    run = toy.make_run(dev=True)
    still = dataclasses.replace(run, rate=0.0)
    values = [
        train(toy.tiny_t5(), PLAIN, [still], config(2, dropout=rate, eval_every=1))[0].history
        for rate in (0.0, RATE)
    ]
    assert values[0] == values[1]


def test_without_dropout_the_program_is_the_same_one():
    plain = programs(PLAIN, toy.budget(1).optimizer)
    replica = toy.make_run()
    population = Population(toy.tiny_t5(), PLAIN, [replica], config(1, dropout=0.0))
    assert population.programs.micro is plain.micro
    index = population.first[:, None] + np.arange(toy.B)
    (batch,) = population._micro_batches(index, np.ones(index.shape, np.float32))
    assert batch.place is None
    rows = population._method_rows(index)
    table, sums = population.programs.prepare(
        population.state, population.consts, rows, np.int32(0), population.keys
    )
    assert table.keys is None
    lowered = plain.micro.lower(population.lm, None, table, sums, batch).as_text()
    assert "threefry" not in lowered
    assert "rng_bit_generator" not in lowered
    dropped = micro_program(PLAIN, RATE).lower(
        population.lm,
        None,
        table._replace(keys=population.keys),
        sums,
        batch._replace(place=np.zeros(len(batch.view), np.int32)),
    )
    assert "threefry" in dropped.as_text()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ConfigError, match=r"dropout must lie in \[0, 1\)"):
        TrainConfig(dropout=rate)
