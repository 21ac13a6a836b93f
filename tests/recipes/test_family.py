"""ATTEMPT and MPT through all of their stages, with targets that are trained together."""

from __future__ import annotations

import numpy as np
import pytest

from prompt_jax.methods import create, trained
from prompt_jax.methods.mpt import decomposed
from prompt_jax.recipes.outputs import PromptWriter


def outcomes_of(executor, spec):
    made = executor(shots=(4,), seeds=1, methods=(spec,))
    return made, made.run(spec, 4)


@pytest.mark.slow
def test_attention_is_trained_on_the_sources_and_shared_by_the_targets(executor, world, tmp_path):
    spec = "attempt(width=4,pretrained=true,shared=true)"
    made, outcomes = outcomes_of(executor, spec)
    assert [label.split(": ")[1] for label, _, _ in made.reused] == [
        "sources",
        "attention",
        "targets",
        "target, k = 4",
    ]
    one, two = (outcome.trained.params for outcome in outcomes)
    np.testing.assert_array_equal(one["down"], two["down"])
    assert np.abs(one["prompt"] - two["prompt"]).max() > 0
    for outcome in outcomes:
        assert outcome.trained.prompt is None
        assert np.isfinite(outcome.test.scores).all()
        assert (outcome.trained.steps, outcome.cost.target_steps) == (0, 3)
        assert outcome.cost.source_steps == 2 * 6 + 6
    # What is deployed is a file that computes the prompt of any row.
    writer, warnings = PromptWriter(tmp_path, made.config, world.lm), []
    task = made.rows.task(outcomes[1].key.task)
    writer.method(spec, task, create(spec), outcomes[1], warnings.append)
    assert warnings == []
    kept = trained.load(writer.written[0], model=world.lm)
    np.testing.assert_array_equal(kept.params["prompt"], two["prompt"])
    assert kept.record.task == "two"


@pytest.mark.slow
def test_factors_are_distilled_from_the_sources_and_each_target_has_its_own(executor):
    made, outcomes = outcomes_of(executor, "mpt(shared=true)")
    assert [label for label, _, _ in made.reused] == [
        "prompt_tuning: sources",
        "mpt_tasks(distil=0.9): student",
        "mpt_tasks: targets",
        "mpt(shared=true): target, k = 4",
    ]
    one, two = (outcome.trained for outcome in outcomes)
    np.testing.assert_array_equal(one.params["prompt"], two.params["prompt"])
    for found in (one, two):
        assert found.params["cols"].shape[0] == 1
        np.testing.assert_allclose(found.prompt, decomposed(**found.params)[0], rtol=1e-6)
    assert np.abs(one.prompt - two.prompt).max() > 0
    # Alone, the target goes on from the same student.
    again, (alone, _) = outcomes_of(executor, "mpt")
    assert [found for _, found, _ in again.reused] == [2, 1, 0]
    assert alone.trained.steps == 3


def test_targets_that_form_groups_deploy_the_prompt_of_their_group(executor, pretender):
    spec = "dmtg(shared=true)"
    made, outcomes = outcomes_of(executor, spec)
    assert [(stage, names) for stage, names, _ in pretender.calls] == [
        ("dmtg(shared=true): targets", ["mixture k=4 seed=0"])
    ]
    contexts = made.contexts(spec, 4)
    for outcome in outcomes:
        joint = contexts[outcome.key].artefact("targets").params[0]
        place = made.config.targets.index(outcome.key.task)
        group = joint["membership"][place].argmax()
        np.testing.assert_array_equal(outcome.trained.prompt, joint["prompts"][group])
        assert (outcome.trained.steps, outcome.cost.target_steps) == (0, 3)
        assert (outcome.cost.source_steps, outcome.chosen) == (0, None)


def test_a_target_joins_the_groups_of_the_sources(executor, pretender):
    made, outcomes = outcomes_of(executor, "dmtg")
    assert [stage for stage, _, _ in pretender.calls] == [
        "dmtg(shared=true): groups",
        "dmtg: target, k = 4",
    ]
    for outcome in outcomes:  # all memberships are even: every source is in the first group
        assert outcome.chosen == tuple(made.rows.task(name).name for name in made.config.sources)
        prompts = outcome.trained.params["prompts"]
        np.testing.assert_array_equal(prompts.shape[0], 3)
        assert outcome.cost.source_steps == 6


def test_the_recipe_of_mvlpt_trains_one_prompt_for_all_targets(executor, pretender):
    """Two mixtures, of the initialisations of two seeds; their average goes on, on both targets."""
    spec = "spot(variant=mixture,origins=2,joint=true)"
    made, outcomes = outcomes_of(executor, spec)
    assert [(label, len(runs)) for label, runs, _ in pretender.calls] == [
        ("prompt_tuning: mixture", 1),
        ("prompt_tuning: mixture 2", 1),
        (f"{spec}: targets", 1),
    ]
    starts = [np.asarray(made.initial(seed).embeddings) for seed in (0, 1)]
    (joint,) = (run for (label, _), run in pretender.runs.items() if "targets" in label)
    np.testing.assert_allclose(joint.params["prompt"], np.mean(starts, 0) + 0.5, rtol=1e-5)
    assert joint.feed.batch_size == 2 * made.config.few_shot.batch_size
    assert len(joint.dev_parts) == 2
    for outcome in outcomes:
        np.testing.assert_allclose(outcome.trained.prompt, joint.params["prompt"] + 0.5, rtol=1e-6)
        assert outcome.cost.target_steps == made.config.few_shot.steps
        assert outcome.cost.source_steps == 2 * 6
