"""Stages as populations: who trains when, what is reused, chosen and paid for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import toy
from world import TRAIN

from prompt_jax import methods
from prompt_jax.config import to_dict
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Evaluation
from prompt_jax.recipes.outcomes import Cost, cost_of
from prompt_jax.run_key import RunKey
from prompt_jax.training import population
from prompt_jax.training.types import TrainedReplica


def stages(pretender):
    return [(stage, len(names)) for stage, names, _ in pretender.calls]


# Order, sharing, chunks


def give_sources(pretender, world, seeds=(0, 1)):
    """Source prompts that differ by task and seed."""
    rng = np.random.default_rng(0)
    for seed in seeds:
        for source in ("first", "second"):
            name = ("prompt_tuning: sources", f"{world.tasks[source]} seed={seed}")
            pretender.prompts[name] = rng.normal(size=(toy.L, toy.D)).astype(np.float32)


def test_stages_run_in_order_and_sources_once(pretender, executor, world):
    give_sources(pretender, world)
    made = executor()
    for k in (4, 0):
        for spec in ("prompt_tuning", "spot", "spot(variant=best_of_top_k,top_k=2)"):
            made.run(spec, k)
    per_k = [
        ("prompt_tuning: target, {}", 4),
        ("prompt_tuning: probe", 4),
        ("spot: target, {}", 4),
        ("spot(variant=best_of_top_k,top_k=2): target, {}", 8),
    ]
    # Trial 0 of best-of-top-k starts where `nearest` starts: those runs are not trained again.
    few = [(s.format("k = 4"), n) for s, n in per_k]
    few[3] = (few[3][0], 4)
    every = [(s.format("all rows"), n) for s, n in per_k]
    every[3] = (every[3][0], 4)
    assert stages(pretender) == [
        few[0],
        ("prompt_tuning: sources", 4),
        ("prompt_tuning: keys", 4),
        *few[1:],
        *every,
    ]
    assert made.reused[-1] == ("spot(variant=best_of_top_k,top_k=2): target, all rows", 4, 8)
    news = made.stage_summaries()
    assert news[0].endswith("k = 4: 4 replicas")
    assert news[-1].endswith("all rows: 8 replicas, 4 reused")
    assert made.stage_summaries() == []


def test_budgets_follow_stage_and_shots(pretender, executor):
    made = executor()
    for k in (4, 0):
        made.run("spot", k)
        made.run("full_fine_tuning", k)
    steps = {(stage, config.steps) for stage, _, config in pretender.calls}
    assert steps == {
        ("prompt_tuning: sources", 6),
        ("prompt_tuning: keys", 2),
        ("prompt_tuning: probe", 2),
        ("spot: target, k = 4", 3),
        ("spot: target, all rows", 4),
        ("full_fine_tuning: target, k = 4", 1),
        ("full_fine_tuning: target, all rows", 2),
    }


def test_populations_are_cut(pretender, executor):
    executor(population=3).run("prompt_tuning", 0)
    assert [n for _, n in stages(pretender)] == [3, 1]


def test_a_method_that_trains_the_t5_trains_alone_and_keeps_no_weights(pretender, executor):
    made = executor()
    outcomes = made.run("full_fine_tuning", 0)
    assert [n for _, n in stages(pretender)] == [1] * 4
    assert all(o.trained.params is None for o in outcomes)
    weights = sum(x.size for x in toy.tiny_t5().params["encoder"]["layers"]["mlp"].values())
    assert all(o.trained_parameters > weights for o in outcomes)
    # Results are: neither this process nor the next one trains them again.
    for again in (made, executor()):
        for old, new in zip(outcomes, again.run("full_fine_tuning", 0), strict=True):
            assert (new.cost, new.trained_parameters) == (old.cost, old.trained_parameters)
            assert new.test.metrics == old.test.metrics
    assert len(pretender.calls) == 4


# What a run is


def test_runs_start_from_the_seed_s_initial_prompt(pretender, executor, world):
    made = executor()
    made.run("spot", 4)
    for seed in (0, 1):
        initial = np.asarray(made.initial(seed).embeddings)
        for source in ("first", "second"):
            run = pretender.runs["prompt_tuning: sources", f"{world.tasks[source]} seed={seed}"]
            np.testing.assert_array_equal(run.params["prompt"], initial)
            assert run.seed == seed
            assert run.feed.stream == "source"
            assert len(run.feed.split) + len(run.dev) == TRAIN
        target = f"{world.tasks['one']} k=4 seed={seed}"
        probe = pretender.runs["prompt_tuning: probe", target]
        np.testing.assert_array_equal(probe.params["prompt"], initial)
        assert probe.feed.stream == "order"
        assert len(probe.feed.split) == len(probe.dev) == 8  # 4 per class
        start = pretender.runs["spot: target, k = 4", target].params["prompt"]
        np.testing.assert_array_equal(start, initial + 0.5)  # a source prompt of the same seed
    assert not np.array_equal(made.initial(0).embeddings, made.initial(1).embeddings)


def test_only_a_target_may_keep_its_start(pretender, executor):
    """An untrained source would be the nearest to every early target prompt."""
    executor().run("spot", 4)
    kept = {(stage, run.keep_start) for (stage, _), run in pretender.runs.items()}
    assert kept == {
        ("prompt_tuning: sources", False),
        ("prompt_tuning: keys", False),
        ("prompt_tuning: probe", False),
        ("spot: target, k = 4", True),
    }


def test_methods_see_the_templates(pretender, executor, world, monkeypatch):
    """Numbered as the rows' templates; those of the sources as far as rows are under them."""
    seen = []

    class Reader(methods.PromptTuning):
        name = "reader"

        def stages(self):
            return (methods.Stage("mixture", on="mixture", budget="source"), *super().stages())

        def init(self, context):
            seen.append(context)
            return super().init(context)

    monkeypatch.setitem(methods.REGISTRY, "reader", Reader)
    made = executor(seeds=1, data=dataclasses.replace(world.experiment(world.root).data, cache=""))
    made.run("reader", 0)
    mixture, one, two = seen
    names = [(w.task, w.template) for w in mixture.templates]
    assert names == [
        ("first", "plain"),
        ("first", "short"),
        ("second", "plain"),
        ("second", "short"),
    ]
    assert [(w.task, w.template) for w in one.templates] == [("one", "plain"), ("one", "short")]
    assert [w.task for w in two.templates] == ["two", "two"]
    # "{text}" says nothing to every row alike, "sentence: {text}" its first words.
    tokenizer = world.lm.tokenizer
    assert [w.ids for w in one.templates] == [
        tuple(tokenizer.encode(["sentence:"], add_eos=False)[0]),
        (tokenizer.eos_id,),
    ]
    assert mixture.source_templates == one.source_templates == mixture.templates[::2]
    assert mixture.artefacts == {}
    found = one.artefacts["mixture"]
    assert len(found.params) == len(found.names) == 1
    np.testing.assert_array_equal(found.params[0]["prompt"], found.prompts[0])


def test_all_rows_and_shots(pretender, executor, world):
    made = executor()
    made.run("prompt_tuning", 0)
    run = pretender.runs["prompt_tuning: target, all rows", f"{world.tasks['two']} seed=1"]
    assert len(run.feed.split) == TRAIN - 8
    assert len(run.dev) == 8
    assert run.dev_metrics == ("f1", "accuracy")


def test_the_mixture_holds_all_sources(pretender, executor):
    executor().run("spot(variant=mixture)", 0)
    (stage, names, _), *_ = pretender.calls
    assert (stage, names) == ("prompt_tuning: mixture", ["mixture seed=0", "mixture seed=1"])
    run = pretender.runs[stage, names[0]]
    assert run.feed.split.task_names == ("first", "second")
    assert len(run.feed.split) == 2 * (TRAIN - 8)
    assert run.dev is None  # its tasks have no metric in common


@pytest.mark.parametrize("spec", ["spot", "spot(keys=final)"])
def test_a_target_sees_its_own_probe_and_all_sources_of_its_seed(pretender, executor, world, spec):
    """The nearest source is chosen per target and seed, from that seed's keys."""
    made = executor(shots=(0,))
    rng = np.random.default_rng(0)
    random, early = rng.normal(size=(2, 2, 2, toy.L, toy.D)).astype(np.float32)  # [seed, source]
    nearest = {("one", 0): 1, ("one", 1): 0, ("two", 0): 0, ("two", 1): 1}
    for seed in range(2):
        for i, source in enumerate(("first", "second")):
            name = f"{world.tasks[source]} seed={seed}"
            pretender.prompts["prompt_tuning: sources", name] = random[seed, i]
            pretender.prompts["prompt_tuning: keys", name] = early[seed, i]
        for target in ("one", "two"):
            chosen = (early if spec == "spot" else random)[seed, nearest[target, seed]]
            name = f"{world.tasks[target]} seed={seed}"
            pretender.prompts["prompt_tuning: probe", name] = 3 * chosen + 0.01
    made.run(spec, 0)
    for (target, seed), i in nearest.items():
        run = pretender.runs[f"{spec}: target, all rows", f"{world.tasks[target]} seed={seed}"]
        np.testing.assert_array_equal(run.params["prompt"], random[seed, i])


def test_a_target_mixes_the_rows_of_its_nearest_sources(pretender, executor, world):
    made = executor(shots=(4,), seeds=1)
    keys = {"first": 1.0, "second": -1.0}
    for source, sign in keys.items():
        name = f"{world.tasks[source]} seed=0"
        pretender.prompts["prompt_tuning: keys", name] = np.full((toy.L, toy.D), sign, np.float32)
    for target, sign in (("one", -1.0), ("two", 1.0)):
        name = f"{world.tasks[target]} k=4 seed=0"
        pretender.prompts["prompt_tuning: probe", name] = np.full((toy.L, toy.D), sign, np.float32)
    spec = "spot(variant=nearest_mixture,top_k=1)"
    outcomes = made.run(spec, 4)
    assert [outcome.chosen for outcome in outcomes] == [("second",), ("first",)]
    for target, source in (("one", "second"), ("two", "first")):
        name = f"{world.tasks[target]} k=4 seed=0"
        run = pretender.runs["prompt_tuning: mixture", name]
        assert run.feed.split.task_names == (source,)
        np.testing.assert_array_equal(run.params["prompt"], made.initial(0).embeddings)
        start = pretender.runs[f"{spec}: target, k = 4", name].params["prompt"]
        np.testing.assert_array_equal(start, run.params["prompt"] + 0.5)
    cost = outcomes[0].cost
    assert (cost.source_steps, cost.target_steps) == (2 * 2 + 6, 2 + 3)  # its own mixture alone
    assert [found for _, found, _ in made.reused] == [0] * 4
    every = "spot(variant=nearest_mixture,top_k=2)"
    made.run(every, 4)
    runs = [run for (stage, _), run in pretender.runs.items() if stage == "prompt_tuning: mixture"]
    assert {run.feed.split.task_names for run in runs} == {("first", "second")}
    assert len({id(run.feed) for run in runs}) == 1  # the rows are put together once
    assert made.sources(0) == {}


def test_particles_of_the_sources_are_the_prior_of_the_target(pretender, executor, world):
    """Stratified rows, M views, and one trial a width, from parameters and not from a prompt."""
    spec = "bmtpt(particles=3,widths=[inf,5])"
    outcomes = executor(shots=(4,), seeds=1).run(spec, 4)
    (stage, names, budget), (last, targets, _) = pretender.calls
    assert stage == "bmtpt_particles(particles=3): particles"
    feed = pretender.runs[stage, names[0]].feed
    assert feed.mode == "stratified"
    assert feed.split.task_names == ("first", "second")
    particles = pretender.runs[stage, names[0]].params["particles"] + 0.5
    assert targets == [
        f"{world.tasks[t]} k=4 seed=0{trial}" for t in ("one", "two") for trial in ("", " trial=1")
    ]
    for name in targets:
        run = pretender.runs[last, name]
        np.testing.assert_allclose(run.params["prompt"], particles.mean(0), rtol=1e-5, atol=1e-6)
        assert (run.consts["inverse_width"] > 0) == name.endswith("trial=1")
    for outcome in outcomes:
        assert outcome.trials == 2
        assert outcome.cost.source_steps == budget.steps == 6
        assert outcome.cost.target_steps == 2 * 3
    # Three passes of the T5 over every row of the sources.
    one = world.lm.flops(1, 6, 2, backward="prompt")  # the pretender's particles have no prompt
    two = world.lm.flops(1, 6 + toy.L, 2, backward="prompt")
    assert outcomes[0].cost.flops == pytest.approx(6 * toy.B * 3 * one + 2 * 3 * toy.B * two)


def test_particles_with_rows_of_their_own_see_as_many_each(pretender, executor):
    """The same work on five times the rows."""
    shared, own = (
        executor(shots=(4,), seeds=1).run(f"bmtpt(target=zero_shot,batch={batch})", 4)[0].cost
        for batch in ("shared", "own")
    )
    assert shared.flops == pytest.approx(own.flops)
    assert own.rows == 5 * shared.rows
    assert own.target_steps == 0


@pytest.mark.slow
def test_averaged_predictions_of_particles(executor):
    """For real: no step on the target, all particles deployed, their mean kept as the prompt."""
    made = executor(shots=(4,), seeds=1)
    mean, average = (
        made.run(f"bmtpt(particles=2,target={how})", 4) for how in ("zero_shot", "average")
    )
    assert [found for _, found, _ in made.reused] == [0, 0, 1, 0]  # the particles were trained once
    for one, several in zip(mean, average, strict=True):
        particles = several.trained.params["particles"]
        np.testing.assert_allclose(one.trained.prompt, particles.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(several.trained.prompt, one.trained.prompt, rtol=1e-5, atol=1e-6)
        assert one.trained.steps == several.trained.steps == 0
        assert np.isfinite(several.test.scores).all()
        np.testing.assert_allclose(np.exp(-several.test.scores).sum(1), 1, rtol=1e-5)


# Choice


def test_the_best_trial_is_kept_and_all_are_counted(pretender, executor, world):
    spec = "spot(variant=best_of_top_k,top_k=2)"
    made, stage = executor(shots=(0,), seeds=1), f"{spec}: target, all rows"
    give_sources(pretender, world, (0,))
    one, two = (f"{world.tasks[t]} seed=0" for t in ("one", "two"))
    pretender.values[stage, f"{one} trial=1"] = 0.9
    pretender.values[stage, f"{two} trial=1"] = 0.5  # a tie: the first is kept
    first, second = made.run(spec, 0)
    assert (first.key.trial, second.key.trial) == (1, 0)
    assert first.trials == second.trials == 2
    start = pretender.runs[stage, f"{one} trial=1"].params["prompt"]
    np.testing.assert_array_equal(first.trained.prompt, start + 0.5)
    assert first.test.metrics["accuracy"] == pytest.approx(float((start + 0.5).mean()))
    single = executor(shots=(0,), seeds=1).run("spot", 0)[0]
    assert first.cost.target_steps - single.cost.target_steps == 4  # one more trial
    assert first.cost.source_steps == single.cost.source_steps == 12 + 4  # sources and keys


def test_a_trial_that_died_is_not_chosen(pretender, executor, world):
    spec = "spot(variant=best_of_top_k,top_k=2)"
    made, stage = executor(shots=(0,), seeds=1), f"{spec}: target, all rows"
    one, two = (f"{world.tasks[t]} seed=0" for t in ("one", "two"))
    pretender.values[stage, f"{one} trial=1"] = 0.9
    pretender.dead = {(stage, f"{one} trial=1"), (stage, two), (stage, f"{two} trial=1")}
    first, second = made.run(spec, 0)
    assert first.key.trial == 0
    assert not second.trained.healthy


def test_runs_that_died_are_said_once_in_one_line(pretender, executor, world, caplog):
    """Sources that two methods share, and more targets than a line names."""
    one, two = (world.tasks[t] for t in ("one", "two"))
    dead = ("prompt_tuning: sources", f"{world.tasks['first']} seed=0")
    stage = "prompt_tuning: target, all rows"
    every = [f"{task} seed={seed}" for task in (one, two) for seed in range(3)]
    named = [name.replace(" seed", " all rows seed") for name in every]
    pretender.dead = {dead, *((stage, name) for name in every)}
    made = executor(shots=(0,), seeds=3)
    for spec in ("spot", "spot(variant=mixture)", "spot", "prompt_tuning"):
        made.run(spec, 0)
    why = "stopped, for the loss, gradient or update was not finite:"
    advice = "See metrics.jsonl; lower learning_rate."
    assert [record.getMessage() for record in caplog.records] == [
        f"{dead[0]}: {why} {dead[1]}. {advice}",
        f"{stage}: {why} {', '.join(named[:4])} and 2 more. {advice}",
    ]


# Cost and reuse


def without_seconds(outcomes):
    return [dataclasses.replace(o.cost, seconds=0.0) for o in outcomes]


def test_cost_counts_every_stage(pretender, executor):
    made = executor()
    prompt_tuning, spot, mixture = (
        made.run(spec, 4)[0].cost for spec in ("prompt_tuning", "spot", "spot(variant=mixture)")
    )
    assert (prompt_tuning.source_steps, prompt_tuning.target_steps) == (0, 3)
    assert (spot.source_steps, spot.target_steps) == (2 * 6 + 2 * 2, 2 + 3)
    assert (mixture.source_steps, mixture.target_steps) == (6, 3)
    assert spot.rows == (2 * 6 + 2 * 2 + 2 + 3) * toy.B
    one = toy.tiny_t5().flops(1, 6 + toy.L, 2, backward="prompt")
    assert spot.flops == pytest.approx(spot.rows * one)


def test_full_fine_tuning_is_counted_without_prompt_and_with_weight_gradients(pretender, executor):
    cost = executor().run("full_fine_tuning", 0)[0].cost
    assert cost.flops == cost.rows * toy.tiny_t5().flops(1, 6, 2, backward="full")


@pytest.mark.parametrize("on", ["mixture", "targets"])
def test_rows_with_their_own_prompt_and_a_teacher_are_counted_with_both(on):
    """L of the experiment, a pass forward under the teacher's; of two targets, a half each."""
    key, lm = RunKey(), toy.tiny_t5()
    trained = TrainedReplica(key, {}, None, 5, 0.5, (), 5, 40, 240, 80, True, 8.0)
    stage = methods.Stage("student", on=on)
    forward, trains = (lm.flops(1, 6 + 4, 2, backward=how) for how in ("none", "prompt"))
    for method, each in (
        (methods.MptTasks(distil=0.5), trains + forward),
        (methods.MptTasks(), trains),
    ):
        cost = cost_of(lm, method, stage, trained, prompt_tokens=4, targets=2)
        if on == "mixture":
            assert cost == Cost(5, 0, 40, 40 * each, 8.0)
        else:
            assert cost == Cost(0, 5, 20, 20 * each, 4.0)


def test_a_warm_cache_trains_nothing_and_costs_the_same(pretender, executor):
    specs = ("prompt_tuning", "spot", "spot(variant=best_of_top_k,top_k=2)")
    cold = [executor().run(spec, 4) for spec in specs]
    calls = len(pretender.calls)
    warm = [executor().run(spec, 4) for spec in specs]
    assert len(pretender.calls) == calls
    for one, two in zip(cold, warm, strict=True):
        assert [o.cost for o in one] == [o.cost for o in two]  # seconds too: the stored ones
        for a, b in zip(one, two, strict=True):
            assert a.key == b.key
            assert a.test.metrics == b.test.metrics
            np.testing.assert_array_equal(a.trained.prompt, b.trained.prompt)


def test_without_a_cache_everything_is_trained_again(pretender, executor, world, tmp_path):
    data = dataclasses.replace(world.experiment(tmp_path).data, cache="")
    for _ in range(2):
        executor(data=data).run("spot", 4)
    assert len(pretender.calls) == 8
    assert not (tmp_path / "cache").exists()


def test_a_damaged_artefact_is_trained_again(pretender, executor, tmp_path):
    executor().run("spot", 0)
    runs = tmp_path / "cache" / "runs"
    files = sorted(path for path in runs.glob("*.safetensors") if ".test." not in path.name)
    assert len(files) == 16
    pretender.calls.clear()
    files[3].write_bytes(files[3].read_bytes()[:-1])
    made = executor()
    made.run("spot", 0)
    assert [n for _, n in stages(pretender)] == [1]
    assert sum(found for _, found, _ in made.reused) == 15
    pretender.calls.clear()
    executor().run("spot", 0)
    assert not pretender.calls


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"first_seed": 1}, 8),  # seed 1 is known, seed 2 is new
        ({"source": toy.budget(7, eval_every=2, learning_rate=0.5, unit="absolute")}, 4),
        ({"target": toy.budget(4, eval_every=2, learning_rate=0.25, unit="absolute")}, 4),
        ({"name": "other", "population": 2, "shots": (0,)}, 0),
    ],
)
def test_what_changes_is_trained_again(pretender, executor, change, again):
    """The pretended source prompts are their start + 0.5, whatever the budget."""
    executor().run("spot", 0)
    pretender.calls.clear()
    executor(**change).run("spot", 0)
    assert sum(n for _, n in stages(pretender)) == again


def test_changed_rows_are_trained_again(pretender, executor, world, tmp_path):
    executor().run("prompt_tuning", 0)
    pretender.calls.clear()
    data = dataclasses.replace(world.experiment(tmp_path).data, train_rows=20)
    executor(data=data).run("prompt_tuning", 0)
    assert [n for _, n in stages(pretender)] == [4]


def test_sources_are_remembered_by_seed(pretender, executor, world):
    made = executor()
    assert made.sources(0) == {}
    made.run("spot", 4)
    assert sorted(made.sources(1)) == sorted([world.tasks["first"], world.tasks["second"]])


# Small things


def test_costs_add_up():
    one, two = Cost(1, 2, 3, 4.0, 5.0), Cost(10, 20, 30, 40.0, 50.0)
    assert one + two == sum([one, two], Cost()) == Cost(11, 22, 33, 44.0, 55.0)


def test_an_unknown_method_is_refused(executor):
    with pytest.raises(ConfigError, match="unknown method"):
        executor().run("promt_tuning", 0)


# Parts of budgets, other initialisations, no step at all


def staged(monkeypatch, *stages):
    """A method whose contexts are remembered, in place of the registry's `staged`."""
    seen = {}

    class Staged(methods.PromptTuning):
        name = "staged"

        def stages(self):
            return stages

        def init(self, context):
            seen[context.target, context.seed] = context
            return super().init(context)

    monkeypatch.setitem(methods.REGISTRY, "staged", Staged)
    return seen


def test_stages_share_a_budget(pretender, executor, world):
    """As published, DTVG's target gets its budget twice; matched, once."""
    made = executor(shots=(0,), target=toy.budget(10, warmup_steps=4))
    twice = made.run("dtvg", 0)[0].cost
    assert [c.steps for _, _, c in pretender.calls] == [6, 10, 10]
    once = made.run("dtvg(budget=matched)", 0)[0].cost
    first, last = (c for _, _, c in pretender.calls[3:])
    assert (first.steps, last.steps) == (2, 8)
    assert (first.optimizer.warmup_steps, last.optimizer.warmup_steps) == (1, 3)
    # Two lengths of one stage are two lines of a plan; a method's own last stage is one anyway.
    assert [stage for stage, _, _ in pretender.calls[3:]] == [
        "prompt_tuning: first (25% of the steps)",
        "dtvg(budget=matched): target, all rows",
    ]
    assert (once.target_steps, twice.target_steps) == (10, 20)
    assert once.source_steps == twice.source_steps == 12
    # A plain run takes the budget as it is.
    made.run("prompt_tuning", 0)
    assert pretender.calls[-1][2] == made.config.target


def test_more_than_the_budget(pretender, executor, world):
    """Longer, at several rates, and in larger batches: all of it is counted."""
    made = executor(shots=(0,), seeds=1, source=toy.budget(6, warmup_steps=2))
    plain = made.run("prompt_tuning", 0)[0]
    spec = "prompt_tuning(steps=2,rates=[1,3])"
    stage = f"{spec}: target, all rows"
    name = f"{world.tasks['one']} seed=0 trial=1"
    pretender.values[stage, name] = 0.9
    tuned = made.run(spec, 0)[0]
    assert pretender.runs[stage, name].rate == 3.0
    assert pretender.runs[stage, name.removesuffix(" trial=1")].rate == 1.0
    assert (tuned.key.trial, tuned.trials) == (1, 2)
    assert (plain.rate, plain.learning_rate) == (None, 0.5)
    assert (tuned.rate, tuned.learning_rate) == (3.0, 1.5)
    assert (plain.cost.target_steps, tuned.cost.target_steps) == (4, 2 * 2 * 4)
    # The rate of 1 is the long run without a grid.
    made.run("prompt_tuning(steps=2)", 0)
    assert made.reused[-1][1:] == (2, 2)
    mixed = made.run("spot(variant=mixture,steps=3,batch=2)", 0)[0]
    budget = pretender.calls[-2][2]
    assert (budget.steps, budget.batch_size) == (18, 2 * made.config.source.batch_size)
    assert budget.optimizer.warmup_steps == 6
    assert mixed.cost.source_steps == 18


def test_what_a_method_has_chosen(pretender, executor, world):
    made = executor(shots=(0,), seeds=1)
    names = ("first", "second")
    spec = "task_prompt_vectors(vectors=none;second;all)"
    pretender.values[f"{spec}: target, all rows", f"{world.tasks['one']} seed=0 trial=1"] = 0.9
    pretender.values[f"{spec}: target, all rows", f"{world.tasks['two']} seed=0 trial=2"] = 0.9
    assert [outcome.chosen for outcome in made.run(spec, 0)] == [("second",), names]
    assert [outcome.chosen for outcome in made.run("prompt_tuning", 0)] == [None, None]
    assert all(len(outcome.chosen) == 1 for outcome in made.run("spot", 0))


def test_sources_and_target_start_from_one_initialisation(pretender, executor, world):
    """Vectors of one seed are comparable: every first run of it started from the same prompt."""
    made = executor(shots=(0,))
    made.run("dtvg", 0)
    for seed in (0, 1):
        initial = np.asarray(made.initial(seed).embeddings)
        for task in ("first", "second"):
            name = f"{world.tasks[task]} seed={seed}"
            run = pretender.runs["prompt_tuning: sources", name]
            np.testing.assert_array_equal(run.params["prompt"], initial)
        for task in ("one", "two"):
            name = f"{world.tasks[task]} seed={seed}"
            run = pretender.runs["prompt_tuning: first", name]
            np.testing.assert_array_equal(run.params["prompt"], initial)
            last = pretender.runs["dtvg: target, all rows", name]
            np.testing.assert_array_equal(last.consts["init"], initial)
            np.testing.assert_allclose(last.consts["source_vectors"], 0.5, atol=1e-6)
            np.testing.assert_array_equal(last.params["prompt"], initial + 0.5)
            assert (run.keep_start, last.keep_start) == (False, True)


def test_another_origin(pretender, executor, world, monkeypatch):
    stage = methods.Stage("foreign", on="source", trains=methods.BaseMethod(), origin=1)
    seen = staged(monkeypatch, stage, methods.Stage("target", on="target"))
    made = executor(seeds=1, shots=(0,))
    made.run("staged", 0)
    own, other = (np.asarray(made.initial(seed).embeddings) for seed in (0, 1))
    run = pretender.runs["prompt_tuning: foreign", f"{world.tasks['first']} seed=0"]
    np.testing.assert_array_equal(run.params["prompt"], other)
    context = seen[world.tasks["one"], 0]
    np.testing.assert_array_equal(context.initial, own)
    np.testing.assert_array_equal(context.artefact("foreign").initial, other)
    # These are not the experiment's source prompts, which are saved with its initialisation.
    assert made.sources(0) == {}


def test_no_step_at_all(pretender, executor, world, monkeypatch):
    staged(monkeypatch, methods.Stage("target", on="target", part=(0.0, 0.0)))
    made = executor(shots=(0,), seeds=2, population=3)
    outcomes = made.run("staged", 0)
    assert pretender.calls == []
    assert [o.key.seed for o in outcomes] == [0, 1, 0, 1]
    for o in outcomes:
        initial = np.asarray(made.initial(o.key.seed).embeddings)
        np.testing.assert_array_equal(o.trained.prompt, initial)
        assert o.cost == Cost()
        assert o.trained.best_value == pytest.approx(initial.mean())
        assert o.trained.history == ((0, o.trained.best_value),)
        assert o.test.metrics["accuracy"] == pytest.approx(initial.mean())
    assert made.stage_summaries() == ["staged: target, all rows: 4 replicas"]


@dataclass(frozen=True)
class Scaled(methods.BaseMethod):
    """A plug-in that is nowhere registered."""

    factor: float = 2.0

    name = "scaled"

    def init(self, context):
        return {"prompt": self.factor * context.initial}, {}


def test_a_plug_in_needs_no_registration(pretender, executor, world, tmp_path):
    config = world.experiment(tmp_path, methods=(Scaled(3.0), "spot( top_k = 2 )"))
    assert config.method_objects == (Scaled(3.0), methods.Spot(top_k=2))
    assert config.specs == ("scaled(factor=3)", "spot( top_k = 2 )")
    assert to_dict(config)["methods"] == ["scaled(factor=3)", "spot( top_k = 2 )"]
    made = executor(config)
    made.run(config.methods[0], 4)
    run = pretender.runs["scaled(factor=3): target, k = 4", f"{world.tasks['one']} k=4 seed=0"]
    initial = np.asarray(made.initial(0).embeddings)
    np.testing.assert_array_equal(run.params["prompt"], 3 * initial)
    assert run.key.method == "scaled(factor=3)"
    with pytest.raises(ConfigError, match="unknown method 'scaled'"):
        made.run("scaled", 4)


def test_a_method_is_named_once(world, tmp_path):
    with pytest.raises(ConfigError, match=r"methods name 'spot\(top_k=2\)' more than once"):
        world.experiment(tmp_path, methods=(methods.Spot(top_k=2), "spot( top_k = 2 )"))


@pytest.mark.parametrize(("unit", "relative"), [("absolute", False), ("embedding_rms", True)])
def test_contexts_have_the_rate_of_their_stage(pretender, executor, world, unit, relative):
    budget = toy.budget(4, learning_rate=0.5, unit=unit)
    made = executor(shots=(0,), seeds=1, source=budget, target=budget)
    scale = float(world.lm.embedding_rms()) if relative else 1.0
    for spec, factor in (("dtvg(second_rate=0.1)", 0.1), ("dtvg(rates=released_llama)", 1.0)):
        rates = [context.rate for context in made.contexts(spec, 0).values()]
        assert rates == pytest.approx([0.5 * factor * scale] * len(rates))
    none = made.contexts("task_prompt_vectors(zero_shot=true)", 0)
    assert {context.rate for context in none.values()} == {None}


# All targets together


def test_one_replica_trains_on_all_targets_and_each_of_them_takes_its_own(
    pretender, executor, world, monkeypatch
):
    joint = methods.Stage("joint", on="targets", mixing="stratified", rates=(2.0,))
    alone = methods.Stage("target", on="target", part=(0.0, 0.0))
    seen = staged(monkeypatch, joint, alone)
    made = executor(sources=(), methods=("staged",))  # none is needed
    outcomes = made.run("staged", 4)
    assert stages(pretender) == [("staged: joint", 2)]
    (_, names, budget), *_ = pretender.calls
    assert names == ["mixture k=4 seed=0", "mixture k=4 seed=1"]
    assert (budget.steps, budget.batch_size) == (3, 2 * toy.B)
    run = pretender.runs["staged: joint", names[1]]
    assert run.feed.split.task_names == ("one", "two")
    assert (run.feed.mode, run.feed.stream) == ("stratified", "order")
    assert len(run.feed.split) == 2 * 8  # 4 per class
    assert run.feed.batch_size == 2 * toy.B
    assert run.rate == 2.0
    assert run.keep_start
    (one, of_one), (two, of_two) = run.dev_parts
    assert (of_one, of_two) == (("accuracy",), ("f1", "accuracy"))
    assert (set(one.task), set(two.task), len(one), len(two)) == ({0}, {1}, 8, 8)
    together = seen["targets", 1]
    assert (together.stage, together.artefacts) == ("joint", {})
    assert together.targets == (world.tasks["one"], world.tasks["two"])
    assert [w.task for w in together.templates] == ["one", "one", "two", "two"]
    for target in ("one", "two"):
        context = seen[world.tasks[target], 1]
        assert (context.stage, context.targets) == ("target", together.targets)
        found = context.artefact("joint")
        np.testing.assert_array_equal(found.params[0]["prompt"], together.initial + 0.5)
    # Each target is charged for its share: what it would have cost alone.
    costs = without_seconds(outcomes)
    assert costs == [Cost(0, 3, 3 * toy.B, costs[0].flops, 0.0)] * 4
    assert costs[0].flops == pytest.approx(
        3 * toy.B * toy.tiny_t5().flops(1, 6 + toy.L, 2, backward="prompt")
    )


def test_the_development_value_of_several_tasks_is_their_mean(monkeypatch):
    split = toy.make_split()

    def evaluated(lm, method, params, consts, jobs, metrics, mesh):
        assert [job.prompt for job in jobs] == [1, 1, 3]
        each = ({"f1": 0.25, "accuracy": 0.9}, {"accuracy": 0.75}, {"accuracy": 0.1})
        return [Evaluation(values, np.zeros(0), {}, 0) for values in each]

    monkeypatch.setattr(population, "evaluate_runs", evaluated)
    parts = ((split, ("f1", "accuracy")), (split, ("accuracy",)))
    both = dataclasses.replace(toy.make_run(0), dev_parts=parts)
    one = toy.make_run(1, dev=True)
    values = population.development_values(None, None, {}, {}, {1: both, 3: one})
    assert values == [0.5, 0.1]


def test_stages_are_given_what_the_stages_before_them_left(pretender, executor, monkeypatch):
    plain = methods.BaseMethod()
    seen = staged(
        monkeypatch,
        methods.Stage("sources", on="source", trains=plain, budget="source", origin=1),
        methods.Stage("mixture", on="mixture", budget="source"),
        methods.Stage("target", on="target"),
    )
    made = executor(seeds=1)
    made.run("staged", 0)
    found = seen["mixture", 0].artefact("sources")
    assert len(found.prompts) == 2
    np.testing.assert_array_equal(found.initial, made.initial(1).embeddings)
    assert seen["mixture", 0].stage == "mixture"
    assert len(seen["mixture", 0].sources) == 2


def test_contexts_have_rows_of_the_sources(executor, world):
    made = executor(shots=(4,), seeds=1)
    (context, *_) = made.contexts("prompt_tuning", 4).values()
    few = context.instances(3)
    templates = len(context.source_templates)
    assert np.bincount(few.template, minlength=templates).max() == 3
    assert few.ids.shape == few.mask.shape
    names = [f"{words.task}/{words.template}" for words in context.source_templates]
    known = {}
    for source in made.config.sources:
        train = made.rows.rows(source, 0).train
        for i, place in enumerate(train.template):
            name = train.template_names[place]
            known.setdefault(name, set()).add(tuple(train.inputs[i].tolist()))
    for ids, mask, template in zip(*few, strict=True):
        assert tuple(ids[mask.astype(bool)].tolist()) in known[names[template]]
    np.testing.assert_array_equal(context.instances(3).ids, few.ids)
    every = context.instances(10_000)
    assert len(every.ids) == sum(len(made.rows.rows(s, 0).train) for s in made.config.sources)


def test_an_instance_library_is_made_of_source_rows(pretender, executor):
    library = "spt(slots=8,retrieval=instance_library,transfer=zero_shot,instances=3)"
    outcomes = executor(shots=(4,), seeds=1).run(library, 4)
    (name,) = (stage for stage, _ in pretender.runs)
    assert name.endswith("mixture")
    for outcome in outcomes:
        assert outcome.trained.steps == 0
        assert set(outcome.consts["library_texts"].tolist()) == {0, 1}
        assert outcome.consts["library"].shape == (2 * 3, toy.D)
