"""The nine tasks of GLUE (Wang et al. 2019)."""

from __future__ import annotations

from prompt_jax.data.registry.wording import POLARITY, inference, paraphrase, polarity
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_TWO_WAY = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")
_SPLITS = (("train", "train"), ("validation", "validation"))
_MNLI_SPLITS = (
    ("train", "train"),
    ("validation", "validation_matched"),
    ("validation_mismatched", "validation_mismatched"),
)


def _tfds(name: str, splits: tuple[tuple[str, str], ...] = _SPLITS) -> TfdsSource:
    return TfdsSource(f"glue/{name}", splits=splits)


def _hub(name: str, splits: tuple[tuple[str, str], ...] = _SPLITS) -> HubSource:
    return HubSource("nyu-mll/glue", name, splits=splits)


def _sizes(train: int, validation: int) -> tuple[tuple[str, int], ...]:
    return (("train", train), ("validation", validation))


COLA = Task(
    name="glue/cola",
    kind="classification",
    fields=("sentence",),
    labels=("unacceptable", "acceptable"),
    templates=(
        Template("plain", "sentence: {sentence}", labels=("no", "yes")),
        Template(
            "grammar",
            'Would a native speaker say "{sentence}"?',
            labels=("no", "yes"),
        ),
        Template(
            "linguist",
            "A linguist marks every example sentence as well formed or as broken."
            " Example: {sentence} Mark:",
            labels=("broken", "fine"),
        ),
        Template("t5", "cola sentence: {sentence}"),
    ),
    metrics=("matthews", "accuracy"),
    tfds=_tfds("cola"),
    hf=_hub("cola"),
    sizes=_sizes(8_551, 1_043),
    licence="none stated (examples from the linguistics literature, research use)",
    description="Whether an English sentence is grammatically acceptable.",
    domain="acceptability",
)

MNLI = Task(
    name="glue/mnli",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_THREE_WAY,
    templates=inference("premise", "hypothesis", _THREE_WAY, "mnli"),
    tfds=_tfds("mnli", _MNLI_SPLITS),
    hf=_hub("mnli", _MNLI_SPLITS),
    sizes=(*_sizes(392_702, 9_815), ("validation_mismatched", 9_832)),
    licence="OANC, CC BY-SA 3.0, CC BY 3.0 by genre",
    description="Three-way inference over ten genres; validation is the matched development set.",
    domain="nli",
)

MRPC = Task(
    name="glue/mrpc",
    kind="classification",
    fields=("sentence1", "sentence2"),
    labels=("not_equivalent", "equivalent"),
    templates=paraphrase("sentence1", "sentence2", "mrpc"),
    metrics=("accuracy", "f1"),
    tfds=_tfds("mrpc"),
    hf=_hub("mrpc"),
    split_protocol="own",
    sizes=_sizes(3_668, 408),
    licence="Microsoft Research licence",
    description="Whether two sentences from the news say the same; local files split the official"
    " training set differently.",
    domain="paraphrase",
    reserved=True,
)

QNLI = Task(
    name="glue/qnli",
    kind="classification",
    fields=("question", "sentence"),
    labels=_TWO_WAY,
    templates=(
        Template("plain", "question: {question} sentence: {sentence}", labels=("yes", "no")),
        Template(
            "answered",
            'Is the question "{question}" answered by this sentence? {sentence}',
            labels=("yes", "no"),
        ),
        Template(
            "search",
            "A search for: {question} found this line: {sentence} Keep it if it holds the answer,"
            " else skip it.",
            labels=("keep", "skip"),
        ),
        Template("t5", "qnli question: {question} sentence: {sentence}"),
    ),
    tfds=_tfds("qnli"),
    hf=_hub("qnli"),
    sizes=_sizes(104_743, 5_463),
    licence="CC BY-SA 4.0 (made from SQuAD)",
    description="Whether a sentence of Wikipedia answers a question.",
    domain="nli",
)

QQP = Task(
    name="glue/qqp",
    kind="classification",
    fields=("question1", "question2"),
    labels=("not_duplicate", "duplicate"),
    templates=paraphrase("question1", "question2", "qqp", noun="question"),
    metrics=("accuracy", "f1"),
    optional_fields=("question1", "question2"),
    tfds=_tfds("qqp"),
    hf=_hub("qqp"),
    sizes=_sizes(363_846, 40_430),
    licence="Quora terms, non-commercial",
    description="Whether two questions of Quora ask the same.",
    domain="paraphrase",
)

RTE = Task(
    name="glue/rte",
    kind="classification",
    fields=("sentence1", "sentence2"),
    labels=_TWO_WAY,
    templates=inference("sentence1", "sentence2", _TWO_WAY, "rte"),
    tfds=_tfds("rte"),
    hf=_hub("rte"),
    sizes=_sizes(2_490, 277),
    licence="none stated (RTE-1, 2, 3 and 5)",
    description="Two-way inference over sentences of the news and Wikipedia.",
    domain="nli",
    reserved=True,
)

SST2 = Task(
    name="glue/sst2",
    kind="classification",
    fields=("sentence",),
    labels=POLARITY,
    templates=polarity("piece of a film review", prefix="sst2"),
    tfds=_tfds("sst2"),
    hf=_hub("sst2"),
    sizes=_sizes(67_349, 872),
    licence="none stated",
    description="Sentiment of phrases from film reviews; its phrases cover sentences of mr.",
    domain="sentiment",
)

STSB = Task(
    name="glue/stsb",
    kind="regression",
    fields=("sentence1", "sentence2"),
    templates=(
        Template("plain", "sentence1: {sentence1} sentence2: {sentence2}"),
        Template(
            "scale",
            "From 0 (unrelated) to 5 (the same), how close in meaning are these sentences?"
            " {sentence1} {sentence2}",
        ),
        Template(
            "grade",
            'Grade how well "{sentence2}" restates "{sentence1}". The grade, 0.0 to 5.0, is',
        ),
        Template("t5", "stsb sentence1: {sentence1} sentence2: {sentence2}"),
    ),
    metrics=("pearson", "spearman"),
    tfds=_tfds("stsb"),
    hf=_hub("stsb"),
    sizes=_sizes(5_749, 1_500),
    licence="CC BY-SA 4.0 and terms of its sources",
    description="How similar two sentences are, from 0 to 5.",
    domain="similarity",
    reserved=True,
)

WNLI = Task(
    name="glue/wnli",
    kind="classification",
    fields=("sentence1", "sentence2"),
    labels=("not_entailment", "entailment"),
    templates=inference("sentence1", "sentence2", ("not_entailment", "entailment"), "wnli"),
    tfds=_tfds("wnli"),
    hf=_hub("wnli"),
    sizes=_sizes(635, 71),
    licence="CC BY 4.0",
    description="Winograd sentences as inference; its development set is adversarial to its"
    " training set.",
    domain="coreference",
    reserved=True,
)

TASKS = (COLA, MNLI, MRPC, QNLI, QQP, RTE, SST2, STSB, WNLI)
