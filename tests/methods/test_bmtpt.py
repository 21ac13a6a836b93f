"""BMTPT's particles, priors and stages, against densities and gradients written down."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Job
from prompt_jax.methods import (
    Artefact,
    BaseMethod,
    Bmtpt,
    BmtptParticles,
    Context,
    PromptTuning,
    create,
)
from prompt_jax.training import deployed, loop, optimizers
from prompt_jax.training.protocol import Prompted

M = 3
UNIT = float(toy.tiny_t5().embedding_rms())


def context(trial=0, particles=None, sources=None, seed=0):
    artefacts = {}
    if particles is not None:
        artefacts["particles"] = Artefact(
            ("",), particles.mean(0)[None], np.zeros(1), params=({"particles": particles},)
        )
    if sources is not None:
        artefacts["sources"] = Artefact(tuple("abc"), sources, np.zeros(len(sources)))
    return Context(toy.tiny_t5(), toy.prompt(seed), seed, "t", trial, artefacts)


def draws(m=M, seed=0, shape=(toy.L, toy.D)):
    return np.random.default_rng(seed).normal(size=(m, *shape)).astype(np.float32)


# Particles ---------------------------------------------------------------------------------


def test_particles_start_apart():
    params, _ = BmtptParticles(particles=M).init(context())
    particles = params["particles"]
    assert particles.shape == (M, toy.L, toy.D)
    np.testing.assert_array_equal(particles[0], toy.prompt(0))
    other = BmtptParticles(particles=M).init(context(seed=1))[0]["particles"]
    table = np.asarray(toy.tiny_t5().embed(np.arange(toy.CONFIG.vocab_size)))
    for particle in [*particles[1:], *other[1:]]:  # rows of the vocabulary, all different
        assert all((row == table).all(1).any() for row in particle)
    starts = [p.tobytes() for p in (*particles, *other)]
    assert len(set(starts)) == 2 * M


def test_views_are_the_particles():
    method = BmtptParticles(particles=M)
    assert method.views == M
    params, consts = method.init(context())
    made = method.prompts(params, consts, (), None, 0, None)
    np.testing.assert_array_equal(made.prompts, params["particles"])
    np.testing.assert_allclose(
        method.deploy(params, consts), params["particles"].mean(0), rtol=1e-6
    )


def test_the_prior_of_particles_is_gaussian_around_the_vocabulary():
    params, consts = BmtptParticles(particles=M, prior_width=2.0).init(context())
    table = np.asarray(toy.tiny_t5().embed(np.arange(toy.CONFIG.vocab_size)), np.float64)
    offset = params["particles"] - table.mean(0)
    expected = 0.5 * np.sum(offset**2) / (2 * UNIT) ** 2
    got = BmtptParticles().penalty(params, consts, (), 0)
    assert float(got) == pytest.approx(expected, rel=1e-5)
    params, consts = BmtptParticles(particles=M, prior_width=math.inf).init(context())
    assert BmtptParticles().penalty(params, consts, (), 0) == 0


@pytest.mark.slow
def test_svgd_stands_before_the_optimizer():
    """With plain descent behind it, the update is the kernel's; without a kernel the gradient."""
    x, g = {"particles": jnp.asarray(draws())}, {"particles": draws(seed=1)}
    for kernel in ("rbf", "imq", "linear", "per_token", "per_coordinate", "sliced", "mean_pooled"):
        method = BmtptParticles(particles=M, kernel=kernel, ratio=0.5)
        tx = method.transform(optax.identity())
        updates, state = jax.jit(tx.update)(g, tx.init(x), x)
        assert np.isfinite(updates["particles"]).all()
        found = method.update_metrics(state)
        assert float(found["repulsion_ratio"]) == pytest.approx(0.5, rel=1e-4)
        assert found["svgd_temperature"] > 0
        assert found["stein_discrepancy"] > 0
    alone = BmtptParticles(particles=M, kernel="none")
    tx = alone.transform(optax.identity())
    updates, state = tx.update(g, tx.init(x), x)
    np.testing.assert_array_equal(updates["particles"], g["particles"])
    assert alone.update_metrics(state) == {}


@pytest.mark.slow
def test_panels_draw_what_is_measured():
    method = BmtptParticles(particles=M)
    params, consts = method.init(context())
    made = jax.jit(method.metrics)(params, consts, Prompted(params["particles"]))
    tx = method.transform(optax.identity())
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    measured = {*made, *method.update_metrics(state)}
    assert {panel.metric for panel in method.panels} == measured
    flat = params["particles"].reshape(M, -1)
    apart = sorted(
        np.sqrt(np.mean((flat[i] - flat[j]) ** 2)) / UNIT for i in range(M) for j in range(i)
    )
    np.testing.assert_allclose(made["particle_distances"], apart, rtol=1e-4)
    assert 0 < made["effective_rank"] <= M - 1
    single, consts = BmtptParticles(particles=1).init(context())
    assert BmtptParticles(particles=1).metrics(single, consts, None) == {}


def trained(method, steps=4, **changes):
    run = toy.make_run(0, params=changes.get("params"), consts=changes.get("consts"))
    budget = toy.budget(steps, learning_rate=0.05, unit="absolute")
    recorder = toy.Recorder()
    (made,) = loop.train(toy.tiny_t5(), method, [run], budget, tracker=recorder)
    return made, recorder


@pytest.mark.slow
def test_one_particle_with_a_flat_prior_is_prompt_tuning():
    """Summed over all rows or averaged over tokens: Adam does not see the difference."""
    method = BmtptParticles(particles=1, prior_width=math.inf)
    params, consts = method.init(context())
    got, _ = trained(method, params=params, consts=consts)
    expected, _ = trained(PromptTuning())
    assert toy.distance(got.prompt, expected.prompt)[0] < 1e-4


@pytest.mark.slow
def test_metrics_are_logged():
    method = BmtptParticles(particles=M)
    params, consts = method.init(context())
    _, recorder = trained(method, 2, params=params, consts=consts)
    for panel in method.panels:
        assert len(recorder.of(panel.metric)) == 2
    assert recorder.of("svgd_temperature") == [1.0, 1.0]


@pytest.mark.slow
def test_particles_with_rows_of_their_own():
    """The gradient of each particle is that of its share, scaled to the full data."""
    method, sgd = BmtptParticles(particles=2, batch="own", kernel="none"), {"b1": 0.0}
    assert method.per_view_batches
    params, consts = method.init(context())
    split = toy.make_split(rows=24, tasks=2)
    run = toy.make_run(0, params=params, consts=consts, split=split)
    budget = toy.budget(1, learning_rate=0.05, unit="absolute", **sgd)
    population = loop.Population(toy.tiny_t5(), method, [run], budget)
    population.step(0)
    # Without a memory of it, Adam's first moment is the gradient.
    got = optax.tree.get(population.state.opt_state, "mu")["particles"][0]
    picked = run.feed.rows(0)
    tasks = split.task[picked]
    seen = np.zeros(len(picked), int)
    for v in range(2):
        mine = np.zeros(len(picked), bool)
        for k in range(2):
            of_task = np.flatnonzero(tasks == k)
            mine[of_task[v::2]] = True
        rows = picked[mine]
        seen += mine
        scale = np.asarray([12 / (tasks[mine] == k).sum() for k in tasks[mine]], np.float32)
        ids = split.inputs.padded(rows, 8)
        mask = (np.arange(8)[None] < split.inputs.lengths[rows][:, None]).astype(np.int32)
        labels = split.targets.padded(rows, 2, -100)

        def objective(particle, ids=ids, mask=mask, labels=labels, scale=scale):
            each = jnp.broadcast_to(particle[None], (len(ids), *particle.shape))
            nll = toy.tiny_t5().score(ids, mask, labels, each).nll
            one = {"particles": particle[None]}
            return (nll * scale).sum() + method.penalty(one, consts, (), 0)

        expected = jax.grad(objective)(jnp.asarray(params["particles"][v]))
        assert toy.distance(np.asarray(got[v]), np.asarray(expected))[0] < 1e-5
    assert (seen == 1).all()


@pytest.mark.slow
def test_the_average_prediction_deploys_all_particles():
    method = BmtptParticles(particles=M, predict="average")
    params, consts = method.init(context())
    np.testing.assert_array_equal(method.ensemble(params, consts), params["particles"])
    assert BmtptParticles(particles=M).ensemble(params, consts) is None
    split = toy.make_split(rows=8)
    runs = jax.tree.map(lambda x: np.asarray(x)[None], (params, consts))
    (average,) = deployed.evaluate_runs(
        toy.tiny_t5(), method, *runs, [Job(split, 0)], [("accuracy",)]
    )
    each = [
        deployed.evaluate_runs(
            toy.tiny_t5(),
            PromptTuning(),
            {"prompt": particle[None]},
            {},
            [Job(split, 0)],
            [("accuracy",)],
        )[0].scores
        for particle in params["particles"]
    ]
    p = np.mean([np.exp(-s) / np.exp(-s).sum(1, keepdims=True) for s in each], axis=0)
    np.testing.assert_allclose(np.exp(-average.scores), p, rtol=1e-4)


# The prior of the target -------------------------------------------------------------------


def energy(method, particles, prompt, trial=0):
    _, consts = method.init(context(trial, particles))
    return float(method.penalty({"prompt": jnp.asarray(prompt)}, consts, (), 0))


def dense(method, particles, width):
    """The covariance [P, P] that a prior stands for, float64."""
    flat = particles.reshape(len(particles), -1).astype(np.float64)
    spread = np.cov(flat.T)
    if method.prior == "diagonal":
        spread = np.diag(np.diag(spread))
    spread *= len(spread) / np.trace(spread)
    rho = method.shrinkage
    return (width * UNIT) ** 2 * ((1 - rho) * spread + rho * np.eye(len(spread)))


@pytest.mark.parametrize("prior", ["diagonal", "low_rank"])
@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
def test_gaussian_priors_are_their_densities(prior, shrinkage):
    particles, width = draws(), 0.7
    method = Bmtpt(particles=M, prior=prior, widths=(width,), shrinkage=shrinkage)
    covariance = dense(method, particles, width)
    assert np.trace(covariance) == pytest.approx((width * UNIT) ** 2 * len(covariance))
    for prompt in (particles[0], draws(1, seed=5)[0]):
        offset = (prompt - particles.mean(0)).reshape(-1).astype(np.float64)
        expected = 0.5 * offset @ np.linalg.solve(covariance, offset)
        assert energy(method, particles, prompt) == pytest.approx(expected, rel=1e-4)
    if shrinkage == 1:
        mean = Bmtpt(particles=M, widths=(width,))
        assert energy(mean, particles, prompt) == pytest.approx(expected, rel=1e-4)


def test_the_mean_prior_is_the_jensen_bound_of_the_mixture():
    """Spec (2.5): the average of the particles' energies, up to a constant of the particles."""
    particles, prompts = draws(), draws(2, seed=6)
    method = Bmtpt(particles=M, widths=(3.0,))
    bound = [0.5 * np.mean(np.sum((p - particles) ** 2, (1, 2))) / (3 * UNIT) ** 2 for p in prompts]
    got = [energy(method, particles, p) for p in prompts]
    assert got[0] - got[1] == pytest.approx(bound[0] - bound[1], rel=1e-3)


@pytest.mark.slow
def test_the_mixture_pulls_to_its_particles_by_responsibility():
    """Spec 4b: grad log p = sum_i w_i (theta_i - theta) / s^2, w = softmax(-||.||^2 / 2 s^2)."""
    particles, prompt, s = draws(), 0.1 * draws(1, seed=7)[0], 5.0
    method = Bmtpt(particles=M, prior="mixture", widths=(s,))
    _, consts = method.init(context(0, particles))
    got = jax.jit(jax.grad(method.penalty))({"prompt": prompt}, consts, (), 0)["prompt"]
    squares = np.sum((prompt - particles).astype(np.float64) ** 2, (1, 2)) / (s * UNIT) ** 2
    w = np.exp(-0.5 * (squares - squares.min()))
    w /= w.sum()
    expected = np.tensordot(w, prompt - particles, 1) / (s * UNIT) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    direct = -np.log(np.mean(np.exp(-0.5 * squares)))
    assert energy(method, particles, prompt) == pytest.approx(direct, rel=1e-4)
    found = method.metrics({"prompt": jnp.asarray(prompt)}, consts, None)
    np.testing.assert_allclose(found["prior_weights"], w, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("prior", ["mean", "mixture", "diagonal", "low_rank"])
def test_each_width_is_a_trial_of_one_population(prior):
    particles, prompt = draws(), draws(1, seed=8)[0]
    method = Bmtpt(particles=M, prior=prior)
    assert method.stages()[-1].trials == len(method.widths) == 4
    made = [method.init(context(trial, particles)) for trial in range(4)]
    assert len({str(jax.tree.map(np.shape, one)) for one in made}) == 1
    energies = [energy(method, particles, prompt, trial) for trial in range(4)]
    assert energies[0] == 0  # inf: only the start
    assert 0 < energies[1] < energies[2] < energies[3]
    for params, consts in made:
        np.testing.assert_allclose(params["prompt"], particles.mean(0), rtol=1e-5, atol=1e-6)
        found = method.metrics({"prompt": jnp.asarray(prompt)}, consts, None)
        distance = np.sqrt(np.mean((prompt - particles.mean(0)) ** 2)) / UNIT
        assert float(found["prior_distance"]) == pytest.approx(distance, rel=1e-4)
        shown = {panel.metric for panel in method.panels}
        assert set(found) == (shown if prior == "mixture" else shown - {"prior_weights"})


def test_particles_that_coincide_have_a_prior_all_the_same():
    same = np.repeat(draws(1), M, 0)
    for prior in ("diagonal", "low_rank"):
        method = Bmtpt(particles=M, prior=prior, widths=(1.0,))
        assert np.isfinite(energy(method, same, draws(1, seed=9)[0]))


# Stages ------------------------------------------------------------------------------------


def test_stages_hold_their_trainer():
    method = Bmtpt(particles=7, kernel="imq", ratio=0.1, prior_width=math.inf, batch="own")
    first, last = method.stages()
    assert (first.on, first.budget, first.mixing) == ("mixture", "source", "stratified")
    assert first.trains == BmtptParticles(7, "imq", 1.0, 0.1, math.inf, "own")
    assert first.batch == 7  # as many rows for each
    assert (last.on, last.trains, last.part) == ("target", None, (0.0, 1.0))
    assert Bmtpt().stages()[0].trains == BmtptParticles()
    spec = "bmtpt(prior=low_rank,widths=[inf,10],posterior=independent)"
    method = create(spec)
    assert method.widths == (math.inf, 10.0)
    assert [(s.name, s.on, s.trains) for s in method.stages()] == [
        ("sources", "source", BaseMethod()),
        ("target", "target", None),
    ]


def test_independent_source_prompts_take_no_options_of_particles():
    with pytest.raises(ConfigError, match=r"bmtpt_particles\(ratio=1\) has no effect"):
        Bmtpt(posterior="independent", ratio=1.0)
    Bmtpt(posterior="independent", target="average")


def test_independent_source_prompts_stand_for_particles():
    sources = draws(4, seed=3)
    params, consts = Bmtpt(posterior="independent").init(context(1, sources=sources))
    np.testing.assert_allclose(params["prompt"], sources.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(consts["mean"], params["prompt"])


def test_targets_without_a_step():
    particles = draws()
    mean, _ = Bmtpt(particles=M, target="zero_shot").init(context(0, particles))
    np.testing.assert_allclose(mean["prompt"], particles.mean(0), rtol=1e-5, atol=1e-6)
    method = Bmtpt(particles=M, target="average")
    params, consts = method.init(context(0, particles))
    trainer = method.stages()[-1].trains
    np.testing.assert_array_equal(trainer.ensemble(params, consts), particles)
    for target in ("zero_shot", "average"):
        last = Bmtpt(target=target).stages()[-1]
        assert (last.part, last.trials) == ((0.0, 0.0), 1)


def test_mistakes_are_explained():
    for options, message in (
        ({"particles": 0}, "particles must be at least 1"),
        ({"prior_width": 0.0}, "prior_width must be positive"),
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"ratio": math.inf}, "ratio must not be negative"),
    ):
        for kind in (Bmtpt, BmtptParticles):
            with pytest.raises(ConfigError, match=message):
                kind(**options)
    for options, message in (
        ({"widths": ()}, "widths are different positive"),
        ({"widths": (1.0, 1.0)}, "widths are different positive"),
        ({"widths": (1.0, -1.0)}, "widths are different positive"),
        ({"shrinkage": 0.0}, "shrinkage must lie"),
        ({"particles": 1, "prior": "low_rank"}, "needs at least two"),
    ):
        with pytest.raises(ConfigError, match=message):
            Bmtpt(**options)
    alone = Bmtpt(posterior="independent", prior="diagonal")
    with pytest.raises(ConfigError, match="needs at least two"):
        alone.init(context(sources=draws(1)))
    with pytest.raises(ConfigError, match="'particles' has not been run for t"):
        Bmtpt().init(context())


def test_the_optimizer_of_a_run_is_its_own():
    """The state that `update_metrics` reads stands where `transform` put it."""
    method = BmtptParticles(particles=M)
    tx = method.transform(optimizers.build(toy.budget(1).optimizer))
    state = tx.init({"particles": jnp.asarray(draws())})
    assert set(method.update_metrics(state)) < {panel.metric for panel in method.panels}
