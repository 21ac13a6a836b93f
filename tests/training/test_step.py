"""The compiled programs of a step, without and with the T5."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from methods.toy_methods import Grouped, Memory, Particles, WithWeights

from prompt_jax.errors import ConfigError
from prompt_jax.methods import Context, FullFineTuning, PromptTuning
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.training import step
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.protocol import Rows
from prompt_jax.training.step import MicroBatch, Sums, Table, programs

R = 3
SIGN = OptimizerConfig(b1=0.0, b2=0.0)  # Adam without memory: steps by the sign of the gradient


def rows(runs: int = R) -> Rows:
    empty = np.zeros((runs, toy.B, 0), np.int32)
    zero = np.zeros((runs, toy.B), np.int32)
    return Rows(empty, empty, zero, zero, np.ones((runs, toy.B), np.float32))


def keys(runs: int = R) -> jax.Array:
    return jnp.stack([jax.random.key(r) for r in range(runs)])


def started(method: Any, config: OptimizerConfig, runs: int = R) -> tuple[Any, Any, Any]:
    """Programs, state and constants of a method on runs that differ."""
    made = [method.init(Context(toy.tiny_t5(), toy.prompt(r), r, "target")) for r in range(runs)]
    params, consts = (toy.stack([m[i] for m in made]) for i in range(2))
    made = programs(method, config)
    return made, made.init(params, consts), consts


def finish(method: Any, config: OptimizerConfig, gradient: Any, **changes: Any) -> Any:
    """State before and after one `finish` under a given prompt gradient [R * V, L, D]."""
    made, state, consts = started(method, config)
    before = jax.device_get(state)
    _, sums = made.prepare(state, consts, rows(), np.int32(0), keys())
    weight = changes.get("weight", np.full(R * method.views, 2.0, np.float32))
    sums = Sums(
        sums.prompts.at[: len(gradient)].set(gradient),
        None,
        sums.loss.at[: len(weight)].set(changes.get("loss", weight)),
        sums.weight.at[: len(weight)].set(weight),
    )
    active = np.asarray(changes.get("active", np.ones(R, bool)))
    rates = np.full(R, changes.get("rate", 0.25), np.float32)
    after, metrics = made.finish(state, consts, rows(), sums, active, rates, keys(), np.int32(0))
    return before, jax.device_get(after), jax.device_get(metrics)


def gradients(count: int = R, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, toy.L, toy.D)).astype(np.float32)


# array contracts


class WrongPrompts(PromptTuning):
    """Forgets the axis of the views."""

    def prompts(self, params, consts, carry, rows, step, key):
        made = super().prompts(params, consts, carry, rows, step, key)
        return made._replace(prompts=made.prompts[0])


class WholeNumbers(PromptTuning):
    def prompts(self, params, consts, carry, rows, step, key):
        made = super().prompts(params, consts, carry, rows, step, key)
        return made._replace(prompts=made.prompts.astype(jnp.int32))


class OneWeight(PromptTuning):
    """A weight for the step in place of one for each row."""

    def prompts(self, params, consts, carry, rows, step, key):
        made = super().prompts(params, consts, carry, rows, step, key)
        return made._replace(row_weights=jnp.ones((1,)))


class OneLoss(PromptTuning):
    """A mean over the rows in place of a loss per row."""

    def row_loss(self, out, teacher):
        row = super().row_loss(out, teacher)
        return row._replace(sum=row.sum.mean())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (WrongPrompts(), r"prompts returns floats \[V, L, D\] with V = 1"),
        (WholeNumbers(), r"prompts returns floats \[V, L, D\]"),
        (OneWeight(), r"prompts returns row_weights \[V, B\] with V = 1"),
        (OneLoss(), "row_loss returns one sum and one weight per row"),
    ],
)
def test_a_method_that_gives_other_shapes_is_refused(method, message):
    made, state, consts = started(method, SIGN)

    def one_step():
        table, sums = made.prepare(state, consts, rows(), np.int32(0), keys())
        made.micro.lower(toy.tiny_t5(), None, table, sums, micro_batch())

    with pytest.raises(ConfigError, match=message):
        one_step()


def micro_batch(**changes: Any) -> MicroBatch:
    """Two rows of three input tokens and two target tokens."""
    ids, row = np.ones((2, 3), np.int32), np.zeros(2, np.int32)
    batch = MicroBatch(ids, ids, ids[:, :2], row, row, np.ones(2, np.float32), np.ones(2, bool))
    return batch._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": np.ones((2, 4), np.int32)},
        {"labels": np.ones((1, 2), np.int32)},
        {"scale": np.ones(1, np.float32)},
        {"prompt": np.zeros(2, np.float32)},
        {"real": np.ones(2, np.float32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_micro_batch_that_does_not_fit_is_refused(changes):
    made, state, consts = started(PromptTuning(), SIGN)
    table, sums = made.prepare(state, consts, rows(), np.int32(0), keys())
    with pytest.raises(AssertionError, match=r"\[Chex\]"):
        made.micro.lower(toy.tiny_t5(), None, table, sums, micro_batch(**changes))


def test_every_replica_has_a_rate():
    made, state, consts = started(PromptTuning(), SIGN)
    _, sums = made.prepare(state, consts, rows(), np.int32(0), keys())
    one = np.ones(1, np.float32)
    with pytest.raises(AssertionError, match=r"\[Chex\]"):
        made.finish(state, consts, rows(), sums, np.ones(R, bool), one, keys(), np.int32(0))


# finish


def test_gradient_is_normalised_and_applied_per_run():
    """Adam's first moment is what the optimizer was given: the gradient per target token."""
    weight = np.array([2.0, 5.0, 16.0], np.float32)
    loss = np.array([4.0, 15.0, 8.0], np.float32)
    g = gradients()
    before, after, metrics = finish(
        PromptTuning(), OptimizerConfig(b1=0.0), g, weight=weight, loss=loss
    )
    mean = g / weight[:, None, None]
    moment = next(s for s in after.opt_state if isinstance(s, optax.ScaleByAdamState)).mu
    np.testing.assert_allclose(moment["prompt"], mean, rtol=1e-6)
    np.testing.assert_allclose(metrics.loss, loss / weight, rtol=1e-6)
    norms = np.sqrt((mean**2).sum((1, 2)))
    np.testing.assert_allclose(metrics.gradient_norm, norms, rtol=1e-6)
    # The first step of Adam is the rate times the sign of the gradient.
    moved = after.params["prompt"] - before.params["prompt"]
    np.testing.assert_allclose(moved, -0.25 * np.sign(g), rtol=1e-3)
    assert after.updates.tolist() == [1, 1, 1]


def test_inactive_and_unhealthy_runs_stay():
    g = gradients()
    g[0, 1, 2] = math.nan
    loss = np.array([1.0, 1.0, math.inf], np.float32)
    before, after, metrics = finish(PromptTuning(), SIGN, g, loss=loss, active=[True, False, True])
    assert metrics.healthy.tolist() == after.healthy.tolist() == [False, True, False]
    assert after.updates.tolist() == [0, 0, 0]
    for old, new in zip(jax.tree.leaves(before[:3]), jax.tree.leaves(after[:3]), strict=True):
        np.testing.assert_array_equal(old, new)
    # A run that is not active may be anything: it does not die of it.
    _, resting, _ = finish(PromptTuning(), SIGN, g, active=[False] * 3)
    assert resting.healthy.all()


def test_a_nan_changes_no_bit_of_the_others():
    """Also under global-norm clipping and Adafactor's RMS, which a fused tree would couple."""
    for name in ("adamw", "adafactor"):
        config = OptimizerConfig(name=name, clip_norm=0.5, weight_decay=0.01)
        g = gradients()
        _, clean, _ = finish(PromptTuning(), config, g)
        g[1] = math.nan
        _, dirty, _ = finish(PromptTuning(), config, g)
        for r in (0, 2):
            for one, two in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
                np.testing.assert_array_equal(one[r], two[r])


def test_an_update_that_overflows_is_not_a_good_state():
    before, after, _ = finish(PromptTuning(), SIGN, gradients(), rate=math.inf)
    assert not after.healthy.any()
    np.testing.assert_array_equal(before.params["prompt"], after.params["prompt"])


@pytest.mark.slow
def test_optimizers_do_not_see_a_neighbour():
    """A run's update is what the optimizer alone gives on its gradient."""
    for name in ("adamw", "adafactor"):
        config = OptimizerConfig(name=name, clip_norm=0.5, weight_decay=0.1)
        g = gradients() * np.array([0.01, 1.0, 100.0], np.float32)[:, None, None]
        before, after, _ = finish(PromptTuning(), config, g)
        tx = step.optimizers.build(config)
        for r in range(R):
            one = {"prompt": jnp.asarray(before.params["prompt"][r])}
            update, _ = tx.update({"prompt": jnp.asarray(g[r] / 2)}, tx.init(one), one)
            expected = one["prompt"] - 0.25 * update["prompt"]
            np.testing.assert_allclose(after.params["prompt"][r], expected, rtol=1e-5, atol=1e-6)


def test_groups_have_their_own_rates():
    config = OptimizerConfig(b1=0.0, b2=0.0, group_rates=("target=0", "source=3"))

    class Slower(Grouped):
        def group_rates(self):
            return {"source": 0.5, "prompt": 2.0}

    before, after, _ = finish(Slower(), config, gradients())
    moved = jax.tree.map(lambda a, b: np.abs(a - b), after.params, before.params)
    assert moved["target_scale"].max() == 0
    np.testing.assert_allclose(moved["prompt"], 0.5, rtol=1e-3)
    sources = moved["source_scales"]  # a source outside the group has no gradient
    np.testing.assert_allclose(sources[sources > 0], 0.375, rtol=1e-2)
    assert (sources > 0).any()


@pytest.mark.slow
def test_carry_is_kept():
    before, after, _ = finish(Memory(), SIGN, gradients(R * toy.B))
    assert before.carry["usage"].sum() == 0
    np.testing.assert_allclose(after.carry["usage"].sum(1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_sums_are_not_normalised_and_the_prior_counts_once():
    config = OptimizerConfig(b1=0.0)
    method = Particles()
    g = gradients(R * method.views)
    before, after, _ = finish(method, config, g, weight=np.full(R * method.views, 7, np.float32))
    consts = started(method, config)[2]
    for r in range(R):
        particles = jnp.asarray(before.params["particles"][r])
        prior = (particles - consts["mean"][r][None]) / consts["width"][r] ** 2
        total = {"particles": g.reshape(R, method.views, toy.L, toy.D)[r] + prior}
        one = {"particles": particles}
        tx = method.transform(step.optimizers.build(config))
        _, state = tx.update(total, tx.init(one), one)
        for a, b in zip(jax.tree.leaves(after.opt_state), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a[r], b, rtol=1e-4, atol=1e-5)


def test_keep_takes_over_whole_runs():
    made = programs(PromptTuning(), SIGN)
    best, new = {"a": jnp.zeros((R, 2, 3))}, {"a": jnp.ones((R, 2, 3))}
    kept = made.keep(best, new, np.array([True, False, True]))
    assert np.asarray(kept["a"])[:, 0, 0].tolist() == [1.0, 0.0, 1.0]


# prepare


@pytest.mark.parametrize(
    ("count", "size"), [(1, 8), (8, 8), (9, 16), (33, 64), (64, 64), (65, 128), (150, 192)]
)
def test_tables_have_few_sizes(count, size):
    assert step._padded(count) == size


def test_prepare_folds_runs_and_views():
    method = Particles()
    made, state, consts = started(method, SIGN)
    table, sums = made.prepare(state, consts, rows(), np.int32(0), keys())
    expected = np.asarray(state.params["particles"]).reshape(-1, toy.L, toy.D)
    np.testing.assert_array_equal(table.prompts[: len(expected)], expected)
    assert table.prompts.shape[0] == sums.loss.shape[0] == 16
    assert not np.asarray(table.prompts[len(expected) :]).any()
    assert table.teacher is None
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(sums))


# micro


def batch(seed: int = 0) -> MicroBatch:
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, 128, (16, 8)).astype(np.int32)
    labels = np.stack([rng.integers(8, 20, 16), np.ones(16, int)], 1).astype(np.int32)
    where = (np.arange(16) % R).astype(np.int32)
    return MicroBatch(
        ids,
        np.ones((16, 8), np.int32),
        labels,
        where,
        where,
        np.ones(16, np.float32),
        np.ones(16, bool),
    )


def run_micro(batch: MicroBatch, table: np.ndarray) -> Sums:
    zero = jnp.zeros(8)
    sums = Sums(jnp.zeros_like(table), None, zero, jnp.zeros(8))
    made = programs(PromptTuning(), SIGN).micro
    return jax.device_get(made(toy.tiny_t5(), None, Table(jnp.asarray(table), None), sums, batch))


@pytest.mark.slow
def test_micro_adds_up_what_the_model_says():
    table = np.stack([toy.prompt(i) for i in range(8)])
    one = batch()
    real = np.arange(16) < 13
    counted = real.astype(np.float32)
    sums = run_micro(one._replace(real=real), table)
    lm = toy.tiny_t5()

    def total(table):
        scores = lm.score(one.input_ids, one.mask, one.labels, table[one.prompt])
        return (scores.nll * counted).sum(), scores

    (_, scores), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(table))
    for r in range(R):
        own = (one.view == r) & real
        np.testing.assert_allclose(sums.loss[r], np.asarray(scores.nll)[own].sum(), rtol=1e-5)
        assert sums.weight[r] == 2 * own.sum()
    assert not sums.loss[R:].any()
    assert not sums.prompts[R:].any()
    assert toy.distance(sums.prompts, np.asarray(gradient))[0] < 1e-5


def test_a_nan_prompt_spoils_only_its_own_sums():
    """Fillers repeat a row of the last run: even theirs, times zero, stay with that run."""
    table = np.stack([toy.prompt(i) for i in range(8)])
    one = batch()._replace(real=np.arange(16) < 12)
    clean = run_micro(one, table)
    table[0] = math.nan
    dirty = run_micro(one, table)
    assert np.isnan(dirty.prompts[0]).all()
    assert np.isnan(dirty.loss[0])
    np.testing.assert_array_equal(clean.prompts[1:], dirty.prompts[1:])
    np.testing.assert_array_equal(clean.loss[1:], dirty.loss[1:])
    np.testing.assert_array_equal(clean.weight, dirty.weight)


def test_micro_does_not_depend_on_the_optimizer():
    one = programs(PromptTuning(), OptimizerConfig(name="adafactor")).micro
    assert one is programs(PromptTuning(), SIGN).micro


def test_rates_and_schedules_share_programs():
    one = programs(PromptTuning(), OptimizerConfig(learning_rate=0.1, schedule="cosine"))
    assert one is programs(PromptTuning(), OptimizerConfig(warmup_steps=5, unit="absolute"))
    assert one is not programs(PromptTuning(), OptimizerConfig(clip_norm=1.0))


# Captured constants


def constants(jaxpr: Any) -> list[int]:
    """Bytes of every constant that a jaxpr, or one inside it, has captured."""
    closed = hasattr(jaxpr, "jaxpr")
    found = [np.asarray(c).nbytes for c in jaxpr.consts if hasattr(c, "shape")] if closed else []
    for equation in (jaxpr.jaxpr if closed else jaxpr).eqns:
        for leaf in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(leaf, "eqns"):
                found += constants(leaf)
    return found


@pytest.fixture(scope="module")
def megabytes() -> FrozenT5:
    """A model of 5 MB, most of it in the embedding table."""
    config = toy.CONFIG.replace(vocab_size=16_000, d_model=64)
    lm = FrozenT5.from_config(config, seed=1)
    assert lm.params["shared"].nbytes > 4e6
    return lm


def test_captured_constants_are_seen(megabytes):
    """The measure itself: closing over the model is noticed, also inside a nested jit."""

    def closed(ids):
        return megabytes.embed(ids).sum()

    for function in (closed, jax.jit(closed)):
        assert max(constants(jax.make_jaxpr(function)(np.arange(3)))) > 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [PromptTuning(), Particles(), FullFineTuning(), WithWeights()], ids=lambda m: m.name
)
def test_no_program_captures_the_model(megabytes, method):
    initial = np.zeros((toy.L, 64), np.float32)
    params, consts = method.init(Context(megabytes, initial, 0, "target"))
    params, consts = toy.stack([params]), toy.stack([consts])
    made = programs(method, SIGN)
    state = made.init(params, consts)
    at, key = np.int32(0), keys(1)
    programs_of = {
        "init": (made.init, (params, consts)),
        "prepare": (made.prepare, (state, consts, rows(1), at, key)),
    }
    table, sums = made.prepare(state, consts, rows(1), at, key)
    one = batch()._replace(prompt=np.zeros(16, np.int32), view=np.zeros(16, np.int32))
    given = state if method.trains_lm else None
    programs_of["micro"] = (made.micro, (megabytes, given, table, sums, one))
    active, rate = np.ones(1, bool), np.ones(1, np.float32)
    programs_of["finish"] = (made.finish, (state, consts, rows(1), sums, active, rate, key, at))
    for name, (program, arguments) in programs_of.items():
        largest = max([0, *constants(jax.make_jaxpr(program)(*arguments))])
        assert largest < 1_000_000, f"{name} captures {largest} bytes"
