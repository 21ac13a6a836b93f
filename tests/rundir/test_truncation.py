"""What was cut, in sentences."""

from __future__ import annotations

from prompt_jax.rundir import truncation


def entry(train: int, test: int, rows: int = 100, notes: tuple[str, ...] = (), **more: object):
    cut = {"train": {"inputs": train}, "test": {"inputs": test}}
    return {"rows": {"train": rows, "test": rows}, "cut": cut, "notes": list(notes), **more}


def test_sentences():
    found = {
        "a": [entry(10, 3, task="mine/a"), entry(30, 3, notes=("few",), task="mine/a")],
        "b": [entry(0, 50, notes=("few", "none"))],
        "c": [entry(0, 0, rows=0)],
    }
    assert truncation.notes(found, 64, ["a"]) == [
        "mine/a: 10% to 30% of the train inputs were longer than 64 tokens and were truncated",
        "mine/a: 3% of the test inputs were longer than 64 tokens and were truncated",
        "few",
        "none",
    ]
    assert len(truncation.notes(found, 64, ["a", "b"])) == 5
    assert truncation.notes({"a": [entry(0, 0)]}, 64, ["a"]) == []
    assert truncation.notes({"a": [entry(4, 4, rows=1000)]}, 64, ["a"]) == []
