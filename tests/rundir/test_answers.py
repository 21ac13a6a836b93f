"""`answers.json`: confusion matrices and rows answered right and wrong."""

from __future__ import annotations

import copy as copies
import json
from typing import Any

import numpy as np
import pytest

from prompt_jax.data.render import Example
from prompt_jax.data.tasks import Task, Template
from prompt_jax.evaluation import Evaluation
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import answers
from prompt_jax.rundir.folder import read

REVIEW = Task(
    "review",
    "classification",
    ("text",),
    (Template("asked", "{text}", labels=("no", "yes")),),
    labels=("bad", "good"),
)
SPAN = Task("span", "span", ("text",), (Template("plain", "{text}"),), metrics=("squad_em",))
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1])


def split(labels: np.ndarray = LABELS, words: tuple[str, ...] = ("no", "yes")) -> Any:
    examples = [Example(f"text {i}", words[y], int(y), words) for i, y in enumerate(labels)]
    return Rows(labels, examples)


class Rows:
    """What is read of a tokenised split."""

    def __init__(self, label: np.ndarray, examples: list[Example]) -> None:
        self.label, self.examples = label, examples

    def __len__(self) -> int:
        return len(self.examples)


def ranked(found: np.ndarray, **per_item: np.ndarray) -> Evaluation:
    return Evaluation({"accuracy": 0.5}, found, per_item, 0)


def log(*evaluations: Evaluation, task: Task = REVIEW, rows: Any = None) -> answers.Entry:
    made = answers.AnswerLog()
    for seed, evaluation in enumerate(evaluations):
        key = RunKey("spot", "target", "tasks/review.toml", 16, seed)
        made.add(key, task, rows or split(), evaluation)
    (entry,) = made._entries.values()
    return entry


def test_counts_are_over_seeds_and_rows_of_the_first_one():
    first = np.array([0, 1, 1, 1, 0, 0, 0, 1])  # rows 2 and 5 are wrong
    entry = log(ranked(first), ranked(LABELS))
    assert entry.confusion == [[3 + 4, 1], [1, 3 + 4]]
    assert (entry.labels, entry.seed, entry.k) == (("bad", "good"), 0, 16)
    assert [row.text for row in entry.rows] == ["text 0", "text 1", "text 2", "text 3", "text 5"]
    wrong = entry.rows[2]
    assert (wrong.expected, wrong.answer, wrong.right) == ("no (bad)", "yes (good)", False)


def test_a_tie_is_not_right():
    entry = log(ranked(LABELS, accuracy=np.where(np.arange(8) == 0, 0.5, 1.0)))
    assert [row.right for row in entry.rows] == [False, True, True, True]


def test_generated_texts_have_rows_and_no_matrix():
    rows = split(words=("Ann", "Bob"))
    evaluation = Evaluation({}, ["Ann"] * 8, {"squad_em": 1.0 - LABELS}, 0)
    entry = log(evaluation, task=SPAN, rows=rows)
    assert entry.confusion == []
    assert (entry.rows[1].expected, entry.rows[1].answer) == ("Bob", "Ann")
    # A metric that is no mean over rows says of no text whether it is right.
    assert log(Evaluation({}, ["Ann"] * 8, {}, 0), task=SPAN, rows=rows).rows == []


def test_texts_are_cut():
    examples = [Example("x" * 999, "no", 0, ("no", "yes"))]
    entry = log(ranked(np.array([0])), rows=Rows(np.array([0]), examples))
    assert entry.rows[0].text == "x" * 299 + "…"


def test_it_is_read_back(copy):
    made = answers.AnswerLog()
    key = RunKey("spot", "target", "t/near", 16, 0)
    made.add(key, REVIEW, split(), ranked(LABELS))
    made.write(copy)
    run = read(copy)
    assert run.answers == list(made._entries.values())
    assert run.problems == []
    assert "answers.json" in [name for name, _, _ in run.hashes]


GOOD = {
    "method": "spot",
    "target": "t",
    "k": 0,
    "seed": 0,
    "rows": [{"text": "a", "expected": "b", "answer": "b", "right": True}],
    "labels": ["x", "y"],
    "confusion": [[1, 0], [0, 1]],
}


def damaged(**facts: Any) -> dict[str, Any]:
    return {**copies.deepcopy(GOOD), **facts}


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        damaged(method=3),
        damaged(labels=["x"]),
        damaged(labels=3),
        damaged(rows=[{"text": "a"}]),
        damaged(rows=[{"text": 3, "expected": "", "answer": "", "right": True}]),
        damaged(rows=[{"text": "", "expected": "", "answer": "", "right": "no"}]),
        damaged(confusion=[[1, 0], [0]]),
        damaged(confusion=[[1, -1], [0, 1]]),
        damaged(confusion=[[1, 0.5], [0, 1]]),
        damaged(more=1),
    ],
)
def test_damage_is_left_out_and_said(copy, entry):
    (copy / "answers.json").write_text(json.dumps({"answers": [GOOD, entry]}))
    run = read(copy)
    assert [x.method for x in run.answers] == ["spot"]
    assert run.problems == ["answers.json is damaged: some of its entries were left out."]


@pytest.mark.parametrize("text", ["[1]", "{", '{"answers": 3}'])
def test_a_file_that_holds_something_else(copy, text):
    (copy / "answers.json").write_text(text)
    run = read(copy)
    assert run.answers == []
    assert len(run.problems) == 1
    assert run.problems[0].startswith("answers.json is damaged")
