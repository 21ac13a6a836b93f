"""Optimizers and schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.errors import ConfigError
from prompt_jax.training.optimizers import OptimizerConfig, build, rate, standard_promotion

# Schedules


def test_linear_decay_reaches_zero_after_the_last_step():
    config = OptimizerConfig(schedule="linear", warmup_steps=2)
    got = [rate(config, s, 6) for s in range(6)]
    np.testing.assert_allclose(got, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_schedules_are_those_of_optax():
    """The same numbers as optax's joined schedules, where both are defined."""
    steps, warm = 40, 8
    kinds = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, steps - warm),
        "cosine": optax.cosine_decay_schedule(1.0, steps - warm),
    }
    with jax.numpy_dtype_promotion("standard"):
        for name, schedule in kinds.items():
            config = OptimizerConfig(schedule=name, warmup_steps=warm)
            for s in range(warm, steps):
                assert rate(config, s, steps) == pytest.approx(float(schedule(s - warm)), abs=1e-6)


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(0, 50),
    st.integers(1, 40),
    st.integers(0, 39),
)
def test_a_rate_is_a_fraction(schedule, warmup, steps, step):
    step = min(step, steps - 1)
    value = rate(OptimizerConfig(schedule=schedule, warmup_steps=warmup), step, steps)
    assert 0 < value <= 1
    if step < warmup:
        assert value == (step + 1) / warmup


# Optimizers


def take(config, gradient, params, times=1):
    tx = build(config)
    state = tx.init(params)
    for _ in range(times):
        update, state = tx.update(gradient, state, params)
    return update, state


PARAMS = {"p": jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)}
GRADIENT = {"p": jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)}


@pytest.mark.slow
def test_adamw_is_optax_s():
    """Our updates times -rate are those of `optax.adamw`, decay included."""
    config = OptimizerConfig(b1=0.8, b2=0.95, weight_decay=0.1)
    theirs = optax.adamw(0.3, b1=0.8, b2=0.95, weight_decay=0.1)
    state = theirs.init(PARAMS)
    ours, _ = take(config, GRADIENT, PARAMS, times=3)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            expected, state = theirs.update(GRADIENT, state, PARAMS)
    np.testing.assert_allclose(-0.3 * ours["p"], expected["p"], rtol=1e-5)


@pytest.mark.slow
def test_adafactor_is_optax_s():
    theirs = optax.adafactor(
        0.3, multiply_by_parameter_scale=False, clipping_threshold=1.0, decay_rate=0.8
    )
    state = theirs.init(PARAMS)
    ours, _ = take(OptimizerConfig(name="adafactor"), GRADIENT, PARAMS, times=3)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            expected, state = theirs.update(GRADIENT, state, PARAMS)
    np.testing.assert_allclose(-0.3 * ours["p"], expected["p"], rtol=1e-5)


def test_clipping():
    big = jax.tree.map(lambda g: 100 * g, GRADIENT)
    _, clipped = take(OptimizerConfig(clip_norm=1.0, b1=0.0), big, PARAMS)
    moment = next(s for s in clipped if isinstance(s, optax.ScaleByAdamState)).mu["p"]
    assert np.linalg.norm(moment) == pytest.approx(1.0, rel=1e-5)
    _, small = take(OptimizerConfig(clip_norm=1e6, b1=0.0), GRADIENT, PARAMS)
    moment = next(s for s in small if isinstance(s, optax.ScaleByAdamState)).mu["p"]
    np.testing.assert_allclose(moment, GRADIENT["p"], rtol=1e-6)


def test_strict_promotion_is_the_caller_s():
    """Optax raises an int32 step to a float inside; the caller's setting comes back."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u * jnp.int32(2), updates), state

    inner = optax.GradientTransformation(lambda params: (), update)
    with pytest.raises(Exception, match="promotion"):
        inner.update(GRADIENT, ())
    doubled, _ = standard_promotion(inner).update(GRADIENT, ())
    np.testing.assert_allclose(doubled["p"], 2 * GRADIENT["p"])
    with pytest.raises(Exception, match="promotion"):
        jnp.int32(1) * GRADIENT["p"]


# Configuration


def test_group_rates():
    config = OptimizerConfig(group_rates=("keys=0.5", " lm = 1e-3"))
    assert config.group_multipliers() == {"keys": 0.5, "lm": 1e-3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "positive number"),
        ({"learning_rate": float("nan")}, "positive number"),
        ({"learning_rate": float("inf")}, "positive number"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"group_rates": ("keys",)}, "group=number"),
        ({"group_rates": ("keys=fast",)}, "group=number"),
        ({"group_rates": ("keys=-1",)}, "group=number"),
        ({"group_rates": ("keys=nan",)}, "group=number"),
        ({"b1": 1.0}, "b1"),
        ({"b2": -0.1}, "b2"),
    ],
)
def test_impossible_optimizers(wrong, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**wrong)
