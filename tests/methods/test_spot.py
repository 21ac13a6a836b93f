"""What each variant of SPoT starts from, on prompts whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, BaseMethod, Context, Spot, source_similarity

L, D = 3, 6


def prompt(direction, scale=1.0, seed=0):
    """A prompt whose mean over tokens is `scale` times a unit vector."""
    noise = np.random.default_rng(seed).normal(size=(L, D))
    noise -= noise.mean(0)
    return (noise + scale * np.asarray(direction, np.float64)).astype(np.float32)


def axis(i, j=None, angle=0.0):
    vector = np.zeros(D)
    vector[i] = np.cos(angle)
    if j is not None:
        vector[j] = np.sin(angle)
    return vector


# Cosines with the probe (axis 0): 0.5, 1, -1, 0.8.
SOURCES = np.stack(
    [
        prompt(axis(0, 1, np.arccos(0.5)), 9.0, 1),
        prompt(axis(0), 0.1, 2),
        prompt(-axis(0), 5.0, 3),
        prompt(axis(0, 2, np.arccos(0.8)), 1.0, 4),
    ]
)
PROBE = prompt(axis(0), 3.0, 5)


def start(method, trial=0, sources=SOURCES, probe=PROBE, mixture=None, keys=None):
    keys = sources if keys is None else keys
    artefacts = {
        "sources": Artefact(tuple("abcd"[: len(sources)]), sources, np.zeros(len(sources))),
        "keys": Artefact(tuple("abcd"[: len(keys)]), keys, np.zeros(len(keys))),
        "probe": Artefact(("t",), probe[None], np.zeros(1)),
    }
    if mixture is not None:
        artefacts = {"mixture": Artefact(("",), mixture[None], np.zeros(1))}
    context = Context(None, np.zeros((L, D), np.float32), 0, "t", trial, artefacts)
    params, consts = method.init(context)
    assert consts == {}
    assert params["prompt"].dtype == np.float32
    return params["prompt"]


def test_similarity_is_the_cosine_of_mean_tokens():
    """Independent of scale and of what varies over the tokens."""
    np.testing.assert_allclose(source_similarity(PROBE, SOURCES), [0.5, 1, -1, 0.8], atol=1e-6)
    np.testing.assert_allclose(
        source_similarity(100 * PROBE, 0.01 * SOURCES), [0.5, 1, -1, 0.8], atol=1e-5
    )
    assert np.isfinite(source_similarity(PROBE, 0 * SOURCES)).all()


def test_nearest():
    np.testing.assert_array_equal(start(Spot("nearest")), SOURCES[1])
    np.testing.assert_array_equal(start(Spot("nearest"), probe=-PROBE), SOURCES[2])


def test_keys_choose_and_final_prompts_are_inherited():
    turned = SOURCES[[1, 0, 2, 3]]  # early prompts whose nearest is source 0
    np.testing.assert_array_equal(start(Spot(), keys=turned), SOURCES[0])
    np.testing.assert_array_equal(start(Spot(keys="final"), keys=turned), SOURCES[1])
    average = start(Spot("top_k_average", 2), keys=turned)
    expected = (1.0 * SOURCES[0] + 0.8 * SOURCES[3]) / 1.8
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_average_is_weighted_by_similarity():
    got = start(Spot("top_k_average", 2))
    expected = (1.0 * SOURCES[1] + 0.8 * SOURCES[3]) / 1.8
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_average_gives_negative_similarities_no_weight():
    got = start(Spot("top_k_average", 4))
    expected = (0.5 * SOURCES[0] + 1.0 * SOURCES[1] + 0.8 * SOURCES[3]) / 2.3
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_average_of_nothing_similar_is_plain():
    opposite = np.stack([prompt(-axis(0), s, s) for s in (1, 2)])
    got = start(Spot("top_k_average", 2), sources=opposite)
    np.testing.assert_allclose(got, opposite.mean(0), rtol=1e-5, atol=1e-6)


def test_best_of_top_k_starts_one_trial_from_each():
    method = Spot("best_of_top_k", 3)
    for trial, source in enumerate((1, 3, 0)):
        np.testing.assert_array_equal(start(method, trial), SOURCES[source])
    assert method.stages()[-1].trials == 3
    # Fewer sources than k: the last one again.
    np.testing.assert_array_equal(start(method, 2, SOURCES[:2]), SOURCES[0])


def test_k_larger_than_the_number_of_sources():
    np.testing.assert_array_equal(start(Spot("top_k_average", 9)), start(Spot("top_k_average", 4)))


def test_mixture():
    np.testing.assert_array_equal(start(Spot("mixture"), mixture=PROBE), PROBE)
    assert [stage.name for stage in Spot("mixture").stages()] == ["mixture", "target"]


def test_mixtures_of_several_initialisations_are_averaged_and_trained_on_all_targets():
    method = Spot("mixture", origins=2, joint=True)
    stages = [(stage.name, stage.on, stage.origin, stage.part) for stage in method.stages()]
    assert stages == [
        ("mixture", "mixture", 0, (0.0, 1.0)),
        ("mixture 2", "mixture", 1, (0.0, 1.0)),
        ("targets", "targets", 0, (0.0, 1.0)),
        ("target", "target", 0, (0.0, 0.0)),
    ]
    names = ("mixture", "mixture 2", "targets")
    made = {name: Artefact(("",), SOURCES[i : i + 1], np.zeros(1)) for i, name in enumerate(names)}
    average = (SOURCES[0] + SOURCES[1]) / 2
    for spot, stage, expected in (
        (method, "targets", average),
        (method, "target", SOURCES[2]),
        (Spot("mixture", origins=2), "target", average),
    ):
        context = Context(None, 0 * PROBE, 0, "t", 0, made, stage=stage)
        np.testing.assert_allclose(spot.init(context)[0]["prompt"], expected, rtol=1e-6)
        assert spot.selected_sources(context, {}) is None
    for wrong in ({"origins": 2}, {"joint": True}):
        with pytest.raises(ConfigError, match="origins and joint are of the mixture"):
            Spot(**wrong)
    with pytest.raises(ConfigError, match="origins must be at least 1, but is 0"):
        Spot("mixture", origins=0)


def test_a_larger_mixture():
    (mixture, target) = Spot("mixture", steps=5, batch=2).stages()
    assert (mixture.part, mixture.batch) == ((0.0, 5.0), 2)
    assert mixture.title == "mixture (500% of the steps) (2 x the batch)"
    assert (target.part, target.batch) == ((0.0, 1.0), 1)


def test_stages():
    probed = [("probe", "target", "probe"), ("target", "target", "target")]
    for variant in ("nearest", "top_k_average", "best_of_top_k"):
        stages = Spot(variant).stages()
        sources = ("sources", "source", "source")
        names = [(s.name, s.on, s.budget) for s in stages]
        assert names == [sources, ("keys", "source", "probe"), *probed]
        final = Spot(variant, keys="final").stages()
        assert [(s.name, s.on, s.budget) for s in final] == [sources, *probed]
        # All with prompt tuning's programs, which other methods share.
        assert {s.trains for s in stages} == {BaseMethod()}
        assert stages[-1].trials == (3 if variant == "best_of_top_k" else 1)


def test_stages_of_the_mixture_of_the_nearest():
    """Their prompts are not needed, unless sources are compared by them."""
    names = [stage.name for stage in Spot("nearest_mixture").stages()]
    assert names == ["keys", "probe", "mixture", "target"]
    *before, mixture, _ = Spot("nearest_mixture", keys="final", steps=2).stages()
    assert [stage.name for stage in before] == ["sources", "probe"]
    assert (mixture.on, mixture.chosen, mixture.part) == ("mixture", True, (0.0, 2.0))
    assert not Spot("mixture").stages()[0].chosen


def test_a_stage_that_was_not_run_is_named():
    context = Context(None, np.zeros((L, D), np.float32), 0, "mr")
    with pytest.raises(ConfigError, match="stage 'sources' has not been run for mr"):
        Spot().init(context)
    with pytest.raises(ConfigError, match="top_k"):
        Spot(top_k=0)
    with pytest.raises(ConfigError, match="variant=mixture compares no prompts"):
        Spot("mixture", keys="final")
    with pytest.raises(ConfigError, match="steps and batch are of the mixture"):
        Spot(steps=2)


@pytest.mark.parametrize(
    ("spec", "trial", "group"),
    [
        ({}, 0, [1]),
        ({"variant": "best_of_top_k"}, 1, [3]),
        ({"variant": "top_k_average"}, 0, [0, 1, 3]),
        ({"variant": "top_k_average", "top_k": 4}, 0, [0, 1, 3]),  # source 2 has no weight
        ({"variant": "nearest_mixture", "top_k": 2}, 0, [1, 3]),
        ({"variant": "mixture"}, 0, None),
    ],
)
def test_it_says_which_sources_it_started_from(spec, trial, group):
    artefacts = {
        "keys": Artefact(tuple("abcd"), SOURCES, np.zeros(4)),
        "probe": Artefact(("t",), PROBE[None], np.zeros(1)),
    }
    context = Context(None, np.zeros((L, D), np.float32), 0, "t", trial, artefacts)
    found = Spot(**spec).selected_sources(context, {})
    assert found is None if group is None else np.flatnonzero(found).tolist() == group
    if spec.get("variant") == "nearest_mixture":
        assert Spot(**spec).mixed_sources(context) == (1, 3)
