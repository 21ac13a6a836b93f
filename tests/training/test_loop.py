"""The loop: runs do not touch each other, the best step is kept, stopping frees rows."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
import toy
from methods.toy_methods import Attentive, Dying, Grouped

from prompt_jax import sharding, training
from prompt_jax.errors import ConfigError, ModelError, PromptError, TrainingError
from prompt_jax.evaluation import Job, evaluate
from prompt_jax.evaluation.sweep import embed_rows
from prompt_jax.methods import Context, FullFineTuning, PromptTuning
from prompt_jax.models.t5.partition import T5_RULES
from prompt_jax.training import deployed, loop, step
from prompt_jax.training import population as population_module
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.loop import train
from prompt_jax.training.protocol import Rows
from prompt_jax.training.types import TrainConfig

PLAIN = PromptTuning()


def population():
    """Seven runs on different tasks, with other lengths, numbers of labels, rates and answers."""
    return [
        toy.make_run(
            seed,
            labels=2 + seed % 3,
            longest=14 if seed % 2 else 8,
            answer=2 + seed % 2,
            rows=20 + 7 * seed,
            rate=1.0 / (1 + seed % 3),
        )
        for seed in range(7)
    ]


# Runs never touch each other


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_alone_as_in_a_population(optimizer):
    """Twenty steps, to 1e-5 of the prompt's norm; measured: 4e-7 AdamW, 3e-6 Adafactor."""
    runs = population()
    config = toy.budget(20, name=optimizer, learning_rate=0.3, unit="absolute", clip_norm=1.0)
    together = train(toy.tiny_t5(), PLAIN, runs, config)
    for r in (0, 3, 6):
        (alone,) = train(toy.tiny_t5(), PLAIN, [runs[r]], config)
        relative, largest = toy.distance(alone.prompt, together[r].prompt)
        print(f"{optimizer} run {r}: relative {relative:.1e}, largest {largest:.1e}")
        assert relative < 1e-5
        assert toy.distance(alone.prompt, runs[r].params["prompt"])[0] > 0.1  # it did move
        for name in ("steps", "rows_seen", "tokens_seen", "targets_seen"):
            assert getattr(alone, name) == getattr(together[r], name)


@pytest.mark.slow
def test_neighbours_of_a_nan_are_bit_identical():
    """One run starts from NaN, another overflows at its first update."""
    config = toy.budget(4, learning_rate=0.3, unit="absolute", clip_norm=1.0)
    runs = population()
    clean = train(toy.tiny_t5(), PLAIN, runs, config)
    bad = population()
    bad[2].params["prompt"][1, 3] = math.nan
    bad[5] = toy.make_run(5, split=bad[5].feed.split, rate=1e40)
    recorder = toy.Recorder()
    with np.errstate(over="ignore"):
        dirty = train(toy.tiny_t5(), PLAIN, bad, config, tracker=recorder)
    for r in (0, 1, 3, 4, 6):
        assert np.array_equal(clean[r].prompt, dirty[r].prompt)
        assert dirty[r].healthy
        assert recorder.of("loss", runs[r].key) == pytest.approx(
            recorder.of("loss", runs[r].key), abs=0
        )
    assert not dirty[2].healthy
    assert not dirty[5].healthy
    np.testing.assert_array_equal(dirty[2].prompt, bad[2].params["prompt"])
    np.testing.assert_array_equal(dirty[5].prompt, bad[5].params["prompt"])  # its last good state
    events = [(e["task"], e["step"], e["last_good_step"]) for e in recorder.records if "event" in e]
    assert events == [("run2", 1, 0), ("run5", 1, 0)]  # once each
    assert len(recorder.of("loss", bad[2].key)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("dev", [False, True])
def test_replica_that_diverges_keeps_its_last_good_state(dev):
    """It keeps its last good state; one that is alone stops the loop."""

    def make(seed, dies):
        consts = {"dies": np.int32(dies)}
        return toy.make_run(seed, consts=consts, dev=dev and seed == 1)

    config = toy.budget(6, eval_every=2 if dev else 0, learning_rate=0.3, unit="absolute")
    short = toy.budget(3, eval_every=2 if dev else 0, learning_rate=0.3, unit="absolute")
    recorder = toy.Recorder()
    clean = train(toy.tiny_t5(), Dying(), [make(s, -1) for s in range(2)], config)
    dirty = train(
        toy.tiny_t5(),
        Dying(),
        [make(s, 3 if s == 1 else -1) for s in range(2)],
        config,
        tracker=recorder,
    )
    assert np.array_equal(clean[0].prompt, dirty[0].prompt)
    assert [r.healthy for r in dirty] == [True, False]
    assert [e["step"] for e in recorder.records if "event" in e] == [4]
    three = train(toy.tiny_t5(), Dying(), [make(s, -1) for s in range(2)], short)[1]
    if dev:
        assert [step for step, _ in dirty[1].history] == [0, 2]
        assert dirty[1].best_step in (0, 2)
    else:
        np.testing.assert_array_equal(dirty[1].prompt, three.prompt)
        assert dirty[1].best_step == 3


@pytest.mark.slow
def test_training_ends_when_every_replica_has_diverged():
    recorder = toy.Recorder()
    runs = [toy.make_run(s, consts={"dies": np.int32(2)}) for s in range(2)]
    dead = train(toy.tiny_t5(), Dying(), runs, toy.budget(50), tracker=recorder)
    assert [r.steps for r in dead] == [3, 3]
    assert [r.best_step for r in dead] == [2, 2]
    assert recorder.notes[-1] == (3, "stopped")


@pytest.mark.slow
def test_a_nan_before_the_first_step_is_not_patience():
    """The development value of a NaN prompt is no number: the run is dead, not early stopped."""
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    runs[1].params["prompt"][:] = math.nan
    config = toy.budget(4, eval_every=1, patience=1, learning_rate=1e-9, unit="absolute")
    one, two, _ = train(toy.tiny_t5(), PLAIN, runs, config)
    assert one.healthy
    assert not two.healthy
    assert math.isnan(two.best_value)
    assert two.best_step == 0


# One compilation per shape


def test_programs_are_compiled_once_per_shape():
    """Many steps and two populations, and another budget: nothing is compiled again."""
    runs = population()
    config = toy.budget(4, learning_rate=0.3, b1=0.5)
    programs = step.programs(PLAIN, config.optimizer)
    other = step.programs(PLAIN, toy.budget(4, name="adafactor", b1=0.5).optimizer)
    assert other.micro is programs.micro
    shapes = set()
    original = loop.Population._micro

    def seen(self, table, sums, batch):
        shapes.add((batch.input_ids.shape, batch.labels.shape))
        return original(self, table, sums, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Population, "_micro", seen)
        train(toy.tiny_t5(), PLAIN, runs, config)
        first = programs.micro._cache_size()
        assert len(shapes) <= 3
        sizes = (programs.prepare._cache_size(), programs.finish._cache_size())
        assert sizes == (1, 1)
        train(toy.tiny_t5(), PLAIN, population(), config)
    assert programs.micro._cache_size() == first
    assert (programs.prepare._cache_size(), programs.finish._cache_size()) == sizes


# Devices


@pytest.mark.multidevice
@pytest.mark.parametrize("sizes", [(8, 1), (4, 2)])
def test_losses_do_not_depend_on_the_mesh(sizes):
    """Eight devices over the rows, or 4 over rows and 2 over weights: 1e-5 after 5 steps."""
    runs = [toy.make_run(seed, dev=seed == 0 and sizes == (8, 1)) for seed in range(3)]
    config = toy.budget(
        5, learning_rate=0.3, unit="absolute", clip_norm=1.0, micro_batch_tokens=96 // sizes[0]
    )
    plain, spread = toy.Recorder(), toy.Recorder()
    one = train(
        toy.tiny_t5(),
        PLAIN,
        runs,
        toy.budget(5, learning_rate=0.3, unit="absolute", clip_norm=1.0),
        tracker=plain,
    )
    mesh = sharding.make_mesh(*sizes)
    lm = sharding.shard_tree(toy.tiny_t5(), T5_RULES, mesh)
    many = train(lm, PLAIN, runs, config, mesh=mesh, tracker=spread)
    np.testing.assert_allclose(spread.of("loss"), plain.of("loss"), rtol=1e-5)
    worst = max(abs(a / b - 1) for a, b in zip(spread.of("loss"), plain.of("loss"), strict=True))
    relative = [toy.distance(b.prompt, a.prompt)[0] for a, b in zip(one, many, strict=True)]
    print(f"mesh {sizes}: losses {worst:.1e}, prompts {max(relative):.1e}")
    assert max(relative) < 1e-5
    assert one[0].history == many[0].history


# Development set, best step, stopping


def script(monkeypatch, values):
    """Development values per run name, in the order in which they are asked for."""
    iterators = {name: iter(v) for name, v in values.items()}
    asked = []

    def development(self, having):
        names = [self.replicas[r].key.task for r in having]
        asked.append(names)
        return [next(iterators[name]) for name in names]

    monkeypatch.setattr(loop.Population, "_development", development)
    return asked


@pytest.mark.slow
def test_train_returns_the_best_step(monkeypatch):
    """run0 is best after 2 steps, run1 at the start, run2 at the end."""
    script(monkeypatch, {"run0": [0.1, 0.9, 0.5], "run1": [0.8, 0.8, 0.1], "run2": [0.0, 0.1, 0.2]})
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    options = {"learning_rate": 0.3, "unit": "absolute"}
    kept = train(toy.tiny_t5(), PLAIN, runs, toy.budget(4, eval_every=2, **options))
    assert [r.best_step for r in kept] == [2, 0, 4]
    assert [r.best_value for r in kept] == [0.9, 0.8, 0.2]
    assert kept[0].history == ((0, 0.1), (2, 0.9), (4, 0.5))
    bare = [toy.make_run(s) for s in range(3)]
    two = train(toy.tiny_t5(), PLAIN, bare, toy.budget(2, **options))
    four = train(toy.tiny_t5(), PLAIN, bare, toy.budget(4, **options))
    np.testing.assert_array_equal(kept[0].prompt, two[0].prompt)
    np.testing.assert_array_equal(kept[1].prompt, runs[1].params["prompt"])
    np.testing.assert_array_equal(kept[2].prompt, four[2].prompt)
    assert math.isnan(four[0].best_value)
    assert four[0].best_step == 4
    assert four[0].history == ()


def test_start_wins_only_where_keep_start_allows_it(monkeypatch):
    """Its value is not asked for; who dies before the first one keeps the last good state."""
    asked = script(monkeypatch, {"run0": [0.3, 0.2], "run1": [0.9, 0.3, 0.2], "run2": [0.0, 0.0]})
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    runs = [dataclasses.replace(run, keep_start=s == 1) for s, run in enumerate(runs)]
    runs[2].params["prompt"][0, 0] = math.nan
    trained = train(toy.tiny_t5(), PLAIN, runs, toy.budget(4, eval_every=2))
    assert asked[0] == ["run1"]
    assert [r.best_step for r in trained] == [2, 0, 0]
    assert trained[0].history == ((2, 0.3), (4, 0.2))
    assert math.isnan(trained[2].best_value)
    assert not trained[2].healthy


def test_patience_stops_a_replica_and_frees_its_rows(monkeypatch):
    asked = script(
        monkeypatch,
        {
            "run0": [0.1, 0.2, 0.3, 0.4, 0.5],
            "run1": [0.5, 0.4, 0.3],
            "run2": [0.5, 0.4, 0.6, 0.5, 0.5],
        },
    )
    rows = []
    original = loop.Population._micro

    def count(self, table, sums, batch):
        rows.append(int(batch.real.sum()))
        return original(self, table, sums, batch)

    monkeypatch.setattr(loop.Population, "_micro", count)
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    config = toy.budget(4, eval_every=1, patience=2)
    trained = train(toy.tiny_t5(), PLAIN, runs, config)
    assert [r.steps for r in trained] == [4, 2, 4]
    assert [r.best_step for r in trained] == [4, 0, 2]
    assert [r.rows_seen for r in trained] == [4 * toy.B, 2 * toy.B, 4 * toy.B]
    assert sum(rows) == (3 + 3 + 2 + 2) * toy.B
    assert asked == [["run0", "run1", "run2"]] * 3 + [["run0", "run2"]] * 2
    for run, result in zip(runs, trained, strict=True):
        picked = np.concatenate([run.feed.rows(step) for step in range(result.steps)])
        assert result.tokens_seen == run.feed.split.inputs.lengths[picked].sum()
        assert result.targets_seen == run.feed.split.targets.lengths[picked].sum()
        assert result.healthy


def test_training_ends_when_every_replica_has_stopped(monkeypatch):
    script(monkeypatch, {f"run{s}": [0.5, 0.1, 0.1] for s in range(3)})
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    trained = train(toy.tiny_t5(), PLAIN, runs, toy.budget(9, eval_every=2, patience=1))
    assert [r.steps for r in trained] == [2, 2, 2]


@pytest.mark.slow
def test_evaluation_is_of_the_replica_s_own_prompt():
    """The development value is what `evaluate` says about the trained prompt."""
    runs = [toy.make_run(s, dev=True) for s in range(3)]
    trained = train(toy.tiny_t5(), PLAIN, runs, toy.budget(3, learning_rate=1.0, unit="absolute"))
    prompts = np.stack([result.prompt for result in trained])
    jobs = [Job(run.dev, r) for r, run in enumerate(runs)]
    said = evaluate(toy.tiny_t5(), jobs, prompts, metrics=("accuracy",))
    for result, evaluation in zip(trained, said, strict=True):
        assert result.best_value == evaluation.metrics["accuracy"]
        assert result.best_value == dict(result.history)[result.best_step]


@pytest.mark.slow
def test_row_wise_prompts_are_evaluated_row_by_row():
    """Each row under the prompt that its own run makes of it, in batches of all runs' rows."""
    lm, method = toy.tiny_t5(), Attentive()
    made = [method.init(Context(lm, toy.prompt(r), r, "t")) for r in range(2)]
    splits = [toy.make_split(16, seed=r) for r in range(2)]
    params, consts = (toy.stack([m[i] for m in made]) for i in range(2))
    jobs = [Job(splits[r], r) for r in (1, 0)]
    names = [("accuracy",)] * 2
    results = deployed.evaluate_runs(lm, method, params, consts, jobs, names)
    for result, job in zip(results, jobs, strict=True):
        rows, split = np.arange(16), job.split
        ids = split.inputs.padded(rows, 8)
        mask = (np.arange(8)[None] < split.inputs.lengths[:, None]).astype(np.int32)
        ones, embedded = np.ones(16, np.float32), lm.embed(ids)
        seen = Rows(ids, mask, split.task, split.template, ones, embedded)
        prompts = method.prompts(*made[job.prompt], (), seen, np.int32(0), None).prompts[0]
        nll, tokens = lm.rank(ids, mask, split.candidate_matrix(rows), prompts)
        np.testing.assert_allclose(result.scores, nll / tokens, rtol=1e-4)
    assert deployed.evaluate_runs(lm, method, params, consts, [], []) == []


@pytest.mark.parametrize(
    ("every", "steps", "expected"), [(0, 7, [7]), (3, 7, [3, 6, 7]), (9, 7, [7]), (7, 7, [7])]
)
def test_development_set_is_read_at_eval_every(every, steps, expected):
    config = TrainConfig(steps=steps, eval_every=every)
    assert [s for s in range(1, steps + 1) if config.evaluates_at(s)] == expected


# Rates


def test_learning_rate_per_replica_and_unit():
    """`rate` multiplies the learning rate; `embedding_rms` multiplies it by the table's RMS."""
    lm = toy.tiny_t5()
    rms = float(np.sqrt(np.mean(np.square(np.asarray(lm.params["shared"], np.float64)))))
    runs = [toy.make_run(0), toy.make_run(0, rate=0.5), toy.make_run(1)]
    absolute = train(lm, PLAIN, runs, toy.budget(3, learning_rate=0.2 * rms, unit="absolute"))
    relative = train(lm, PLAIN, runs, toy.budget(3, learning_rate=0.2, unit="embedding_rms"))
    half = train(lm, PLAIN, runs, toy.budget(3, learning_rate=0.1, unit="embedding_rms"))
    for one, two in zip(absolute, relative, strict=True):
        assert toy.distance(one.prompt, two.prompt)[0] < 1e-5
    assert toy.distance(half[0].prompt, relative[1].prompt)[0] < 1e-6
    moved = [np.linalg.norm(r.prompt - toy.prompt(0)) for r in relative]
    assert moved[0] > 1.5 * moved[1]


def test_schedule_reaches_the_step():
    """Linear decay over two steps is a full and a half step of a constant rate."""
    runs = [toy.make_run(0)]
    options = {"learning_rate": 0.2, "unit": "absolute", "b1": 0.0, "b2": 0.0}
    (whole,) = train(toy.tiny_t5(), PLAIN, runs, toy.budget(1, **options))
    (decayed,) = train(toy.tiny_t5(), PLAIN, runs, toy.budget(2, schedule="linear", **options))
    (warm,) = train(toy.tiny_t5(), PLAIN, runs, toy.budget(1, warmup_steps=4, **options))
    # Adam without memory steps by the rate times the sign of the gradient.
    first = np.abs(whole.prompt - toy.prompt(0))
    np.testing.assert_allclose(first, 0.2, rtol=1e-3)
    np.testing.assert_allclose(np.abs(warm.prompt - toy.prompt(0)), 0.05, rtol=1e-3)
    np.testing.assert_allclose(np.abs(decayed.prompt - whole.prompt), 0.1, rtol=1e-3)


# What is refused


def test_train_refuses_impossible_replicas():
    lm, run = toy.tiny_t5(), toy.make_run(0)
    with pytest.raises(ConfigError, match="at least one replica"):
        train(lm, PLAIN, [], toy.budget(1))
    with pytest.raises(ConfigError, match="batch_size=3"):
        train(lm, PLAIN, [run], toy.budget(1, batch_size=3))
    odd = toy.make_run(1, params={"prompt": np.zeros((toy.L + 1, toy.D), np.float32)})
    with pytest.raises(ConfigError, match="replica run1 seed=1 has parameters"):
        train(lm, PLAIN, [run, odd], toy.budget(1))
    tree = toy.make_run(1, params={"other": toy.prompt()})
    with pytest.raises(ConfigError, match="replica run1 seed=1 has parameters"):
        train(lm, PLAIN, [run, tree], toy.budget(1))
    full = toy.make_run(0, params={"lm": lm.params})
    with pytest.raises(ConfigError, match="one by one"):
        train(lm, FullFineTuning(), [full, full], toy.budget(1))
    wide = toy.make_run(0, params={"prompt": np.zeros((toy.L, toy.D + 1), np.float32)})
    with pytest.raises(PromptError, match="d_model"):
        train(lm, PLAIN, [wide], toy.budget(1))


def test_train_refuses_tokens_of_another_model():
    """A token outside the vocabulary embeds as NaN: it is an error, not a run that dies."""
    split = toy.make_split()
    split.inputs.values[5] = toy.CONFIG.vocab_size
    with pytest.raises(ModelError, match="vocabulary"):
        train(toy.tiny_t5(), PLAIN, [toy.make_run(0, split=split)], toy.budget(1))
    split = toy.make_split()
    split.targets.values[0] = toy.CONFIG.vocab_size + 7
    with pytest.raises(ModelError, match="a target of toy holds token 135"):
        train(toy.tiny_t5(), PLAIN, [toy.make_run(0, split=split)], toy.budget(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"log_every": 0},
        {"eval_every": -1},
        {"patience": -1},
        {"micro_batch_tokens": -5},
    ],
)
def test_impossible_budgets_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_out_of_memory_error_says_what_to_lower(monkeypatch):
    programs = step.programs(PLAIN, toy.budget(1).optimizer)

    def full(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    def broken(*args):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(population_module, "programs", lambda *args: programs._replace(micro=full))
    with pytest.raises(TrainingError, match=r"8 rows x 12 tokens.*micro_batch_tokens \(now 192\)"):
        train(toy.tiny_t5(), PLAIN, [toy.make_run(0)], toy.budget(1))
    monkeypatch.setattr(
        population_module, "programs", lambda *args: programs._replace(micro=broken)
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        train(toy.tiny_t5(), PLAIN, [toy.make_run(0)], toy.budget(1))


# What is logged


def test_log_lines():
    recorder = toy.Recorder()
    runs = [toy.make_run(s, dev=s == 0) for s in range(3)]
    train(toy.tiny_t5(), PLAIN, runs, toy.budget(5, log_every=2), stage="here", tracker=recorder)
    assert recorder.started == [("here", 5, 3)]
    assert [r["step"] for r in recorder.records if "loss" in r and r["task"] == "run1"] == [2, 4, 5]
    assert [r["step"] for r in recorder.records if "dev" in r] == [0, 5]
    assert {r["task"] for r in recorder.records if "dev" in r} == {"run0"}
    assert all(r["gradient_norm"] > 0 for r in recorder.records if "loss" in r)
    assert [step for step, _ in recorder.notes] == [2, 4, 5]


@pytest.mark.slow
def test_a_method_s_own_numbers_are_logged():
    """Of each run, as numbers and nested lists, from the parameters the step started with."""
    runs = []
    for seed in range(2):
        params, consts = Grouped().init(Context(toy.tiny_t5(), toy.prompt(seed), seed, "t"))
        runs.append(toy.make_run(seed, params=params, consts=consts))
    recorder = toy.Recorder()
    config = toy.budget(3, log_every=2, learning_rate=0.1, unit="absolute")
    trained = train(toy.tiny_t5(), Grouped(), runs, config, tracker=recorder)
    assert [(r["task"], r["step"]) for r in recorder.records if "group" in r] == [
        ("run0", 2),
        ("run1", 2),
        ("run0", 3),
        ("run1", 3),
    ]
    for run, result in zip(runs, trained, strict=True):
        assert [len(g) for g in recorder.of("group", run.key)] == [3, 3]
        assert all(isinstance(x, bool) for g in recorder.of("group", run.key) for x in g)
        assert all(isinstance(x, float) for x in recorder.of("changes", run.key))
        second, third = (np.asarray(s, np.float32) for s in recorder.of("scales", run.key))
        assert second.shape == third.shape == (3, toy.L)
        assert not np.array_equal(second, third)
        assert not np.array_equal(third, result.params["source_scales"])  # before its update
    one = train(toy.tiny_t5(), Grouped(), runs, toy.budget(1, learning_rate=0.1, unit="absolute"))
    np.testing.assert_array_equal(
        np.asarray(recorder.of("scales", runs[0].key)[0], np.float32),
        one[0].params["source_scales"],
    )


def test_a_method_may_not_log_under_the_trainer_s_names():
    class Greedy(PromptTuning):
        def metrics(self, params, consts, prompted):
            return {"loss": params["prompt"].sum()}

    with pytest.raises(ValueError, match="loss is the trainer's"):
        train(toy.tiny_t5(), Greedy(), [toy.make_run(0)], toy.budget(1))


def test_train_leaves_the_caller_s_arrays():
    """Programs donate their state; what the caller passed in is never a part of it."""
    params = [{"prompt": jax.numpy.asarray(toy.prompt(s))} for s in range(3)]
    runs = [toy.make_run(s, params=p) for s, p in enumerate(params)]
    before = [array_hash(r.params) for r in runs]
    train(toy.tiny_t5(), PLAIN, runs, toy.budget(2))
    assert before == [array_hash(r.params) for r in runs]


@pytest.mark.parametrize(("old", "new"), [("Run", "Replica"), ("TrainedRun", "TrainedReplica")])
def test_the_old_names_still_work_and_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"training.{old} is now called {new}"):
        assert getattr(training, old) is getattr(training, new)
    with pytest.raises(AttributeError, match="no attribute 'Runs'"):
        _ = training.Runs


def test_embeddings_are_made_for_the_rows_of_the_step():
    """By the frozen model, as an argument of the program; rows of other methods have none."""
    lm, method = toy.tiny_t5(), Attentive()
    made = [method.init(Context(lm, toy.prompt(r), r, "t")) for r in range(2)]
    runs = [toy.make_run(r, params=p, consts=c) for r, (p, c) in enumerate(made)]
    population = loop.Population(lm, method, runs, toy.budget(1))
    seen = []
    prepare = population.programs.prepare
    population.programs = population.programs._replace(
        prepare=lambda *args: seen.append(args[2]) or prepare(*args)
    )
    population.step(0)
    (rows,) = seen
    assert rows.embedded.shape == (2, toy.B, population.input_width, toy.D)
    np.testing.assert_array_equal(rows.embedded, lm.embed(rows.input_ids))
    # The compiled program takes the table from the model, once.
    compiled = embed_rows.lower(lm, rows._replace(embedded=None)).compile()
    table = lm.embed(np.arange(toy.CONFIG.vocab_size))
    assert f"f32[2,{','.join(map(str, table.shape))}]" not in compiled.as_text()
    plain = loop.Population(lm, PLAIN, [toy.make_run(0)], toy.budget(1))
    assert plain._method_rows(np.zeros((1, toy.B), np.int64)).embedded is None
