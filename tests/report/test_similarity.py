"""The similarity figures against the similarity itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rundir.synthetic import write_run

from prompt_jax import prompts
from prompt_jax.prompts import PromptRecord
from prompt_jax.report import similarity, svg
from prompt_jax.rundir.folder import PromptFile, read


def test_means_over_seeds(loaded):
    kinds = similarity._kinds(loaded, loaded.prompts)
    assert [k.method for k in kinds] == [""] * 3 + ["prompt_tuning"] * 4 + ["spot"] * 4
    assert [k.task for k in kinds[:5]] == ["s/one", "s/two", "s/three", "t/near", "mine/far"]
    assert [k.k for k in kinds[3:7]] == [16, 16, 0, 0]
    mean, nearest = similarity._similarity(loaded.prompts, kinds)
    by_seed = []
    for seed in range(5):
        mine = {similarity._kind(p): p.array for p in loaded.prompts if p.record.seed == seed}
        by_seed.append(prompts.similarity([mine[kind] for kind in kinds]))
    np.testing.assert_allclose(mean, np.mean(by_seed, 0), atol=1e-12)
    # The synthetic spot starts from the second source.
    for kind in kinds[7:]:
        assert [k.task for k in nearest[kind]] == ["s/two"] * 5


def test_figures(loaded):
    with svg.drawing():
        near, note = similarity.draw(loaded)
    assert [(method, data) for method, data, _ in near] == [
        ("prompt_tuning", "k = 16"),
        ("prompt_tuning", "all rows"),
        ("spot", "k = 16"),
        ("spot", "all rows"),
    ]
    assert note == ""
    # A frame around the nearest source of each of two targets.
    frames = re.findall(r"stroke: var\(--ink\); stroke-width: 1.6", near[2][2])
    assert len(frames) == 2


def test_majority():
    assert similarity._majority([1, 3, 1]) == 1
    assert similarity._majority([1, 1, 1]) == -1
    assert similarity._majority([2, 2]) == -1
    assert similarity._majority([0, 0]) == -1


def prompt(method: str, task: str, seed: int, width: int = 8, **config: object) -> PromptFile:
    array = np.random.default_rng(seed).normal(size=(2, width)).astype(np.float32)
    return PromptFile("x", array, PromptRecord(method=method, task=task, seed=seed, config=config))


def test_other_widths_are_named(loaded, tmp_path):
    run = read(write_run(tmp_path / "run", seeds=1))
    run.prompts.append(prompt("spot", "t/near", 0, 16, k=0))
    with svg.drawing():
        _, note = similarity.draw(run)
    assert note == "1 prompts of another width are left out."


@pytest.mark.parametrize("count", [0, 1])
def test_too_few(loaded, tmp_path, count):
    run = read(write_run(tmp_path / "run", seeds=1))
    run.prompts = run.prompts[:count]
    assert similarity.draw(run) == ([], "")


def test_seeds_without_a_common_kind(tmp_path):
    run = read(write_run(tmp_path / "run", seeds=1))
    run.prompts = [prompt("spot", "a", 0, k=0), prompt("", "b", 1)]
    with svg.drawing():
        near, _ = similarity.draw(run)
    assert len(near) == 1
