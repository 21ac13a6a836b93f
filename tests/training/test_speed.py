"""Step times, rates and the measured ceiling."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import jax
import pytest
import toy

from prompt_jax.methods import create
from prompt_jax.training import speed
from prompt_jax.training.loop import train
from prompt_jax.training.population import Population
from prompt_jax.training.speed import StepTimer, Work


@pytest.fixture(scope="module")
def lm():
    return toy.tiny_t5()


@pytest.fixture
def works(monkeypatch):
    """The measurements from which the tracker's records are made."""
    seen = []

    def describe(work, ceiling):
        seen.append(work)
        return _describe(work, ceiling)

    monkeypatch.setattr(speed, "describe", describe)
    return seen


_describe = speed.describe


def test_nothing_is_measured_for_a_tracker_that_does_not(lm, works, monkeypatch):
    monkeypatch.setattr(speed, "matmul_ceiling", pytest.fail)
    train(lm, create("prompt_tuning"), runs(), toy.budget(1))
    assert works == []


def runs():
    return [toy.make_run(seed, dev=True) for seed in range(2)]


def population(lm, **changes):
    return Population(lm, create("prompt_tuning"), runs(), toy.budget(6, **changes))


def test_every_interval_is_reported(lm, works):
    """Rows, operations and steps of all intervals add up to what was trained."""
    tracker = toy.Recorder()
    method = create("prompt_tuning")
    config = toy.budget(7, log_every=3, eval_every=2)
    trained = train(lm, method, runs(), config, tracker=tracker)
    assert [(s["step"], s["steps"]) for s in tracker.speeds] == [(3, 3), (6, 3), (7, 1)]
    assert [(w.step, w.steps) for w in works] == [(3, 3), (6, 3), (7, 1)]
    assert sum(w.rows for w in works) == sum(t.rows_seen for t in trained)
    assert all(w.seconds > 0 and w.devices == 1 for w in works)
    tokens = sum(t.tokens_seen for t in trained) + toy.L * sum(t.rows_seen for t in trained)
    targets = sum(t.targets_seen for t in trained)
    whole = speed.count_flops(lm, method, sum(t.rows_seen for t in trained), tokens, targets)
    # Attention is quadratic, and lengths are rounded per interval.
    assert sum(w.flops for w in works) == pytest.approx(whole, rel=0.1)


def test_what_happens_between_steps_does_not_count(lm, works, monkeypatch):
    now, tracker, p = [0.0], toy.Recorder(), population(lm)
    take = p.step

    def take_a_second(step):
        now[0] += 1.0
        return take(step)

    monkeypatch.setattr(p, "step", take_a_second)
    monkeypatch.setattr(speed, "matmul_ceiling", lambda lm: 1e9)
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    watch = StepTimer(p, tracker)
    watch.report(0)
    assert works == tracker.speeds == []  # no step, no report
    watch.step(0)
    watch.pause()
    now[0] += 100.0
    watch.step(1)
    watch.report(2)
    (work,) = works
    assert (work.steps, work.seconds) == (2, 2.0)


def test_the_tracker_is_asked_before_every_step(lm):
    calls = []

    class Asked(toy.Recorder):
        def before_step(self, wait):
            wait()
            calls.append(int(p.steps[0]))

    p = population(lm)
    watch = StepTimer(p, Asked())
    for step in range(3):
        watch.step(step)
    assert calls == [0, 1, 2]


def test_flops_are_those_of_the_passes(lm):
    method = create("prompt_tuning")
    assert speed.count_flops(lm, method, 4, 40, 8) == lm.flops(4, 10, 2, backward="prompt")
    assert speed.count_flops(lm, method, 0, 0, 0) == 0
    one = lm.flops(4, 10, 2, backward="prompt")
    for per_view_batches, passes in ((False, 3), (True, 1)):
        particles = SimpleNamespace(views=3, per_view_batches=per_view_batches, trains_lm=False)
        assert speed.count_flops(lm, particles, 4, 40, 8) == passes * one
    whole = create("full_fine_tuning")
    assert speed.count_flops(lm, whole, 4, 40, 8) == lm.flops(4, 10, 2, backward="full")


def test_the_ceiling_is_measured_once(lm):
    rate = speed.matmul_ceiling(lm)
    assert 0 < rate < math.inf
    assert speed.matmul_ceiling(lm) == rate


def test_numbers_of_an_interval():
    work = Work(step=20, steps=10, seconds=2.0, rows=400, flops=3e9, devices=2)
    record = speed.describe(work, 1e9)
    assert (record["step"], record["steps"], record["step_seconds"]) == (20, 10, 0.2)
    assert record["rows_per_second"] == 200
    assert record["flops_per_second"] == 1.5e9
    assert record["matmul_flops_per_second"] == 2e9
    assert record["utilisation"] == 0.75
    assert record["host_peak_bytes"] > 1 << 20  # this process
    assert "utilisation" not in speed.describe(work, 0.0)


def test_memory_of_devices_that_say(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    stats = [{"peak_bytes_in_use": 5}, None, {"peak_bytes_in_use": 9}, {"bytes_in_use": 99}]
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(s) for s in stats])
    assert speed.peak_memory()["device_peak_bytes"] == 9


def line(stage, step_seconds, **more):
    return {"stage": stage, "steps": 5, "step_seconds": step_seconds, "rows_per_second": 8.0} | more


def test_a_stage_is_the_median_of_its_intervals(tmp_path):
    lines = [
        line("a", 9.0, utilisation=0.1, host_peak_bytes=10),  # compiles
        line("b", 1.0, device_peak_bytes=7, host_peak_bytes=50),
        line("a", 1.0, utilisation=0.5, host_peak_bytes=30),
        line("a", 2.0, utilisation=0.4, host_peak_bytes=20),
    ]
    text = "\n".join(json.dumps(x) for x in lines)
    (tmp_path / speed.FILE).write_text(text + '\n{"stage": "c"}\n17\n{"stag', encoding="utf-8")
    first, second = speed.read(tmp_path)
    assert first == ("a", 15, 2.0, 8.0, 0.4, 30)
    assert second[:4] == ("b", 5, 1.0, 8.0)
    assert math.isnan(second.utilisation)
    assert second.peak_bytes == 7
    table = speed.markdown([first, second])
    assert table[2] == "| a | 15 | 2 | 8 | 0.40 | 0 |"
    assert "| - |" in table[3]


def test_without_a_file_there_is_no_speed(tmp_path):
    assert speed.read(tmp_path) == []
    assert speed.markdown([]) == []


def test_programs_that_are_compiled_are_announced(lm):
    tracker = toy.Recorder()
    train(lm, create("prompt_tuning"), runs(), toy.budget(3), tracker=tracker)
    said = [what for what in tracker.doings if what.startswith("compiling")]
    assert said == [f"compiling 1 of 1 programs (16 rows x {toy.L + 8} tokens)"]
    assert tracker.doings[0] == "preparing"
    assert tracker.doings[-1] == ""


def test_the_programs_of_the_next_steps_are_known_before_they_are_taken(lm):
    tokens = toy.L + 8
    trained = population(lm, micro_batch_tokens=6 * tokens)
    # Nothing of the model is compiled.
    trained.programs = trained.programs._replace(micro=lambda *given: given[3])
    tracker, taken = toy.Recorder(), []
    timer = StepTimer(trained, tracker)
    announce = trained.on_shape
    trained.on_shape = lambda *shape: (taken.append(shape), announce(*shape))
    for step in range(3):
        timer.step(step)
    assert list(dict.fromkeys(taken)) == trained.shapes(0, 3) == [(6, tokens), (4, tokens)]
    said = [what for what in tracker.doings if what.startswith("compiling")]
    assert said == [
        f"compiling 1 of 2 programs (6 rows x {tokens} tokens)",
        f"compiling 2 of 2 programs (4 rows x {tokens} tokens)",
    ]
