"""Metrics against scikit-learn, scipy and hand-computed cases."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from prompt_jax.data.render import Example
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.evaluation import metrics


def split(**columns):
    n = len(next(iter(columns.values())))
    return SimpleNamespace(
        examples=[
            Example(**{"input": "", "target": ""} | {k: v[i] for k, v in columns.items()})
            for i in range(n)
        ]
    )


def labelled(labels, classes=2):
    names = tuple(f"class {c}" for c in range(classes))
    return split(
        label=[int(x) for x in labels],
        candidates=[names] * len(labels),
        target=[names[int(x)] for x in labels],
    )


def test_registry_is_complete():
    assert set(metrics.METRICS) == {
        "accuracy",
        "f1",
        "macro_f1",
        "matthews",
        "pearson",
        "spearman",
        "squad_f1",
        "squad_em",
        "multirc_f1a",
        "multirc_em",
    }
    assert all(name == m.name for name, m in metrics.METRICS.items())


def test_unknown_metric_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        metrics.compute(["acuracy"], np.array([0]), labelled([0]))


# Labels


@pytest.mark.parametrize("seed", range(3))
def test_binary_label_metrics_match_sklearn(seed):
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    got = metrics.compute(["accuracy", "f1", "matthews", "macro_f1"], predicted, labelled(gold))
    assert got == pytest.approx(
        {
            "accuracy": sk.accuracy_score(gold, predicted),
            "f1": sk.f1_score(gold, predicted),
            "matthews": sk.matthews_corrcoef(gold, predicted),
            "macro_f1": sk.f1_score(gold, predicted, average="macro"),
        },
        abs=1e-12,
    )


def test_label_metrics_by_hand():
    # TP 2, FP 1, FN 1, TN 1.
    gold, predicted = [1, 1, 1, 0, 0], np.array([1, 1, 0, 1, 0])
    got = metrics.compute(["accuracy", "f1", "matthews"], predicted, labelled(gold))
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert got["matthews"] == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))


def test_macro_f1_averages_over_gold_classes_only():
    gold, predicted = [0, 0, 1, 1], np.array([0, 2, 1, -1])
    got = metrics.compute(["macro_f1"], predicted, labelled(gold, 3))["macro_f1"]
    assert got == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_invalid_labels_are_wrong_never_right():
    gold = labelled([0, 0, 1, 1])
    right, invalid = np.array([0, 0, 1, 1]), np.array([-1, 0, -1, 1])
    flipped = np.array([1, 0, 0, 1])
    assert metrics.compute(["accuracy", "f1", "multirc_f1a", "matthews"], right, gold) == {
        "accuracy": 1.0,
        "f1": 1.0,
        "multirc_f1a": 1.0,
        "matthews": 1.0,
    }
    for name in ("accuracy", "f1", "multirc_f1a"):
        assert metrics.compute([name], invalid, gold) == metrics.compute([name], flipped, gold)
    assert 0 < metrics.compute(["matthews"], invalid, gold)["matthews"] < 1
    assert metrics.compute(["f1"], np.full(4, -1), gold)["f1"] == 0.0


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews", "multirc_f1a"])
@pytest.mark.parametrize("constant", [-1, 0, 1])
def test_constant_labels_give_defined_values(name, constant):
    value = metrics.compute([name], np.full(4, constant), labelled([0, 1, 0, 1]))[name]
    assert 0.0 <= value <= 0.7
    one_class = metrics.compute([name], np.full(3, constant), labelled([0, 0, 0]))[name]
    assert 0.0 <= one_class <= 1.0


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_metrics_without_rows_are_nan(name):
    empty = SimpleNamespace(examples=[])
    assert math.isnan(metrics.compute([name], np.zeros(0, np.int64), empty)[name])


def test_label_metrics_raise_without_labels_or_with_too_many_classes():
    with pytest.raises(DataError, match="row 1 has no label"):
        metrics.compute(["accuracy"], np.array([0, 0]), split(label=[0, -1]))
    with pytest.raises(DataError, match="macro_f1"):
        metrics.compute(["f1"], np.array([0, 0]), labelled([0, 2], 3))
    with pytest.raises(DataError, match="1 predictions for 2 rows"):
        metrics.METRICS["accuracy"](np.array([0]), labelled([0, 1]).examples)


def test_multirc_groups_answers_by_question():
    rows = split(label=[1, 0, 1, 1, 0], group=["p1/q1", "p1/q2", "p1/q1", "p1/q2", "p2/q1"])
    predicted = np.array([1, 0, 1, 0, 1])  # q1 all right; q2 half; last wrong
    assert metrics.compute(["multirc_em"], predicted, rows)["multirc_em"] == pytest.approx(1 / 3)
    np.testing.assert_array_equal(metrics.per_item("multirc_em", predicted, rows), [1, 0, 0])
    f1a = metrics.compute(["multirc_f1a"], predicted, rows)["multirc_f1a"]
    assert f1a == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # over all answers, not per question
    with pytest.raises(DataError, match="row 1 has no group"):
        metrics.compute(["multirc_em"], predicted[:2], split(label=[1, 0], group=["q", ""]))


# Numbers


def numbers(values):
    return split(target=[str(v) for v in values])


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_match_scipy(name):
    rng = np.random.default_rng(0)
    gold = np.round(rng.uniform(0, 5, 40), 1)
    predicted = gold + rng.normal(size=40)
    oracle = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
    expected = oracle(predicted, gold).statistic
    assert metrics.compute([name], predicted, numbers(gold))[name] == pytest.approx(expected)
    shifted = metrics.compute([name], 1e9 + predicted, numbers(gold))[name]
    assert shifted == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlation_of_constant_numbers_is_zero_without_warnings(name):
    gold = numbers([1.0, 2.0, 4.0])
    nan = math.nan
    for predicted in ([2.0] * 3, [nan] * 3, [nan, nan, 1.0]):
        assert metrics.compute([name], np.array(predicted), gold)[name] == 0.0
    nearly = metrics.compute([name], np.array([0.3, 0.3, np.nextafter(0.3, 1)]), gold)[name]
    assert 0.0 < nearly <= 1.0
    assert metrics.compute([name], np.array([1.0]), numbers([1.0]))[name] == 0.0
    assert metrics.compute([name], np.array([1.0, 2.0]), numbers([3.0, 3.0]))[name] == 0.0


def test_unparsable_numbers_are_counted_and_replaced_by_the_mean():
    gold = numbers([0.0, 1.0, 2.0, 3.0])
    texts = ["0.0", "oops", " 2.0", "nan"]
    assert metrics.unparsable(texts, "number", gold.examples) == 2
    got = metrics.compute(["pearson"], texts, gold)["pearson"]
    assert got == pytest.approx(stats.pearsonr([0, 1, 2, 1], [0, 1, 2, 3]).statistic)
    assert got < metrics.compute(["pearson"], ["0", "1", "2", "3"], gold)["pearson"]


@pytest.mark.parametrize("text", ["", "four", "inf", "-Infinity", "NaN", "1e999", "3,8", "3.8 4"])
def test_parse_number_of_invalid_text_is_nan(text):
    assert math.isnan(metrics.parse_number(text))


def test_correlation_uses_exact_gold_numbers():
    rows = split(target=["1.0", "1.0", "2.0"], references=[("0.9",), ("1.1",), ("2.05",)])
    got = metrics.compute(["spearman"], ["0.9", "1.1", "2.0"], rows)["spearman"]
    assert got == pytest.approx(1.0)


def test_correlation_with_invalid_gold_raises():
    with pytest.raises(DataError, match="row 1 has the answer 'good'"):
        metrics.compute(["pearson"], np.array([1.0, 2.0]), split(target=["1.0", "good"]))


# Free text


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("The Beatles!", "beatles"),
        ("  a   cat, an owl & the  dog ", "cat owl dog"),
        ("Theatre another", "theatre another"),  # articles are whole words
        ("U.S.A.", "usa"),
        ("twenty-one", "twentyone"),
        ("A", ""),
        ("“Café”", "“café”"),  # only ASCII punctuation, as in the official script
    ],
)
def test_squad_normalisation(raw, normal):
    assert metrics.normalise_answer(raw) == normal


@pytest.mark.parametrize(
    ("prediction", "references", "f1", "em"),
    [
        ("the Eiffel Tower", ("Eiffel Tower", "tower"), 1.0, 1.0),
        ("Eiffel", ("Eiffel Tower",), 2 / 3, 0.0),
        ("in Paris in France", ("Paris in in",), 6 / 7, 0.0),  # bags: 'in' counts twice
        ("London", ("Paris",), 0.0, 0.0),
        ("", ("Paris",), 0.0, 0.0),
        ("the", ("a",), 1.0, 1.0),  # both empty after normalisation
        ("big red dog", ("dog", "red cat"), 0.5, 0.0),
    ],
)
def test_squad_scores_by_hand(prediction, references, f1, em):
    rows = split(references=[references], target=["unused"])
    got = metrics.compute(["squad_f1", "squad_em"], [prediction], rows)
    assert got == pytest.approx({"squad_f1": f1, "squad_em": em})


def test_squad_uses_the_target_without_references():
    rows = split(target=["blue whale", "cat"])
    assert metrics.compute(["squad_em"], ["Blue whale.", "dog"], rows)["squad_em"] == 0.5


# Forms


def test_as_form_text_to_labels():
    rows = labelled([0, 1, 1, 0])
    texts = ["class 0", " CLASS  1 ", "class 11", ""]
    np.testing.assert_array_equal(metrics.as_form(texts, "label", rows.examples), [0, 1, -1, -1])
    assert metrics.unparsable(texts, "label", rows.examples) == 2
    assert metrics.unparsable(texts, "text", rows.examples) == 0
    assert metrics.compute(["accuracy"], texts, rows)["accuracy"] == 0.5


def test_as_form_labels_to_text_and_numbers():
    rows = split(
        candidates=[("1.0", "2.0", "x")] * 4,
        target=["1.0", "2.0", "1.0", "2.0"],
        label=[0, 1, 0, 1],
    )
    predicted = np.array([0, 1, 2, -1])
    assert metrics.as_form(predicted, "text", rows.examples) == ["1.0", "2.0", "x", ""]
    np.testing.assert_array_equal(
        metrics.as_form(predicted, "number", rows.examples), [1.0, 2.0, math.nan, math.nan]
    )
    assert metrics.compute(["squad_em"], predicted, rows)["squad_em"] == 0.5


def test_as_form_numbers_to_labels_raises():
    with pytest.raises(DataError, match="needs the form 'label'"):
        metrics.compute(["accuracy"], np.array([0.5]), labelled([0]))
    with pytest.raises(DataError, match="2 predictions for 1 rows"):
        metrics.as_form(["a", "b"], "label", labelled([0]).examples)


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_per_item_mean_is_the_metric(name):
    rng = np.random.default_rng(3)
    gold = rng.integers(0, 2, 30)
    rows = split(
        label=gold.tolist(),
        target=[str(g) for g in gold],
        candidates=[("0", "1")] * 30,
        group=[f"q{i // 3}" for i in range(30)],
    )
    predicted = np.where(rng.random(30) < 0.7, gold, 1 - gold)
    items = metrics.per_item(name, predicted, rows)
    value = metrics.compute([name], predicted, rows)[name]
    if items is None:
        assert name in {"f1", "macro_f1", "matthews", "pearson", "spearman", "multirc_f1a"}
    else:
        assert items.dtype == np.float64
        assert items.mean() == pytest.approx(value)
