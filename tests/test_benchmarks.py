"""The benchmarks run, and their page agrees with their file; toy sizes say nothing about speed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import goals, harness, page, peers, results, suite
from benchmarks.harness import Record

ROOT = Path(__file__).resolve().parents[1]
CPU = harness.scale("cpu", small=False)
MACHINE = {"device": "a processor", "cores": 2}
STEP = Record(
    "step/t5-small/float32/fixed",
    "s",
    2.0,
    4.0,
    "times",
    "PEFT",
    ratio=2.0,
    runs=5,
    spread=(1.9, 2.1),
    checked="first losses agree to 1e-07",
    settings={"B": 32, "batches": 2},
)


def written(record: Record = STEP, **changed: Any) -> dict[str, Any]:
    """The object of the file."""
    return record.to_dict(CPU, MACHINE) | {"load": 0.1} | changed


def test_the_page_is_made_from_the_file() -> None:
    """Mended by `python -m benchmarks.page`."""
    text = page.PAGE.read_text("utf-8")
    assert page.page(text, page.stored()) == text


def test_every_stored_result_is_whole() -> None:
    wanted = {"name", "ours", "peer", "unit", "ratio", "goal", "met", "runs", "spread"}
    wanted |= {"hardware", "versions", "date", "load", "small"}
    for one in page.stored():
        assert wanted <= one.keys(), one["name"]
        assert not one["small"], one["name"]
        assert one["compares"] != "times" or (one["checked"] and one["peer_is"]), one["name"]


def test_a_record_has_everything_that_the_file_needs() -> None:
    one = written()
    assert one["name"] == "cpu/step/t5-small/float32/fixed"
    assert (one["goal"], one["goal_is"], one["met"]) == (1.8, "ratio >= 1.8", True)
    assert one["hardware"] == MACHINE
    assert one["versions"]["jax"]
    assert one["spread"] == [1.9, 2.1]
    slower = dataclasses.replace(STEP, ratio=1.7)
    assert written(slower)["met"] is False
    toy = STEP.to_dict(harness.scale("cpu", small=True), MACHINE)
    assert (toy["goal"], toy["met"], toy["small"]) == (None, None, True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checked": ""}, "how equal work was checked"),
        ({"peer_is": ""}, "how equal work was checked"),
        ({"compares": ""}, "says what it compares"),
        ({"ratio": None}, "says what it compares"),
    ],
)
def test_a_ratio_has_to_say_what_of(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STEP, **changed)


def test_unequal_results_are_not_timed() -> None:
    assert harness.agree("losses", [1.0, 2.0], [1.0, 2.00002], 1e-4) == "losses agree to 1e-05"
    for ours in ([1.0, 2.1], [1.0, float("nan")]):
        with pytest.raises(RuntimeError, match="losses differ by"):
            harness.agree("losses", ours, [1.0, 2.0], 1e-4)
    with pytest.raises(RuntimeError, match="shapes"):
        harness.agree("losses", [1.0], [1.0, 2.0], 1e-4)


def test_rounds_take_the_sides_in_turn() -> None:
    now, calls = [0.0], []

    def side(name: str, seconds: float) -> Any:
        def call() -> None:
            calls.append(name)
            now[0] += seconds

        return call

    sides = {"ours": side("ours", 1.0), "peer": side("peer", 3.0)}
    found = harness.interleave(sides, CPU, clock=lambda: now[0], rounds=3)
    assert "".join(name[0] for name in calls) == "op" + "op" + "po" + "op"
    record = harness.compared("x", found, peer_is="that", checked="equal")
    assert (record.ours, record.peer, record.ratio, record.runs) == (1.0, 3.0, 3.0, 3)
    alone = harness.compared("x", harness.Rounds({"ours": [1.0, 3.0, 2.0]}), unit="ms", factor=1e3)
    assert (alone.ours, alone.peer, alone.ratio, alone.spread) == (2e3, None, None, (1e3, 3e3))


def test_goals_hold_for_the_versions_that_they_name() -> None:
    name = "cpu/step/t5-small/bfloat16/fixed"
    assert goals.goal_of(name, {"jax": "0.10.2"}) is None
    found = goals.goal_of(name, {"jax": "0.12.0.1"})
    assert found is not None
    assert found.value == 1.3
    assert goals.goal_of("cpu/start/first-step/mini/warm", {}).text == "ours <= 3"
    assert goals.goal_of("cpu/start/first-step/t5-base/warm", {}).met(10.5, None) is False
    assert goals.goal_of("cpu/growth/rows/B=8", {}) is None


def test_results_are_merged_by_name(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    results.merge(path, written())
    results.merge(path, written(name="cpu/decode/greedy/t5-small"))
    results.merge(path, written(ours=1.5))
    assert [(one["name"], one["ours"]) for one in results.read(path)] == [
        ("cpu/decode/greedy/t5-small", 2.0),
        ("cpu/step/t5-small/float32/fixed", 1.5),
    ]
    path.write_text("{}")
    with pytest.raises(ValueError, match="no list of results"):
        results.merge(path, written())


def test_tables_of_the_page() -> None:
    slow = written(name="cpu/step/t5-base/float32/fixed", extrapolated="3 of 30 runs measured")
    slow |= {"met": None, "goal_is": None, "date": "2026-12-02"}
    other = written(hardware=MACHINE | {"device": "another"}, note="not compared", load=3.0)
    other |= {"peer": None, "ratio": None, "compares": "", "met": None}
    text = page.tables([written(date="2026-12-01"), slow, other])
    assert "### a processor, 2 cores; Python" in text
    assert "Measured 2026-12-01 to 2026-12-02. 1 of 1 goals are met.\n" in text
    assert (
        "| cpu/step/t5-small/float32/fixed | B 32 | 2 s | 4 s, PEFT | 2 x (1.9 - 2.1) |"
        " ratio >= 1.8 | yes | 5 |\n"
    ) in text
    assert "\n- cpu/step/t5-base/float32/fixed (extrapolated): 3 of 30 runs measured" in text
    assert "### another, 2 cores" in text
    assert "before 1 of the measurements, up to 3 processes wanted a core" in text
    assert "\n- cpu/step/t5-small/float32/fixed: not compared" in text
    with pytest.raises(ValueError, match="toy shapes"):
        page.tables([written(small=True)])
    with pytest.raises(ValueError, match="lost the marks"):
        page.page("# Benchmarks\n", [])


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_names_are_unique_and_can_be_chosen(platform: str) -> None:
    of = harness.scale(platform, small=False)
    names = [piece.name for found in suite.families(of).values() for piece in found]
    assert len(set(names)) == len(names) > 5
    assert all(name.split("/")[0] in suite.FAMILIES for name in names)
    (found,) = suite.chosen(of, ["step/t5-base"]).values()
    assert {piece.name.rpartition("/")[0] for piece in found} <= {
        "step/t5-base/float32",
        "step/t5-base/bfloat16",
    }
    with pytest.raises(SystemExit, match="no benchmark is named 'step/t5'"):
        suite.chosen(of, ["step/t5"])


SCRIPT = """
import sys, time
begin, end = ('benchmark-line {"' + k + '": "%s"' for k in ("begin", "end"))
for name in sys.argv[1:]:
    print(begin % name + "}", flush=True)
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        sys.exit(3)
    print('benchmark-line {"record": {"name": "%s"}}' % name, flush=True)
    print("a library's own words", flush=True)
    failed = ', "failed": "ValueError: no"' if name == "fails" else ""
    print(end % name + failed + "}", flush=True)
"""


@pytest.mark.process
def test_a_piece_that_fails_loses_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(of: harness.Scale, names: list[str]) -> list[str]:
        return [sys.executable, "-S", "-c", SCRIPT, *names]

    monkeypatch.setattr(suite, "worker", worker)
    names = ("good", "fails", "hangs", "also good", "dies", "last")
    pieces = [harness.Piece(name, iter, 1.0 if name == "hangs" else 60.0) for name in names]
    found, said = [], []
    problems = suite.run(CPU, {"some": pieces}, found.append, said.append, 60.0)
    assert [one["name"] for one in found] == ["good", "fails", "also good", "last"]
    assert all("load" in one for one in found)
    assert problems == [
        ("fails", "ValueError: no"),
        ("hangs", "stopped after 1 s"),
        ("dies", "the process ended"),
    ]
    assert [line for line in said if line.startswith("[")] == [
        f"[{n}/6] {name}" for n, name in enumerate(names, 1)
    ]
    late = suite.run(CPU, {"some": pieces}, found.append, said.append, 0.0)
    assert [problem.why for problem in late] == ["no time was left"] * 6


@pytest.mark.process
def test_families_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    """With PEFT or without it, which is said."""
    path = tmp_path / "small.json"
    names = ["operations/retrieval", "step/toy-t5/float32"]
    command = ["-m", "benchmarks", "--small", "--out", str(path), *names]
    ended = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "[1/2] step/toy-t5/float32/fixed" in ended.stderr
    assert "[2/2] operations/retrieval/N=2000" in ended.stderr
    found = {one["name"]: one for one in results.read(path)}
    orders = ("random", "clusters", "by-turns")
    step = "cpu/step/toy-t5/float32/fixed"
    assert set(found) == {step, f"{step}/ceiling"} | {
        f"cpu/operations/retrieval/N=2000/{order}/{search}"
        for order in orders
        for search in ("exact", "blocks")
    }
    if note := peers.missing():
        assert (found[step]["peer"], found[step]["ratio"], found[step]["note"]) == (
            None,
            None,
            note,
        )
        assert f"{step}: {note}" in " ".join(ended.stdout.split())
    else:
        assert found[step]["checked"].startswith("first losses agree to ")
    assert 0 < found[f"{step}/ceiling"]["ratio"] < 1
    assert all(name in ended.stdout for name in found)
    one = found["cpu/operations/retrieval/N=2000/random/exact"]
    assert one["small"]
    assert one["spread"][0] <= one["ratio"] <= one["spread"][1]
    assert one["checked"] == "100.00% of the slots are equal"
    assert found["cpu/operations/retrieval/N=2000/random/blocks"]["ratio"] is None
