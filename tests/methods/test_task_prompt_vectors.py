"""Task Prompt Vectors: the start that a sum of source vectors gives, and its stages."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from prompt_jax import task_vectors as tv
from prompt_jax.errors import ConfigError
from prompt_jax.methods import Artefact, BaseMethod, Context, TaskPromptVectors, create

NAMES = ("glue/rte", "tasks/my-own.toml", "mr")
INITIAL, OTHER = toy.prompt(0), toy.prompt(1)
SOURCES = np.stack([toy.prompt(10 + i) for i in range(3)])
A, B, C = SOURCES - INITIAL


def start(method, initial=INITIAL, names=NAMES, trial=0):
    stage = method.stages()[0].name
    artefact = Artefact(names, SOURCES, np.zeros(3), (), initial)
    params, consts = method.init(Context(toy.tiny_t5(), INITIAL, 0, "t", trial, {stage: artefact}))
    assert consts == {}
    assert params["prompt"].dtype == np.float32
    return params["prompt"]


@pytest.mark.parametrize(
    ("spec", "vector"),
    [
        ("", A + B + C),
        ("combine=mean", (A + B + C) / 3),
        ("coefficient=0.5", 0.5 * (A + B + C)),
        ("vectors=mr", C),
        ("vectors=none", 0 * C),
        ("vectors=all", A + B + C),
        ("vectors=-mr", -C),
        ("vectors=rte + mr", A + C),
        ("vectors=glue/rte + 0.5*my-own - mr", A + 0.5 * B - C),
        ('vectors="tasks/my-own.toml" - mr', B - C),
        ("vectors=(rte + mr)/2,coefficient=2", A + C),
        ("vectors=rte - 3*mr,combine=mean", (A - 3 * C) / 2),
        ("vectors=rte - rte + mr,combine=mean", C),
        ("vectors=mr - mr", 0 * C),
        ("vectors=mr + glue/rte - rte", C),
    ],
)
def test_starts(spec, vector):
    method = create(f"task_prompt_vectors({spec})")
    np.testing.assert_allclose(start(method), INITIAL + vector, atol=1e-5)
    assert hash(method) == hash(create(f"task_prompt_vectors({spec})"))


EACH = np.stack([A, 0.5 * B, -C])


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        ("combine=awd", lambda: tv.disentangle(EACH).vectors.sum(0)),
        ("combine=consensus", lambda: np.where(tv.consensus(tv.tall_masks(EACH)), EACH.sum(0), 0)),
        (
            "combine=consensus,threshold=0.55,agree=3,per_token=true",
            lambda: np.where(
                tv.consensus(tv.tall_masks(EACH, 0.55, per_token=True), 3)[:, None], EACH.sum(0), 0
            ),
        ),
        ("combine=ties,keep=0.5", lambda: tv.ties(EACH, 0.5)),
    ],
)
def test_merging_rules(options, merged):
    method = create(f"task_prompt_vectors(vectors=rte + 0.5*my-own - mr,coefficient=2,{options})")
    expected = np.asarray(merged())
    assert np.abs(expected - EACH.sum(0)).max() > 0
    np.testing.assert_allclose(start(method), INITIAL + 2 * expected, rtol=1e-5, atol=1e-5)
    assert create(method.spec) == method


def test_rules_for_several_vectors_leave_one_as_it_is():
    for rule in ("awd", "consensus"):
        one = TaskPromptVectors("mr", rule)
        np.testing.assert_allclose(start(one), INITIAL + C, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(start(TaskPromptVectors("none", rule)), INITIAL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agree": 3}, "agree is of combine=consensus"),
        ({"combine": "awd", "keep": 0.5}, "keep is of combine=ties"),
        ({"combine": "ties", "keep": 0.0}, r"keep in \(0, 1\]"),
        ({"combine": "consensus", "threshold": -1.0}, "threshold must not be negative"),
    ],
)
def test_options_of_other_rules_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TaskPromptVectors(**options)


def test_vectors_are_measured_from_their_own_origin():
    """tau = P - its initialisation, added to another one."""
    method = TaskPromptVectors(origin="other")
    added = (SOURCES - OTHER).sum(0)
    np.testing.assert_allclose(start(method, OTHER), INITIAL + added, atol=1e-5)
    (sources, target) = method.stages()
    assert (sources.name, sources.origin) == ("foreign_sources", 1)
    assert target.origin == 0


def test_stages():
    sources, target = TaskPromptVectors().stages()
    assert (sources.on, sources.trains, sources.budget, sources.origin) == (
        "source",
        BaseMethod(),
        "source",
        0,
    )
    # With prompt tuning's programs; zero-shot takes no step.
    assert (target.on, target.trains, target.part) == ("target", BaseMethod(), (0.0, 1.0))
    assert TaskPromptVectors(zero_shot=True).stages()[1].part == (0.0, 0.0)


def test_alternatives_are_trials():
    method = create("task_prompt_vectors(vectors=none; mr; rte + mr; all,combine=mean)")
    assert [stage.trials for stage in method.stages()] == [1, 4]
    vectors = (0 * A, C, (A + C) / 2, (A + B + C) / 3)
    groups = ([False] * 3, [False, False, True], [True, False, True], [True] * 3)
    stage = method.stages()[0].name
    for trial, (vector, group) in enumerate(zip(vectors, groups, strict=True)):
        np.testing.assert_allclose(start(method, trial=trial), INITIAL + vector, atol=1e-5)
        artefacts = {stage: Artefact(NAMES, SOURCES, np.zeros(3), (), INITIAL)}
        context = Context(toy.tiny_t5(), INITIAL, 0, "t", trial, artefacts)
        assert method.selected_sources(context, {}).tolist() == group
    # One sum is no choice.
    assert TaskPromptVectors(vectors="mr").selected_sources(context, {}) is None


def test_unknown_and_ambiguous_sources_are_named():
    with pytest.raises(ConfigError, match=r"'mrr' is none of the sources .*Did you mean 'mr'"):
        start(TaskPromptVectors(vectors="mrr + rte"))
    twins = ("a/x", "b/x", "mr")
    with pytest.raises(ConfigError, match="'x' is more than one of the sources"):
        start(TaskPromptVectors(vectors="x"), names=twins)
    np.testing.assert_allclose(
        start(TaskPromptVectors(vectors="b/x"), names=twins), INITIAL + B, atol=1e-5
    )


@pytest.mark.parametrize("expression", ["a +", "2", "a*b"])
def test_a_wrong_sum_is_a_config_error(expression):
    with pytest.raises(ConfigError, match="task_prompt_vectors: expression"):
        create(f"task_prompt_vectors(vectors={expression})")
