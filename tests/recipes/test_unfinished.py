"""An experiment that is killed and started again writes what it would have written."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal

import pytest
import toy
from safetensors.numpy import load_file

from prompt_jax.errors import ConfigError, StoppedError, TrainingError
from prompt_jax.recipes import ExperimentConfig, experiment, outputs, run
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.unfinished import Unfinished
from prompt_jax.run_key import RunKey
from prompt_jax.training import loop
from prompt_jax.training.fingerprint import array_hash

A, B, C = (RunKey("m", "s", name) for name in "abc")
KEYS = {A: "1", B: "2", C: "3"}


# Which population was in the middle


def test_a_population_that_was_begun_is_remembered(tmp_path):
    unfinished = Unfinished(tmp_path / "checkpoints")
    assert unfinished.populations("s", KEYS) == []
    checkpoints = unfinished.begin("s", [B, A], KEYS)
    assert checkpoints.restart  # a damaged state is no reason to stop an experiment
    again = Unfinished(tmp_path / "checkpoints")
    assert again.populations("s", KEYS) == [[B, A]]
    assert again.populations("other", KEYS) == []
    assert again.populations("s", {**KEYS, B: "9"}) == []
    assert again.populations("s", {A: "1"}) == []
    assert again.begin("s", [B, A], KEYS).directory == checkpoints.directory
    assert again.begin("s", [C], KEYS).directory != checkpoints.directory
    unfinished.end()
    unfinished.end()
    assert again.populations("s", KEYS) == [[C]]
    again.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"stage": "s", "members": 3}',
        b'{"stage": "s", "members": [{}]}',
        b"\xff",
    ],
)
def test_a_damaged_list_of_members_is_none(tmp_path, content):
    unfinished = Unfinished(tmp_path)
    checkpoints = unfinished.begin("s", [A], KEYS)
    (checkpoints.directory / "members.json").write_bytes(content)
    assert unfinished.populations("s", KEYS) == []


@pytest.mark.parametrize("nothing", [Unfinished(None), Unfinished(None, 0.0)])
def test_without_a_folder_nothing_is_remembered(nothing):
    assert nothing.populations("s", KEYS) == []
    assert nothing.begin("s", [A], KEYS) is None
    nothing.end()
    nothing.clear()
    assert nothing.results.folder is None


def test_zero_seconds_turns_checkpoints_off(tmp_path):
    assert Unfinished(tmp_path, 0.0).folder is None
    with pytest.raises(ConfigError, match="checkpoint_seconds"):
        ExperimentConfig(targets=("mr",), methods=("prompt_tuning",), checkpoint_seconds=-1)


def test_how_many_checkpoints_are_kept(small, world, tmp_path, monkeypatch):
    """The newest; another number is no other experiment."""
    with pytest.raises(ConfigError, match=r"checkpoint_keep must be at least 1.*seconds=0"):
        small(tmp_path, checkpoint_keep=0)
    for keep, part, calls, left in ((3, "step", 4, [1, 2, 3]), (1, "results", 1, [4])):
        config = small(tmp_path, methods=("prompt_tuning",), checkpoint_keep=keep)
        with monkeypatch.context() as patch:
            killed_at(patch, loop.Population, part, calls)
            with pytest.raises(Kill):
                run(config, world.lm, show=False, say=lambda line: None)
        found = (tmp_path / "run" / "checkpoints").glob("*/0*")
        assert sorted(int(path.name) for path in found) == left


# Whole experiments


class Kill(BaseException):
    """Stands for a SIGKILL."""


def killed_at(patch, owner, name, calls):
    """The process ends at this call of a method, before it does anything."""
    original, count = getattr(owner, name), []

    def cut(self, *args, **options):
        count.append(1)
        if len(count) == calls:
            raise Kill
        return original(self, *args, **options)

    patch.setattr(owner, name, cut)


def written(folder):
    """Everything in a run directory but times, as comparable text."""

    def lines(name, *times):
        found = [json.loads(x) for x in (folder / name).read_text("utf-8").splitlines()]
        return [{k: v for k, v in line.items() if k not in times} for line in found]

    return {
        "metrics": lines("metrics.jsonl", "seconds"),
        "results": lines("results.jsonl", "wall_s"),
        "prompts": {
            str(p.relative_to(folder)): array_hash(load_file(p))
            for p in sorted(folder.rglob("*.safetensors"))
        },
        "names": sorted(p.name for p in folder.iterdir()),
    }


@pytest.fixture
def small(world, monkeypatch):
    """Makes configs of one target and two sources; a checkpoint after every step."""
    monkeypatch.setattr(outputs, "write_page", lambda *args: None)

    def make(folder, **changes):
        made = world.experiment(
            folder, targets=(world.tasks["one"],), shots=(0,), seeds=2, checkpoint_seconds=1e-9
        )
        return dataclasses.replace(made, **changes)

    return make


POINTS = {
    "in the first stage": (loop.Population, "step", 4),
    "when one of four sources is stored": (ArtefactStore, "save", 2 + 2),
    "in the last stage": (loop.Population, "step", 2 + 2),
    "after the last step": (loop.Population, "results", 1),
}


@pytest.mark.slow
def test_killed_anywhere(small, world, tmp_path, monkeypatch):
    """At one point after the other, of the same experiment; at last it runs to its end."""
    methods = ("prompt_tuning", "spot")
    run(small(tmp_path / "whole", methods=methods), world.lm, show=False, say=lambda line: None)
    expected = written(tmp_path / "whole" / "run")
    assert len(expected["prompts"]) == 2 * 2 + 2 * 2
    assert "checkpoints" not in expected["names"]
    config = small(tmp_path / "cut", methods=methods)
    for owner, name, calls in POINTS.values():
        with monkeypatch.context() as patch:
            killed_at(patch, owner, name, calls)
            with pytest.raises(Kill):
                run(config, world.lm, show=False, say=lambda line: None)
        assert list((tmp_path / "cut" / "run" / "checkpoints").iterdir())
        # What the first attempt has stored serves the next; the last steps are not paid for again.
    run(config, world.lm, show=False, say=lambda line: None)
    assert written(tmp_path / "cut" / "run") == expected


@pytest.mark.slow
def test_finished_fine_tuning_is_not_repeated(small, world, tmp_path, monkeypatch):
    """Its weights are not kept, its results are, while the experiment is not finished."""
    whole = small(tmp_path / "whole", methods=("full_fine_tuning",), sources=())
    run(whole, world.lm, show=False, say=lambda line: None)
    config = small(tmp_path / "cut", methods=("full_fine_tuning",), sources=())
    with monkeypatch.context() as patch:
        killed_at(patch, loop.Population, "step", 2 + 2)
        with pytest.raises(Kill):
            run(config, world.lm, show=False, say=lambda line: None)
    original, steps = loop.Population.step, []

    def count(self, step):
        steps.append((self.replicas[0].key, step))
        return original(self, step)

    monkeypatch.setattr(loop.Population, "step", count)
    run(config, world.lm, show=False, say=lambda line: None)
    assert steps == [(RunKey("full_fine_tuning", "target", world.tasks["one"], 0, 1), 1)]
    assert written(tmp_path / "cut" / "run") == written(tmp_path / "whole" / "run")


def test_a_full_disk_is_one_message(small, world, tmp_path, monkeypatch, pretender):
    """Wherever it shows; nothing is trained again after it."""
    config = small(tmp_path, methods=("prompt_tuning",))
    broken = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results.jsonl")

    def full(*args):
        raise broken

    with monkeypatch.context() as patch:
        patch.setattr(experiment.results, "write_rows", full)
        with pytest.raises(TrainingError, match=r"results.jsonl: No space left.*same command"):
            run(config, world.lm, show=False, say=lambda line: None)
    trained = len(pretender.calls)
    run(config, world.lm, show=False, say=lambda line: None)
    assert len(pretender.calls) == trained


def test_told_to_stop_and_a_changed_config(small, world, tmp_path, monkeypatch):
    """SIGTERM is one message; another budget is refused, other checkpoints are not."""
    config = small(tmp_path, methods=("prompt_tuning",), checkpoint_seconds=1e6)
    original = loop.Population.step

    def told(self, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Population, "step", told)
        with pytest.raises(StoppedError, match="at step 2 of 4"):
            run(config, world.lm, show=False, say=lambda line: None)
    longer = toy.budget(9, eval_every=2, learning_rate=0.5, unit="absolute")
    with pytest.raises(ConfigError, match=r"target.steps: 4 -> 9"):
        run(dataclasses.replace(config, target=longer), world.lm, show=False)
    steps = []

    def count(self, step):
        steps.append(step)
        return original(self, step)

    monkeypatch.setattr(loop.Population, "step", count)
    other = dataclasses.replace(config, checkpoint_seconds=5.0)
    run(other, world.lm, show=False, say=lambda line: None)
    assert steps == [2, 3]
