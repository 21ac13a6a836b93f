"""How far a run is: the line of a log file, and what it is computed from."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest
import rich.console

from prompt_jax.errors import ConfigError
from prompt_jax.run_key import RunKey
from prompt_jax.training import progress
from prompt_jax.training.progress import Display, Status
from prompt_jax.training.tracking import RunTracker, TrackingConfig

A, B = RunKey(task="a"), RunKey(task="b")


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_holds_stage_step_loss_metric_rate_and_time_left(clock):
    status = Status()
    status.start("spot: target, k = 16", 300, 4)
    status.taking()
    assert status.line() == "spot: target, k = 16 (4 replicas): step 0 of 300"
    clock[0] = 60.0  # the first step compiled
    status.reached(1)
    status.taking()
    clock[0] += 99.0
    status.reached(100)
    status.loss, status.rate = "loss 0.431", "154 rows/s"
    status.developed(A, 0.25)
    status.developed(A, 0.75)  # the latest counts
    status.developed(B, 0.5)
    assert status.line() == (
        "spot: target, k = 16 (4 replicas): step 100 of 300, loss 0.431, dev 62.5, 154 rows/s,"
        " 3 min 20 s left"
    )
    status.note("compiling 2 of 7 programs (48 rows x 72 tokens)")
    clock[0] += 12.0
    assert status.line().endswith(", compiling 2 of 7 programs (48 rows x 72 tokens) (12 s)")
    status.note("")
    status.reached(300)
    assert "left" not in status.line()


def test_populations_of_a_stage_add_up(clock):
    status = Status()
    assert not status.start("sources", 10, 3)
    status.reached(10)
    status.developed(A, 0.5)
    assert status.start("sources", 20, 1)
    status.reached(5)
    assert status.line() == "sources (4 replicas): step 15 of 30"
    assert not status.start("target", 5, 1)
    assert status.line() == "target (1 replica): step 0 of 5"


def test_after_a_checkpoint_the_time_left_is_that_of_the_steps_taken_now(clock):
    status = Status()
    status.start("s", 100, 1)
    status.reached(80)
    status.taking()
    clock[0] = 50.0
    status.reached(81)
    status.taking()
    clock[0] = 52.0
    status.reached(82)
    assert status.left == "36 s left"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "_FIRST", 0.01)


def test_lines_without_a_terminal(tmp_path, capsys, quick):
    """A line at once and one every few seconds; none that says nothing new."""
    with RunTracker(tmp_path / "m.jsonl", every=0.01) as tracker:
        time.sleep(0.05)  # no stage yet: no line
        tracker.start("sources", 10, 3)
        tracker.advance(4, "loss 1.25")
        tracker.log(A, {"step": 4, "dev": 0.5})
        deadline = time.monotonic() + 60
        seen = ""
        while "dev 50.0" not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
            seen += capsys.readouterr().err
        time.sleep(0.05)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")
    assert seen.splitlines()[-1] == "sources (3 replicas): step 4 of 10, loss 1.25, dev 50.0"


@pytest.mark.parametrize("options", [{"every": 0.0}, {"show": False, "every": 0.01}])
def test_no_lines_where_none_are_wanted(tmp_path, capsys, quick, options):
    with RunTracker(tmp_path / "m.jsonl", **options) as tracker:
        tracker.start("sources", 10, 3)
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


def test_a_closed_pipe_stops_nothing(tmp_path, monkeypatch, quick):
    class Closed(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    with RunTracker(tmp_path / "m.jsonl", every=0.01) as tracker:
        tracker.start("sources", 10, 3)
        time.sleep(0.05)


def test_the_bar_shows_the_metric_and_what_is_compiled(tmp_path, monkeypatch):
    seen = io.StringIO()
    console = rich.console.Console(file=seen, force_terminal=True, width=160)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    monkeypatch.setenv("TERM", "xterm")
    with RunTracker(tmp_path / "m.jsonl") as tracker:
        tracker.doing("nothing yet")
        tracker.start("s", 20, 2)
        tracker.advance(10, "loss 1.0")
        tracker.log(A, {"step": 10, "dev": 0.713})
        tracker.doing("compiling 1 of 7 programs")
    assert "loss 1.0  dev 71.3  compiling 1 of 7 programs" in seen.getvalue()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_seconds_between_lines(seconds):
    with pytest.raises(ConfigError, match="--log-seconds must be a number of seconds from 0 up"):
        TrackingConfig(log_seconds=seconds)


class Cell:
    """What IPython's `display(.., display_id=True)` returns."""

    def __init__(self):
        self.texts = []

    def update(self, data, raw):
        assert raw
        self.texts.append(data["text/plain"])


@pytest.fixture
def notebook(monkeypatch):
    """A kernel's IPython, as far as it is asked."""
    cell = Cell()
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = lambda data, raw, display_id: cell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    cell.shell = shell
    return cell


def test_a_notebook_shows_one_text_that_changes(notebook, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    status = Status()
    with Display(status, 0.01) as shown:
        for stage, replicas in (("sources", 3), ("target", 2)):
            shown.start(status.start(stage, 10, replicas))
            for step in (1, 10):
                status.reached(step)
                shown.update()
    assert notebook.texts[1] == "sources (3 replicas): step 1 of 10"
    assert notebook.texts[-1].splitlines() == [
        "sources (3 replicas): step 10 of 10",
        "target (2 replicas): step 10 of 10",
    ]
    assert capsys.readouterr().err == ""


def test_a_notebook_is_not_drawn_at_every_step(notebook):
    status = Status()
    with Display(status, 1.0) as shown:
        shown.start(status.start("s", 1000, 1))
        for step in range(1000):
            status.reached(step + 1)
            shown.update()
    assert len(notebook.texts) < 10
    assert notebook.texts[-1] == "s (1 replica): step 1,000 of 1,000"


def test_ipython_in_a_terminal_is_no_notebook(notebook):
    notebook.shell.kernel = None
    with Display(Status(), 0.0):
        pass
    assert notebook.texts == []
