"""ForkMerge: the greedy weights, what branches are trained on, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import Evaluation
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes import survey
from prompt_jax.recipes.forkmerge import check, forkmerge, greedy_merge

SHAPE = (2, 3)


def reference(prompts, values, score):
    """Weights and score by the paper's rule, one prompt at a time, in float64."""
    order = sorted((n for n, v in enumerate(values) if v == v), key=lambda n: -values[n])
    weights = {order[0]: 1.0}
    best = values[order[0]]

    def mean(weights):
        return sum(w * np.float64(prompts[n]) for n, w in weights.items()) / sum(weights.values())

    for i, branch in enumerate(order[1:], start=1):
        tried = [(0.0, best)]
        for alpha in (0.2, 0.4, 0.6, 0.8, 1.0):
            with_it = {**weights, branch: alpha * sum(weights.values()) / i}
            tried.append((alpha, score(mean(with_it).astype(np.float32)[None])[0]))
        alpha, value = max(tried, key=lambda pair: pair[1])
        if alpha:
            weights[branch] = alpha * sum(weights.values()) / i
            best = value
    return weights, best, mean(weights)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_found_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    wanted = rng.normal(size=SHAPE)
    prompts = (wanted + rng.normal(size=(4, *SHAPE))).astype(np.float32)

    def score(some):
        return -((np.float64(some) - wanted) ** 2).sum((1, 2))

    values = score(prompts).tolist()
    values[2] = float("nan")  # it diverged
    weights, best, merged = reference(prompts, values, score)
    found = greedy_merge(prompts, values, score)
    np.testing.assert_allclose(found.weights, [weights.get(n, 0.0) for n in range(4)], atol=1e-12)
    assert found.value == pytest.approx(best)
    assert found.value > np.nanmax(values)
    assert found.weights[2] == 0
    np.testing.assert_allclose(found.prompt, merged, rtol=1e-5, atol=1e-6)


def test_a_branch_that_does_not_help_has_no_weight():
    """Equal scores are no reason to merge; of equal shares the smallest is taken."""
    prompts = np.stack([np.zeros(SHAPE), np.ones(SHAPE)]).astype(np.float32)
    found = greedy_merge(prompts, [0.5, 0.5], lambda some: np.full(len(some), 0.5))
    np.testing.assert_array_equal(found.weights, [1, 0])
    np.testing.assert_array_equal(found.prompt, prompts[0])
    found = greedy_merge(prompts, [0.4, 0.5], lambda some: np.full(len(some), 0.6))
    np.testing.assert_allclose(found.weights, [0.2, 1])
    np.testing.assert_allclose(found.prompt, np.full(SHAPE, 1 / 1.2), rtol=1e-6)
    nothing = greedy_merge(prompts, [np.nan, np.nan], lambda some: np.full(len(some), 0.6))
    assert nothing.value == -np.inf
    np.testing.assert_array_equal(nothing.prompt, prompts[0])


@pytest.fixture
def planted(pretender, world, tmp_path, monkeypatch):
    """Every round moves prompts by 0.5; a merged prompt scores half the mean of its numbers."""

    def evaluate(lm, jobs, state, *, metrics, mesh):
        values = [float(np.asarray(state[job.prompt]).mean()) / 2 for job in jobs]
        return [
            Evaluation(
                dict.fromkeys((*metrics, "accuracy", "f1"), value),
                np.zeros(len(job.split), np.int64),
                {},
                0,
            )
            for job, value in zip(jobs, values, strict=True)
        ]

    monkeypatch.setattr(survey, "evaluate", evaluate)
    return world.experiment(
        tmp_path, methods=("prompt_tuning",), targets=(world.tasks["one"],), shots=(4,), seeds=1
    )


def test_branches_start_from_the_merged_prompt_and_have_their_own_sources(
    planted, pretender, executor, world
):
    target = planted.targets[0]
    first, second = planted.sources
    # The second source is the better one; in round 2 the branch with both wins.
    name = f"{target} k=4 seed=0"
    pretender.values["forkmerge: ranking, k = 4", f"{name} trial=1"] = 0.7
    pretender.values["forkmerge: round 2, k = 4", f"{name} trial=2"] = 0.8
    said: list[str] = []
    report = forkmerge(
        planted, world.lm, rounds=2, branches=(2, 0, 1, 9), show=False, say=said.append
    )
    assert [(stage, len(names)) for stage, names, _ in pretender.calls] == [
        ("forkmerge: ranking, k = 4", 2),
        ("forkmerge: round 1, k = 4", 2),  # with the better source alone: it was ranked so
        ("forkmerge: round 2, k = 4", 3),
    ]
    steps = [config.steps for _, _, config in pretender.calls]
    whole = planted.budget("target", 4)
    assert steps[1] + steps[2] == whole.steps
    assert steps[0] == steps[1]
    runs = {
        (stage.split(": ")[1].split(",")[0], run.key.trial): run
        for (stage, _), run in pretender.runs.items()
    }
    start = np.asarray(executor(planted).initial(0).embeddings)
    rows = executor(planted).rows
    own, of = rows.rows(target, 0, 4).train, lambda source: rows.rows(source, 0).train
    expected = {
        ("ranking", 0): (own, of(first)),
        ("ranking", 1): (own, of(second)),
        ("round 1", 0): (own,),
        ("round 1", 2): (own, of(second), of(first)),
    }
    for which, parts in expected.items():
        run = runs[which]
        assert not run.keep_start
        np.testing.assert_array_equal(run.params["prompt"], start)
        split = run.feed.split
        assert len(split) == sum(map(len, parts))
        assert split.examples == tuple(itertools.chain(*(part.examples for part in parts)))
        shares = np.bincount(split.task[run.feed.rows(0)], minlength=len(parts))
        assert np.ptp(shares) <= 1  # equal shares of a batch
        assert len(run.dev) == len(rows.rows(target, 0, 4).dev)
    one, two = report.cells[0].branchings[0].rounds
    assert (one.values, one.value) == ([0.5, 0.7, 0.5], 0.7)
    np.testing.assert_array_equal(one.weights, [0, 1, 0])  # whatever is added scores lower
    for n in range(3):
        np.testing.assert_allclose(runs["round 2", n].params["prompt"], start + 0.5)
    for n in (0, 2):  # other rows in every round
        assert not np.array_equal(runs["round 2", n].feed.rows(0), runs["round 1", n].feed.rows(0))
    np.testing.assert_array_equal(two.weights, [0, 0, 1])
    branching = report.cells[0].branchings[0]
    assert branching.ranked == tuple(rows.task(source).name for source in (second, first))
    assert (branching.best, branching.dev) == (2, 0.8)
    assert branching.steps == 2 * steps[0] + 3 * whole.steps - steps[0]
    assert branching.test == pytest.approx(float((start + 1).mean()) / 2, abs=1e-6)
    assert sum("merged" in line for line in said) == 2
    # What is written.
    assert json.loads((report.folder / "forkmerge.json").read_text()) == report.to_dict()
    assert "NaN" not in json.dumps(report.to_dict())
    text = (report.folder / "forkmerge.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| k = 4 | one |"))
    assert [part.strip() for part in row.split("|")[6:-1]][1:] == [
        "0",
        "0",
        "100",
        "2.0",
        f"{branching.steps:,}",
    ]
    assert "| no sources | 1 source | 2 sources |" in text
    (file,) = (report.folder / "prompts" / "forkmerge").rglob("*.safetensors")
    np.testing.assert_allclose(np.asarray(SoftPrompt.load(file).embeddings), start + 1, rtol=1e-6)


def test_a_round_that_is_worse_is_not_kept(planted, pretender, world):
    name = f"{planted.targets[0]} k=4 seed=0"
    pretender.values["forkmerge: round 1, k = 4", name] = 0.9
    pretender.values["forkmerge: round 2, k = 4", f"{name} trial=1"] = 0.8
    report = forkmerge(planted, world.lm, rounds=2, branches=(0, 1), show=False, say=lambda _: None)
    branching = report.cells[0].branchings[0]
    assert (branching.best, branching.dev) == (1, 0.9)
    assert [one.value for one in branching.rounds] == [0.9, 0.8]
    assert report.table().rows[0][6:9] == ("100", "0", "1.0")  # the weights of the first round


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"sources": (), "methods": ("prompt_tuning",)}, {}, "forkmerge needs sources"),
        ({}, {"branches": (0,)}, "at least two branches .* 0 makes 1 of the 2 sources"),
        ({}, {"branches": (2, 5)}, "2, 5 makes 1 of the 2 sources"),
        ({}, {"branches": (-1, 2)}, "at least two branches"),
        ({}, {"branches": ()}, "none makes 0"),
        ({}, {"rounds": 1000}, "1000 rounds cannot share the target's budget of 3 steps"),
    ],
)
def test_what_is_refused(world, tmp_path, changes, options, says):
    config = world.experiment(tmp_path, **{"shots": (4,), **changes})
    with pytest.raises(ConfigError, match=says):
        check(config, **{"rounds": 2, "branches": (0, 1), **options})


def test_a_step_needs_a_row_of_every_task_of_a_branch(world, tmp_path):
    config = world.experiment(tmp_path, shots=(4,))
    small = dataclasses.replace(config.few_shot, batch_size=2)
    with pytest.raises(
        ConfigError, match=r"2 sources needs at least 3 rows a step, not 2: .*k = 4"
    ):
        check(dataclasses.replace(config, few_shot=small), 2, (0, 2))
