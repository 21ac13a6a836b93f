"""A population over a decoder-only model: trainer and evaluators know no family."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy
from methods.test_conformance import context

from prompt_jax import PromptRecord, SoftPrompt, predict
from prompt_jax.errors import PromptError
from prompt_jax.evaluation import Job, evaluate
from prompt_jax.methods import Attempt, BaseMethod, Dmtg, Mpt, MptTasks, PromptTuning
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.loop import train

from .test_resume import facts, killed_before


@pytest.mark.slow
def test_prompts_of_a_population_learn_and_the_weights_stay() -> None:
    lm = toy.tiny_decoder()
    before = array_hash(lm.params)
    recorder = toy.Recorder()
    runs = [toy.make_run(seed, dev=True) for seed in range(2)]
    config = toy.budget(30, learning_rate=0.3, unit="absolute", clip_norm=5.0, eval_every=30)
    trained = train(lm, PromptTuning(), runs, config, tracker=recorder)
    assert array_hash(lm.params) == before
    for run, result in zip(runs, trained, strict=True):
        losses = recorder.of("loss", run.key)
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
        assert result.healthy
    # Each row has its own run's prompt: the other's is worse on it.
    split = runs[0].feed.split
    own, other = evaluate(
        lm,
        [Job(split, 0), Job(split, 1)],
        np.stack([result.prompt for result in trained]),
        metrics=("accuracy",),
    )
    assert own.scores is not None
    assert other.scores is not None
    assert own.scores.min(axis=1).mean() < other.scores.min(axis=1).mean()


@pytest.mark.slow
def test_resumed_training_has_the_same_bits(tmp_path) -> None:
    """Killed between two checkpoints, in the shapes of the test above."""
    lm = toy.tiny_decoder()
    runs = [toy.make_run(seed, dev=True) for seed in range(2)]
    config = toy.budget(6, learning_rate=0.3, unit="absolute", clip_norm=5.0, eval_every=3)
    expected = facts(train(lm, PromptTuning(), runs, config))

    def once():
        kept = Checkpoints(tmp_path, every_steps=2)
        return train(lm, PromptTuning(), runs, config, checkpoints=kept, stage="s")

    with killed_before(5):
        once()
    assert facts(once()) == expected


def test_a_prompt_of_one_family_is_refused_by_the_other(tmp_path) -> None:
    models = (toy.tiny_t5(), toy.tiny_decoder())
    for lm, other in (models, models[::-1]):
        record = PromptRecord(
            model_name=lm.name, model_hash=lm.weights_hash, model_config=lm.model_config
        )
        path = tmp_path / "p.safetensors"
        prompt = SoftPrompt(toy.prompt(0), record)
        prompt.save(path)
        assert SoftPrompt.load(path, model=lm).length == toy.L
        with pytest.raises(PromptError, match=r"was made for base model .* this model is"):
            SoftPrompt.load(path, model=other)
        with pytest.raises(PromptError, match=r"was made for base model .* this model is"):
            predict(other, ["a text"], prompt)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "of", "stage"),
    [
        (Attempt(width=4), Attempt(), "target"),
        (MptTasks(distil=0.5), Mpt(), "student"),
        (Dmtg(shared=True), Dmtg(), "groups"),
    ],
    ids=["attempt", "mpt", "dmtg"],
)
def test_prompts_of_each_row_learn(method: BaseMethod, of: BaseMethod, stage: str) -> None:
    """Attention over embeddings; logits and states of a teacher; weights of several views."""
    lm = toy.tiny_decoder()
    params, consts = method.init(dataclasses.replace(context(of, 0, lm), stage=stage))
    run = toy.make_run(0, params=params, consts=consts, split=toy.make_split(tasks=2), dev=True)
    recorder = toy.Recorder()
    config = toy.budget(20, learning_rate=0.3, unit="absolute", clip_norm=5.0, eval_every=20)
    (trained,) = train(lm, method, [run], config, tracker=recorder)
    losses = recorder.of("loss", run.key)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    assert trained.healthy
    assert trained.prompt is None
