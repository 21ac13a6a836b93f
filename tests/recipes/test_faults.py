"""What can happen to an experiment from outside: one clear message, and nothing that is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy
from world import write_task, write_tokenizer

from prompt_jax.errors import ConfigError, DataError, ModelError, PromptError, TrainingError
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes import outputs, run
from prompt_jax.training import loop

from .test_unfinished import Kill, killed_at, written


@pytest.fixture
def own(world, tmp_path, monkeypatch):
    """An experiment whose data may be destroyed: prompt tuning of two seeds on one target."""
    monkeypatch.setattr(outputs, "write_page", lambda *args: None)
    write_task(tmp_path, "one", 2)

    def make(name, **changes):
        made = world.experiment(
            tmp_path / name,
            sources=(),
            targets=(str(tmp_path / "one.toml"),),
            shots=(0,),
            methods=("prompt_tuning",),
            checkpoint_seconds=1e-9,
        )
        return dataclasses.replace(made, **changes)

    return make


def execute(config, world):
    return run(config, world.lm, show=False, say=lambda line: None)


def broken_off(config, world, monkeypatch):
    """Stops an experiment in the middle of its stage."""
    with monkeypatch.context() as patch:
        killed_at(patch, loop.Population, "step", 3)
        with pytest.raises(Kill):
            execute(config, world)


@pytest.mark.slow
def test_data_lost_while_it_runs(own, world, tmp_path, monkeypatch):
    """Everything was read before the first step: the run ends as if nothing had happened."""
    execute(own("whole"), world)
    step = loop.Population.step

    def lose(self, number):
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        (tmp_path / "one.toml").unlink(missing_ok=True)
        return step(self, number)

    monkeypatch.setattr(loop.Population, "step", lose)
    report = execute(own("cut"), world)
    assert not (tmp_path / "one.toml").exists()
    directory = report.findings.run
    assert [directory.name(target) for target in directory.targets] == ["one"]
    assert written(tmp_path / "cut" / "run") == written(tmp_path / "whole" / "run")


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["one.toml", "one/train.jsonl", "one/validation.jsonl"])
def test_data_lost_between_two_starts(own, world, tmp_path, monkeypatch, lost):
    """It is named, the checkpoints stay, and once it is back the run goes on where it was."""
    whole, cut = own("whole"), own("cut")
    execute(whole, world)
    broken_off(cut, world, monkeypatch)
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{lost.split('.')[0].split('/')[-1]}") as caught:
        execute(cut, world)
    assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "elsewhere").rename(tmp_path / lost)
    steps = []
    step = loop.Population.step

    def count(self, number):
        steps.append(number)
        return step(self, number)

    monkeypatch.setattr(loop.Population, "step", count)
    execute(cut, world)
    assert steps == [2, 3]
    assert written(tmp_path / "cut" / "run") == written(tmp_path / "whole" / "run")


@pytest.mark.slow
def test_data_changed_between_two_starts(own, world, tmp_path, monkeypatch):
    """Other rows are other training: the difference is shown; undone, the run goes on."""
    config = own("cut")
    broken_off(config, world, monkeypatch)
    path = tmp_path / "one" / "train.jsonl"
    before = path.read_text()
    path.write_text(before.replace("eats ", "sees "))
    with pytest.raises(ConfigError, match=r"(?s)Undo the change.*train_rows: \w+ -> \w+"):
        execute(config, world)
    path.write_text(before)
    execute(config, world)
    execute(own("whole"), world)
    assert written(tmp_path / "cut" / "run") == written(tmp_path / "whole" / "run")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", ["metrics.jsonl", ".safetensors", "data.json", "summary.md"])
def test_a_disk_that_fails(own, world, tmp_path, monkeypatch, number, name, pretender):
    """Full, read-only or broken, at whatever file: one message, and the next start goes on."""
    fails_and_goes_on(own("run"), world, monkeypatch, number, name)
    assert len(pretender.calls) == 1


@pytest.mark.slow
def test_a_disk_that_fails_between_two_steps(own, world, monkeypatch):
    fails_and_goes_on(own("run"), world, monkeypatch, errno.ENOSPC, "speed.jsonl")


def fails_and_goes_on(config, world, monkeypatch, number, name):
    opened = Path.open

    def fail(self, mode="r", *args, **options):
        if mode[0] in "wax" and name in self.name:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises((TrainingError, ConfigError, PromptError, DataError)) as caught:
            execute(config, world)
    message = str(caught.value)
    assert os.strerror(number) in message
    assert len(message.splitlines()) == 1
    execute(config, world)
    assert (Path(config.out) / "summary.md").is_file()


def test_a_run_directory_below_a_file(own, world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run directory .*file/run: Not a directory"):
        execute(own("x", out=str(tmp_path / "file" / "run")), world)


def test_a_tokenizer_with_more_pieces_than_the_model(own, tmp_path):
    """Found before the run directory is made."""
    config = own("x")
    write_tokenizer(tmp_path)
    shape = dataclasses.replace(toy.CONFIG, vocab_size=24)
    lm = FrozenT5.from_config(shape, seed=7, name="small", tokenizer=tmp_path)
    with pytest.raises(ModelError, match=r"outside the vocabulary of 24"):
        run(config, lm, show=False)
    assert not (tmp_path / "x" / "run").exists()


@pytest.mark.slow
def test_another_tokenizer_of_the_same_size(own, world, tmp_path, monkeypatch):
    """Other tokens are other rows: nothing goes on with them, and the difference is shown."""
    config = own("cut")
    broken_off(config, world, monkeypatch)
    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    made = json.loads(path.read_text())
    words = [word for word, number in made["model"]["vocab"].items() if number > 4]
    numbers = [made["model"]["vocab"][word] for word in words]
    made["model"]["vocab"] |= dict(zip(words, np.roll(numbers, 1).tolist(), strict=True))
    path.write_text(json.dumps(made))
    lm = FrozenT5.from_config(toy.CONFIG, seed=7, name="tiny", tokenizer=tmp_path)
    assert lm.weights_hash == world.lm.weights_hash
    with pytest.raises(ConfigError, match=r"(?s)Undo the change.*train_rows: \w+ -> \w+"):
        run(config, lm, show=False, say=lambda line: None)
    execute(config, world)
    assert (tmp_path / "cut" / "run" / "summary.md").is_file()
