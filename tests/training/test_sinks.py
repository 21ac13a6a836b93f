"""TensorBoard's event files are read back by TensorBoard; W&B is a stand-in, without network."""

from __future__ import annotations

import math
import sys
import textwrap

import pytest

from prompt_jax.errors import ConfigError, MissingExtraError
from prompt_jax.run_key import RunKey
from prompt_jax.training import sinks, tracking
from prompt_jax.training.profiling import Profiler
from prompt_jax.training.sinks import TensorBoard, Wandb, flat, folder_name
from prompt_jax.training.tracking import RunTracker, TrackingConfig


def scalars(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_events_come_back(tmp_path):
    sink = TensorBoard(tmp_path)
    sink.write("target", "a k=4", 1, {"loss": 0.5, "own/0": 1.0})
    sink.write("target", "b", 1, {"loss": 0.25})
    sink.write("target", "a k=4", 2, {"loss": math.nan})
    sink.write("target", "", 2, {"speed/rows_per_second": 8.0})
    sink.close()
    found = scalars(tmp_path / "target" / "a_k=4")
    assert found["own/0"] == [(1, 1.0)]
    assert found["loss"][0] == (1, 0.5)
    assert math.isnan(found["loss"][1][1])
    assert scalars(tmp_path / "target" / "b") == {"loss": [(1, 0.25)]}
    (whole,) = (tmp_path / "target").glob("events.*")
    assert whole.stat().st_size


def test_a_second_process_repeats_steps_and_tensorboard_forgets_the_first(tmp_path, monkeypatch):
    times = iter([1000.0, 2000.0])
    for values in ((1.0, 2.0, 3.0), (30.0,)):
        now = next(times)
        monkeypatch.setattr(sinks.time, "time", lambda now=now: now)
        sink = TensorBoard(tmp_path)
        for step, value in enumerate(values, start=4 - len(values)):
            sink.write("s", "a", step, {"loss": value})
    assert scalars(tmp_path / "s" / "a") == {"loss": [(1, 1.0), (2, 2.0), (3, 30.0)]}


def test_folder_names_are_one_folder():
    assert folder_name("../../etc") == "etc"
    assert folder_name("..") == "."
    long = [folder_name("x" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 200


def test_only_numbers_are_passed_on():
    record = {"run": "a", "event": "stopped", "loss": 1, "grid": [[1.0, 2.0], [3.0, 4.0]]}
    assert flat(record) == {
        "loss": 1.0,
        "grid/0/0": 1.0,
        "grid/0/1": 2.0,
        "grid/1/0": 3.0,
        "grid/1/1": 4.0,
    }
    assert flat({"large": [0.0] * 65, "none": None}) == {}


WANDB = """
calls = []

class Run:
    def define_metric(self, name, step_metric=None):
        calls.append(("define", name, step_metric))
    def log(self, numbers):
        calls.append(("log", dict(numbers)))
    def finish(self):
        calls.append(("finish",))

def init(**options):
    calls.append(("init", options))
    if options["project"] == "broken":
        raise RuntimeError("api_key not configured.\\nmore")
    return Run()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "wandb.py").write_text(textwrap.dedent(WANDB), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    sys.modules.pop("wandb", None)


def test_wandb_gets_every_number_with_the_stage_as_axis(tmp_path, wandb):
    folder = tmp_path / "run"
    folder.mkdir()
    for _ in range(2):
        sink = Wandb("project", folder, {"seeds": 3})
        sink.write("target", "a", 10, {"loss": 0.5})
        sink.write("target", "", 10, {"speed/rows_per_second": 9.0})
        sink.close()
    (_, options), *rest = wandb.calls[: len(wandb.calls) // 2]
    assert options["project"] == "project"
    assert (options["name"], options["config"]) == ("run", {"seeds": 3})
    assert rest == [
        ("define", "target/step", None),
        ("define", "target/*", "target/step"),
        ("log", {"target/step": 10, "target/a/loss": 0.5}),
        ("log", {"target/step": 10, "target/speed/rows_per_second": 9.0}),
        ("finish",),
    ]
    again = wandb.calls[len(wandb.calls) // 2][1]
    assert (again["id"], again["resume"]) == (options["id"], "allow")  # the same run goes on


def test_wandb_that_does_not_start_is_one_message(tmp_path, wandb):
    with pytest.raises(ConfigError, match=r"does not start: api_key not configured\. WANDB_MODE"):
        Wandb("broken", tmp_path, {})


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_named_at_once(tmp_path, monkeypatch, package):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    option = {"tensorboard": True} if package == "tensorboard" else {"wandb": "project"}
    with pytest.raises(MissingExtraError, match=rf"pip install '?{package}\b"):
        TrackingConfig(**option)
    monkeypatch.setitem(sys.modules, package, None)
    for name in list(sys.modules):
        if name.startswith("tensorboard."):
            monkeypatch.setitem(sys.modules, name, None)
    make = {"tensorboard": lambda: TensorBoard(tmp_path), "wandb": lambda: Wandb("p", tmp_path, {})}
    with pytest.raises(MissingExtraError, match=f"--{package} needs the package '{package}'"):
        make[package]()


def test_a_folder_called_wandb_is_no_package(tmp_path, monkeypatch):
    """W&B leaves one where it was used, and Python would import it."""
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError):
        TrackingConfig(wandb="project")


def test_the_tracker_passes_on_what_it_logs(tmp_path):
    made = []

    class Kept:
        def __init__(self):
            self.got, self.closed = [], False
            made.append(self)

        def write(self, stage, run, step, numbers):
            self.got.append((stage, run, step, numbers))

        def close(self):
            self.closed = True

    with RunTracker(tmp_path / "metrics.jsonl", show=False, sinks=[Kept, Kept]) as tracker:
        tracker.start("s", 10, 1)
        key = RunKey("spot", "target", "a", 4, 1)
        tracker.log(key, {"step": 3, "loss": 0.5, "event": "text"})
        tracker.log(key, {"step": 4, "event": "nothing but text"})
    for sink in made:
        assert sink.got == [("s", "a k=4 seed=1", 3, {"loss": 0.5})]
        assert sink.closed


def test_everything_is_closed_where_one_thing_fails(tmp_path):
    """A full disk may show when the file is closed."""

    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    closed = []

    class Kept(Full):
        def close(self):
            closed.append(self)

    profiler = Profiler(tmp_path, 0, 1)
    profiler.traced = True
    tracker = RunTracker(tmp_path / "m.jsonl", show=False, sinks=[Full, Kept], profiler=profiler)
    tracker.__enter__()
    tracker._file.close()
    tracker._file = Full()
    with pytest.raises(OSError, match="No space"):
        tracker.__exit__(None, None, None)
    assert len(closed) == 1


def test_a_sink_that_cannot_be_made_leaves_nothing_open(tmp_path):
    def refuse():
        raise ConfigError("no")

    with (
        pytest.raises(ConfigError),
        RunTracker(tmp_path / "m.jsonl", show=False, sinks=[refuse]),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_observe_makes_what_is_wanted(tmp_path, wandb):
    assert TrackingConfig().sinks(tmp_path, {}) == []
    assert TrackingConfig().profiler(tmp_path) is None
    observe = TrackingConfig(wandb="project", profile="3:5")
    (make,) = observe.sinks(tmp_path, {"a": 1})
    assert isinstance(make(), Wandb)
    profiler = observe.profiler(tmp_path)
    assert (profiler.start, profiler.stop, profiler.folder) == (3, 5, tmp_path / "profile")
