"""Federated sites on the tiny experiment: alone, related, lost, late, and over two processes."""

from __future__ import annotations

import dataclasses
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import toy
import workers

from prompt_jax.errors import ConfigError
from prompt_jax.prompts import SoftPrompt
from prompt_jax.recipes.federated import check, federated
from prompt_jax.recipes.federation import Absence, Delay, Federation

MESSAGE = 8 + 4 * toy.L * toy.D


def experiment(world, folder, steps=12, **changes):
    """The two targets on all rows, one seed."""
    made = world.experiment(
        folder, sources=(), methods=("prompt_tuning",), shots=(0,), seeds=1, **changes
    )
    return dataclasses.replace(made, target=dataclasses.replace(made.target, steps=steps))


def prompts(report):
    return {site.site: np.asarray(SoftPrompt.load(site.file).embeddings) for site in report.sites}


def test_sites_that_are_not_pulled_train_like_a_run_to_the_last_bit(world, executor, tmp_path):
    config = experiment(world, tmp_path, steps=4)
    outcomes = executor(config).run("prompt_tuning", 0)
    report = federated(config, world.lm, Federation(every=2, pull=0.0), say=lambda line: None)
    for outcome, site in zip(outcomes, report.sites, strict=True):
        np.testing.assert_array_equal(prompts(report)[site.site], outcome.trained.prompt)
        assert site.test == outcome.test.metrics[site.metric]
        assert (site.dev, site.best_step) == (outcome.trained.best_value, outcome.trained.best_step)


def test_losing_one_of_two_sites_for_three_rounds(world, tmp_path):
    """Training goes on, and the result says what was lost."""
    config, said = experiment(world, tmp_path), []
    options = Federation(every=2, lost=(Absence("two", 2, 4),))
    report = federated(config, world.lm, options, say=said.append)
    one, two = report.sites
    assert (one.site, one.steps, one.silent, one.oldest) == ("one", 12, (), 0)
    assert (two.site, two.steps, two.silent, two.oldest) == ("two", 6, (2, 3, 4), 3)
    assert (one.sent, one.received) == (6 * MESSAGE, 6 * MESSAGE)
    # On its return it is told once more.
    assert (two.sent, two.received) == (3 * MESSAGE, 4 * MESSAGE)
    assert report.bytes == 19 * MESSAGE
    assert np.isfinite([one.test, two.test]).all()
    assert [entry["ages"] for entry in report.rounds[0]] == [
        (0, 0), (0, 1), (0, 2), (0, 3), (0, 0), (0, 0)
    ]  # fmt: skip
    assert report.lost() == [
        "two, seed 0: silent in rounds 2-4 of 6; 6 of 12 steps not trained; a vector up to 3 rounds"
        " old stood in for it."
    ]
    assert said[1] == "  seed 0, round 2 of 6: 1 of 2 sites; nothing of two"
    written = json.loads(report.json_path.read_text())
    assert written["lost"] == report.lost()
    assert written["sites"][1]["silent"] == [2, 3, 4]
    text = report.markdown_path.read_text()
    assert "| two | 0 | f1 |" in text
    assert "| 6 of 12 | 2-4 | 3 |" in text
    assert f"- {report.lost()[0]}" in text
    # While it is away the low-rank matrix goes on to follow the other.
    assert all(entry["rate"] > 0 for entry in report.rounds[0])


def test_a_site_lost_to_the_end_keeps_its_last_vector(world, tmp_path):
    config = experiment(world, tmp_path, steps=6)
    options = Federation(every=2, lost=(Absence("two", 2, 3),), delays=(Delay("one", 1),))
    report = federated(config, world.lm, options, say=lambda line: None)
    one, two = report.sites
    assert (one.silent, one.oldest, one.sent, one.received) == ((1,), 1, 2 * MESSAGE, 3 * MESSAGE)
    assert (two.steps, two.best_step, two.sent, two.received) == (2, 2, MESSAGE, MESSAGE)
    assert np.isnan(two.test)
    assert "no test result; its prompt is the last that came" in report.lost()[1]
    saved = SoftPrompt.load(two.file)
    assert (saved.record.task, saved.record.method) == ("two", "federated")
    assert saved.record.scores == {}
    assert json.loads(report.json_path.read_text())["sites"][1]["test"] is None


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"targets": 1}, {}, "needs two sites or more"),
        ({"shots": (4, 0)}, {}, "a federation has one k, not 4, 0"),
        ({"out": "memory://x/y"}, {}, "a directory of this machine, not memory://x/y"),
        ({}, {"lost": (Absence("three", 1, 1),)}, "no site 'three'"),
        ({}, {"delays": (Delay("two", 2),)}, "late by 2 rounds, and there are 2"),
    ],
)
def test_what_cannot_be_a_federation_is_refused(world, tmp_path, changes, options, says):
    config = experiment(world, tmp_path, steps=4)
    if "targets" in changes:
        changes = {"targets": config.targets[:1]}
    config = dataclasses.replace(config, **changes)
    with pytest.raises(ConfigError, match=says):
        check(config, Federation(every=2, **options))


@pytest.mark.process
def test_a_killed_process_joins_again_after_three_rounds(world, tmp_path):
    """SIGKILL in round 2; a new process takes over in round 5, from the vector of round 1."""
    config = [world.config, "sources=", "methods=prompt_tuning", "shots=0", "target.steps=12"]
    config += [f"out={tmp_path / 'run'}"]

    def start(number, dies):
        file = str(Path(__file__).with_name("site_worker.py"))
        return workers.start(
            tmp_path, numbers=[number], port=port, file=file, config=config, dies=dies
        )

    port = workers.free_port()
    with ThreadPoolExecutor(2) as pool:
        main, first = pool.submit(start, 0, False), pool.submit(start, 1, True)
        (killed,) = first.result()
        (again,) = pool.submit(start, 1, False).result()
        (main,) = main.result()
    assert killed.code == -signal.SIGKILL
    assert (again.code, main.code) == (0, 0), main.err + again.err
    found = json.loads(main.out.splitlines()[-1])
    one, two = found["sites"]
    assert (one["process"], one["steps"], one["silent"]) == (0, 12, [])
    assert (two["process"], two["steps"], two["silent"]) == (1, 6, [2, 3, 4])
    assert (two["restarted"], two["oldest"], two["sent"]) == (5, 3, 3 * MESSAGE)
    assert found["lost"] == [
        "two, seed 0: silent in rounds 2-4 of 6; 6 of 12 steps not trained; a vector up to 3 rounds"
        " old stood in for it; a new process took over in round 5, from its last vector and without"
        " the optimizer's moments."
    ]
    assert 0 <= two["test"] <= 1
    assert {path.parent.name for path in (tmp_path / "run").rglob("*.safetensors")} == {"federated"}
    assert len(list((tmp_path / "run").rglob("*.safetensors"))) == 2
