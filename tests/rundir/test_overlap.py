"""Rows in two splits, in sentences."""

from __future__ import annotations

from typing import Any

from prompt_jax.rundir.overlap import notes, sentence


def entry(dev: tuple[int, int], test: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {
        "overlap": {
            part: {"same": same, "other": other, "rows": rows}
            for part, (same, other), rows in (("dev", dev, 8), ("test", test, 1200))
        },
        **more,
    }


def test_counts_are_ranges_over_seeds_and_shots() -> None:
    data = {"tasks/mood.toml": [entry((0, 0), (2, 0), task="mood"), entry((1, 0), (1000, 3))]}
    data["tasks/mood.toml"][1]["task"] = "mood"
    assert notes(data, ["tasks/mood.toml"]) == [
        "mood: 0 to 1 of 8 development rows are training rows too",
        "mood: 2 to 1,000 of 1,200 test rows are training rows too, and 0 to 3 with another answer",
    ]


def test_test_rows_count_where_they_are_used() -> None:
    data = {"source": [entry((0, 1), (5, 5))], "clean": [entry((0, 0), (0, 0))], "old": [{}]}
    assert notes(data, ["clean", "old"]) == [
        "source: 1 of 8 development rows are training rows with another answer"
    ]
    assert notes({}) == []


def test_rows_that_other_tasks_train_on() -> None:
    counted = {"dev": {"same": 1, "rows": 8}, "test": {"same": 15, "rows": 1200}}
    data = {
        "mr": [entry((0, 0), (0, 0), sources={"sst5": counted}), entry((0, 0), (0, 0))],
        "rte": [entry((0, 0), (0, 0), sources={"mnli": {"test": {"same": 0, "rows": 9}}})],
    }
    assert notes(data, ["mr", "rte"]) == [
        "mr: 1 of 8 development rows are training rows of the source sst5 (their texts)",
        "mr: 15 of 1,200 test rows are training rows of the source sst5 (their texts)",
    ]
    data["mr"][1]["sources"] = {"sst5": {"dev": {"same": 3, "rows": 8}}}
    assert notes(data, []) == [
        "mr: 1 to 3 of 8 development rows are training rows of the source sst5 (their texts)"
    ]


def test_one_sentence() -> None:
    assert sentence([{"same": 0, "other": 0, "rows": 9}], "rows") == ""
    assert sentence([{"same": 9, "other": 0, "rows": 9}], "rows") == (
        "9 of 9 rows are training rows too"
    )
