"""Keys of trained runs, and the files under them."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from methods.toy_methods import Distilled

from prompt_jax.data import Example, Mixture, Ragged
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Evaluation
from prompt_jax.methods import PromptTuning, Spot
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes.artefacts import ArtefactStore, TestResult, run_key
from prompt_jax.run_key import RunKey
from prompt_jax.training.fingerprint import array_hash, describe_feed, fingerprint, split_hash
from prompt_jax.training.types import TrainedReplica


def key(run=None, config=None, lm=None, method=None, feed=None):
    run = toy.make_run(0, dev=True) if run is None else run
    return run_key(
        lm or toy.tiny_t5(),
        method or PromptTuning(),
        run,
        config or toy.budget(5),
        feed or describe_feed(run.feed),
    )


def changed(**changes):
    return dataclasses.replace(toy.make_run(0, dev=True), **changes)


def test_a_key_sees_everything_that_training_depends_on():
    one = toy.make_run(0, dev=True)
    other = toy.make_split(seed=0, rows=33)
    other_lm = FrozenT5.from_config(toy.CONFIG, seed=8)
    lm = toy.tiny_t5()
    same_weights = toy.CONFIG.replace(relative_attention_max_distance=64)
    other_config = dataclasses.replace(lm, spec=dataclasses.replace(lm.spec, config=same_weights))
    assert other_config.weights_hash == lm.weights_hash
    keys = {
        "same": key(),
        "seed": key(changed(key=RunKey(seed=1))),
        "rate": key(changed(rate=0.5)),
        "params": key(changed(params={"prompt": toy.prompt(1)})),
        "consts": key(changed(consts={"x": np.ones(2, np.float32)})),
        "rows": key(toy.make_run(0, split=other)),
        "dev": key(changed(dev=one.dev.take(range(3)))),
        "no dev": key(changed(dev=None)),
        "metrics": key(changed(dev_metrics=("macro_f1",))),
        "order": key(feed=describe_feed(toy.make_run(1).feed)),
        "steps": key(config=toy.budget(6)),
        "batch": key(config=toy.budget(5, batch_size=4)),
        "learning rate": key(config=toy.budget(5, learning_rate=0.5)),
        "optimizer": key(config=toy.budget(5, name="adafactor")),
        "patience": key(config=toy.budget(5, patience=2)),
        "method": key(method=Spot()),
        "option": key(method=Spot(top_k=2)),
        "toy option": key(method=Distilled(weight=0.1)),
        "weights": key(lm=other_lm),
        "model config": key(lm=other_config),
        "dtype": key(lm=FrozenT5.from_config(toy.CONFIG, seed=7, dtype=jnp.bfloat16)),
    }
    assert len(set(keys.values())) == len(keys)


def test_a_checkpoint_belongs_to_the_models_configuration_too():
    lm, run = toy.tiny_t5(), toy.make_run(0)
    facts = fingerprint(lm, PromptTuning(), [run], toy.budget(5))
    assert facts["model_config"] == lm.model_config
    assert facts["model_config"]["relative_attention_max_distance"] == 128
    assert facts["tokenizer"] is None


def test_a_key_sees_nothing_else():
    assert key() == key()
    assert key() == key(changed(key=RunKey("another", "stage", "task", 4, 0, 2)))
    assert key() == key(config=toy.budget(5, log_every=3, micro_batch_tokens=1000))


def test_hashes_of_arrays():
    a = np.arange(6, dtype=np.float32)
    trees = [
        {"a": a},
        {"b": a},
        {"a": a.reshape(2, 3)},
        {"a": a.astype(np.float64)},
        {"a": a + 1},
        {"a": a, "b": a[:0]},
        [a],
        {"a": {"a": a}},
        {"a": a[::-1]},
    ]
    assert len({array_hash(tree) for tree in trees}) == len(trees)
    assert array_hash({"a": a}) == array_hash({"a": jnp.asarray(a)})
    assert array_hash({"a": a.reshape(2, 3).T}) == array_hash({"a": a.reshape(2, 3).T.copy()})


def test_a_split_is_hashed_with_its_answers():
    """Also what only the evaluation reads: candidates, their tokens and references."""
    split = toy.make_split(8)
    rows = list(split.examples)
    rows[3] = dataclasses.replace(rows[3], references=("another",))
    others = [
        split.take(range(7)),
        split.take([1, 0, *range(2, 8)]),
        dataclasses.replace(split, label=1 - split.label),
        dataclasses.replace(split, task=split.task + 1),
        dataclasses.replace(split, template=split.template + 1),
        dataclasses.replace(split, targets=split.targets.take(np.roll(np.arange(8), 1))),
        dataclasses.replace(split, candidates=Ragged.of([[1, 0]] * 8)),
        dataclasses.replace(split, answers=Ragged.of([[5, 1], [7, 1]])),
        dataclasses.replace(split, examples=tuple(rows)),
    ]
    assert len({split_hash(s) for s in (split, *others)}) == len(others) + 1
    renamed = dataclasses.replace(split, name="other", notes=("n",))
    assert split_hash(renamed) == split_hash(split)
    assert isinstance(rows[0], Example)


def test_feeds_are_described():
    split = toy.make_split(8, tasks=2)
    feeds = [
        toy.make_run(0).feed,
        toy.make_run(1).feed,
        toy.make_run(0, batch_size=4).feed,
        Mixture(split, 8, 0),
        Mixture(split, 8, 0, mode="uniform"),
        Mixture(split, 8, 0, cap=3),
        Mixture(split, 8, 0, "source"),
    ]
    assert len({describe_feed(feed) for feed in feeds}) == len(feeds)


# The store


def trained(**changes) -> TrainedReplica:
    made = TrainedReplica(
        RunKey(task="r"),
        {"prompt": toy.prompt(), "deep": {"x": np.arange(3, dtype=np.int32)}},
        toy.prompt(),
        4,
        0.75,
        ((0, 0.5), (4, 0.75)),
        6,
        48,
        300,
        96,
        True,
        1.5,
    )
    return dataclasses.replace(made, **changes)


def test_a_trained_replica_is_shown_in_one_line():
    many = tuple((step, 0.5) for step in range(300))
    text = repr(trained(history=many, params={f"p{i}": toy.prompt() for i in range(9)}))
    assert text.startswith("TrainedReplica(key=RunKey(")
    assert "params={9 entries}, prompt=float32[" in text
    assert "history=[300 entries]" in text
    assert len(text) < 500


def test_a_run_comes_back(tmp_path):
    store = ArtefactStore(tmp_path / "deep" / "runs")
    assert store.load("k", RunKey(task="n")) is None
    store.save("k", trained())
    found = store.load("k", RunKey(task="new"))
    assert found.key == RunKey(task="new")
    np.testing.assert_array_equal(found.prompt, toy.prompt())
    np.testing.assert_array_equal(found.params["deep"]["x"], np.arange(3))
    assert found.params["deep"]["x"].dtype == np.int32
    for field in (
        "best_step",
        "best_value",
        "history",
        "steps",
        "rows_seen",
        "tokens_seen",
        "targets_seen",
        "healthy",
        "seconds",
    ):
        assert getattr(found, field) == getattr(trained(), field)
    assert [path.name for path in (tmp_path / "deep" / "runs").iterdir()] == ["k.safetensors"]


def test_nan_and_no_prompt(tmp_path):
    store = ArtefactStore(tmp_path)
    store.save("k", trained(best_value=math.nan, prompt=None, history=((2, math.nan),)))
    found = store.load("k", RunKey(task="n"))
    assert math.isnan(found.best_value)
    assert found.prompt is None
    assert math.isnan(found.history[0][1])


def test_a_damaged_file_is_reported_and_no_artefact(tmp_path, caplog):
    store = ArtefactStore(tmp_path)
    store.save("k", trained())
    path = tmp_path / "k.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in (0, 10, 64, 65, 66, 200, *rng.integers(0, len(whole), 40)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert store.load("k", RunKey(task="n")) is None
    for size in (0, 1, 64, 65, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert store.load("k", RunKey(task="n")) is None
    path.write_bytes(whole + b"x")
    assert store.load("k", RunKey(task="n")) is None
    assert len(caplog.records) == 46 + 6 + 1
    assert all("k.safetensors" in record.getMessage() for record in caplog.records)
    path.write_bytes(whole)
    assert store.load("k", RunKey(task="n")) is not None


def test_no_store(tmp_path):
    store = ArtefactStore(None)
    store.save("k", trained())
    assert store.load("k", RunKey(task="n")) is None


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    store = ArtefactStore(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        store.save("k", trained())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("x")
    with pytest.raises(ConfigError, match=r"data\.cache"):
        ArtefactStore(tmp_path / "runs").save("k", trained())
    assert ArtefactStore(tmp_path / "runs").load("k", RunKey(task="n")) is None


@pytest.mark.parametrize("generated", [False, True])
def test_a_test_result_comes_back(tmp_path, generated):
    """Everything that was measured, and nothing of the parameters."""
    predictions = ["a / b", "é"] if generated else np.asarray([1, 0])
    evaluation = Evaluation(
        {"accuracy": 0.1 + 0.2, "f1": float("nan")},
        predictions,
        {"accuracy": np.asarray([1, 0], np.float32), "a/b": np.zeros(2, np.float32)},
        3,
        None if generated else np.asarray([[0.5, np.inf], [1, 2]], np.float32),
        ties=1,
    )
    result = TestResult(evaluation, 12, {"plain/one": toy.prompt(), "two": toy.prompt(1)})
    store = ArtefactStore(tmp_path)
    assert store.load_test("k", RunKey(task="n")) is None
    store.save_test("k", result)
    again = ArtefactStore(tmp_path).load_test("k", RunKey(task="n"))
    assert again.parameters == 12
    assert array_hash(again.template_prompts) == array_hash(result.template_prompts)
    assert repr(again.evaluation.metrics) == repr(evaluation.metrics)
    assert array_hash(again.evaluation.per_item) == array_hash(evaluation.per_item)
    assert list(again.evaluation.predictions) == list(predictions)
    assert (again.evaluation.unparsable, again.evaluation.ties) == (3, 1)
    if generated:
        assert again.evaluation.scores is None
    else:
        np.testing.assert_array_equal(again.evaluation.scores, evaluation.scores)
    ArtefactStore(None).save_test("k", result)
    assert ArtefactStore(None).load_test("k", RunKey(task="n")) is None


def test_a_replica_without_weights_comes_back(tmp_path):
    store = ArtefactStore(tmp_path)
    store.save("k", trained(params=None))
    found = store.load("k", RunKey(task="n"))
    assert (found.key, found.params, found.seconds) == (RunKey(task="n"), None, 1.5)
    np.testing.assert_array_equal(found.prompt, toy.prompt())
