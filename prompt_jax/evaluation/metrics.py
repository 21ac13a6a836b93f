"""Metrics of the transfer literature, each with one documented prediction form.

Values are fractions in [0, 1] (correlations in [-1, 1]), never percent. Forms of predictions:

| form | predictions | unparsable answer |
|-|-|-|
| `label` | int [n], index into the row's candidates | -1, counted as wrong |
| `text` | n strings | compared unchanged |
| `number` | float [n] | NaN, replaced by the mean of the parsed predictions |

`as_form` converts predictions of any form to the form of a metric. Without rows a metric is NaN;
constant predictions give a correlation of 0. Neither gives a warning.

Where several candidates share the best score (`ties`), each counts with weight 1 / n: in the mean
of an item, in the confusion matrix of F1 and Matthews, and in the number of a correlation.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from prompt_jax.data.render import Example
from prompt_jax.data.values import comparable
from prompt_jax.errors import ConfigError, DataError, did_you_mean
from prompt_jax.evaluation.ties import Ties

Form = Literal["label", "text", "number"]
Predictions = np.ndarray | Sequence[str]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class HasExamples(Protocol):
    """The part of a split that `compute` requires."""

    @property
    def examples(self) -> Sequence[Example]:
        """The rows, in order."""
        ...


@dataclass(frozen=True)
class Metric:
    """A metric: call it with predictions in its `form` and the gold rows.

    Attributes:
      name: The registry name.
      form: The prediction form it takes, see the module docstring.
      value: `(predictions, examples, weights) -> float` for n >= 1 rows, which count alike where
        `weights` is None; None for a metric that is the mean of `items`.
      items: `(predictions, examples) -> float64 [n]` when the metric is the plain mean of rows or
        of `groups`, otherwise None.
      groups: `(items, examples) -> float64 [m]`, from rows to questions.
    """

    name: str
    form: Form
    value: Callable[[Predictions, Sequence[Example], np.ndarray | None], float] | None = None
    items: Callable[[Predictions, Sequence[Example]], np.ndarray] | None = None
    groups: Callable[[np.ndarray, Sequence[Example]], np.ndarray] | None = None

    def __call__(self, predictions: Predictions, examples: Sequence[Example]) -> float:
        """Returns the metric; NaN when there are no rows.

        Raises:
          DataError: When the numbers of predictions and rows differ.
        """
        if len(predictions) != len(examples):
            raise DataError(
                f"metric '{self.name}' got {len(predictions)} predictions for {len(examples)} rows."
            )
        if not len(examples):
            return math.nan
        items = self.per_item(predictions, examples)
        if items is not None:
            return float(items.mean())
        assert self.value is not None
        return self.value(predictions, examples, None)

    def per_item(self, predictions: Predictions, examples: Sequence[Example]) -> np.ndarray | None:
        """The values whose mean the metric is, float64 [m]; None where it is no mean."""
        if self.items is None:
            return None
        items = self.items(predictions, examples)
        return items if self.groups is None else self.groups(items, examples)

    def expected(
        self, predictions: Predictions, examples: Sequence[Example], ties: Ties
    ) -> tuple[float, np.ndarray | None]:
        """The metric, and the items whose mean it is, where some rows have tied candidates.

        Args:
          predictions: int [n] candidates, in no other form.
          examples: the n >= 1 rows.
          ties: the tied candidates of a row, instead of its prediction.
        """
        own = np.asarray(predictions).tolist()
        outcomes = [(row, c) for row, p in enumerate(own) for c in ties.get(row, (p,))]
        rows = np.asarray([row for row, _ in outcomes], np.int64)
        weights = 1.0 / np.bincount(rows)[rows]
        spread = [examples[row] for row in rows]
        formed = as_form(np.asarray([c for _, c in outcomes], np.int64), self.form, spread)
        if self.items is not None:
            items = np.bincount(rows, weights * self.items(formed, spread))
            items = items if self.groups is None else self.groups(items, examples)
            return float(items.mean()), items
        assert self.value is not None
        if self.form == "number":
            means = np.bincount(rows, weights * np.asarray(formed))
            return self.value(means, examples, None), None
        return self.value(formed, spread, weights), None


# Text and numbers ---------------------------------------------------------------------------


def normalise_answer(text: str) -> str:
    """Lower-cases text, removes ASCII punctuation and English articles, and normalises spaces.

    The normalisation of SQuAD v1.1's official script (Rajpurkar et al. 2016).

    >>> normalise_answer("The  U.S. President's cat, a.k.a. An Owl")
    'us presidents cat aka owl'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def parse_number(text: str) -> float:
    """Parses a generated number; NaN when it is not a finite one.

    >>> parse_number(" 3.8 "), parse_number("four")
    (3.8, nan)
    """
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def match_label(text: str, candidates: Sequence[str]) -> int:
    """Index of the candidate equal to `text` up to case and white space, or -1.

    >>> match_label(" Not  entailment", ["entailment", "not entailment"])
    1
    """
    normal = comparable(text)
    for index, candidate in enumerate(candidates):
        if comparable(candidate) == normal:
            return index
    return -1


def matching(predictions: Predictions, examples: Sequence[Example]) -> dict[int, tuple[int, ...]]:
    """The candidates of rows whose generated text equals several, which differ in case or space.

    Args:
      predictions: n strings; other forms have none.
      examples: the n rows.
    """
    if form_of(predictions) != "text":
        return {}
    ambiguous = {}
    for row, (text, example) in enumerate(zip(predictions, examples, strict=True)):
        normal = [comparable(candidate) for candidate in example.candidates]
        if len(set(normal)) < len(normal):
            equal = tuple(i for i, other in enumerate(normal) if other == comparable(str(text)))
            if len(equal) > 1:
                ambiguous[row] = equal
    return ambiguous


def form_of(predictions: Predictions) -> Form:
    """The form that predictions have: strings, floating-point or integer numbers."""
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind in "iu":
        return "label"
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind == "f":
        return "number"
    return "text"


def as_form(predictions: Predictions, form: Form, examples: Sequence[Example]) -> Predictions:
    """Converts predictions to the form of a metric.

    Generated text becomes the index of the candidate it equals, or a number; the index of a
    candidate becomes the candidate's text, or the number in it.

    Args:
      predictions: int [n] indices, float [n] numbers or n strings.
      form: The form to convert to.
      examples: The n rows.

    Returns:
      int64 [n] (-1: unparsable), n strings, or float64 [n] (NaN: unparsable).

    Raises:
      DataError: When numbers are to be converted to labels or texts, or the lengths differ.
    """
    if len(predictions) != len(examples):
        raise DataError(f"{len(predictions)} predictions for {len(examples)} rows.")
    have = form_of(predictions)
    if have == form:
        return predictions if form == "text" else np.asarray(predictions)
    if have == "number":
        raise DataError(f"the predictions are numbers, but the metric needs the form '{form}'.")
    if have == "label":
        texts: Sequence[str] = [
            e.candidates[p] if 0 <= p < len(e.candidates) else ""
            for p, e in zip(np.asarray(predictions).tolist(), examples, strict=True)
        ]
    else:
        texts = [str(p) for p in predictions]
    if form == "text":
        return texts
    if form == "number":
        return np.array([parse_number(t) for t in texts], np.float64)
    return np.array(
        [match_label(t, e.candidates) for t, e in zip(texts, examples, strict=True)], np.int64
    )


def unparsable(predictions: Predictions, form: Form, examples: Sequence[Example]) -> int:
    """Number of rows whose prediction cannot be parsed in `form`.

    Args:
      predictions: Predictions of any form, length n.
      form: The form that the metric takes.
      examples: The n rows.
    """
    values = as_form(predictions, form, examples)
    if form == "text":
        return 0
    array = np.asarray(values)
    return int((array < 0).sum() if form == "label" else (~np.isfinite(array)).sum())


# Labels -------------------------------------------------------------------------------------


def _labels(predictions: Predictions, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and gold label indices, both int64 [n]."""
    gold = np.array([e.label for e in examples], np.int64)
    if gold.size and gold.min() < 0:
        raise DataError(
            f"row {int(gold.argmin())} has no label, but the metric compares labels. "
            "Use squad_f1 or squad_em for free text, pearson or spearman for numbers."
        )
    return np.asarray(predictions, np.int64), gold


def _binary(predictions: Predictions, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """`_labels` for two classes; an invalid prediction becomes the wrong class (as in T5)."""
    predicted, gold = _labels(predictions, examples)
    if gold.size and gold.max() > 1:
        raise DataError(
            f"binary F1 needs labels 0 and 1, but label {int(gold.max())} occurs. Use macro_f1."
        )
    return np.where((predicted == 0) | (predicted == 1), predicted, 1 - gold), gold


def _accuracy_items(predictions: Predictions, examples: Sequence[Example]) -> np.ndarray:
    predicted, gold = _labels(predictions, examples)
    return (predicted == gold).astype(np.float64)


def _f1(predictions: Predictions, examples: Sequence[Example], weights: np.ndarray | None) -> float:
    from sklearn.metrics import f1_score

    predicted, gold = _binary(predictions, examples)
    return float(
        f1_score(
            gold,
            predicted,
            pos_label=1,
            average="binary",
            zero_division=0.0,
            sample_weight=weights,
        )
    )


def _macro_f1(
    predictions: Predictions, examples: Sequence[Example], weights: np.ndarray | None
) -> float:
    from sklearn.metrics import f1_score

    predicted, gold = _labels(predictions, examples)
    # The classes are those of the gold labels and do not depend on the predictions: otherwise two
    # replicas would average over different classes of the same rows.
    return float(
        f1_score(
            gold,
            predicted,
            labels=np.unique(gold),
            average="macro",
            zero_division=0.0,
            sample_weight=weights,
        )
    )


def _matthews(
    predictions: Predictions, examples: Sequence[Example], weights: np.ndarray | None
) -> float:
    from sklearn.metrics import matthews_corrcoef

    predicted, gold = _labels(predictions, examples)
    if len(np.unique(predicted)) < 2 or len(np.unique(gold)) < 2:
        return 0.0
    return float(matthews_corrcoef(gold, predicted, sample_weight=weights))


def _questions(correct: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Whether all answers to a question are right, as the product over its rows."""
    groups: dict[str, float] = {}
    for row, (example, value) in enumerate(zip(examples, correct.tolist(), strict=True)):
        if not example.group:
            raise DataError(f"multirc_em groups answers by question, but row {row} has no group.")
        groups[example.group] = groups.get(example.group, 1.0) * value
    return np.array(list(groups.values()), np.float64)


# Numbers ------------------------------------------------------------------------------------


def _numbers(predictions: Predictions, examples: Sequence[Example]) -> tuple[np.ndarray, ...]:
    """Predicted numbers, with missing ones imputed by the mean, and gold, both float64 [n].

    Gold is the exact number (`references`), not the rounded text that the model is trained on.

    An imputed mean adds nothing to the covariance, while the gold variance stays in the
    denominator. So a model that answers only half of the rows is penalised, and the imputation uses
    no gold value.
    """
    answers = [(e.references or (e.target,))[0] for e in examples]
    gold = np.array([parse_number(answer) for answer in answers], np.float64)
    if not np.isfinite(gold).all():
        row = int((~np.isfinite(gold)).argmax())
        raise DataError(f"row {row} has the answer '{answers[row]}', which is not a number.")
    predicted = np.asarray(predictions, np.float64)
    parsed = np.isfinite(predicted)
    mean = predicted[parsed].mean() if parsed.any() else 0.0
    return np.where(parsed, predicted, mean), gold


def _correlation(
    name: str,
) -> Callable[[Predictions, Sequence[Example], np.ndarray | None], float]:
    def value(
        predictions: Predictions, examples: Sequence[Example], weights: np.ndarray | None
    ) -> float:
        from scipy import stats

        predicted, gold = _numbers(predictions, examples)
        if len(np.unique(predicted)) < 2 or len(np.unique(gold)) < 2:
            return 0.0
        if name == "spearman":
            predicted, gold = stats.rankdata(predicted), stats.rankdata(gold)
        # Centred and scaled first: scipy warns if the spread is tiny relative to the mean.
        predicted, gold = predicted - predicted.mean(), gold - gold.mean()
        largest = float(np.abs(predicted).max())
        return float(stats.pearsonr(predicted / largest, gold).statistic) if largest > 0 else 0.0

    return value


# Free text ----------------------------------------------------------------------------------


def answer_f1(prediction: str, reference: str) -> float:
    """F1 of the bags of normalised words of two answers (SQuAD); 1 for two empty answers.

    >>> round(answer_f1("the black cat", "a cat sat"), 3)
    0.5
    """
    predicted, gold = normalise_answer(prediction).split(), normalise_answer(reference).split()
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2.0 * common / (len(predicted) + len(gold))


def _best_reference(score: Callable[[str, str], float]) -> Callable[..., np.ndarray]:
    def items(predictions: Predictions, examples: Sequence[Example]) -> np.ndarray:
        return np.array(
            [
                max(score(str(p), r) for r in (e.references or (e.target,)))
                for p, e in zip(predictions, examples, strict=True)
            ],
            np.float64,
        )

    return items


def _exact_match(prediction: str, reference: str) -> float:
    return float(normalise_answer(prediction) == normalise_answer(reference))


# Registry -----------------------------------------------------------------------------------


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "label", items=_accuracy_items),
        Metric("f1", "label", _f1),
        Metric("macro_f1", "label", _macro_f1),
        Metric("matthews", "label", _matthews),
        Metric("pearson", "number", _correlation("pearson")),
        Metric("spearman", "number", _correlation("spearman")),
        Metric("squad_f1", "text", items=_best_reference(answer_f1)),
        Metric("squad_em", "text", items=_best_reference(_exact_match)),
        Metric("multirc_f1a", "label", _f1),
        Metric("multirc_em", "label", items=_accuracy_items, groups=_questions),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
      ConfigError: For an unknown name; the message suggests the nearest one.
    """
    if name not in METRICS:
        raise ConfigError(
            f"unknown metric '{name}'.{did_you_mean(name, METRICS)} Known: {', '.join(METRICS)}."
        )
    return METRICS[name]


def bounds(name: str) -> tuple[float, float]:
    """The smallest and the largest value of a metric; of an unknown one [-1, 1].

    >>> bounds("accuracy"), bounds("matthews")
    ((0.0, 1.0), (-1.0, 1.0))
    """
    signed = name in ("matthews", "pearson", "spearman") or name not in METRICS
    return (-1.0 if signed else 0.0), 1.0


def compute(
    names: Sequence[str],
    predictions: Predictions,
    split: HasExamples,
    ties: Ties | None = None,
) -> dict[str, float]:
    """Computes metrics of one split from predictions of any form.

    Args:
      names: Registry names.
      predictions: int [n] candidate indices, float [n] numbers or n strings.
      split: The rows, n of them.
      ties: The tied candidates of some rows, where predictions are indices.

    Returns:
      Name -> value.

    Raises:
      ConfigError: For an unknown name.
      DataError: When the metric does not fit the rows or the predictions.
    """
    values = {}
    for metric in [get_metric(name) for name in names]:
        if found := _outcomes(metric, predictions, split, ties):
            values[metric.name] = metric.expected(*found)[0]
            continue
        values[metric.name] = metric(
            as_form(predictions, metric.form, split.examples), split.examples
        )
    return values


def per_item(
    name: str, predictions: Predictions, split: HasExamples, ties: Ties | None = None
) -> np.ndarray | None:
    """The per-item values whose mean is the metric, for the bootstrap of `statistics`.

    Args:
      name: Registry name.
      predictions: As for `compute`.
      split: As for `compute`.
      ties: As for `compute`.

    Returns:
      float64 [m], one value per row (per question, in order of appearance, for `multirc_em`), or
      None for a metric that is not a mean (F1, correlations).
    """
    metric = get_metric(name)
    if metric.items is None:
        return None
    if found := _outcomes(metric, predictions, split, ties):
        return metric.expected(*found)[1]
    return metric.per_item(as_form(predictions, metric.form, split.examples), split.examples)


def _outcomes(
    metric: Metric, predictions: Predictions, split: HasExamples, ties: Ties | None
) -> tuple[Predictions, Sequence[Example], Ties] | None:
    """The arguments of `Metric.expected`; None where no row has several answers."""
    if ties:
        return predictions, split.examples, ties
    if metric.form != "label" or len(predictions) != len(split.examples):
        return None
    if several := matching(predictions, split.examples):
        return as_form(predictions, "label", split.examples), split.examples, several
    return None
