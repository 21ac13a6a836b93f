"""Panels of a method that logs every kind of metric."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
from rundir.synthetic import SOURCES, write_run

from prompt_jax import report
from prompt_jax.methods import REGISTRY, BaseMethod, Panel, Stage
from prompt_jax.report import panels, svg
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.findings import find
from prompt_jax.rundir.folder import LogLine, read

GROUP = Panel("group", "timeline", "Chosen sources", "Who is merged.", labels="sources")
USAGE = Panel("usage", "heatmap", "Slot usage", "Who reads what.")
SPREAD = Panel("spread", "lines", "Spread", "Of the particles.")
WEIGHTS = Panel("weights", "lines", "Weights", "Of the sources.", labels="sources")
NEVER = Panel("never", "lines", "Never", "Is not logged.")


@dataclasses.dataclass(frozen=True)
class Fake(BaseMethod):
    name: ClassVar[str] = "fake"
    paper: ClassVar[str] = "Nobody 2026"
    status: ClassVar[str] = "our extension"  # type: ignore[assignment]
    panels: ClassVar[tuple[Panel, ...]] = (GROUP, USAGE, SPREAD, WEIGHTS, NEVER)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("sources", on="source", trains=BaseMethod()), Stage("target", on="target"))


LOGGED = {
    "fake": {
        "group": [True, False, True],
        "usage": np.eye(70).tolist(),
        "spread": 0.25,
        "weights": [0.5, 0.25, 0.25],
    },
    # What other methods log under the same name is not this method's.
    "prompt_tuning": {"spread": 9.0},
}


@dataclasses.dataclass(frozen=True)
class Borrower(BaseMethod):
    """Its first stage is trained by `fake`, half of whose budget it has."""

    name: ClassVar[str] = "borrower"
    status: ClassVar[str] = "our extension"  # type: ignore[assignment]

    def stages(self) -> tuple[Stage, ...]:
        first = Stage("target", on="target", trains=Fake(), part=(0.0, 0.5))
        return (first, Stage("last", on="target", trains=BaseMethod()))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(REGISTRY, "fake", Fake)
    folder = write_run(
        tmp_path / "run", methods=("prompt_tuning", "fake", "unknown_one"), logged=LOGGED, seeds=2
    )
    return read(folder)


def test_panel_with_first_seed_draws_the_first_seed_alone(run, monkeypatch):
    """Two seeds log one corner and the other: their mean would be grey in both."""
    tables = {(seed, 0): {1: np.eye(2)[[seed, seed]].tolist()} for seed in (0, 1)}
    shown = [(panels.Group("fake", "target", "target", 16), tables)]
    seen = []
    monkeypatch.setattr(panels.figures, "heatmap", lambda title, values, *rest: seen.append(values))
    for panel in (USAGE, dataclasses.replace(USAGE, first_seed=True)):
        panels._heatmaps(run, "fake", panel, shown)
    np.testing.assert_allclose(seen[0], 0.5)
    np.testing.assert_allclose(seen[1], [[1, 0], [1, 0]])


@pytest.mark.slow
def test_panels_of_a_method_without_a_status(run, monkeypatch):
    monkeypatch.delattr(Fake, "status")
    with svg.drawing():
        assert panels.sections(run)[1].status == ""


@pytest.mark.slow
def test_every_kind_of_panel_is_drawn(run):
    with svg.drawing():
        first, fake, unknown = panels.sections(run)
    assert first.panels == []
    assert (unknown.status, unknown.panels) == ("", [])
    assert (fake.paper, fake.status) == ("Nobody 2026", "our extension")
    assert fake.stages == ["sources: on each source, trains prompt_tuning", "target: on the target"]
    titles = [drawn.title for drawn in fake.panels]
    assert titles == ["Chosen sources", "Slot usage", "Spread", "Weights"]
    group, usage, spread, weights = fake.panels
    names = [name for name, _ in group.figures]
    assert names == [
        "t/near, k = 16 (target)",
        "mine/far, k = 16 (target)",
        "t/near, all rows (target)",
        "mine/far, all rows (target)",
    ]
    for source in SOURCES:
        assert f">{source}<" in group.figures[0][1]
    assert "48 by 48 values" in usage.figures[0][1]
    assert "the last values are 0.25" in spread.figures[0][1]
    assert spread.legend == []
    assert [key.name for key in weights.legend] == list(SOURCES)
    assert "3 lines; the last values are 0.5, 0.25, 0.25" in weights.figures[0][1]


@pytest.mark.slow
def test_panels_of_the_method_that_trains_an_earlier_stage(run, monkeypatch):
    monkeypatch.setitem(REGISTRY, "borrower", Borrower)
    run.methods = ("borrower",)
    run.metrics = [
        line._replace(key=dataclasses.replace(line.key, stage="target (50% of the steps)"))
        if (line.key.method, line.key.k) == ("fake", 0)
        else line
        for line in run.metrics
    ]
    with svg.drawing():
        (section,) = panels.sections(run)
    assert section.stages[0] == "target (50% of the steps): on the target, trains fake"
    assert [drawn.title for drawn in section.panels] == [
        "Chosen sources",
        "Slot usage",
        "Spread",
        "Weights",
    ]
    assert [name for name, _ in section.panels[0].figures] == [
        "t/near, all rows (target (50% of the steps))",
        "mine/far, all rows (target (50% of the steps))",
    ]


@pytest.mark.slow
def test_page_shows_the_panels(run):
    text = report.render(find(read(run.path)))
    section = text[text.index('id="methods"') : text.index('id="use"')]
    assert section.count("<svg") == 4 * 4 + len(SOURCES)  # figures, and a legend
    for piece in ("Chosen sources", "Who reads what.", "Nobody 2026", "does not know the method"):
        assert piece in section
    assert "Never" not in section


@pytest.mark.slow
def test_page_shows_remarks_beside_the_panels(run):
    """Those of the method's own stages."""
    key = RunKey("fake", "target", "t/near", 16, 1)
    other = dataclasses.replace(key, method="x")
    for where, step, text in ((key, 3, "early"), (key, 4, "9 are <dead>"), (other, 4, "no")):
        run.metrics.append(LogLine(where, step, {"summary": text}))
    with svg.drawing():
        _, fake, _ = panels.sections(run)
    assert [text for _, text in fake.remarks] == ["early", "9 are <dead>"]
    assert fake.remarks[1][0].endswith("seed 1")
    with (run.path / "metrics.jsonl").open("a") as file:
        line = {**key.fields(), "step": 4, "summary": "9 are <dead>"}
        file.write(json.dumps(line) + "\n")
    assert "9 are &lt;dead&gt;</li>" in report.render(find(read(run.path)))


@pytest.mark.slow
def test_panel_labels_fall_back_to_numbers(run):
    run.sources = ("only",)
    with svg.drawing():
        fake = panels.sections(run)[1]
    assert [key.name for key in fake.panels[3].legend] == ["0", "1", "2"]


@pytest.mark.slow
def test_figures_beyond_the_limit_of_a_panel_are_counted(run, monkeypatch):
    monkeypatch.setattr(panels, "_MOST", 3)
    with svg.drawing():
        fake = panels.sections(run)[1]
    assert {(len(p.figures), p.left_out) for p in fake.panels} == {(3, 1)}


def test_panels_of_damaged_values_are_left_out(run):
    for line in run.metrics:
        for key in ("group", "usage", "spread", "weights"):
            if key in line.numbers:
                line.numbers[key] = "damaged"
    with svg.drawing():
        assert panels.sections(run)[1].panels == []


def test_limits():
    assert panels._limits([np.array([0.2, 0.4])]) == (0.0, 1.0)
    assert panels._limits([np.array([-1.0, 3.0, np.nan])]) == (-1.0, 3.0)
    assert panels._limits([]) == (0.0, 1.0)
