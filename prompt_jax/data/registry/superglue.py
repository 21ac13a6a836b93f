"""The tasks of SuperGLUE (Wang et al. 2019) besides RTE, which is that of GLUE.

TensorFlow Datasets can build most of them only if tensorflow is installed; the Hub's parquet
conversion requires only pyarrow.
"""

from __future__ import annotations

from prompt_jax.data.registry.wording import inference
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_CB = ("entailment", "contradiction", "neutral")


def _tfds(name: str) -> TfdsSource:
    return TfdsSource(f"super_glue/{name}")


def _hub(name: str) -> HubSource:
    return HubSource("aps/super_glue", name, revision="refs/convert/parquet")


def _sizes(train: int, validation: int) -> tuple[tuple[str, int], ...]:
    return (("train", train), ("validation", validation))


BOOLQ = Task(
    name="super_glue/boolq",
    kind="classification",
    fields=("question", "passage"),
    labels=("False", "True"),
    templates=(
        Template("plain", "question: {question} passage: {passage}", labels=("no", "yes")),
        Template(
            "ask",
            "Answer with yes or no: {question}? You may use this text: {passage}",
            labels=("no", "yes"),
        ),
        Template(
            "quiz",
            "In a quiz the question was: {question} According to this article, was the reply true"
            " or false? {passage}",
            labels=("false", "true"),
        ),
        Template("t5", "boolq question: {question} passage: {passage}"),
    ),
    local="superglue_boolq",
    tfds=_tfds("boolq"),
    hf=_hub("boolq"),
    sizes=_sizes(9_427, 3_270),
    licence="CC BY-SA 3.0",
    description="Yes or no questions about a paragraph of Wikipedia.",
    domain="qa",
    reserved=True,
)

CB = Task(
    name="super_glue/cb",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_CB,
    templates=inference("premise", "hypothesis", _CB, "cb"),
    metrics=("accuracy", "macro_f1"),
    local="superglue_cb",
    tfds=_tfds("cb"),
    hf=_hub("cb"),
    sizes=_sizes(250, 56),
    licence="none stated",
    description="Three-way inference about embedded clauses; 56 rows of validation are an"
    " illustration, not evidence.",
    domain="nli",
    reserved=True,
)

COPA = Task(
    name="super_glue/copa",
    kind="choice",
    fields=("premise", "question", "choice1", "choice2"),
    choices=("choice1", "choice2"),
    templates=(
        Template("plain", "premise: {premise} question: {question} choices: {choices}"),
        Template(
            "story",
            "This happened: {premise} Which sentence gives its {question}? {choices}",
        ),
        Template(
            "detective",
            "A detective notes: {premise} and looks for the {question}. Possible notes: {choices}"
            " The fitting note reads",
            choice_answers="text",
        ),
        Template(
            "t5",
            "copa choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}",
        ),
    ),
    local="superglue_copa",
    tfds=_tfds("copa"),
    hf=_hub("copa"),
    sizes=_sizes(400, 100),
    licence="BSD 2-Clause",
    description="Which of two sentences is the cause or the effect of a third.",
    domain="commonsense",
    reserved=True,
)

MULTIRC = Task(
    name="super_glue/multirc",
    kind="classification",
    fields=("paragraph", "question", "answer"),
    labels=("False", "True"),
    templates=(
        Template(
            "plain",
            "question: {question} answer: {answer} paragraph: {paragraph}",
            labels=("no", "yes"),
        ),
        Template(
            "correct",
            'To the question "{question}" somebody answers "{answer}". Is that correct, going by'
            " the text? {paragraph}",
            labels=("no", "yes"),
        ),
        Template(
            "marking",
            "Mark a pupil's answer as right or wrong. Question: {question} Answer: {answer}"
            " Lesson: {paragraph}",
            labels=("wrong", "right"),
        ),
        Template("t5", "multirc question: {question} answer: {answer} paragraph: {paragraph}"),
    ),
    metrics=("multirc_f1a", "multirc_em"),
    group_fields=("paragraph", "question"),
    local="superglue_multirc",
    tfds=_tfds("multirc"),
    hf=_hub("multirc"),
    split_protocol="own",
    sizes=_sizes(27_243, 4_848),
    licence="research use (MultiRC terms)",
    description="Whether an answer to a question about a paragraph is right; local files split the"
    " official training set differently.",
    max_input=348,
    domain="qa",
    reserved=True,
)

RECORD = Task(
    name="super_glue/record",
    kind="span",
    fields=("passage", "query"),
    templates=(
        Template("plain", "query: {query} passage: {passage}"),
        Template(
            "fill",
            "Which name belongs where @placeholder stands? {query} It occurs in this article:"
            " {passage}",
        ),
        Template(
            "headline",
            "A name was lost in: {query} Read the news and give the missing name. {passage}",
        ),
        Template("t5", "record query: {query} passage: {passage}"),
    ),
    metrics=("squad_f1", "squad_em"),
    local="superglue_record",
    tfds=_tfds("record"),
    hf=_hub("record"),
    sizes=_sizes(100_730, 10_000),
    licence="none stated, research use",
    description="Which name of a news article fills the gap of a sentence; any of several spellings"
    " counts.",
    max_input=512,
    domain="qa",
)

WIC = Task(
    name="super_glue/wic",
    kind="classification",
    fields=("word", "sentence1", "sentence2"),
    labels=("False", "True"),
    templates=(
        Template(
            "plain",
            "word: {word} sentence1: {sentence1} sentence2: {sentence2}",
            labels=("no", "yes"),
        ),
        Template(
            "same",
            'Is "{word}" used in the same sense in these two sentences? {sentence1} {sentence2}',
            labels=("no", "yes"),
        ),
        Template(
            "dictionary",
            'A dictionary has "{word}" in: {sentence1} and in: {sentence2} Do both go under one'
            " entry or under two?",
            labels=("two", "one"),
        ),
        Template("t5", "wic sentence1: {sentence1} sentence2: {sentence2} word: {word}"),
    ),
    local="superglue_wic",
    tfds=_tfds("wic"),
    hf=_hub("wic"),
    sizes=_sizes(5_428, 638),
    licence="CC BY-NC 4.0",
    description="Whether a word has the same meaning in two sentences.",
    domain="word_sense",
    reserved=True,
)

WSC = Task(
    name="super_glue/wsc.fixed",
    kind="classification",
    fields=("text", "span1_text", "span2_text"),
    labels=("False", "True"),
    templates=(
        Template(
            "plain",
            "span1: {span1_text} span2: {span2_text} text: {text}",
            labels=("no", "yes"),
        ),
        Template(
            "refer",
            'Does "{span2_text}" stand for "{span1_text}" in this text? {text}',
            labels=("no", "yes"),
        ),
        Template(
            "replace",
            'Could one write "{span1_text}" in place of "{span2_text}" here without changing who'
            " or what is meant? {text}",
            labels=("no", "yes"),
        ),
        Template(
            "t5",
            "wsc pronoun: {span2_text} noun: {span1_text} text: {text}",
        ),
    ),
    local="superglue_wsc.fixed",
    tfds=_tfds("wsc.fixed"),
    hf=_hub("wsc.fixed"),
    sizes=_sizes(554, 104),
    licence="CC BY 4.0",
    description="Whether a pronoun refers to a given noun (Winograd schemas).",
    domain="coreference",
    reserved=True,
)

TASKS = (BOOLQ, CB, COPA, MULTIRC, RECORD, WIC, WSC)
