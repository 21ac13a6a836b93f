"""The oracle: a planted best subset, real prompts against a direct evaluation, what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Evaluation, Job, evaluate
from prompt_jax.evaluation.subsets import subsets
from prompt_jax.methods import create
from prompt_jax.recipes import run, stages, survey
from prompt_jax.recipes.oracle import MOST_SOURCES, check, oracle
from prompt_jax.recipes.surrogate import surrogate
from prompt_jax.run_key import RunKey
from prompt_jax.training.loop import train
from prompt_jax.training.types import Replica

K = 3
SOURCES = ("first", "second", "two")
BEST = {0, 2}
PLAIN, AVERAGED = 0.2, 0.9  # of the best subset: as a sum, and as a mean


def quality(group: frozenset[int], coefficient: float) -> float:
    """What a merged prompt achieves in the planted world."""
    if group == BEST:
        return AVERAGED if coefficient < 1 else PLAIN
    if len(group) < 2:
        return {frozenset(): 0.3, frozenset({0}): 0.4, frozenset({1}): 0.1}.get(group, 0.6)
    return 0.5 if coefficient == 1 else 0.25


@pytest.fixture
def planted(pretender, world, executor, monkeypatch, tmp_path):
    """Source i moves coordinate (0, i) by 1, the target (1, 0); prompts are scored by `quality`."""
    config = world.experiment(
        tmp_path,
        sources=tuple(world.tasks[s] for s in SOURCES),
        targets=(world.tasks["one"],),
        methods=("prompt_tuning", "spot", "dtvg"),
        shots=(4,),
    )
    initial = {s: np.asarray(executor(config).initial(s).embeddings) for s in config.seed_list}

    def moved(seed, place):
        prompt = initial[seed].copy()
        prompt[place] += 1.0
        return prompt

    for seed in config.seed_list:
        own = f"{world.tasks['one']} k=4 seed={seed}"
        pretender.prompts["prompt_tuning: first", own] = moved(seed, (1, 0))
        # The second source is the nearest to the probe.
        pretender.prompts["prompt_tuning: probe", own] = moved(seed, (0, 1))
        for i, source in enumerate(config.sources):
            for stage in ("sources", "keys"):
                name = (f"prompt_tuning: {stage}", f"{source} seed={seed}")
                pretender.prompts[name] = moved(seed, (0, i))

    asked = []

    def pretend(lm, jobs, state, *, metrics, mesh):
        found = []
        for job in jobs:
            prompt = np.asarray(state[job.prompt])
            seed = min(initial, key=lambda s: float(np.abs(prompt - initial[s]).sum()))
            change = prompt - initial[seed]
            steps = change[0, :K].copy()
            change[0, :K] = 0.0
            assert change[1, 0] == pytest.approx(1.0, abs=1e-5)
            change[1, 0] = 0.0
            assert np.abs(change).max() < 1e-5
            group = frozenset(np.flatnonzero(steps > 0.1).tolist())
            coefficient = 1.0 if not group else steps[min(group)]
            np.testing.assert_allclose(steps[list(group)], coefficient, atol=1e-5)
            value = quality(group, round(float(coefficient), 3))
            asked.append((len(job.split), group))
            found.append(
                Evaluation(
                    {"accuracy": value},
                    np.zeros(len(job.split), np.int64),
                    {"accuracy": np.full(len(job.split), value)},
                    0,
                )
            )
        return found

    monkeypatch.setattr(survey, "evaluate", pretend)
    return config, asked


@pytest.mark.slow
def test_oracle_finds_the_planted_subset(planted, world, pretender):
    config, asked = planted
    said: list[str] = []
    report = oracle(config, world.lm, show=False, say=said.append)
    groups = subsets(K)
    best = next(n for n, g in enumerate(groups) if set(np.flatnonzero(g)) == BEST)
    (cell,) = report.cells
    assert (cell.target, cell.k, cell.metric, cell.minimum) == ("one", 4, "accuracy", 0.02)
    assert report.base == "dtvg"
    for land in cell.landscapes:
        # The coefficient that the development set prefers, where there is one to choose.
        expected = [1.0 if n != best else 0.5 for n in range(8)]
        np.testing.assert_allclose(land.coefficients, expected)
        assert land.test[best] == AVERAGED
        assert land.test[0] == 0.3
        assert land.test[-1] == land.dev[-1] == 0.5
    assert [held.chosen for held in cell.any] == [(best, best)] * 2
    assert [report.names(held.chosen[0]) for held in cell.simple] == [["two"]] * 2
    comparison = cell.verdict.comparison
    assert comparison.difference == pytest.approx(AVERAGED - 0.6)
    assert (comparison.seeds, comparison.items, comparison.p) == (2, 24, 0.0)
    assert cell.verdict.effect
    # Every subset once on the test rows; on the others also with the second coefficient.
    sizes = [size for size, _ in asked]
    assert sizes.count(24) == 2 * 8
    assert len(asked) - sizes.count(24) == 2 * (8 + 4)
    assert sum("subsets" in line for line in said) == 2


def test_oracle_ranks_the_choices_of_methods(planted, world, pretender):
    config, _ = planted
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    (cell,) = report.cells
    by_method = {}
    for choice in cell.choices:
        by_method.setdefault(choice.method, []).append(choice)
    assert {m: [c.seed for c in found] for m, found in by_method.items()} == {
        "spot": [0, 1],
        "dtvg": [0, 1],
    }
    for choice in by_method["spot"]:
        assert report.names(choice.subset) == ["second"]
        assert (choice.test, choice.rank, choice.percentile) == (0.1, 8.0, 0.0)
    for choice, land in zip(by_method["dtvg"], cell.landscapes, strict=True):
        start = pretender.runs["dtvg: target, k = 4", f"{config.targets[0]} k=4 seed={choice.seed}"]
        unit = start.consts["unit"]
        own = (start.params["prompt"] + 0.5 - start.consts["init"]) * (unit + 0.5) / unit
        sources = start.consts["source_vectors"] * (unit + 0.5) / unit
        group = np.asarray(task_vectors.select_group(own, sources))
        assert group.any()
        np.testing.assert_array_equal(report.groups[choice.subset], group)
        better = (land.test > choice.test).sum()
        equal = (land.test == choice.test).sum()
        assert choice.rank == better + (1 + equal) / 2


def test_oracle_writes_its_files(planted, world):
    config, _ = planted
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    found = json.loads((report.folder / "oracle.json").read_text())
    assert found == report.to_dict()
    assert found["sources"] == list(SOURCES)
    (cell,) = found["cells"]
    assert [s["sources"] for s in cell["subsets"]][-1] == list(SOURCES)
    assert len(cell["subsets"]) == 8
    best = next(s for s in cell["subsets"] if s["sources"] == ["first", "two"])
    assert best["test"] == best["dev"] == [AVERAGED] * 2
    assert np.ravel(best["halves"]) == pytest.approx([AVERAGED] * 4)
    assert best["coefficient"] == [0.5] * 2
    assert cell["best_of_all"][0]["chosen"] == [["first", "two"]] * 2
    text = (report.folder / "oracle.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| k = 4 | one | accuracy"))
    cells = [part.strip() for part in row.split("|")[4:-1]]
    assert [part.split(" ")[0] for part in cells] == [
        "30.0",
        "50.0",
        "60.0",
        "90.0",
        "+30.0",
        "<0.001",
        "yes",
        "90.0",
    ]
    assert "| k = 4 | one | spot | second (2 of 2) | 10.0 ± 0.0 | 8.0 of 8 | 0 |" in text


@pytest.mark.slow
def test_oracle_leaves_out_the_choice_of_a_diverged_replica(planted, world, pretender):
    config, _ = planted
    pretender.dead.add(("spot: target, k = 4", f"{config.targets[0]} k=4 seed=1"))
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    assert [c.seed for c in report.cells[0].choices if c.method == "spot"] == [0]


@pytest.mark.slow
def test_oracle_resumes_where_it_was_stopped(planted, world, monkeypatch):
    """Whatever was evaluated is read; other test rows are evaluated again."""
    config, asked = planted
    pretend = survey.evaluate

    def stop(lm, jobs, state, **options):
        found = pretend(lm, jobs, state, **options)
        if len(asked) == 12 + 8 + 12:  # the second seed's development rows
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(survey, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        oracle(config, world.lm, show=False, say=lambda line: None)
    before = len(asked)
    monkeypatch.setattr(survey, "evaluate", pretend)
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    # Of the second seed the sums were kept; what was in the air is evaluated again.
    assert len(asked) - before == 4 + 8
    alone = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=""))
    alone = dataclasses.replace(alone, out=config.out + "-alone")
    once = oracle(alone, world.lm, show=False, say=lambda line: None)
    assert once.to_dict()["cells"] == report.to_dict()["cells"]
    before = len(asked)
    again = oracle(config, world.lm, show=False, say=lambda line: None)
    assert again.to_dict() == report.to_dict()
    assert len(asked) == before
    fewer = dataclasses.replace(config, data=dataclasses.replace(config.data, test_rows=10))
    fewer = dataclasses.replace(fewer, out=config.out + "-fewer")
    oracle(fewer, world.lm, show=False, say=lambda line: None)
    assert [size for size, _ in asked[before:]] == [10] * 16


# Surrogate models


def test_a_surrogate_model_chooses_the_planted_subset_from_single_sources(planted, world):
    """Alone the sources add +0.1, -0.2 and +0.3 to the target's 0.3."""
    config, asked = planted
    said: list[str] = []
    report = surrogate(config, world.lm, show=False, say=said.append)
    assert "oracle.json is not there: prompt-jax oracle makes it" in said[0]
    (cell,) = report.cells
    assert (cell.target, cell.k, cell.metric, len(cell.selections)) == ("one", 4, "accuracy", 2)
    for one in cell.selections:
        np.testing.assert_allclose(one.dev, [0.3, 0.4, 0.1, 0.6])
        np.testing.assert_allclose(one.model.effects, [0.1, -0.2, 0.3])
        assert one.model.intercept == pytest.approx(0.3)
        assert set(np.flatnonzero(one.model.chosen)) == BEST
        assert one.test == (0.3, AVERAGED, 0.5)
        assert one.judgement is None
    # Random subsets are scored on the development rows alone.
    assert sum(size == 24 for size, _ in asked) == 2 * 3
    assert json.loads((report.folder / "surrogate.json").read_text()) == report.to_dict()
    assert "first + two (2 of 2)" in (report.folder / "surrogate.md").read_text()
    oracle(config, world.lm, show=False, say=said.append)
    again = surrogate(config, world.lm, show=False, say=said.append)
    for one in again.cells[0].selections:
        assert one.judgement is not None
        assert (one.judgement.rank, one.judgement.percentile) == (1.0, 100.0)
        assert 0.5 < one.judgement.correlation < 1


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"sources": (), "methods": ("prompt_tuning",)}, {}, "needs sources"),
        ({}, {"base": "spot"}, "'spot' tunes no prompt of the target"),
        ({}, {"size": 2}, "from 1 to 1 of 2 sources, not 2"),
        ({}, {"number": 1}, "1 subsets cannot tell 2 sources apart"),
    ],
)
def test_a_surrogate_model_refuses_wrong_arguments_before_anything_is_trained(
    world, tmp_path, changes, options, says
):
    with pytest.raises(ConfigError, match=says):
        surrogate(world.experiment(tmp_path, **changes), world.lm, show=False, **options)
    assert not (tmp_path / "run").exists()


# Real prompts


@pytest.mark.slow
def test_oracle_values_are_those_of_merged_prompts_and_nothing_is_trained_twice(
    world, executor, tmp_path, monkeypatch
):
    config = world.experiment(tmp_path, methods=("dtvg",), shots=(4,), seeds=1)
    run(config, world.lm, show=False, say=lambda line: None)
    before = (tmp_path / "run" / "results.jsonl").read_text()

    def refuse(*_, **__):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(stages, "train", refuse)
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    assert (tmp_path / "run" / "results.jsonl").read_text() == before
    made = executor(config)
    contexts = {member.task: context for member, context in made.contexts("dtvg", 4).items()}
    rng = np.random.default_rng(0)
    for target, cell in zip(config.targets, report.cells, strict=True):
        (land,) = cell.landscapes
        context, rows = contexts[target], made.rows.rows(target, 0, 4)
        initial = context.initial.astype(np.float64)
        vectors = context.artefact("sources").prompts - initial
        own = context.artefact("first").prompts[0]
        prompts = np.stack(
            [own + c * vectors[g].sum(0) for g, c in zip(report.groups, land.coefficients)]  # noqa: B905
        ).astype(np.float32)
        jobs = [Job(rows.test, i) for i in range(4)]
        found = evaluate(world.lm, jobs, prompts, metrics=rows.task.metrics)
        metric = rows.task.metrics[0]
        assert cell.metric == metric
        np.testing.assert_allclose([f.metrics[metric] for f in found], land.test)
        (choice,) = cell.choices
        saved = made.run("dtvg", 4)[config.targets.index(target)]
        assert choice.deployed == saved.test.metrics[metric]
        # Halves: by hand from the predictions.
        labels = np.asarray([e.label for e in rows.test.examples])
        for half, mask in zip(land.halves, (land.first, ~land.first), strict=True):
            n = int(rng.integers(4))
            guess, gold = found[n].predictions[mask], labels[mask]
            if metric == "accuracy":
                assert half[n] == pytest.approx((guess == gold).mean())
            else:
                both = ((guess == 1) & (gold == 1)).sum()
                total = (guess == 1).sum() + (gold == 1).sum()
                assert half[n] == pytest.approx(2 * both / total)
        assert (land.items is None) == (metric == "f1")
    assert report.cells[0].verdict.comparison.items == 24
    assert report.cells[1].verdict.comparison.items == 1


@pytest.mark.slow
def test_oracle_tunes_from_the_merged_prompt(world, executor, tmp_path, monkeypatch):
    config = world.experiment(tmp_path, methods=("dtvg",), shots=(4,), seeds=1)
    plain = oracle(config, world.lm, show=False, say=lambda line: None)
    before = (plain.folder / "oracle.json").read_bytes()
    said: list[str] = []
    report = oracle(config, world.lm, tuned=True, show=False, say=said.append)
    assert sum(line.endswith("subsets, tuned") for line in said) == 2
    assert (plain.folder / "oracle.json").read_bytes() == before
    found = json.loads((report.folder / "oracle_tuned.json").read_text())
    assert found == report.to_dict()
    assert found["tuned"]
    text = (report.folder / "oracle_tuned.md").read_text()
    assert "merged and tuned with the target's budget" in text
    assert "without a step" not in text
    made = executor(config)
    contexts = {member.task: context for member, context in made.contexts("dtvg", 4).items()}
    for target, cell, old in zip(config.targets, report.cells, plain.cells, strict=True):
        (land,), (start,) = cell.landscapes, old.landscapes
        np.testing.assert_array_equal(land.coefficients, start.coefficients)
        assert (land.dev >= start.dev).all()  # each start competes with what it became
        # By hand: prompt tuning of one subset from its merged prompt.
        context, rows = contexts[target], made.rows.rows(target, 0, 4)
        vectors = context.artefact("sources").prompts - context.initial
        prompt = context.artefact("first").prompts[0] + land.coefficients[-1] * vectors.sum(0)
        budget = config.few_shot
        run_ = Replica(
            RunKey("prompt_tuning", "alone", target, 4),
            made.rows.feed(target, 0, 4, budget.batch_size, "order"),
            {"prompt": np.asarray(prompt, np.float32)},
            dev=rows.dev,
            dev_metrics=rows.task.metrics,
            keep_start=True,
        )
        (alone,) = train(world.lm, create("prompt_tuning"), [run_], budget)
        assert alone.steps == budget.steps
        (tested,) = evaluate(
            world.lm, [Job(rows.test, 0)], alone.prompt[None], metrics=rows.task.metrics
        )
        assert land.dev[-1] == pytest.approx(alone.best_value)
        assert land.test[-1] == pytest.approx(tested.metrics[rows.task.metrics[0]])

    def refuse(*_, **__):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(stages, "train", refuse)
    again = oracle(config, world.lm, tuned=True, show=False, say=lambda line: None)
    assert again.to_dict() == report.to_dict()


# What is refused


@pytest.mark.parametrize(
    ("changes", "base", "says"),
    [
        ({"sources": (), "methods": ("prompt_tuning",)}, None, "needs sources"),
        ({"sources": tuple("abcdefghijk")}, None, f"at most {MOST_SOURCES}, not 11 \\(2,048"),
        ({}, "spot", "'spot' tunes no prompt of the target"),
        ({}, "dtvg\\(budget=matched,first_share=0\\)", "tunes no prompt of the target"),
        ({}, "dtgv", "unknown method 'dtgv'"),
    ],
)
def test_oracle_refuses_wrong_arguments_before_anything_is_trained(
    world, tmp_path, changes, base, says
):
    config = world.experiment(tmp_path, **changes)
    with pytest.raises(ConfigError, match=says):
        oracle(config, world.lm, base=base and base.replace("\\", ""), show=False)
    assert not (tmp_path / "run").exists()


def test_oracle_merges_the_first_stage_of_the_method(world, tmp_path):
    config = world.experiment(tmp_path, methods=("spot", "dtvg(budget=matched)", "dtvg"))
    assert check(config) == "dtvg(budget=matched)"
    assert check(config, "dtvg") == "dtvg"
    assert check(world.experiment(tmp_path, methods=("spot",))) == "dtvg"


def test_oracle_refuses_a_run_directory_of_another_config(planted, world):
    config, _ = planted
    report = oracle(config, world.lm, show=False, say=lambda line: None)
    before = (report.folder / "oracle.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run of another config"):
        oracle(dataclasses.replace(config, seeds=1), world.lm, show=False)
    assert (report.folder / "oracle.json").read_bytes() == before
