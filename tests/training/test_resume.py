"""Stopped at any step and started again: the same bits as without the stop."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
import toy
from methods.toy_methods import Dying, Memory, Particles

from prompt_jax import sharding
from prompt_jax.errors import ConfigError, StoppedError, TrainingError
from prompt_jax.methods import Context, FullFineTuning, PromptTuning, SptFull, TemplateTokens
from prompt_jax.training import loop, manifest, memory
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.loop import train
from prompt_jax.training.tracking import RunTracker

STEPS = 6
OPTIONS = {"eval_every": 3, "learning_rate": 0.3, "unit": "absolute", "schedule": "linear"}


class Kill(BaseException):
    """Stands for a SIGKILL: nobody catches it."""


@contextlib.contextmanager
def killed_before(step):
    """The process ends before this step (0-based)."""
    original = loop.Population.step

    def cut(self, at):
        if at == step:
            raise Kill
        return original(self, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Population, "step", cut)
        with pytest.raises(Kill):
            yield


WORDINGS = tuple(
    TemplateTokens(f"task{i}", f"t{i}", (toy.FIRST_WORD + i, toy.FIRST_WORD + 7)) for i in range(2)
)


def make_runs(method, count=2, dev=True):
    runs = []
    for seed in range(count):
        start = Context(
            toy.tiny_t5(),
            toy.prompt(seed),
            seed,
            "t",
            templates=WORDINGS,
            source_templates=WORDINGS,
        )
        params, consts = method.init(start)
        if isinstance(method, Dying):
            consts = {"dies": np.int32(4 if seed else -1)}
        runs.append(
            toy.make_run(
                seed, params=params, consts=consts, dev=dev, tasks=2, templates=2, rows=20 + seed
            )
        )
    return runs


def facts(trained):
    """Everything of a result but the time it took; NaN equals NaN."""
    return [
        (
            str(t.key),
            array_hash(t.params),
            None if t.prompt is None else array_hash(t.prompt),
            t.best_step,
            repr(t.best_value),
            repr(t.history),
            t.steps,
            t.rows_seen,
            t.tokens_seen,
            t.targets_seen,
            t.healthy,
        )
        for t in trained
    ]


METHODS = {
    "prompt_tuning": PromptTuning(),
    "carry and noise": Memory(),
    "views and another optimizer": Particles(),
    "a run dies": Dying(),
    "trains the T5": FullFineTuning(),
    "trains the T5 and a bank": SptFull(slots=6, tokens=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_resumed_training_has_the_same_bits(name, tmp_path):
    """Killed twice: before, between and after development evaluations."""
    method = METHODS[name]
    runs = make_runs(method, 1 if method.trains_lm else 2)
    config = toy.budget(STEPS, log_every=2, **{**OPTIONS, "learning_rate": 0.02})
    whole = toy.Recorder()
    expected = facts(train(toy.tiny_t5(), method, runs, config, tracker=whole))
    assert len(set(whole.of("loss"))) > 2
    for stops in ((1, 4), (3, 5)) if name == "prompt_tuning" else ((3, 5),):
        recorder, folder = toy.Recorder(), tmp_path / f"{stops}"
        said: list[str] = []

        def once(recorder=recorder, folder=folder, said=said):
            kept = Checkpoints(folder, every_steps=2, say=said.append)
            return train(
                toy.tiny_t5(), method, runs, config, tracker=recorder, checkpoints=kept, stage="s"
            )

        for stop in stops:
            with killed_before(stop):
                once()
        resumed = once()
        assert facts(resumed) == expected
        assert recorder.records == whole.records
        after = [s // 2 * 2 for s in stops]
        assert said == [f"s: resumed at step {a} of {STEPS}." for a in after if a]
        # And once more after the end, where nothing is left to do.
        assert facts(once()) == expected
        assert recorder.records == whole.records


@pytest.mark.slow
def test_patience_and_a_lost_newest_checkpoint(tmp_path, monkeypatch):
    """A run that left the fold stays out; with the newest one damaged, the one before serves."""
    values = {"run0": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "run1": [0.5, 0.4, 0.3]}

    def development(self, having):
        return [values[self.replicas[r].key.task][len(self.history[r])] for r in having]

    monkeypatch.setattr(loop.Population, "_development", development)
    runs = [toy.make_run(s, dev=True) for s in range(2)]
    config = toy.budget(STEPS, eval_every=1, patience=2, learning_rate=0.3, unit="absolute")
    whole = train(toy.tiny_t5(), PromptTuning(), runs, config)
    assert [r.steps for r in whole] == [STEPS, 2]
    said: list[str] = []
    kept = Checkpoints(tmp_path / "c", say=said.append)
    with killed_before(5):
        train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    (kept.directory / "00000005" / "manifest.json").write_bytes(b"")
    again = train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    assert facts(again) == facts(whole)
    assert "manifest.json" in said[0]
    assert "step 4" in said[0]


@pytest.mark.slow
def test_resumed_metrics_file_is_the_same(tmp_path):
    """Lines after the checkpoint are cut off; lines of earlier stages stay."""
    runs = make_runs(PromptTuning())
    config = toy.budget(STEPS, **OPTIONS)

    def lines(path):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in found]

    def once(path, **options):
        with RunTracker(path, show=False) as tracker:
            train(toy.tiny_t5(), PromptTuning(), runs, config, tracker=tracker, **options)

    for name in ("whole", "cut"):
        (tmp_path / name).write_text('{"stage": "before"}\n{"half a li')
    once(tmp_path / "whole")
    kept = Checkpoints(tmp_path / "c", say=lambda line: None)
    for stop in (2, 5):
        with killed_before(stop):
            once(tmp_path / "cut", checkpoints=kept)
    once(tmp_path / "cut", checkpoints=kept)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert lines(tmp_path / "cut")[0] == {"stage": "before"}


@pytest.mark.multidevice
def test_resume_on_a_mesh(tmp_path):
    mesh = sharding.make_mesh(8, 1)
    runs, config = make_runs(PromptTuning(), dev=False), toy.budget(STEPS, **OPTIONS)
    whole = train(toy.tiny_t5(), PromptTuning(), runs, config, mesh=mesh)
    kept = Checkpoints(tmp_path / "c", say=lambda line: None)
    with killed_before(4):
        train(toy.tiny_t5(), PromptTuning(), runs, config, mesh=mesh, checkpoints=kept)
    again = train(toy.tiny_t5(), PromptTuning(), runs, config, mesh=mesh, checkpoints=kept)
    assert facts(again) == facts(whole)


def test_resume_keeps_micro_batches(tmp_path, monkeypatch):
    """What memory was free when training began decides; a number in the budget wins."""
    runs = make_runs(PromptTuning())
    free, chosen = toy.budget(4, micro_batch_tokens=0), toy.budget(4, micro_batch_tokens=96)
    kept = Checkpoints(tmp_path / "c", every_steps=1, say=lambda line: None)
    with monkeypatch.context() as patch, killed_before(2):
        patch.setattr(memory, "token_budget", lambda *a, **k: 192)
        train(toy.tiny_t5(), PromptTuning(), runs, free, checkpoints=kept)
    seen = []
    original = loop.Population._micro_batches

    def spy(self, *args):
        seen.append(self.token_budget)
        return original(self, *args)

    monkeypatch.setattr(loop.Population, "_micro_batches", spy)
    train(toy.tiny_t5(), PromptTuning(), runs, free, checkpoints=kept)
    assert seen == [192, 192]
    for path in sorted(kept.directory.iterdir())[1:]:  # back to step 3
        shutil.rmtree(path)
    seen.clear()
    train(toy.tiny_t5(), PromptTuning(), runs, chosen, checkpoints=kept)
    assert set(seen) == {96}


def test_resume_of_other_training_is_refused(tmp_path):
    """Budget, method, rows, start, order of the runs: each is named."""
    runs = make_runs(PromptTuning())
    kept = Checkpoints(tmp_path / "c")
    config = toy.budget(2)
    train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    train(toy.tiny_t5(), PromptTuning(), runs, toy.budget(2, log_every=2), checkpoints=kept)

    class Named(PromptTuning):
        __qualname__ = "Named"

    def refused(what, lm=None, method=None, runs=runs, config=config):
        with pytest.raises(ConfigError, match=what):
            train(lm or toy.tiny_t5(), method or PromptTuning(), runs, config, checkpoints=kept)

    refused("budget.steps: 2 -> 3", config=toy.budget(3))
    refused(r"budget.optimizer.b1: 0.9 -> 0.5", config=toy.budget(2, b1=0.5))
    refused(r"method.class: .*PromptTuning -> .*Named", method=Named())
    refused(r"(?s)0 \(run0 seed=0\).seed: 0 -> \(absent\).*and 24 more", runs=runs[::-1])
    weights = jax.tree.map(lambda x: x + 1, toy.tiny_t5().params)
    refused("weights: ", lm=toy.tiny_t5().replace(params=weights))
    moved = make_runs(PromptTuning())
    moved[1].params["prompt"][0, 0] += 1e-6
    refused(r"run.1 \(run1 seed=1\).start: ", runs=moved)
    rows = make_runs(PromptTuning())
    rows[0].feed.split.inputs.values[0] += 1
    refused(r"run.0 \(run0 seed=0\).train_rows: ", runs=rows)


# Signals


@pytest.fixture
def heeded():
    """Ctrl-C as in a terminal: a shell starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [2, STEPS - 1])
def test_signal_saves_and_stops(tmp_path, monkeypatch, at, number):
    """The step is finished and saved, whenever checkpoints are due; then the same bits."""
    runs, config = make_runs(PromptTuning()), toy.budget(STEPS, **OPTIONS)
    whole = facts(train(toy.tiny_t5(), PromptTuning(), runs, config))
    kept = Checkpoints(tmp_path / "c", every_seconds=1e6, say=lambda line: None)
    original, before = loop.Population.step, signal.getsignal(number)

    def told(self, step):
        if step == at:
            os.kill(os.getpid(), number)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Population, "step", told)
        name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
        line = f"here: {name}: checkpoint saved at step {at + 1} of {STEPS}; run the same command"
        with pytest.raises(StoppedError, match=f"{line} again to resume") as caught:
            train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept, stage="here")
    assert caught.value.interrupted == (number == signal.SIGINT)
    assert signal.getsignal(number) is before
    assert isinstance(StoppedError(), TrainingError)
    steps = []

    def count(self, step):
        steps.append(step)
        return original(self, step)

    monkeypatch.setattr(loop.Population, "step", count)
    assert facts(train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)) == whole
    assert steps == list(range(at + 1, STEPS))


@pytest.mark.usefixtures("heeded")
def test_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    runs, config = make_runs(PromptTuning()), toy.budget(STEPS, **OPTIONS)
    said: list[str] = []
    kept = Checkpoints(tmp_path / "c", every_seconds=1e6, say=said.append)
    original, before, steps = loop.Population.step, signal.getsignal(signal.SIGINT), []

    def interrupt(self, step):
        steps.append(step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            assert "Press it again to stop at once" in said[-1]
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, step)

    monkeypatch.setattr(loop.Population, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept, stage="here")
    assert steps == [0, 1, 2]
    assert [p.name for p in kept.directory.iterdir()] == ["00000000"]  # nothing was saved
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_ctrl_c_stays_ignored(tmp_path, monkeypatch):
    """Shells start jobs in the background so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    original = loop.Population.step

    def interrupt(self, step):
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, step)

    monkeypatch.setattr(loop.Population, "step", interrupt)
    try:
        runs, kept = make_runs(PromptTuning()), Checkpoints(tmp_path / "c")
        train(toy.tiny_t5(), PromptTuning(), runs, toy.budget(2), checkpoints=kept)
    finally:
        signal.signal(signal.SIGINT, before)


def test_late_signal_is_not_swallowed(tmp_path, monkeypatch):
    """One that comes after the last step ends the process as it would have without us."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *a: seen.append(1))
    original = loop.Population.results

    def results(self, seconds):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, seconds)

    monkeypatch.setattr(loop.Population, "results", results)
    try:
        kept = Checkpoints(tmp_path / "c")
        train(
            toy.tiny_t5(),
            PromptTuning(),
            make_runs(PromptTuning()),
            toy.budget(1),
            checkpoints=kept,
        )
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training_works_in_any_thread(tmp_path):
    """Python takes signals in the main thread only; training works in any."""
    done = []

    def work():
        runs, kept = make_runs(PromptTuning()), Checkpoints(tmp_path / "c")
        done.append(train(toy.tiny_t5(), PromptTuning(), runs, toy.budget(1), checkpoints=kept))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done[0][0].steps == 1


def test_training_without_checkpoints_installs_no_signal_handler(monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr(signal, "signal", never)
    train(toy.tiny_t5(), PromptTuning(), make_runs(PromptTuning()), toy.budget(1))


@pytest.mark.slow
def test_full_disk_ends_training_with_what_was_saved(tmp_path, monkeypatch):
    runs, config = make_runs(PromptTuning()), toy.budget(STEPS, **OPTIONS)
    whole = facts(train(toy.tiny_t5(), PromptTuning(), runs, config))
    kept = Checkpoints(tmp_path / "c", every_steps=1, say=lambda line: None)
    original = manifest.write

    def full(folder, ignored):
        if folder.name.startswith("00000003"):
            raise OSError(28, "No space left on device")
        original(folder, ignored)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        with pytest.raises(TrainingError, match="No space left on device"):
            train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    assert sorted(p.name for p in kept.directory.iterdir()) == ["00000001", "00000002"]
    assert facts(train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)) == whole


def test_resumed_seconds_add_up(tmp_path):
    """The wall-clock of all processes, shared by the runs."""
    runs, config = make_runs(PromptTuning()), toy.budget(2)
    kept = Checkpoints(tmp_path / "c", every_steps=1, say=lambda line: None)
    first = sum(
        r.seconds for r in train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    )
    saved = json.loads((kept.directory / "00000002/record/metadata").read_bytes())
    assert 0 < saved["host"]["seconds"] <= first
    second = train(toy.tiny_t5(), PromptTuning(), runs, config, checkpoints=kept)
    assert sum(r.seconds for r in second) > saved["host"]["seconds"]
    assert second[0].seconds == second[1].seconds
    assert not math.isnan(second[0].seconds)
