"""metrics.jsonl and the progress line."""

from __future__ import annotations

import io
import json
import math

import jax
import numpy as np
import pytest
import rich.console

from prompt_jax.run_key import RunKey
from prompt_jax.training.tracking import NullTracker, RunTracker, finite

KEY = RunKey("spot", "target", "glue/rte", 16, 3, 1)
RECORD = {"step": 10, "steps": 10, "rows_per_second": 8.0}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_json_with_the_key_of_their_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with RunTracker(path, show=False) as tracker:
        tracker.start("sources", 10, 3)
        tracker.log(KEY, {"step": 1, "loss": 0.5})
        assert lines(path)[0]["loss"] == 0.5  # written at once
        tracker.advance(1, "loss 0.5")
        tracker.start("target", 5, 1)
        nested = [[1.0, math.nan], [True, math.inf]]
        tracker.log(RunKey(task="b"), {"step": 2, "loss": math.nan, "own": nested})
    first, second = lines(path)
    assert {name: first[name] for name in KEY.fields()} == KEY.fields()
    assert (RunKey.of(first), first["step"]) == (KEY, 1)
    assert (RunKey.of(second), second["loss"]) == (RunKey(task="b"), None)
    assert second["own"] == [[1.0, None], [True, None]]
    assert all(line["seconds"] >= 0 for line in (first, second))


def test_a_second_run_appends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(2):
        with RunTracker(path, show=False) as tracker:
            tracker.start("s", 2, 1)
            tracker.log(KEY, {"step": step})
    assert [line["step"] for line in lines(path)] == [0, 1]


def test_the_file_is_closed_when_training_fails(tmp_path):
    tracker = RunTracker(tmp_path / "m.jsonl", show=False)
    with pytest.raises(RuntimeError), tracker:
        raise RuntimeError
    assert tracker._file.closed


@pytest.fixture
def terminal(monkeypatch):
    """What a person at a terminal sees."""
    seen = io.StringIO()
    console = rich.console.Console(file=seen, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    return seen


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunTracker(tmp_path / "m.jsonl") as tracker:
        tracker.start("s", 2, 1)
        tracker.log(KEY, {"step": 1})
        tracker.advance(1, "")
    assert not list(tmp_path.iterdir())


def test_progress_on_a_terminal(tmp_path, terminal):
    """One line a stage, which goes on where a stage trains several populations."""
    with RunTracker(tmp_path / "m.jsonl") as tracker:
        tracker.start("sources", 10, 3)
        tracker.advance(4, "loss 1.25")
        tracker.start("sources", 10, 2)
        tracker.advance(5, "loss 0.75")
        tracker.start("target", 8, 1)
        tracker.advance(8, "done")
        tasks = tracker._display._progress.tasks
        assert [(t.description, t.completed, t.total) for t in tasks] == [
            ("sources (5 replicas)", 15, 20),
            ("target (1 replica)", 8, 8),
        ]
    assert "loss 0.75" in terminal.getvalue()


def test_no_progress_elsewhere(tmp_path, capsys):
    with RunTracker(tmp_path / "m.jsonl") as tracker:
        tracker.start("sources", 10, 3)
        tracker.advance(4, "loss 1.25")
    assert capsys.readouterr() == ("", "")


def test_nobody_listens():
    tracker = NullTracker()
    tracker.start("s", 1, 1)
    tracker.log(KEY, {})
    tracker.measure(RECORD)
    assert not tracker.measures
    tracker.advance(1, "")


def test_finite():
    assert finite(1.5) == 1.5
    assert finite(math.nan) is None
    assert finite(-math.inf) is None
    assert finite(float(np.float64("nan"))) is None
    assert finite("nan") == "nan"
    assert finite(3) == 3


def test_speed_has_a_file_of_its_own(tmp_path):
    """Metrics are repeatable to the last bit, times are not; and what took place is not rewound."""
    path = tmp_path / "metrics.jsonl"
    with RunTracker(path, show=False) as tracker:
        assert tracker.measures
        tracker.start("s", 20, 2)
        tracker.measure({**RECORD, "utilisation": 0.5})
        tracker.rewind(0)
    (line,) = lines(tmp_path / "speed.jsonl")
    assert line == {"stage": "s", **RECORD, "utilisation": 0.5}
    assert lines(path) == []


def test_other_processes_measure_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with RunTracker(tmp_path / "m.jsonl", sinks=[pytest.fail]) as tracker:
        assert not tracker.measures
        tracker.measure(RECORD)
    assert not list(tmp_path.iterdir())


def test_the_progress_line_says_how_fast(tmp_path, terminal):
    with RunTracker(tmp_path / "m.jsonl") as tracker:
        tracker.start("s", 20, 2)
        tracker.measure(RECORD)
        tracker.advance(10, "loss 1.0")
    assert "8.0 rows/s" in terminal.getvalue()
