"""Candidates that share the best score: no number follows the position of the right one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from prompt_jax.data import Example, encode
from prompt_jax.evaluation import ensemble, evaluators, metrics, ties
from prompt_jax.evaluation.sweep import Job


class Words:
    """A tokenizer with one id per word."""

    pad_id, eos_id, fingerprint = 0, 1, "words"

    def __init__(self):
        self.ids = {}

    def encode(self, texts, add_eos=True):
        return [[self.ids.setdefault(w, len(self.ids) + 2) for w in t.split()] + [1] for t in texts]


LONG = ("the bread was warm on friday", "the bread was warm on fridays")  # equal up to 5 words


def choices(*rows, max_target=64):
    """A split of rows (candidates, label)."""
    examples = [
        Example(f"row {i // 2}", c[label], label, tuple(c), (c[label],))
        for i, (c, label) in enumerate(rows)
    ]
    return encode(examples, Words(), 16, max_target, name="pairs")


def both_ways(pair):
    return [(pair, 0), (pair, 1), (pair[::-1], 0), (pair[::-1], 1)]


@pytest.fixture
def scored(monkeypatch):
    """Gives every candidate of a job a score, in place of the model's."""

    def install(nll):
        nll = np.asarray(nll, np.float32)

        class Sweep:
            def __init__(self, lm, jobs, *_):
                self.jobs = jobs
                self.pool = SimpleNamespace(splits=[jobs[0].split])

            def run(self, program, tables):
                for number, _ in enumerate(self.jobs):
                    tokens = np.where(np.isfinite(nll), 1.0, 0.0).astype(np.float32)
                    yield number, (np.where(tokens > 0, nll, 0.0), tokens, np.ones(len(nll), bool))

        monkeypatch.setattr(evaluators, "Sweep", Sweep)

    return install


def test_cut_pairs_are_at_chance_whichever_comes_first(scored):
    split = choices(*both_ways(LONG), max_target=5)
    assert split.truncated_answers == 4
    assert ties.rows_with_same_tokens(split).all()
    # Rounding may separate equal tokens, here always in favour of the first.
    scored([[1.0, 1.0000001]] * 4)
    (result,) = evaluators.evaluate(None, [Job(split)], metrics=("accuracy",))
    assert result.metrics["accuracy"] == 0.5
    assert result.per_item["accuracy"].tolist() == [0.5] * 4
    assert result.ties == 4
    assert result.unparsable == 0
    answers = [e.candidates[p] for e, p in zip(split.examples, result.predictions, strict=True)]
    assert answers[:2] == answers[2:][::1] or answers[0] == answers[2]


def test_whole_pairs_are_told_apart(scored):
    split = choices(*both_ways(LONG))
    assert split.truncated_answers == 0
    assert not ties.rows_with_same_tokens(split).any()
    scored([[1.0, 1.0000001]] * 4)
    (result,) = evaluators.evaluate(None, [Job(split)], metrics=("accuracy",))
    assert result.predictions.tolist() == [0, 0, 0, 0]
    assert (result.metrics["accuracy"], result.ties) == (0.5, 0)


@pytest.mark.parametrize("gold", [0, 1, 2])
def test_equal_scores_of_different_answers(scored, gold):
    split = choices((("a", "b", "c"), gold), (("a", "b"), 0))
    scored([[2.0, 1.0, 1.0], [1.0, 1.0, np.inf]])
    (result,) = evaluators.evaluate(None, [Job(split)], metrics=("accuracy",))
    assert result.per_item["accuracy"].tolist() == [0.0 if gold == 0 else 0.5, 0.5]
    assert result.ties == 2


def test_the_order_of_the_candidates_does_not_choose():
    words = tuple("abcdefgh")
    firsts = []
    for order in itertools.islice(itertools.permutations(words), 0, 40320, 997):
        split = choices((order, 0))
        scores = np.ones((1, 8), np.float32)
        (best,) = ties.choose(scores, split, ties.of(scores))
        firsts.append(order[best])
    assert len(set(firsts)) == 1
    drawn = [
        int(
            ties.choose(
                np.ones((1, 2)), choices(*[(("a", "b"), 0)] * n).take([n - 1]), {0: (0, 1)}
            )[0]
        )
        for n in range(1, 80, 2)
    ]
    assert 8 < sum(drawn) < 32  # not always the same word either


def test_an_infinite_loss_of_every_candidate_is_a_tie_of_those_that_exist(scored):
    split = choices((("a", "b", "c"), 0), (("a", "b"), 0))
    scored([[3e38, 3e38, 3e38], [3e38, 3e38, np.inf]])
    (result,) = evaluators.rank(None, [Job(split)])
    assert result.ties == {0: (0, 1, 2), 1: (0, 1)}


def test_an_ensemble_has_no_favourite(monkeypatch):
    split = choices(*both_ways(("yes", "no")))
    members = [np.array([[1.0, 2.0]] * 4, np.float32), np.array([[2.0, 1.0]] * 4, np.float32)]
    made = [evaluators.RankResult(s, s.argmin(1)) for s in members]
    monkeypatch.setattr(ensemble, "rank", lambda *_, **__: made)
    prompts = np.zeros((1, 2, 3, 4), np.float32)
    (result,) = ensemble.evaluate_ensemble(None, [Job(split)], prompts, metrics=("accuracy",))
    assert result.metrics["accuracy"] == 0.5
    assert result.per_item["accuracy"].tolist() == [0.5] * 4
    assert result.ties == 4


def test_calibration_counts_a_tie_as_a_part():
    scores = np.ones((4, 2), np.float32)
    for labels in ([0, 0, 0, 0], [1, 1, 1, 1]):
        assert ensemble.calibration(scores, np.array(labels)).ece == pytest.approx(0.0)


def brute_force(name, predictions, split, tied):
    """The mean of a metric over all ways to break the ties, for metrics that are linear in them."""
    rows = sorted(tied)
    values = []
    for drawn in itertools.product(*(tied[row] for row in rows)):
        each = np.array(predictions)
        each[rows] = drawn
        values.append(metrics.compute([name], each, split)[name])
    return float(np.mean(values))


@pytest.mark.parametrize("name", ["accuracy", "multirc_em", "squad_em", "squad_f1"])
def test_means_are_expectations(name):
    examples = [
        Example("", "", label, ("a cat", "a dog"), (("a cat", "a dog")[label],), group=group)
        for label, group in zip([0, 1, 1, 0, 1], "ppqqr", strict=True)
    ]
    split = SimpleNamespace(examples=examples)
    predictions, tied = [0, 0, 1, 0, 1], {0: (0, 1), 1: (0, 1), 3: (0, 1)}
    expected = brute_force(name, predictions, split, tied)
    array = np.array(predictions)
    assert metrics.compute([name], array, split, tied)[name] == pytest.approx(expected)
    assert metrics.per_item(name, array, split, tied).mean() == pytest.approx(expected)
    assert metrics.per_item("macro_f1", array, split, tied) is None


def test_confusion_matrices_count_parts():
    """Gold 0, 0, 1, 1; predicted 0, {0, 1}, {0, 1}, 1: each class has 1.5 of 2 right."""
    split = choices(*[(("no", "yes"), label) for label in (0, 0, 1, 1)])
    tied = {1: (0, 1), 2: (0, 1)}
    values = metrics.compute(["f1", "macro_f1", "matthews"], np.array([0, 0, 0, 1]), split, tied)
    assert values == pytest.approx({"f1": 0.75, "macro_f1": 0.75, "matthews": 0.5})
    every = dict.fromkeys(range(4), (0, 1))
    assert metrics.compute(["matthews"], np.zeros(4, int), split, every) == {"matthews": 0.0}


def test_tied_numbers_are_averaged():
    examples = [Example("", "", -1, ("1.0", "3.0"), (str(gold),)) for gold in (1.0, 2.0, 3.0)]
    split = SimpleNamespace(examples=examples)
    found = metrics.compute(["pearson"], np.array([0, 0, 1]), split, {1: (0, 1)})
    assert found["pearson"] == pytest.approx(1.0)


@pytest.mark.parametrize("gold", [0, 1])
def test_a_generated_text_that_equals_two_candidates_is_half_of_each(gold):
    """They differ in case alone, which is not compared."""
    names = ("May", "may")
    examples = [Example("", names[gold], gold, names), Example("", "no", 1, ("yes", "no"))]
    split = SimpleNamespace(examples=examples)
    assert metrics.compute(["accuracy"], ["MAY", "no"], split) == {"accuracy": 0.75}
    assert metrics.per_item("accuracy", ["may", "yes"], split).tolist() == [0.5, 0.0]
    assert metrics.compute(["accuracy"], ["june", "no"], split) == {"accuracy": 0.5}
    assert metrics.compute(["squad_em"], ["may", "no"], split) == {"squad_em": 1.0}


def test_results_are_shown_in_one_line():
    n = 5000
    ranked = evaluators.RankResult(np.zeros((n, 3), np.float32), np.zeros(n, np.int64))
    assert repr(ranked) == "RankResult(scores=float32[5000, 3], prediction=int64[5000], ties={})"
    generated = evaluators.Evaluation(
        {"squad_f1": 0.25}, ["a long answer"] * n, {"squad_f1": np.zeros(n)}, 7
    )
    assert repr(generated) == (
        "Evaluation(metrics={'squad_f1': 0.25}, predictions=[5000 entries],"
        " per_item={'squad_f1': float64[5000]}, unparsable=7, scores=None, ties=0)"
    )
