"""DTVG: what it starts from, whom it groups and when, what is trained, and its stages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, BaseMethod, Context, Dtvg, create
from prompt_jax.training import loop
from prompt_jax.training.protocol import Rows

K = 3
INITIAL = toy.prompt(0)
KEY = jax.random.key(0)
ROWS = Rows(
    *(np.zeros((toy.B, 0), np.int32),) * 2,
    *(np.zeros(toy.B, np.int32),) * 2,
    np.ones(toy.B, np.float32),
)


def vectors(*leans: float) -> tuple[np.ndarray, np.ndarray]:
    """A target vector, and sources whose similarity to it has the sign and rank of `leans`."""
    rng = np.random.default_rng(3)
    direction = rng.normal(size=toy.D)
    noise = rng.normal(size=(1 + len(leans), toy.L, toy.D)) * 0.1
    noise -= noise.mean(1, keepdims=True)  # what varies over tokens changes no similarity
    target = direction + noise[0]
    sources = np.asarray(leans)[:, None, None] * direction + noise[1:]
    return target.astype(np.float32), sources.astype(np.float32)


def start(method: Dtvg, leans=(0.5, -1.0, 0.2), target=None):
    return method.init(context(leans, target))


def context(leans=(0.5, -1.0, 0.2), target=None, rate=None):
    own, sources = vectors(*leans)
    own = own if target is None else target
    artefacts = {
        "sources": Artefact(("a", "b", "c"), INITIAL + sources, np.zeros(len(leans))),
        "first": Artefact(("t",), (INITIAL + own)[None], np.zeros(1)),
    }
    return Context(toy.tiny_t5(), INITIAL, 0, "t", 0, artefacts, rate=rate)


def prompted(method, params, consts, carry=None, step=0):
    carry = method.carry(params, consts) if carry is None else carry
    return method.prompts(params, consts, carry, ROWS, jnp.int32(step), KEY)


def chosen(made):
    return tuple(np.flatnonzero(made.carry["group"]).tolist())


def with_scales(params, consts, factors):
    """Scales of the sources as the paper has them."""
    scales = np.asarray(factors, np.float32)[:, None] * np.ones(toy.L, np.float32)
    return {**params, "source_scales": scales * consts["unit"]}


# Start


def test_it_starts_from_stage_one_with_scales_of_one():
    params, consts = start(Dtvg())
    own, sources = vectors(0.5, -1.0, 0.2)
    np.testing.assert_array_equal(params["prompt"], INITIAL + own)
    np.testing.assert_allclose(consts["source_vectors"], sources, atol=1e-6)
    np.testing.assert_array_equal(consts["init"], INITIAL)
    made = prompted(Dtvg(), params, consts)
    assert chosen(made) == (0, 2)
    expected = INITIAL + own + sources[0] + sources[2]
    np.testing.assert_allclose(made.prompts, expected[None], atol=1e-5)
    numbers = Dtvg().metrics(params, consts, made)
    np.testing.assert_allclose(numbers["source_scale"], 1.0)
    np.testing.assert_allclose(numbers["target_scale"], 1.0)
    np.testing.assert_allclose(numbers["target_norm"], np.linalg.norm(own), rtol=1e-5)


def test_without_stage_one_the_group_is_empty_and_the_metrics_say_so():
    method = Dtvg(budget="matched", first_share=0.0)
    _, sources = vectors(0.5, -1.0, 0.2)
    artefacts = {"sources": Artefact(("a", "b", "c"), INITIAL + sources, np.zeros(3))}
    params, consts = method.init(Context(toy.tiny_t5(), INITIAL, 0, "t", 0, artefacts))
    made = prompted(method, params, consts)
    assert chosen(made) == ()
    np.testing.assert_array_equal(made.prompts[0], INITIAL)
    assert method.metrics(params, consts, made)["target_norm"] == 0.0


def test_metrics_are_those_of_task_vectors_and_have_panels():
    params, consts = start(Dtvg())
    params = with_scales(params, consts, (2.0, 1.0, 0.5))
    made = prompted(Dtvg(), params, consts)
    numbers = Dtvg().metrics(params, consts, made)
    scaled = np.asarray([2.0, 1.0, 0.5], np.float32)[:, None, None] * consts["source_vectors"]
    expected = task_vectors.target_similarity(params["prompt"] - INITIAL, scaled)
    np.testing.assert_allclose(numbers["similarity"], expected, rtol=1e-4)
    consistency = task_vectors.knowledge_consistency(scaled, made.carry["group"])
    np.testing.assert_allclose(numbers["consistency"], consistency, rtol=1e-4)
    np.testing.assert_allclose(numbers["source_scale"], [2.0, 1.0, 0.5], rtol=1e-6)
    for panel in Dtvg.panels:
        shape = numbers[panel.metric].shape
        assert len(shape) == 1 if panel.labels == "sources" else shape == ()
        assert panel.kind != "timeline" or numbers[panel.metric].dtype == bool


# Grouping


@pytest.mark.parametrize(
    ("spec", "group"),
    [
        ("dtvg", (0, 2)),
        ("dtvg(rule=objective)", (0,)),
        ("dtvg(rule=objective,consistency_weight=5)", (0, 2)),
        ("dtvg(rule=positive)", (0, 2)),
        ("dtvg(rule=all)", (0, 1, 2)),
        ("dtvg(rule=none)", ()),
        ("dtvg(rule=consistency)", (0, 2)),
        ("dtvg(threshold=1e9)", ()),
        ("dtvg(threshold=12)", (0,)),
        ("dtvg(metric=cosine)", (0, 2)),
        ("dtvg(regroup_every=0)", (0, 2)),
        ("dtvg(regroup_every=5)", (0, 2)),
    ],
)
def test_rules(spec, group):
    method = create(spec)
    params, consts = start(method)
    made = prompted(method, params, consts)
    assert chosen(made) == group
    _, sources = vectors(0.5, -1.0, 0.2)
    expected = params["prompt"] + sum((sources[s] for s in group), np.zeros_like(INITIAL))
    np.testing.assert_allclose(made.prompts[0], expected, atol=1e-5)
    np.testing.assert_allclose(method.deploy(params, consts), expected, atol=1e-5)


def test_the_group_follows_the_scales():
    params, consts = start(Dtvg())
    turned = with_scales(params, consts, (-1.0, -1.0, 0.2))
    assert chosen(prompted(Dtvg(), turned, consts)) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "regroups"), [(1, {0, 1, 2, 3, 4}), (2, {0, 2, 4}), (0, set())])
def test_regrouping(every, regroups):
    """At steps it does not regroup, the carried group is used, whatever the scales say by now."""
    method = Dtvg(regroup_every=every)
    params, consts = start(method)
    carry = method.carry(params, consts)
    turned = with_scales(params, consts, (-1.0, -1.0, -0.2))
    for step in range(5):
        made = jax.jit(method.prompts)(turned, consts, carry, ROWS, jnp.int32(step), KEY)
        group = (1,) if step in regroups else (0, 2)
        assert chosen(made) == group
        sources = consts["source_vectors"]
        sign = np.asarray([-1.0, -1.0, -0.2], np.float32)
        expected = params["prompt"] + sum(sign[s] * sources[s] for s in group)
        np.testing.assert_allclose(made.prompts[0], expected, atol=1e-5)


def test_a_fixed_group_is_deployed():
    fixed, free = Dtvg(regroup_every=0), Dtvg()
    params, consts = start(fixed)
    turned = with_scales(params, consts, (-1.0, -1.0, -0.2))
    _, plain = start(free)
    assert not np.allclose(fixed.deploy(turned, consts), free.deploy(turned, plain))
    np.testing.assert_allclose(
        fixed.deploy(turned, consts), prompted(fixed, turned, consts).prompts[0], atol=1e-6
    )


@pytest.mark.parametrize(("every", "group"), [(1, [1]), (0, [0, 2])])
def test_it_says_which_group_it_deploys(every, group):
    method = Dtvg(rule="positive", regroup_every=every)
    params, consts = start(method)
    turned = with_scales(params, consts, (-1.0, -1.0, -0.2))
    assert np.flatnonzero(method.selected_sources(context(), turned)).tolist() == group


# Gradients


def gradient(method, params, consts):
    weights = np.random.default_rng(0).normal(size=(toy.L, toy.D)).astype(np.float32)

    def loss(params):
        return jnp.vdot(prompted(method, params, consts).prompts[0], weights)

    return jax.grad(loss)(jax.tree.map(jnp.asarray, params)), weights


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 1, 3])
def test_what_is_trained(every):
    method = Dtvg(regroup_every=every)
    params, consts = start(method)
    grads, weights = gradient(method, params, consts)
    own, sources = vectors(0.5, -1.0, 0.2)
    # Scales are 1, so the prompt's gradient is the merged one's.
    np.testing.assert_allclose(grads["prompt"], weights, rtol=1e-5)
    slope = (weights * own).sum(1) / consts["unit"]
    np.testing.assert_allclose(grads["target_scale"], slope, rtol=1e-4, atol=1e-5)
    for s in (0, 2):
        slope = (weights * sources[s]).sum(1) / consts["unit"]
        np.testing.assert_allclose(grads["source_scales"][s], slope, rtol=1e-4, atol=1e-5)
    assert not np.asarray(grads["source_scales"][1]).any()


def test_without_the_target_s_vector_only_sources_are_trained():
    method = Dtvg(target_vector=False)
    params, consts = start(method)
    made = prompted(method, params, consts)
    assert chosen(made) == (0, 2)
    _, sources = vectors(0.5, -1.0, 0.2)
    np.testing.assert_allclose(made.prompts[0], INITIAL + sources[0] + sources[2], atol=1e-5)
    grads, _ = gradient(method, params, consts)
    assert not np.asarray(grads["prompt"]).any()
    assert not np.asarray(grads["target_scale"]).any()
    assert np.asarray(grads["source_scales"]).any()


@pytest.mark.slow
def test_a_step_of_training_moves_scales_relative_to_their_size():
    """With Adam's first step, a rate of r (in units of the RMS) moves every scale by r."""
    method, rate = Dtvg(rule="all", scale_rate=0.5), 0.01
    params, consts = start(method)
    config = toy.budget(1, learning_rate=rate, group_rates=("source_scales=0.2",))
    (trained,) = loop.train(
        toy.tiny_t5(), method, [toy.make_run(params=params, consts=consts)], config
    )
    unit = consts["unit"]
    moved = {k: np.abs(trained.params[k] - params[k]) / unit for k in params}
    np.testing.assert_allclose(np.median(moved["target_scale"]), rate / 2, rtol=1e-2)
    np.testing.assert_allclose(np.median(moved["source_scales"]), rate / 10, rtol=1e-2)
    np.testing.assert_allclose(np.median(moved["prompt"]), rate, rtol=1e-2)
    np.testing.assert_allclose(trained.prompt, method.deploy(trained.params, consts), atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "rate", "absolute"),
    [
        ("dtvg", 1.0, False),
        ("dtvg(rates=released_t5)", 1 / 300, False),
        ("dtvg(rates=released_llama,budget=matched)", 1.0, False),
        ("dtvg(second_rate=0.1)", 0.1, False),
        ("dtvg(second_rate=0.001,second_unit=absolute)", 0.001, True),
    ],
)
def test_stage_two_has_a_rate_of_its_own(spec, rate, absolute):
    *before, last = create(spec).stages()
    assert (last.rate, last.absolute_rate) == (rate, absolute)
    assert {(stage.rate, stage.absolute_rate) for stage in before} == {(1.0, False)}


def test_stage_two_has_steps_of_its_own():
    *before, last = create("dtvg(second_steps=30000)").stages()
    assert (last.steps, last.title) == (30_000, "target (30,000 steps)")
    assert {stage.steps for stage in before} == {0}


@pytest.mark.parametrize("rate", [0.3, 1e-3, 20.0])
@pytest.mark.parametrize("preset", ["released_t5", "released_llama"])
def test_scales_have_an_absolute_rate(preset, rate):
    """Adam moves a parameter by the stage's rate, which is a thousandth of a scale."""
    method = Dtvg(rates=preset)
    made = context(rate=rate)
    params, consts = method.init(made)
    np.testing.assert_allclose(rate / consts["unit"], 1e-3, rtol=1e-6)
    assert method.group_rates() == {"target_scale": 1.0, "source_scales": 1.0}
    numbers = method.metrics(params, consts, prompted(method, params, consts))
    np.testing.assert_allclose(numbers["source_scale"], 1.0)
    np.testing.assert_array_equal(method.selected_sources(made, params), [True, False, True])


@pytest.mark.parametrize("unit", ["relative", "absolute"])
def test_scales_whose_rate_is_zero_stay(unit):
    method = Dtvg(scale_rate=0.0, scale_unit=unit)
    _, consts = method.init(context(rate=0.3))
    assert method.group_rates() == {"target_scale": 0.0, "source_scales": 0.0}
    assert consts["unit"] == np.float32(toy.tiny_t5().embedding_rms())


@pytest.mark.slow
def test_a_step_of_training_moves_scales_by_their_absolute_rate():
    rate = 0.01
    method = Dtvg(rule="all", scale_rate=0.2, scale_unit="absolute")
    params, consts = method.init(context(rate=rate))
    config = toy.budget(1, learning_rate=rate, unit="absolute")
    (trained,) = loop.train(
        toy.tiny_t5(), method, [toy.make_run(params=params, consts=consts)], config
    )
    for name, unit in (("target_scale", consts["unit"]), ("source_scales", consts["unit"])):
        moved = np.abs(trained.params[name] - params[name]) / unit
        np.testing.assert_allclose(np.median(moved), 0.2, rtol=1e-2)
    moved = np.abs(trained.params["prompt"] - params["prompt"])
    np.testing.assert_allclose(np.median(moved), rate, rtol=1e-2)


@pytest.mark.slow
def test_every_logged_step_has_the_choice():
    recorder = toy.Recorder()
    params, consts = start(Dtvg())
    run = toy.make_run(params=params, consts=consts)
    loop.train(toy.tiny_t5(), Dtvg(), [run], toy.budget(3), tracker=recorder)
    groups = recorder.of("group")
    assert len(groups) == 3
    assert groups[0] == [True, False, True]
    assert [len(line) for line in recorder.of("similarity")] == [K] * 3
    assert all(isinstance(value, float) for value in recorder.of("consistency"))


# Stages


def test_stages_as_published_and_matched():
    published, matched = Dtvg().stages(), Dtvg(budget="matched").stages()
    for stages in (published, matched):
        assert [(s.name, s.on, s.trains) for s in stages] == [
            ("sources", "source", BaseMethod()),
            ("first", "target", BaseMethod()),
            ("target", "target", None),
        ]
        assert [s.budget for s in stages] == ["source", "target", "target"]
        assert {s.origin for s in stages} == {0}
    assert [s.part for s in published] == [(0.0, 1.0)] * 3
    assert [s.part for s in matched] == [(0.0, 1.0), (0.0, 0.25), (0.25, 1.0)]
    assert [s.name for s in Dtvg(budget="matched", first_share=0.0).stages()] == [
        "sources",
        "target",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dtvg(regroup_every=-1)", "regroup_every must not be negative"),
        ("dtvg(budget=matched,first_share=0,regroup_every=0)", "the group would stay empty"),
        ("dtvg(first_share=1)", r"first_share must lie in \[0, 1\)"),
        ("dtvg(rule=postive)", "must be one of .*Did you mean 'positive'"),
        ("dtvg(budget=half)", "must be one of"),
        ("dtvg(rates=released)", "must be one of"),
        ("dtvg(rates=released_t5,scale_rate=0.01)", "rates=released_t5 sets the rates of stage 2"),
        ("dtvg(rates=released_llama,second_rate=0.1)", "leave out second_rate"),
        ("dtvg(second_rate=0)", "second_rate must be a positive number"),
        ("dtvg(second_steps=-1)", "second_steps must not be negative"),
        ("dtvg(second_steps=50,budget=matched)", "second_steps has no meaning"),
    ],
)
def test_errors(spec, message):
    with pytest.raises(ConfigError, match=message):
        create(spec)
