"""Declared contrasts, answered from run directories made here and from the published archives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prompt_jax.data import registry
from prompt_jax.errors import DataError
from prompt_jax.rundir import archive, contrasts, results
from prompt_jax.rundir.contrasts import Answers, answer, compare, pool
from prompt_jax.rundir.questions import Question, TargetGroup
from prompt_jax.rundir.scores import Cell
from rundir.synthetic import write_cells

TALK, COMPLAINTS = "sandbox/sentiment_talk", "sandbox/complaints"
SEEDS = 5
ROOT = Path(__file__).resolve().parents[2]
RATES = {"base": 0.5, "better": 0.9}
FIRST = Question("better", "base", why="is it?", role="primary")


def draw(rate: float, rows: int = 40, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((SEEDS, rows)) < rate).astype(np.float32)


def ask(paths: Sequence[str | Path], *asked: Question, **options: object) -> Answers:
    return answer(archive.read(paths), asked, **options)  # type: ignore[arg-type]


def difference(paths: Sequence[str | Path], question: Question):
    return compare(pool(archive.read(paths)), question)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    base = {("base", TALK): draw(0.5), ("base", COMPLAINTS): draw(0.5, 80, 1)}
    better = {("better", TALK): draw(0.9, seed=2), ("better", COMPLAINTS): draw(0.5, 80, 1)}
    one = write_cells(tmp_path / "one", base | better)
    two = write_cells(
        tmp_path / "two",
        {("third", TALK): draw(0.7, seed=3), ("third", COMPLAINTS): draw(0.7, 80, 4)},
    )
    return [str(one), str(two)]


def test_every_target_counts_alike(runs):
    values = pool(archive.read(runs)).primary.values
    found = difference(runs, FIRST)
    by_target = [
        np.mean(
            [values[Cell("better", t, 16)][s] - values[Cell("base", t, 16)][s] for s in range(5)]
        )
        for t in (TALK, COMPLAINTS)
    ]
    assert found.difference == pytest.approx(np.mean(by_target), abs=1e-6)
    assert by_target[1] == 0
    one = difference(runs, Question("better", "base", (TALK,)))
    assert one.difference == pytest.approx(by_target[0], abs=1e-6)
    assert (one.seeds, one.items) == (SEEDS, 40)


def test_methods_of_another_run_directory(runs):
    with pytest.raises(DataError, match="no run directory has third"):
        ask(runs[:1], Question("third", "base"))
    others = (Question("better", "third"), Question("third", "base", (TALK,)))
    made = ask(runs, FIRST, *others)
    # The run's own methods, and whatever is asked about.
    assert [row[0] for row in made.means.rows] == ["base", "better", "third"]
    assert [row[0] for row in ask(runs, FIRST).means.rows] == ["base", "better"]
    assert [row[0] for row in made.contrasts.rows] == ["primary", "", ""]
    assert made.contrasts.rows[0][1:4] == ("better - base", "2", "is it?")
    assert made.contrasts.rows[0][4].startswith("+")


def test_seeds_of_several_run_directories_are_put_together(tmp_path):
    whole = {(method, TALK): draw(rate, seed=i) for i, (method, rate) in enumerate(RATES.items())}
    paths = [
        write_cells(
            tmp_path / f"{start}", {k: v[start:end] for k, v in whole.items()}, first_seed=at
        )
        for start, end, at in ((0, 2, 0), (1, 5, 1))
    ]
    one = write_cells(tmp_path / "one", whole)
    question = Question("better", "base")
    found, expected = difference(paths, question), difference([one], question)
    assert (found.seeds, found.difference) == (SEEDS, expected.difference)
    assert ask(paths, FIRST).means == ask([one], FIRST).means


def test_seeds_under_another_protocol_are_not_put_together(tmp_path):
    paths = []
    for n in range(2):
        made = {("base", TALK): draw(0.5)[:2], ("better", TALK): draw(0.9)[:2]}
        paths.append(write_cells(tmp_path / str(n), made, first_seed=2 * n))
        file = paths[n] / "config.json"
        config = json.loads(file.read_text()) | {"seeds": 2, "first_seed": 2 * n}
        file.write_text(json.dumps(config))
    assert ask(paths, FIRST).contrasts.rows
    config["few_shot"] = {"optimizer": {"learning_rate": 0.3}}
    file.write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"another protocol (.|\n)*learning_rate"):
        ask(paths, FIRST)


def test_the_primary_contrast_is_one_test(runs):
    alone = ask(runs, FIRST).contrasts.rows[0]
    among = ask(runs, FIRST, Question("better", "third"), Question("third", "base")).contrasts.rows
    assert among[0] == alone


def test_questions_that_were_not_run_are_left_out(runs):
    missing, other = Question("better", "third"), Question("better", "base", (TALK,))
    with pytest.raises(DataError, match="no run directory has third"):
        ask(runs[:1], FIRST, missing, other)
    partly = ask(runs[:1], FIRST, missing, other, partly=True)
    # Corrected as if the other one had been declared alone.
    assert partly.contrasts.rows == ask(runs[:1], FIRST, other).contrasts.rows
    assert partly.not_run == (missing,)
    with pytest.raises(DataError, match="no run directory has third"):
        ask(runs[:1], dataclasses.replace(missing, role="primary"), partly=True)


def test_targets_that_were_left_out_are_counted(runs):
    some = Question("better", "base", (TALK, "sandbox/errors"))
    assert ask(runs, some).contrasts.rows[0][2] == "1 of 2"
    with pytest.raises(DataError, match="none of the targets"):
        ask(runs, Question("better", "base", ("sandbox/errors",)))


def test_groups_of_targets_are_averaged(runs):
    groups = (
        TargetGroup("talk", (TALK, "sandbox/errors")),
        TargetGroup("nothing", ("sandbox/errors",)),
        TargetGroup("all of them", (TALK, COMPLAINTS)),
    )
    means = ask(runs, FIRST, groups=groups).means
    assert means.columns == ("method", "all targets (2)", "talk (1)")


def test_without_questions_a_config_is_asked_for(runs):
    with pytest.raises(DataError, match=r"declares no questions.*--config"):
        ask(runs)


@pytest.mark.parametrize("changes", [{"weights": "other"}, {"templates": "all"}, {"suite": "x"}])
def test_runs_that_do_not_go_together(runs, tmp_path, changes):
    other = write_cells(tmp_path / "three", {("third", TALK): draw(0.7)}, **changes)
    with pytest.raises(DataError, match=r"differ"):
        ask([runs[0], str(other)], FIRST)


def test_templates_are_told_apart(tmp_path):
    names = [template.name for template in registry.get(TALK).templates]
    right = np.zeros((SEEDS, 10, len(names)), np.float32)
    right[:, :, names.index("asked_3")] = 1
    scores = {("a", TALK): right.reshape(SEEDS, -1), ("b", TALK): np.zeros((SEEDS, right[0].size))}
    run = write_cells(tmp_path / "run", scores, templates="all")
    for templates, expected in ((("asked_3",), 1.0), (("asked_1",), 0.0), ((), 1 / len(names))):
        found = difference([run], Question("a", "b", (), templates))
        assert found.difference == pytest.approx(expected)
    with pytest.raises(DataError, match="has no template absent"):
        difference([run], Question("a", "b", (), ("absent",)))
    one = write_cells(tmp_path / "one", scores)
    with pytest.raises(DataError, match="templates cannot be told apart"):
        difference([one], Question("a", "b", (), ("asked_3",)))


def test_without_items_signs_are_flipped(tmp_path):
    scores = {("a", TALK): draw(0.9), ("b", TALK): draw(0.2, seed=5)}
    run = write_cells(tmp_path / "run", scores, items=False)
    assert difference([run], Question("a", "b")).p == 2 ** (1 - SEEDS)


def calibrate(run: Path, by_method: dict[str, float], targets: tuple[str, ...]) -> None:
    """Adds calibration to a run directory: each seed's numbers lie 0.01 above the last one's."""
    rows = results.read_rows(run / "results.jsonl")
    for method, value in by_method.items():
        for target in targets:
            for seed in range(SEEDS):
                cell = (method, target, seed)
                one = next(r for r in rows if (r.method, r.target, r.seed) == cell)
                rows += [
                    dataclasses.replace(one, metric=name, split="test", value=value + seed / 100)
                    for name in ("nll", "brier", "ece")
                ]
    results.write_rows(run / "results.jsonl", rows)


def test_calibration_of_two_methods(runs):
    asked = Question("better", "base", role="calibration")
    with pytest.raises(DataError, match="calibration of better and base"):
        ask(runs, asked)
    before = ask(runs, FIRST, Question("better", "third")).contrasts
    calibrate(Path(runs[0]), {"better": 0.2, "base": 0.5}, (TALK,))
    calibrate(Path(runs[1]), {"third": 0.1}, (COMPLAINTS,))
    made = ask(runs, FIRST, Question("better", "third"), asked)
    (table,) = made.calibration
    assert "mean over 1 targets" in table.title
    assert table.columns == ("method", "points", "nll", "brier", "ece")
    values = pool(archive.read(runs)).primary.values
    gained = np.mean(
        [values[Cell("better", TALK, 16)][s] - values[Cell("base", TALK, 16)][s] for s in range(5)]
    )
    assert table.rows[2][1] == f"{100 * gained:+.1f} (p 0.062)"
    assert table.rows[2][2:] == ("-0.300 (p 0.062)",) * 3
    assert table.rows[0][2:] == ("0.220 ± 0.016",) * 3
    with pytest.raises(DataError, match="on one target"):
        ask(runs, Question("third", "base", role="calibration"))
    # The family is not changed by it.
    assert made.contrasts == before


# --- the published archives ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/results/archives").glob("*.tar.gz")), ids=lambda p: p.stem
)
def test_every_archive_can_be_read(path):
    (run,) = archive.read([path])
    assert run.rows
    assert {row.key for row in run.rows if row.split == "test"} >= set(run.items)
    assert all("prompts" in p or "data.json" in p or "metrics" in p for p in run.problems)
    # Keys and items are joined: every healthy cell of a metric that has items has them.
    assert contrasts.pool([run]).primary.items
