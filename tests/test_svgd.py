"""SVGD against float64 arithmetic written from the formula, and against known posteriors."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_jax import SoftPrompt, TaskVector, sharding
from prompt_jax.errors import ConfigError
from prompt_jax.svgd import (
    Interaction,
    diagnose,
    effective_rank,
    imq,
    linear,
    mean_pooled,
    pairwise_distances,
    per_coordinate,
    per_token,
    rbf,
    sliced,
    stein_discrepancy,
    svgd,
)

# The formula, in float64 and one pair at a time --------------------------------------------


def median_h(x):
    m = len(x)
    distances = [np.linalg.norm(x[i] - x[j]) for i in range(m) for j in range(i + 1, m)]
    return np.median(distances) ** 2 / math.log(m + 1)


SCALAR = {
    "rbf": lambda a, b, h, c: np.exp(-np.sum((a - b) ** 2) / h),
    "imq": lambda a, b, h, c: (1 + np.sum((a - b) ** 2) / h) ** -0.5,
    "linear": lambda a, b, h, c: 1 + np.sum((a - c) * (b - c)) / h,
}


def derivative(f, a):
    """Central differences of f at a [q] in float64, good to about 1e-9 of the scale of a."""
    step = 1e-5 * max(np.abs(a).max(), 1e-2)
    return np.stack([(f(a + e) - f(a - e)) / (2 * step) for e in step * np.eye(len(a))])


def plain(name, x, g, temperature, h=None):
    """updates [M, q] of a scalar kernel on x [M, q], and the squared discrepancy."""
    x, g = x.astype(np.float64), g.astype(np.float64)
    x = x - x.mean(0)  # every kernel here is translation invariant
    m, c = len(x), np.zeros(x.shape[1])
    h = median_h(x) if h is None else h
    k = functools.partial(SCALAR[name], h=h, c=c)
    updates, stein = np.zeros_like(g), 0.0
    scale = max(np.abs(x).max(), 1e-30)
    for i in range(m):
        for j in range(m):
            grad = derivative(lambda a, i=i: k(a * scale, x[i]), x[j] / scale) / scale
            updates[i] += (k(x[j], x[i]) * g[j] - temperature * grad) / m
            stein += k(x[j], x[i]) * g[i] @ g[j] - 2 * temperature * g[i] @ grad
    return updates, stein / m**2


def step(kernel, x, g, temperature=1.0, **options):
    tx = svgd(kernel, temperature, **options)
    return jax.jit(tx.update)(g, tx.init(x), x)


def draw(m, *shape, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(m, *shape))).astype(np.float32)


def close(got, expected, tolerance=1e-5):
    error = np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected)
    assert error < tolerance, error


KERNELS = {"rbf": rbf, "imq": imq, "linear": linear}


FAR = pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1e3, 1e-2), (-1e3, 1e-2)])


@FAR
@pytest.mark.parametrize("name", KERNELS)
def test_step_matches_the_formula(name, offset, spread):
    x = draw(6, 4, seed=1, scale=spread) + np.float32(offset)
    # Attraction and repulsion of one size, so that an error in either shows.
    g = draw(6, 4, seed=2, scale=1 / spread)
    updates, state = step(KERNELS[name](), x, g, 0.7)
    close(updates, plain(name, x, g, 0.7)[0])
    assert updates.dtype == np.float32
    assert state.step == 1
    assert state.temperature == np.float32(0.7)


@FAR
def test_per_token_step_matches_the_formula(offset, spread):
    x = draw(6, 2, 3, seed=1, scale=spread) + np.float32(offset)
    g = draw(6, 2, 3, seed=2, scale=1 / spread)
    updates, _ = step(per_token(rbf()), x, g, 0.7)
    close(updates, np.stack([plain("rbf", x[:, i], g[:, i], 0.7)[0] for i in range(2)], 1))


@FAR
@pytest.mark.parametrize("directions", [2, 4])
def test_sliced_step_matches_the_formula(offset, spread, directions):
    """(P/N) sum_n r_n times the formula of the projections on r_n, in the directions it draws."""
    x = draw(6, 4, seed=1, scale=spread) + np.float32(offset)
    g = draw(6, 4, seed=2, scale=1 / spread)
    key = jax.random.fold_in(jax.random.key(3), 0)
    q = np.asarray(jnp.linalg.qr(jax.random.normal(key, (4, directions)))[0], np.float64)
    close(q.T @ q, np.eye(directions))
    expected = np.zeros((6, 4))
    for r in q.T:
        along, force = (x.astype(np.float64) - x[0]) @ r, g.astype(np.float64) @ r
        expected += plain("rbf", along[:, None], force[:, None], 0.7)[0] * r * 4 / directions
    updates, _ = step(sliced(rbf(), directions), x, g, 0.7, seed=3)
    close(updates, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_bandwidths(name):
    x, g = draw(5, 3, seed=3), draw(5, 3, seed=4)
    close(step(KERNELS[name](2.5), x, g)[0], plain(name, x, g, 1.0, 2.5)[0])
    largest = KERNELS[name](lambda squared: squared.max())
    h = float(pairwise_distances(x).max()) ** 2
    close(step(largest, x, g)[0], plain(name, x, g, 1.0, h)[0])


def test_imq_power():
    x, g = draw(2, 3, seed=3), draw(2, 3, seed=4)
    base = 1 + np.sum((x[0] - x[1]).astype(np.float64) ** 2) / 2.0
    expected = (g[0] + base**-1.5 * g[1]) / 2  # temperature 0
    close(step(imq(2.0, power=1.5), x, g, 0.0)[0][0], expected)


@pytest.mark.parametrize("name", ["rbf", "imq"])
def test_repulsion_separates_particles(name):
    x = np.asarray([[0.0], [1.0]], np.float32)
    updates, _ = step(KERNELS[name](), x, np.zeros_like(x))
    assert updates[0, 0] > 0 > updates[1, 0]  # the optimizer subtracts them


@pytest.mark.slow
def test_per_token_treats_tokens_independently():
    """Also over several leaves, of which one is a vector."""
    x = {"a": draw(4, 3, 2, seed=1), "b": draw(4, 5, seed=2)}
    g = {"a": draw(4, 3, 2, seed=3), "b": draw(4, 5, seed=4)}
    got, state = step(per_token(rbf()), x, g, 0.5)
    total = 0.0
    for token in range(3):
        expected, _ = plain("rbf", x["a"][:, token], g["a"][:, token], 0.5)
        close(got["a"][:, token], expected)
    close(got["b"], plain("rbf", x["b"], g["b"], 0.5)[0])
    for part, grad in [(x["a"][:, i], g["a"][:, i]) for i in range(3)] + [(x["b"], g["b"])]:
        total += float(step(rbf(), part, grad, 0.5)[1].discrepancy) ** 2
    assert float(state.discrepancy) ** 2 == pytest.approx(total, rel=1e-4)


def test_per_coordinate_treats_coordinates_independently(monkeypatch):
    x, g = draw(4, 3, 2, seed=5), draw(4, 3, 2, seed=6)
    got, _ = step(per_coordinate(imq()), x, g)
    for i in range(6):
        at = np.unravel_index(i, (3, 2))
        expected, _ = plain("imq", x[:, *at][:, None], g[:, *at][:, None], 1.0)
        close(got[:, *at][:, None], expected)
    # In chunks of two, as where there are too many coordinates for one pass.
    monkeypatch.setattr("prompt_jax.svgd.kernels._CHUNK", 2 * 16)
    close(step(per_coordinate(imq()), x, g)[0], np.asarray(got, np.float64), 1e-6)


def test_particles_of_several_leaves_equal_one_array():
    x, g = draw(5, 2, 3, seed=7), draw(5, 2, 3, seed=8)
    whole, _ = step(rbf(), x, g)
    tree, _ = step(rbf(), {"a": x[:, 0], "b": x[:, 1]}, {"a": g[:, 0], "b": g[:, 1]})
    np.testing.assert_allclose(np.stack([tree["a"], tree["b"]], 1), whole, rtol=1e-5, atol=1e-6)


def test_mean_pooled_uses_and_moves_the_mean_token():
    x, g = draw(5, 4, 3, seed=9), draw(5, 4, 3, seed=10)
    got, _ = step(mean_pooled(rbf(2.0)), x, g, 0.5)
    flat = np.broadcast_to(x.mean(1, keepdims=True), x.shape).reshape(5, -1)
    expected, _ = plain("rbf", flat, g.reshape(5, -1), 0.5, 2.0)
    close(got, expected.reshape(x.shape))
    apart, _ = step(mean_pooled(rbf()), x, np.zeros_like(g))
    np.testing.assert_allclose(apart - apart[:, :1], 0, atol=1e-6)
    # What differs only in how the tokens vary is one particle to this kernel.
    same = x - x.mean(1, keepdims=True)
    assert np.abs(step(mean_pooled(rbf(2.0)), same, np.zeros_like(g))[0]).max() < 1e-5


@pytest.mark.slow
def test_sliced_with_all_directions_is_per_coordinate_in_a_rotated_basis():
    x, g = draw(5, 6, seed=11), draw(5, 6, seed=12)
    q, _ = np.linalg.qr(
        np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(3), 0), (6, 6)))
    )
    rotated, _ = step(per_coordinate(rbf()), x @ q, g @ q)
    got, state = step(sliced(rbf(), 99), x, g, seed=3)
    close(got, np.asarray(rotated, np.float64) @ q.T, 1e-4)
    again = svgd(sliced(rbf(), 99), seed=3).update(g, state, x)[0]
    assert np.abs(again - got).max() > 1e-3  # other directions in the next step


def test_sliced_step_is_unbiased():
    """Temperature 0 and a kernel that is 1 everywhere: the mean gradient, in expectation."""
    x, g = draw(3, 8, seed=13), draw(3, 8, seed=14)
    tx = svgd(sliced(rbf(1e9), 2), 0.0)

    def one(state, _):
        updates, state = tx.update(g, state, x)
        return state, updates

    _, many = jax.jit(lambda s: jax.lax.scan(one, s, None, length=4000))(tx.init(x))
    error = np.abs(many.mean(0) - g.mean(0)[None]).max()
    assert error < 0.1
    assert np.linalg.matrix_rank(np.asarray(many[0], np.float64), tol=1e-4) <= 2


# Controls ----------------------------------------------------------------------------------


ALL = [
    rbf(),
    imq(),
    linear(),
    per_token(rbf()),
    per_coordinate(imq()),
    sliced(rbf(), 2),
    mean_pooled(imq()),
]


@pytest.mark.parametrize("kernel", ALL)
def test_one_particle_is_gradient_descent(kernel):
    x, g = draw(1, 2, 3), draw(1, 2, 3, seed=1)
    updates, state = step(kernel, x, g)
    np.testing.assert_array_equal(updates, g)
    assert state.ratio == 0
    assert float(state.discrepancy) == pytest.approx(float(np.linalg.norm(g)), rel=1e-6)


@pytest.mark.parametrize("kernel", ALL)
def test_coinciding_particles_are_finite(kernel):
    x = np.ones((4, 2, 3), np.float32)
    x[3] = 5.0  # most of them coincide: the median distance is 0
    tx = svgd(kernel)
    update = jax.jit(tx.update)
    near = draw(4, 2, 3)
    for particles in (x, np.ones_like(x), np.float32(1e-12) * near, np.float32(1e-25) * near):
        updates, state = update(draw(4, 2, 3, seed=1), tx.init(x), particles)
        assert np.isfinite(updates).all()
        assert all(np.isfinite(number) for number in state)
    # Equal gradients stay equal: nothing separates particles that coincide.
    updates, _ = update(np.ones_like(x), tx.init(x), np.ones_like(x))
    np.testing.assert_allclose(updates - updates[:1], 0, atol=1e-5)


def test_temperature_zero_is_the_kernel_averaged_gradient():
    x, g = draw(5, 3), draw(5, 3, seed=1)
    updates, state = step(rbf(), x, g, 0.0)
    h = median_h(x.astype(np.float64))
    k = np.exp(-np.sum((x[:, None] - x[None]).astype(np.float64) ** 2, -1) / h)
    close(updates, k @ g / 5)
    assert state.ratio == 0


def test_median_bandwidth_gives_a_typical_pair_one_over_m_plus_one():
    """In many dimensions all distances are the median (specs: h = med^2 / log(M + 1))."""
    m = 9
    x = draw(m, 5000)
    weight, _ = step(rbf(), x, np.ones_like(x), 0.0)
    np.testing.assert_allclose(weight, (1 + (m - 1) / (m + 1)) / m, rtol=0.05)


def test_schedules():
    x, g = draw(5, 3), draw(5, 3, seed=1)
    tx = svgd(rbf(), optax.linear_schedule(2.0, 0.0, 2))
    state = tx.init(x)
    update, forces = jax.jit(tx.update), jax.jit(lambda x, g: diagnose(x, g, rbf()))(x, g)
    for expected in (2.0, 1.0, 0.0, 0.0):
        _, state = update(g, state, x)
        assert state.temperature == expected
        assert float(state.ratio) == pytest.approx(expected * float(forces.ratio), rel=1e-5)
    tx = svgd(rbf(), ratio=lambda step: 0.5 * step)
    assert jax.jit(tx.update)(g, tx.init(x)._replace(step=jnp.int32(3)), x)[1].ratio == 1.5


@pytest.mark.parametrize("ratio", [0.01, 10.0])
def test_ratio_sets_the_temperature(ratio):
    x, g = draw(5, 40), 1e4 * draw(5, 40, seed=1)
    tx = svgd(rbf(), ratio=ratio)
    update = jax.jit(tx.update)
    updates, state = update(g, tx.init(x), x)
    assert float(state.ratio) == pytest.approx(ratio, rel=1e-5)
    same, other = step(rbf(), x, g, float(state.temperature))
    np.testing.assert_allclose(updates, same, rtol=1e-4, atol=1e-3)
    assert float(other.ratio) == pytest.approx(ratio, rel=1e-5)
    without, _ = step(rbf(), x, g, 0.0)
    np.testing.assert_allclose(
        np.linalg.norm(updates - without), ratio * np.linalg.norm(without), rtol=1e-4, atol=1e-3
    )
    assert update(g, state, np.ones_like(x))[1].temperature == 0  # nothing to repel


def test_invalid_arguments_raise():
    x = draw(3, 2)
    with pytest.raises(ConfigError, match="number, 'median' or a function, not 'mediam'"):
        rbf("mediam")
    for make in (rbf, imq, linear):
        with pytest.raises(ConfigError, match="positive number, not -1"):
            make(-1.0)
    with pytest.raises(ConfigError, match="power"):
        imq(power=0.0)
    with pytest.raises(ConfigError, match="one direction"):
        sliced(rbf(), 0)
    with pytest.raises(ConfigError, match="temperature must be"):
        svgd(rbf(), -1.0)
    with pytest.raises(ConfigError, match="ratio must be"):
        svgd(rbf(), ratio=float("nan"))
    with pytest.raises(ConfigError, match="leading axis M"):
        svgd().init({"a": x, "b": draw(4, 2)})
    with pytest.raises(ConfigError, match="needs the particles"):
        svgd().update(x, svgd().init(x))
    with pytest.raises(ConfigError, match="gradients are of shape"):
        svgd().update(draw(3, 4), svgd().init(x), x)


class Wrong:
    """A kernel whose forces have another shape than the particles."""

    def interact(self, x, g, shapes, key):
        return Interaction(g[:, :1], jnp.zeros_like(g), jnp.zeros(()))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda x: svgd(Wrong()).update(x, svgd().init(x), x), id="forces of a kernel"),
        pytest.param(lambda x: stein_discrepancy(x, {"a": x}), id="gradients of another tree"),
        pytest.param(lambda x: diagnose(x, x[:, :2]), id="gradients of another shape"),
        pytest.param(lambda x: diagnose(x, x, rbf(lambda d: d)), id="a bandwidth of every pair"),
        pytest.param(lambda x: rbf().gram(x[0]), id="one particle without an axis"),
        pytest.param(lambda x: rbf().act(x, x[:2]), id="too few gradients"),
    ],
)
def test_arrays_of_wrong_shape_raise(call):
    with pytest.raises(AssertionError):
        call(jnp.asarray(draw(3, 4)))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("rbf", r"not the name 'rbf'.*svgd\(rbf\(\)\)"),
        ("rfb", "Did you mean 'rbf'"),
        (rbf, r"rbf is no kernel: call it: svgd\(rbf\(\.\.\.\)\)"),
        (per_token, r"call it: svgd\(per_token"),
        (3.0, r"float is no kernel: pass svgd\(rbf\(\)\)"),
        (type(rbf()), "ScalarKernel is no kernel: call it"),
    ],
)
def test_a_kernel_is_an_object(kernel, message):
    with pytest.raises(ConfigError, match=message):
        svgd(kernel)
    for function in (diagnose, stein_discrepancy):
        with pytest.raises(ConfigError, match=message):
            function(draw(3, 2), draw(3, 2), kernel)


@pytest.mark.parametrize(
    "item",
    [draw(5), draw(4, 5), jnp.asarray(draw(5)), SoftPrompt(draw(4, 5)), TaskVector(draw(4, 5))],
)
def test_a_list_of_vectors_is_no_array_of_particles(item):
    """Its first axis would be taken for M without a word."""
    tx = svgd()
    with pytest.raises(ConfigError, match=r"not a list of 3 vectors: stack them, jnp\.stack"):
        tx.init([item] * 3)
    stacked = np.stack([np.asarray(item)] * 3)
    with pytest.raises(ConfigError, match="not a list of 3 vectors"):
        tx.update([item] * 3, tx.init(stacked), [item] * 3)
    tx.init([np.stack([np.asarray(item)] * 3)])
    tx.init({"a": draw(3, 2), "b": draw(3, 2)})
    tx.init([draw(3, 2, 2), draw(3, 2, 2)])


def test_whole_numbers_are_no_particles():
    x = np.ones((3, 2), int)
    with pytest.raises(ConfigError, match="a leaf is int"):
        svgd().update(x, svgd().init(x), x)
    with pytest.raises(ConfigError, match="a leaf is int"):
        diagnose(x, x)


def test_updates_have_the_dtype_of_the_leaves():
    x = jnp.asarray(draw(4, 3), jnp.bfloat16)
    updates, _ = step(rbf(), x, x)
    assert updates.dtype == jnp.bfloat16


# Devices -----------------------------------------------------------------------------------


@pytest.mark.multidevice
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kernel", [rbf(), per_token(imq())])
def test_one_and_eight_devices_agree(kernel, told):
    """Particles split over the devices: with the mesh, gathered with their gradients at once."""
    x, g = draw(16, 4, 6), draw(16, 4, 6, seed=1)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
    tx = optax.chain(svgd(kernel, mesh=mesh if told else None), optax.sgd(0.1))
    one, _ = step(kernel, x, g)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, g = jax.device_put((x, g), split)
    program = jax.jit(tx.update, out_shardings=(split, None)).lower(g, tx.init(x), x).compile()
    eight, _ = program(g, tx.init(x), x)
    assert len(eight.sharding.device_set) == 8
    np.testing.assert_allclose(eight, -0.1 * one, rtol=1e-5, atol=1e-6)
    if told:
        sizes = re.findall(r"= f32\[([\d,]+)\]\S* all-gather(?:-start)?\(", program.as_text())
        assert [math.prod(map(int, size.split(","))) for size in sizes] == [2 * x.size]


@pytest.mark.multidevice
@pytest.mark.parametrize("told", [False, True])
def test_particles_on_the_default_mesh_of_jax(told):
    """Explicit axes, eagerly and under jit; updates are split as their gradients are."""
    x, g = draw(16, 4, 6), draw(16, 4, 6, seed=1)
    one, _ = step(rbf(), x, g)
    mesh = jax.make_mesh((8,), ("data",))
    tx = svgd(rbf(), mesh=mesh if told else None)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    placed, slopes = jax.device_put((x, g), split)
    for update in (tx.update, jax.jit(tx.update)):
        updates, state = update(slopes, tx.init(placed), placed)
        np.testing.assert_allclose(updates, one, rtol=1e-5, atol=1e-6)
        assert jax.typeof(updates).sharding.spec[0] == "data"
        assert int(state.step) == 1
        optax.apply_updates(placed, updates)
    host, _ = svgd(rbf(), mesh=mesh).update(g, tx.init(x), x)
    np.testing.assert_allclose(host, one, rtol=1e-5, atol=1e-6)
    assert sharding.auto_mesh(sharding.auto_mesh(mesh)) == sharding.auto_mesh(mesh)


# Known posteriors --------------------------------------------------------------------------


def sample(kernel, gradient, x, steps=500, rate=0.2, **options):
    """Particles after SVGD with Adam, the rate falling to 0."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules
        tx = optax.chain(svgd(kernel, **options), optax.adam(schedule, b2=0.99))

        @jax.jit
        def run(x):
            def one(_, carry):
                x, state = carry
                updates, state = tx.update(gradient(x), state, x)
                return optax.apply_updates(x, updates), state

            return jax.lax.fori_loop(0, steps, one, (x, tx.init(x)))[0]

        return np.asarray(run(x), np.float64)


def gaussian(mean, covariance):
    precision = np.linalg.inv(np.asarray(covariance)).astype(np.float32)
    mean = np.asarray(mean, np.float32)
    return lambda x: (x - mean[None]) @ precision


@pytest.mark.slow
def test_two_dimensional_gaussian():
    mean, covariance = [1.0, -2.0], np.asarray([[1.0, 0.6], [0.6, 0.8]])
    x = sample(rbf(), gaussian(mean, covariance), draw(100, 2))
    np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), covariance, rtol=0.15)


def test_mixture_has_particles_at_both_modes():
    """A third and two thirds at -2 and 2; the gradient of one particle in closed form."""

    def gradient(x):
        left = jnp.log(1 / 3) - 0.5 * (x + 2) ** 2
        right = jnp.log(2 / 3) - 0.5 * (x - 2) ** 2
        weight = jax.nn.sigmoid(left - right)
        return weight * (x + 2) + (1 - weight) * (x - 2)

    x = sample(rbf(), gradient, draw(60, 1, seed=2))[:, 0]
    assert np.mean(x < 0) == pytest.approx(1 / 3, abs=0.1)
    assert np.mean(x[x < 0]) == pytest.approx(-2, abs=0.3)
    assert np.mean(x[x > 0]) == pytest.approx(2, abs=0.3)


D = 20
STANDARD = gaussian(np.full(D, 0.5), np.eye(D))


def variance(kernel, m, **options):
    x = sample(kernel, STANDARD, draw(m, D, seed=3), **options)
    np.testing.assert_allclose(x.mean(0), 0.5, atol=0.05)
    return float(x.var(0).mean())


def test_rbf_median_collapses_in_twenty_dimensions():
    """The known failure: the variance should be 1, and hardly grows with M."""
    found = [variance(rbf(), m) for m in (20, 50)]
    assert 0.1 < found[0] < found[1] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [per_coordinate(rbf()), linear()])
def test_kernels_that_do_not_collapse(kernel):
    """Marginals by themselves, or the moments of a Gaussian where M > P."""
    assert variance(kernel, 50) == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_sliced_collapses_less():
    assert variance(sliced(rbf(), D), 50, seed=0) > 0.6


# Diagnostics -------------------------------------------------------------------------------


@pytest.mark.slow
def test_pairwise_distances_and_effective_rank():
    x = draw(5, 2, 3, seed=1) + np.float32(1e3)
    expected = [
        np.linalg.norm(x[i].astype(np.float64) - x[j]) for i in range(5) for j in range(i + 1, 5)
    ]
    np.testing.assert_allclose(pairwise_distances(x), expected, rtol=1e-4)
    assert pairwise_distances(x[:1]).shape == (0,)
    spread = np.zeros((4, 6), np.float32)
    assert effective_rank(spread) == 0
    spread[:, 0] = [1, 2, 3, 4]
    assert effective_rank(spread) == pytest.approx(1)
    assert effective_rank(np.eye(4, 6, dtype=np.float32)) == pytest.approx(3)
    assert effective_rank(1e-12 * draw(4, 6)) == pytest.approx(
        float(effective_rank(draw(4, 6))), rel=1e-4
    )


@pytest.mark.parametrize("name", KERNELS)
def test_stein_discrepancy_matches_the_double_sum(name):
    """With mixed second derivatives by central differences of the kernel."""
    x, g = draw(4, 3, seed=1).astype(np.float64), draw(4, 3, seed=2).astype(np.float64)
    x -= x.mean(0)
    k = functools.partial(SCALAR[name], h=1.7, c=np.zeros(3))
    e, total = 1e-4, plain(name, x, g, 1.0, 1.7)[1]
    for a in x:
        for b in x:
            for d in e * np.eye(3):
                mixed = k(a + d, b + d) - k(a + d, b - d) - k(a - d, b + d) + k(a - d, b - d)
                total += mixed / (4 * e * e) / 16
    single = x.astype(np.float32), g.astype(np.float32)
    got = float(stein_discrepancy(*single, KERNELS[name](1.7)))
    assert got**2 == pytest.approx(total, rel=1e-4)
    assert float(step(KERNELS[name](1.7), *single)[1].discrepancy) == pytest.approx(got, rel=1e-5)


@pytest.mark.slow
def test_stein_discrepancy_detects_collapse_and_shift():
    fair = draw(200, 3, seed=1)
    values = [
        float(stein_discrepancy(x, x, imq(3.0))) for x in (fair, fair + np.float32(1), 0.3 * fair)
    ]
    assert values[0] < 0.5 * min(values[1:])
    pooled = float(stein_discrepancy(fair[:, None], fair[:, None], mean_pooled(imq(3.0))))
    assert pooled == pytest.approx(values[0], rel=1e-4)  # one token: nothing to pool


@pytest.mark.slow
def test_diagnose():
    x, g = draw(5, 3), draw(5, 3, seed=1)
    found = jax.jit(lambda x, g: diagnose(x, g, rbf(), 0.5))(x, g)
    state = step(rbf(), x, g, 0.5)[1]
    assert float(found.ratio) == pytest.approx(float(state.ratio), rel=1e-5)
    np.testing.assert_allclose(found.repulsion, found.ratio * found.attraction, rtol=1e-5)
    np.testing.assert_allclose(found.discrepancy, stein_discrepancy(x, g), rtol=1e-5)
    assert found.distances.shape == (10,)
    alone = jax.jit(diagnose)(x[:1], g[:1])
    assert alone.ratio == alone.effective_rank == 0
