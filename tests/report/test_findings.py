"""What the page claims, and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rundir.synthetic import TARGETS, write_run

from prompt_jax.report import findings
from prompt_jax.rundir.folder import RunDirectory, read
from prompt_jax.rundir.results import ResultRow


def run_of(
    values: dict[tuple[str, str], tuple[float, ...]], flops: float = 1e9, k: int = 0
) -> RunDirectory:
    """A run with one value per seed for every (method, target); seeds are all that differ."""
    rows = []
    for (method, target), by_seed in values.items():
        for seed, value in enumerate(by_seed):
            cost = flops * (3 if method == "spot" else 1)
            for split in ("dev", "test"):
                rows.append(
                    ResultRow(method, target, k, seed, "f1", split, value, 0, 1, 1, cost, 1, 1, 1)
                )
    return RunDirectory(
        path=None,  # type: ignore[arg-type]
        rows=rows,
        methods=tuple(dict.fromkeys(m for m, _ in values)),
        targets=tuple(dict.fromkeys(t for _, t in values)),
        shots=(k,),
        seeds=tuple(range(max(map(len, values.values())))),
    )


BASE = tuple(0.5 + 0.001 * i for i in range(10))


def shifted(by: float) -> tuple[float, ...]:
    return tuple(v + by + 0.0005 * (-1) ** i for i, v in enumerate(BASE))


def test_an_established_gain():
    found = findings.find(run_of({("prompt_tuning", "a"): BASE, ("spot", "a"): shifted(0.1)}))
    (standing,) = found.standings
    assert (standing.state, standing.best, standing.against) == ("ahead", "spot", "prompt_tuning")
    assert standing.difference.startswith("+10.0 [+10.0, +10.0]")
    assert standing.p == pytest.approx(2 ** (1 - 10))
    assert standing.cost == 3.0
    assert found.lead == "spot beats prompt_tuning on a, by 10.0 points."
    assert found.more == []


def test_a_gain_that_is_too_small_is_not_established():
    found = findings.find(run_of({("prompt_tuning", "a"): BASE, ("spot", "a"): shifted(0.01)}))
    (standing,) = found.standings
    assert (standing.state, standing.best) == ("open", "spot")
    assert standing.p < 0.05
    assert found.lead == "No method is established ahead of prompt_tuning on a."
    assert found.more[0].startswith("The largest difference seen is +1.0 [")


def test_a_baseline_that_wins():
    found = findings.find(run_of({("prompt_tuning", "a"): BASE, ("spot", "a"): shifted(-0.1)}))
    (standing,) = found.standings
    assert (standing.state, standing.best, standing.against) == (
        "baseline",
        "prompt_tuning",
        "spot",
    )
    assert standing.difference.startswith("+10.0 [")
    assert standing.cost == pytest.approx(1 / 3)
    assert found.lead == (
        "Nothing beats prompt_tuning: every other method is established behind it."
    )
    assert found.more == ["spot is established behind prompt_tuning in 1 of 1 comparison."]


def test_a_second_winner_is_named():
    found = findings.find(
        run_of(
            {("prompt_tuning", "a"): BASE, ("spot", "a"): shifted(0.05), ("x", "a"): shifted(0.1)}
        )
    )
    assert found.lead == "x beats prompt_tuning on a, by 10.0 points."
    assert found.more == ["spot is also established ahead of prompt_tuning in 1 of 1 comparison."]


def test_a_higher_mean_does_not_hide_what_is_established():
    noisy = tuple(v + (0.9 if i < 3 else 0.0) - 0.05 for i, v in enumerate(BASE))
    found = findings.find(
        run_of({("prompt_tuning", "a"): BASE, ("spot", "a"): shifted(0.05), ("x", "a"): noisy})
    )
    (standing,) = found.standings
    assert np.mean(noisy) > np.mean(shifted(0.05))
    assert (standing.state, standing.best) == ("ahead", "spot")
    assert standing.note.startswith("x has the higher mean")


def test_several_targets_in_one_sentence():
    values = {
        (m, t): BASE if m == "prompt_tuning" else shifted(by)
        for t, by in (("a", 0.1), ("b", 0.2), ("c", 0.0))
        for m in ("prompt_tuning", "spot")
    }
    found = findings.find(run_of(values))
    assert [s.state for s in found.standings] == ["ahead", "ahead", "open"]
    assert found.lead == (
        "spot beats prompt_tuning on 2 of 3 targets, by 10.0 to 20.0 points."
        " On the other one, nothing is established."
    )


def test_a_reference_line_is_no_rival():
    found = findings.find(
        run_of(
            {
                ("prompt_tuning", "a"): BASE,
                ("spot", "a"): BASE,
                ("full_fine_tuning", "a"): shifted(0.3),
            }
        )
    )
    assert found.references == {"full_fine_tuning"}
    assert found.standings[0].state == "open"
    assert found.lead == "No prompt method is established ahead of prompt_tuning on a."
    assert found.more[-1] == (
        "full_fine_tuning is a reference line: established ahead of prompt_tuning in 1 of"
        " 1 comparison, behind in 0."
    )
    alone = findings.find(
        run_of({("prompt_tuning", "a"): BASE, ("full_fine_tuning", "a"): shifted(0.3)})
    )
    assert alone.standings[0].best == "full_fine_tuning"


def test_nothing_to_compare():
    one = findings.find(run_of({("prompt_tuning", "a"): (0.5, 0.6)}))
    assert one.standings[0].state == "alone"
    assert one.lead == "prompt_tuning reaches 55.0 ± 7.1 points; nothing was compared."
    none = findings.find(RunDirectory(path=None))  # type: ignore[arg-type]
    assert none.lead == "There are no results yet."
    dead = findings.find(run_of({("prompt_tuning", "a"): (math.nan,), ("spot", "a"): (math.nan,)}))
    assert dead.standings[0].state == "failed"
    assert dead.standings[0].verdict == "no result"
    assert "Nothing was compared" in dead.lead


def test_dead_baseline():
    found = findings.find(
        run_of({("prompt_tuning", "a"): (math.nan, math.nan), ("spot", "a"): (0.4, 0.5)})
    )
    assert found.standings[0].state == "alone"
    assert found.standings[0].best == "spot"


def test_one_seed_is_said():
    found = findings.find(run_of({("prompt_tuning", "a"): (0.5,), ("spot", "a"): (0.9,)}))
    assert found.standings[0].state == "open"
    assert found.standings[0].difference == "+40.0"  # no interval
    assert found.more[-1].startswith("There is one seed")


def test_items_count(tmp_path):
    """With per-item scores the synthetic lift is established where it was put, nowhere else."""
    run = read(write_run(tmp_path / "run", seeds=5))
    found = findings.find(run)
    states = {(s.target, s.k): (s.state, s.best) for s in found.standings}
    assert states[TARGETS[0], 0] == states[TARGETS[0], 16] == ("ahead", "spot")
    assert states[TARGETS[1], 0][0] == states[TARGETS[1], 16][0] == "open"
    assert found.lead.startswith("spot beats prompt_tuning in 2 of 4 cases, by ")
    assert found.lead.endswith(" In the other 2, nothing is established.")
    contrast = found.contrast("spot", TARGETS[0], 16)
    assert contrast is not None
    assert contrast.verdict.comparison.items == 60
    assert found.contrast("spot", "absent", 16) is None
    assert findings.setting(run, found.standings[1]) == "mine/far, k = 16"


def test_small_texts():
    assert findings.p_text(0.0004) == "<0.001"
    assert findings.p_text(0.0006) == "0.001"
    assert findings.multiple(9.126) == "9.1"
    assert findings.multiple(math.nan) == ""
    assert findings.status("spot(top_k=2)") == "as published"
    assert findings.status("nobody's") == ""
