"""Draws the panels that methods declare for what they log (`prompt_jax.methods.Panel`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.methods import BaseMethod, Panel, create
from prompt_jax.report import figures, svg
from prompt_jax.report.svg import SERIES, Key, legend
from prompt_jax.rundir import curves
from prompt_jax.rundir.curves import Group, Lines
from prompt_jax.rundir.folder import RunDirectory
from prompt_jax.rundir.tables import heading

_MOST = 12  # figures of one panel
_COUNTED = 12  # rows of a heat map whose labels are numbers
_LINES = 2 * SERIES  # lines of one figure


@dataclass(frozen=True)
class Drawn:
    """One panel.

    Attributes:
      title: of the panel.
      caption: what to see.
      figures: (what it shows, SVG).
      legend: of the lines; empty where a figure shows one thing.
      left_out: figures that are not drawn.
    """

    title: str
    caption: str
    figures: list[tuple[str, str]]
    legend: list[Key]
    left_out: int


@dataclass(frozen=True)
class Section:
    """The page's section about one method.

    Attributes:
      spec: as the config names it.
      paper: where it comes from; "" where this version does not know the method.
      status: how the implementation relates to the paper.
      stages: its stages, in words.
      panels: drawn.
      remarks: (replica, the summary that its method logged at the end of training).
    """

    spec: str
    paper: str
    status: str
    stages: list[str]
    panels: list[Drawn]
    remarks: list[tuple[str, str]] = field(default_factory=list)


def sections(run: RunDirectory) -> list[Section]:
    """One section per method of the run."""
    made = []
    for spec in run.methods:
        try:
            method = create(spec)
        except ConfigError:
            made.append(Section(spec, "", "", [], []))
            continue
        drawn = []
        for panel, logged in _declared(spec, method).items():
            if figures_ := _draw(run, spec, panel, logged):
                drawn.append(figures_)
        on = {
            "source": "each source",
            "mixture": "all sources mixed",
            "target": "the target",
            "targets": "all targets together",
        }
        stages = [
            f"{stage.title}: on {on[stage.on]}"
            + (f", trains {stage.trains.spec}" if stage.trains else "")
            + (f", {stage.trials} trials" if stage.trials > 1 else "")
            for stage in method.stages()
        ]
        remarks = _remarks(run, spec, method)
        made.append(
            Section(spec, method.paper, getattr(method, "status", ""), stages, drawn, remarks)
        )
    return made


Stages = set[tuple[str, str]]  # (method that is trained, title of the stage)


def _trained(spec: str, method: BaseMethod) -> list[tuple[BaseMethod, tuple[str, str]]]:
    """What trains each stage of a method, with how the stage is logged."""
    *earlier, last = method.stages()
    found = []
    for stage in earlier:
        trainer = stage.trains or method
        found.append((trainer, (stage.trains.spec if stage.trains else spec, stage.title)))
    trainer = last.trains or method
    return [*found, (trainer, (spec, last.title))]


def _declared(spec: str, method: BaseMethod) -> dict[Panel, Stages]:
    """The panels of a method and of those that train its stages, with these stages."""
    made: dict[Panel, Stages] = {}
    for trainer, stage in _trained(spec, method):
        for panel in trainer.panels:
            made.setdefault(panel, set()).add(stage)
    return made


def _remarks(run: RunDirectory, spec: str, method: BaseMethod) -> list[tuple[str, str]]:
    """(replica, its summary) over all stages."""
    stages = {stage for _, stage in _trained(spec, method)}
    return [
        (f"{_name(run, group)}, seed {seed}", svg.clean(str(text)))
        for group, lines in curves.collect(run, "summary").items()
        if (group.method, group.stage) in stages
        for (seed, _), by_step in sorted(lines.items())
        for text in by_step.values()
    ]


def _draw(run: RunDirectory, spec: str, panel: Panel, stages: Stages) -> Drawn | None:
    """All figures of a panel on one scale; None where nothing was logged for it."""
    found = {
        group: lines
        for group, lines in curves.collect(run, panel.metric).items()
        if (group.method, group.stage) in stages
    }
    shown = list(found.items())[:_MOST]
    draw = {"lines": _lines, "timeline": _timelines, "heatmap": _heatmaps}[panel.kind]
    made = draw(run, spec, panel, shown)
    if not made:
        return None
    keys = legend(_keys(run, panel, shown))
    return Drawn(panel.title, panel.caption, made, keys, max(0, len(found) - _MOST))


def _name(run: RunDirectory, group: Group) -> str:
    """What a figure shows: the task, its shots, and the stage."""
    parts = [run.short(group.task) if group.task else "mixture"]
    if group.k is not None:
        parts.append(heading(group.k))
    return ", ".join(parts) + f" ({group.stage})"


def _labels(run: RunDirectory, panel: Panel, count: int) -> list[str]:
    if panel.labels == "sources" and len(run.sources) == count:
        return [run.short(source) for source in run.sources]
    return [str(i) for i in range(count)]


def _named(run: RunDirectory, panel: Panel, count: int) -> list[str]:
    """Labels of a heat map: none where they would only count."""
    labels = _labels(run, panel, count)
    return [] if count > _COUNTED and labels[0] == "0" else labels


def _keys(run: RunDirectory, panel: Panel, shown: Sequence[tuple[Group, Lines]]) -> list[str]:
    """The legend of a panel whose figures have several lines."""
    for _, lines in shown if panel.kind == "lines" else ():
        table = curves.arrays(lines, 1)
        if table is not None:
            return _labels(run, panel, min(table[1].shape[1], _LINES))
    return []


def _lines(
    run: RunDirectory, spec: str, panel: Panel, shown: Sequence[tuple[Group, Lines]]
) -> list[tuple[str, str]]:
    drawn = []
    for group, lines in shown:
        table = curves.arrays(lines, 1)
        if table is not None:
            steps, values = table
            several = [
                figures.Curve(i, steps, values[:, i].tolist(), True)
                for i in range(min(values.shape[1], _LINES))
            ]
            drawn.append((_name(run, group), several))
        elif runs := curves.numbers(lines):
            drawn.append((_name(run, group), figures.with_mean(runs, 1)))
    across = figures.span([s for _, found in drawn for c in found for s in c.steps])
    up = figures.span([v for _, found in drawn for c in found for v in c.values], 1e-3)
    return [
        (
            name,
            figures.curves(
                f"{spec}, {panel.title}: {name}",
                found,
                across,
                up,
                f"{len(found)} lines; the last values are "
                + ", ".join(f"{c.values[-1]:.3g}" for c in found[:_LINES]),
            ),
        )
        for name, found in drawn
    ]


def _timelines(
    run: RunDirectory, spec: str, panel: Panel, shown: Sequence[tuple[Group, Lines]]
) -> list[tuple[str, str]]:
    tables = [(_name(run, group), curves.arrays(lines, 1)) for group, lines in shown]
    known = [(name, *table) for name, table in tables if table is not None]
    limits = _limits([values for _, _, values in known])
    return [
        (
            name,
            figures.timeline(
                f"{spec}, {panel.title}: {name}",
                steps,
                values.T,
                _labels(run, panel, values.shape[1]),
                limits,
            ),
        )
        for name, steps, values in known
    ]


def _heatmaps(
    run: RunDirectory, spec: str, panel: Panel, shown: Sequence[tuple[Group, Lines]]
) -> list[tuple[str, str]]:
    if panel.first_seed:
        shown = [(group, {min(lines): lines[min(lines)]}) for group, lines in shown]
    tables = [(_name(run, group), curves.arrays(lines, 2)) for group, lines in shown]
    known = [(name, figures.shrink(table[1][-1])) for name, table in tables if table is not None]
    limits = _limits([values for _, values in known])
    return [
        (
            name,
            figures.heatmap(
                f"{spec}, {panel.title}: {name}",
                values,
                _named(run, panel, len(values)),
                _named(run, panel, values.shape[1]),
                limits,
            ),
        )
        for name, values in known
    ]


def _limits(tables: Sequence[np.ndarray]) -> tuple[float, float]:
    """0 to 1 where that holds all values, as for shares and group membership."""
    finite = [float(v) for values in tables for v in values[np.isfinite(values)].ravel()]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
