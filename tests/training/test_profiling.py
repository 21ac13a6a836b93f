"""Which steps are traced."""

from __future__ import annotations

import jax
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.training.profiling import Profiler, parse_span
from prompt_jax.training.tracking import RunTracker


@pytest.mark.parametrize("text", ["", "3", "5:5", "6:5", "-1:4", "a:b", "1:2:3", "1.0:2", "²:³"])
def test_what_is_no_span(text):
    with pytest.raises(ConfigError, match="START:STOP"):
        parse_span(text)


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: made.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: made.append("stop"))
    return made


def test_the_device_is_waited_for_at_both_ends(calls, tmp_path):
    profiler = Profiler(tmp_path, 1, 3)
    for step in range(5):
        profiler.before_step(lambda: calls.append("wait"))
        calls.append(step)
    profiler.close()
    assert calls == [0, "wait", "start", 1, 2, "wait", "stop", 3, 4]
    assert profiler.traced


def test_a_trace_ends_with_the_training(calls, tmp_path):
    profiler = Profiler(tmp_path, 0, 99)
    with RunTracker(tmp_path / "m.jsonl", show=False, profiler=profiler) as tracker:
        tracker.before_step(lambda: None)
    assert calls == ["start", "stop"]


def test_a_step_that_never_comes_traces_nothing(calls, tmp_path, caplog):
    profiler = Profiler(tmp_path, 7, 9)
    profiler.before_step(lambda: None)
    profiler.close()
    assert calls == []
    assert not profiler.traced
    assert "step 7 never came, for this process trained 1 steps" in caplog.text


def test_only_the_first_process_traces(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunTracker(tmp_path / "m.jsonl", profiler=Profiler(tmp_path, 0, 1)) as tracker:
        tracker.before_step(lambda: None)
    assert calls == []


@pytest.mark.slow
def test_a_real_trace_is_a_file(tmp_path):
    profiler = Profiler(tmp_path / "profile", 0, 1)
    for _ in range(2):
        profiler.before_step(lambda: None)
        jax.block_until_ready(jax.numpy.ones(4) * 2)
    assert list(tmp_path.rglob("*.xplane.pb"))
