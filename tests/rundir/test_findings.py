"""What is computed from a run: rows, averages, contrasts, the best method, costs, warnings."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from prompt_jax.evaluation import statistics
from prompt_jax.rundir import findings, views
from prompt_jax.rundir.findings import Findings, find
from prompt_jax.rundir.folder import RunDirectory, read
from rundir.synthetic import TARGETS, result, write_run

BASE = tuple(0.5 + 0.001 * i for i in range(10))


def shifted(by: float) -> tuple[float, ...]:
    return tuple(v + by + 0.0005 * (-1) ** i for i, v in enumerate(BASE))


def run_of(values: dict[tuple[str, str], tuple[float, ...]], k: int = 0, **config) -> RunDirectory:
    """A run with one value per seed for every (method, target); seeds are all that differ."""
    rows = [
        result(method, target, k, seed, value, "f1", split, flops=3e9 if method == "spot" else 1e9)
        for (method, target), by_seed in values.items()
        for seed, value in enumerate(by_seed)
        for split in ("dev", "test")
    ]
    return RunDirectory(
        path=None,  # type: ignore[arg-type]
        config=config,
        rows=rows,
        methods=tuple(dict.fromkeys(m for m, _ in values)),
        targets=tuple(dict.fromkeys(t for _, t in values)),
        shots=(k,),
        seeds=tuple(range(max(map(len, values.values())))),
    )


def on_a(**values: tuple[float, ...]) -> Findings:
    return find(run_of({(method, "a"): by_seed for method, by_seed in values.items()}))


# --- rows ----------------------------------------------------------------------------------------


def test_targets_come_first_then_the_macro_average():
    values = {
        ("x", "a"): (0.2, 0.4),
        ("x", "b"): (0.6, 0.9),
        ("y", "a"): (0.5, math.nan),
        ("y", "b"): (0.5, 0.6),
        ("z", "a"): (0.5, 0.5),
    }
    a, b, macro = find(run_of(values)).rows
    assert [(row.kind, row.name, row.metric) for row in (a, b, macro)] == [
        ("target", "a", "f1"),
        ("target", "b", "f1"),
        ("average", "macro average", "2 targets"),
    ]
    # The mean over targets of the cells' means; its spread is that of the mean of each seed.
    assert macro.summaries["x"].mean == pytest.approx((0.3 + 0.75) / 2)
    assert macro.summaries["x"].std == pytest.approx(np.std([0.4, 0.65], ddof=1))
    assert (macro.summaries["y"].mean, macro.summaries["y"].failed) == (0.5, 1)
    assert "z" not in macro.summaries  # it has no result on b


def test_one_target_has_no_average():
    assert [row.kind for row in on_a(x=(0.5,)).rows] == ["target"]


def test_declared_groups_of_targets_are_averaged():
    values = {("x", t): (0.1 * i,) for i, t in enumerate("abc")}
    groups = [
        {"name": "two of them", "targets": ["b", "c", "elsewhere"]},
        {"name": "none", "targets": ["elsewhere"]},
    ]
    found = find(run_of(values, target_groups=groups)).rows
    assert [row.name for row in found[3:]] == ["macro average", "two of them"]
    assert found[-1].summaries["x"].mean == pytest.approx(0.15)
    assert len(find(run_of(values, target_groups="damaged")).rows) == 4


# --- contrasts -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_family_is_every_method_against_the_first(tmp_path):
    found = find(read(write_run(tmp_path / "run")))
    assert len(found.contrasts) == 2 * 2 * 2
    assert {c.baseline for c in found.contrasts} == {"prompt_tuning"}
    raw = [c.verdict.comparison.p for c in found.contrasts]
    np.testing.assert_allclose([c.verdict.p_holm for c in found.contrasts], statistics.holm(raw))
    contrast = found.contrast("spot", TARGETS[0], 16)
    assert contrast is not None
    assert contrast.verdict.comparison.items == 60
    assert found.contrast("spot", "absent", 16) is None


def test_the_minimum_effect_is_data():
    values = {("base", "a"): BASE, ("x", "a"): shifted(0.03)}
    text = run_of(values)
    assert find(text).minimum == 0.02
    assert find(text).contrasts[0].verdict.effect
    generated = run_of(values)
    generated.rows = [
        result(
            "base" if r.method == "base" else "x", "a", 0, r.seed, r.value, "f1", r.split, suite="h"
        )
        for r in text.rows
    ]
    assert find(generated).minimum == 0.05
    assert not find(generated).contrasts[0].verdict.effect
    assert find(run_of(values, minimum_effect=0.04)).minimum == 0.04
    assert find(run_of(values, minimum_effect="x")).minimum == 0.02


def test_nothing_to_compare():
    assert on_a(base=(0.5, 0.6)).contrasts == ()
    absent = run_of({("x", "a"): BASE})
    absent.methods = ("absent", "x")
    assert find(absent).contrasts == ()
    assert on_a(base=BASE, x=(math.nan,) * 10).contrasts == ()


# --- the best method -----------------------------------------------------------------------------


def test_a_significant_gain():
    (best,) = on_a(prompt_tuning=BASE, spot=shifted(0.1)).best
    assert (best.state, best.method, best.against) == ("ahead", "spot", "prompt_tuning")
    assert best.comparison is not None
    assert best.comparison.difference == pytest.approx(0.1)
    assert best.p == pytest.approx(2 ** (1 - 10))
    assert best.cost == 3.0


def test_a_gain_below_the_minimum_is_not_ahead():
    (best,) = on_a(prompt_tuning=BASE, spot=shifted(0.01)).best
    assert (best.state, best.method) == ("not_significant", "spot")
    assert best.p < 0.05


def test_a_baseline_that_wins():
    (best,) = on_a(prompt_tuning=BASE, spot=shifted(-0.1)).best
    assert (best.state, best.method, best.against) == ("baseline", "prompt_tuning", "spot")
    assert best.comparison is not None
    assert best.comparison.difference == pytest.approx(0.1)
    assert best.cost == pytest.approx(1 / 3)


def test_a_higher_mean_does_not_hide_what_is_significant():
    noisy = tuple(v + (0.9 if i < 3 else 0.0) - 0.05 for i, v in enumerate(BASE))
    (best,) = on_a(prompt_tuning=BASE, spot=shifted(0.05), x=noisy).best
    assert np.mean(noisy) > np.mean(shifted(0.05))
    assert (best.state, best.method) == ("ahead", "spot")


def test_a_reference_is_no_rival():
    found = on_a(prompt_tuning=BASE, spot=BASE, full_fine_tuning=shifted(0.3))
    assert found.references == {"full_fine_tuning"}
    assert found.best[0].state == "not_significant"
    alone = on_a(prompt_tuning=BASE, full_fine_tuning=shifted(0.3))
    assert alone.best[0].method == "full_fine_tuning"


def test_without_a_comparison():
    assert on_a(prompt_tuning=(0.5, 0.6)).best[0].state == "no_comparison"
    dead = on_a(prompt_tuning=(math.nan,), spot=(math.nan,))
    assert dead.best[0].state == "failed"
    one = on_a(prompt_tuning=(math.nan, math.nan), spot=(0.4, 0.5)).best[0]
    assert (one.state, one.method) == ("no_comparison", "spot")
    assert find(RunDirectory(path=None)).best == ()  # type: ignore[arg-type]


@pytest.mark.slow
def test_items_count(tmp_path):
    """With per-item scores the synthetic lift is significant where it was put, nowhere else."""
    states = {(b.target, b.k): b.state for b in find(read(write_run(tmp_path / "run"))).best}
    assert states[TARGETS[0], 0] == states[TARGETS[0], 16] == "ahead"
    assert states[TARGETS[1], 0] == states[TARGETS[1], 16] == "not_significant"


# --- costs, truncation, warnings -----------------------------------------------------------------


def test_costs_are_means_over_targets_and_seeds(loaded):
    found = find(loaded)
    assert [(c.method, c.k) for c in found.costs[:3]] == [(m, 16) for m in loaded.methods]
    assert found.costs[1].means["flops"] == pytest.approx(3e11)
    assert found.costs[1].ratio == pytest.approx(3.0)


@pytest.mark.slow
def test_truncation_and_warnings(copy):
    found = find(read(copy))
    assert any("10% of the train inputs were longer than 32 tokens" in x for x in found.truncation)
    assert "two rows skipped" in found.truncation
    assert found.warnings == []
    lines = (copy / "results.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"value": None})
    (copy / "results.jsonl").write_text("\n".join(lines))
    (copy / "items.npz").unlink()
    missing, died = find(read(copy)).warnings
    assert missing.startswith("items.npz is missing")
    assert died.startswith("prompt_tuning, t/near, k = 16, seed 0: the replica diverged")


def test_status_of_methods():
    assert findings.status("spot(top_k=2)") == "as published"
    assert findings.status("nobody's") == ""


# --- the primary question ------------------------------------------------------------------------


def asked(by: float, role: str = "primary", **config) -> RunDirectory:
    """`y` is ahead of `x` by that much on a, and not at all on b."""
    question = {"a": "y", "b": "x", "role": role, "why": "does it help?"}
    values = {("x", "a"): BASE, ("x", "b"): BASE, ("y", "a"): shifted(by), ("y", "b"): shifted(0)}
    return run_of(values, 16, questions=[question], **config)


def test_the_primary_question_is_answered_and_leads():
    found = find(asked(0.2))
    assert found.answer is not None
    d = found.answer.verdict.comparison
    assert (d.difference, d.seeds) == (pytest.approx(0.1), len(BASE))
    # One test of its own: the comparisons target by target correct one another, not this one.
    assert found.answer.verdict.p_holm == d.p
    assert found.answer.targets == ("a", "b")
    assert views.lead(found) == (
        f"y beats x by 10.0 points on average over 2 targets [{100 * d.low:+.1f},"
        f" {100 * d.high:+.1f}], 10 seeds."
    )
    assert views.to_dict(found)["answer"]["difference"] == d.difference


@pytest.mark.parametrize(
    ("by", "minimum", "words"),
    [
        (-0.2, 0.05, "y is behind x by 10.0 points on average over 2 targets ["),
        (0.02, 0.05, "y has 1.0 points more than x on average over 2 targets, below the minimum "),
        (-0.02, 0.05, "y has 1.0 points fewer than x on average over 2 targets, below the minim"),
        (0.0, 0.05, "y is not significantly ahead of x on average over 2 targets +0.0 ["),
    ],
)
def test_a_lead_says_no_more_than_was_found(by, minimum, words):
    assert views.lead(find(asked(by, minimum_effect=minimum))).startswith(words)


@pytest.mark.parametrize(
    "config",
    [{"questions": []}, {"questions": "damaged"}, {"questions": [{"a": "y", "b": "lost"}]}],
)
def test_without_a_primary_question_the_targets_lead(config):
    for run in (asked(0.2, "secondary"), dataclasses.replace(asked(0.2), config=config)):
        assert find(run).answer is None
        assert views.lead(find(run)) == "Significantly ahead of x: y on 1 of 2 targets."


def test_a_method_that_is_behind_is_named():
    found = find(asked(-0.2, "secondary"))
    assert views.lead(found) == (
        "No method is significantly ahead of x on 2 targets; y is significantly behind it on 1."
    )
    assert views.lead(find(asked(0, "secondary"))) == (
        "No method is significantly ahead of x on 2 targets."
    )


def test_a_question_about_one_target_names_it():
    found = find(dataclasses.replace(asked(0.2), targets=("a",)))
    assert views.lead(found).startswith("y beats x by 20.0 points on a [")


def test_the_only_method_leads_with_what_it_reached():
    one = find(run_of({("x", "a"): (0.5, 0.7)}))
    assert views.lead(one) == "x reaches 60.0 ± 14.1 points (f1) on a."
    two = find(run_of({("x", "a"): (0.5, 0.7), ("x", "b"): (0.7, 0.9)}))
    assert views.lead(two) == "x reaches 70.0 ± 14.1 points on average over 2 targets."
    apart = find(run_of({("x", "a"): (0.5,), ("y", "b"): (0.7,)}))
    assert views.lead(apart) == "No two methods have results on the same target."
