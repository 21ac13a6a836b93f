"""Tasks of T0's mixture and tests (Sanh et al. 2022) that no other family has.

`datasets.csv` of bigscience-workshop/t-zero names them: `do_train = BASE` has 38 rows in eight
categories, `do_eval = BASE` nine sets in five. The templates are ours, not those of P3.
"""

from __future__ import annotations

from prompt_jax.data.registry.wording import (
    listed_choices,
    polarity,
    reading,
    summary,
    told_choices,
)
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_SQUAD = ("squad_f1", "squad_em")
_ANSWERS = (("answers", "answers/text"),)
_KEYED = (("choices", "choices/text"), ("label", "answerKey"))
_CONVERTED = "refs/convert/parquet"
_RESEARCH = "none stated, research use"


def _sizes(train: int, validation: int) -> tuple[tuple[str, int], ...]:
    return (("train", train), ("validation", validation))


# Tested on -------------------------------------------------------------------------------------

HELLASWAG = Task(
    name="hellaswag",
    kind="choice",
    fields=("beginning", "choices"),
    templates=(
        Template("plain", "beginning: {beginning} choices: {choices}"),
        Template("goes_on", "{beginning} How does this go on? {choices}"),
        Template("text", "Go on with this text: {beginning} It goes on:", choice_answers="text"),
        Template(
            "caption",
            "These are the first words under a video: {beginning} Pick the words that follow."
            " {choices}",
            choice_answers="text",
        ),
    ),
    tfds=TfdsSource("hellaswag", fields=(("beginning", "context"), ("choices", "endings"))),
    hf=HubSource(
        "Rowan/hellaswag",
        fields=(("beginning", "ctx"), ("choices", "endings")),
        revision=_CONVERTED,
    ),
    sizes=_sizes(39_905, 10_042),
    licence="MIT",
    description="Which of four endings follows the beginning of a caption or an instruction.",
    domain="completion",
    max_target=64,
    reserved=True,
)

_SENTENCES = tuple(f"sentence{number}" for number in (1, 2, 3, 4))
_STORY = "{sentence1} {sentence2} {sentence3} {sentence4}"
STORY_CLOZE = Task(
    name="story_cloze",
    kind="choice",
    fields=(*_SENTENCES, "ending1", "ending2"),
    choices=("ending1", "ending2"),
    labels=("1", "2"),
    columns=(
        *((name, f"InputSentence{name[-1]}") for name in _SENTENCES),
        ("ending1", "RandomFifthSentenceQuiz1"),
        ("ending2", "RandomFifthSentenceQuiz2"),
        ("label", "AnswerRightEnding"),
    ),
    templates=(
        Template("plain", f"story: {_STORY} choices: {{choices}}"),
        Template("ending", f"{_STORY} Which ending fits this story? {{choices}}"),
        Template("text", f"{_STORY} The story ends:", choice_answers="text"),
    ),
    split_protocol="evaluation",
    sizes=(("validation", 1_871),),
    licence="on request (Rochester terms)",
    description="Which of two sentences ends a story of four; the validation file of 2016, which"
    " its authors send on request, for evaluation only.",
    domain="completion",
    max_target=64,
    reserved=True,
)

# Trained on ------------------------------------------------------------------------------------

WIKI_QA = Task(
    name="wiki_qa",
    kind="classification",
    fields=("question", "answer"),
    labels=("wrong", "right"),
    templates=(
        Template("plain", "question: {question} answer: {answer}", labels=("no", "yes")),
        Template("right", 'Somebody asks: {question} Is "{answer}" a right answer?'),
        Template(
            "helps",
            "Does this line answer the question {question} Line: {answer}",
            labels=("no", "yes"),
        ),
    ),
    hf=HubSource("microsoft/wiki_qa"),
    sizes=_sizes(20_360, 2_733),
    licence="Microsoft Research licence",
    description="Whether a sentence of Wikipedia answers a query of Bing.",
    domain="closed_book",
)

KILT_HOTPOTQA = Task(
    name="kilt/hotpotqa",
    kind="text",
    fields=("question",),
    templates=(
        Template("plain", "question: {question}"),
        Template("knows", "Answer from what you know. {question}"),
        Template("friend", "A friend wants to know: {question} You say:"),
    ),
    metrics=_SQUAD,
    sizes=_sizes(88_869, 5_600),
    licence="MIT for KILT; the data CC BY-SA 4.0",
    description="Questions of HotpotQA without a text.",
    domain="closed_book",
)


def _adversarial(config: str, asked: str) -> Task:
    return Task(
        name=f"adversarial_qa/{config}",
        kind="span",
        fields=("question", "context"),
        templates=reading(title="adversarial"),
        metrics=_SQUAD,
        hf=HubSource("UCLNLP/adversarial_qa", config, fields=_ANSWERS),
        sizes=_sizes(10_000, 1_000),
        licence="CC BY-SA 4.0",
        description=f"Questions about paragraphs of Wikipedia that {asked} answered wrongly.",
        max_input=512,
        domain="qa",
    )


def _duorc(config: str, train: int, validation: int, what: str) -> Task:
    return Task(
        name=f"duorc/{config.lower()}",
        kind="span",
        fields=("question", "context"),
        templates=reading(title="film"),
        metrics=_SQUAD,
        sizes=_sizes(train, validation),
        licence="MIT",
        description=f"Questions about the plot of a film, {what}; where there is no answer, it has"
        " to say so in words.",
        max_input=512,
        domain="qa",
    )


ROPES = Task(
    name="ropes",
    kind="span",
    fields=("question", "situation", "background"),
    templates=(
        Template("plain", "question: {question} situation: {situation} background: {background}"),
        Template(
            "apply",
            "Use what the background says about this situation. {question} {situation} Background:"
            " {background}",
        ),
        Template(
            "lesson",
            "After a lesson a pupil is told: {situation} and asked: {question} The lesson was:"
            " {background}",
        ),
    ),
    metrics=_SQUAD,
    hf=HubSource("allenai/ropes", "plain_text", fields=_ANSWERS),
    sizes=_sizes(10_924, 1_688),
    licence="CC BY 4.0",
    description="Questions about a situation that a paragraph of background helps to answer.",
    max_input=512,
    domain="qa",
)

_COSMOS = tuple(f"answer{number}" for number in range(4))
COSMOS_QA = Task(
    name="cosmos_qa",
    kind="choice",
    fields=("question", "context", *_COSMOS),
    choices=_COSMOS,
    templates=told_choices(),
    tfds=TfdsSource("cosmos_qa"),
    hf=HubSource("allenai/cosmos_qa", revision=_CONVERTED),
    sizes=_sizes(25_262, 2_985),
    licence="CC BY 4.0",
    description="What a story of everyday life leaves unsaid, among four answers.",
    max_input=348,
    domain="multiple_choice",
)

DREAM = Task(
    name="dream",
    kind="choice",
    fields=("question", "dialogue", "choices"),
    templates=told_choices("dialogue"),
    answers="answer",
    sizes=_sizes(6_116, 2_040),
    licence="non-commercial research",
    description="Questions about a dialogue with three answers; files hold the dialogue as one"
    " text.",
    max_input=348,
    domain="multiple_choice",
)

QASC = Task(
    name="qasc",
    kind="choice",
    fields=("question", "choices"),
    templates=listed_choices(),
    hf=HubSource("allenai/qasc", fields=_KEYED),
    sizes=_sizes(8_134, 926),
    licence="CC BY 4.0",
    description="Science questions with eight choices that need two facts.",
    domain="multiple_choice",
)

QUAIL = Task(
    name="quail",
    kind="choice",
    fields=("question", "context", "choices"),
    templates=told_choices(),
    hf=HubSource(
        "textmachinelab/quail",
        "quail",
        fields=(("choices", "answers"), ("label", "correct_answer_id")),
        revision=_CONVERTED,
    ),
    sizes=_sizes(10_246, 2_164),
    licence="CC BY-NC-SA 4.0",
    description="Questions of nine kinds about a text, with four answers.",
    max_input=512,
    domain="multiple_choice",
)

QUAREL = Task(
    name="quarel",
    kind="classification",
    fields=("question",),
    labels=("A", "B"),
    templates=(
        Template("plain", "question: {question}", labels=("a", "b")),
        Template("which", "{question} Is it (A) or (B)?"),
        Template("exam", "A question of an exam names two answers. {question} The right one is"),
    ),
    hf=HubSource("allenai/quarel", fields=(("label", "answer_index"),), revision=_CONVERTED),
    sizes=_sizes(1_941, 278),
    licence="CC BY 4.0",
    description="Which of two things is more or less so in a story; the question names both.",
    domain="multiple_choice",
)

QUARTZ = Task(
    name="quartz",
    kind="choice",
    fields=("question", "context", "choices"),
    templates=told_choices(),
    hf=HubSource("allenai/quartz", fields=(*_KEYED, ("context", "para"))),
    sizes=_sizes(2_696, 384),
    licence="CC BY 4.0",
    description="Questions about what rises and falls together, given a sentence that says so.",
    domain="multiple_choice",
)

SOCIAL_I_QA = Task(
    name="social_i_qa",
    kind="choice",
    fields=("question", "context", "answerA", "answerB", "answerC"),
    choices=("answerA", "answerB", "answerC"),
    labels=("1", "2", "3"),
    templates=told_choices(),
    hf=HubSource("allenai/social_i_qa", revision=_CONVERTED),
    sizes=_sizes(33_410, 1_954),
    licence="CC BY 4.0",
    description="What people do and feel in a situation, among three answers.",
    domain="multiple_choice",
)

WIQA = Task(
    name="wiqa",
    kind="classification",
    fields=("question", "paragraph"),
    labels=("more", "less", "no_effect"),
    templates=(
        Template(
            "plain",
            "question: {question} paragraph: {paragraph}",
            labels=("more", "less", "none"),
        ),
        Template(
            "effect",
            "{question} More, less or no effect? This is what happens: {paragraph}",
            labels=("more", "less", "no effect"),
        ),
        Template(
            "change",
            "Something in a process is changed. {question} The process: {paragraph}",
            labels=("up", "down", "the same"),
        ),
    ),
    sizes=_sizes(29_808, 6_894),
    licence=_RESEARCH,
    description="What a change to one step of a process does to another; files hold the steps as"
    " one text.",
    domain="multiple_choice",
)

AMAZON_POLARITY = Task(
    name="amazon_polarity",
    kind="classification",
    fields=("sentence",),
    labels=("negative", "positive"),
    templates=polarity("review of a product"),
    hf=HubSource(
        "fancyzhx/amazon_polarity",
        "amazon_polarity",
        fields=(("sentence", "content"),),
        splits=(("train", "train"), ("validation", "test")),
    ),
    sizes=_sizes(3_600_000, 400_000),
    licence="Amazon reviews terms, research use",
    description="Reviews of Amazon with 1-2 against 4-5 stars, without their titles; validation is"
    " the official test.",
    domain="sentiment",
)

COMMON_GEN = Task(
    name="common_gen",
    kind="text",
    fields=("concepts",),
    templates=(
        Template("plain", "concepts: {concepts}"),
        Template("sentence", "Write one sentence with all of these words: {concepts}"),
        Template("scene", "Describe a scene of everyday life that has {concepts}"),
    ),
    metrics=_SQUAD,
    sizes=_sizes(67_389, 4_018),
    licence="MIT",
    description="A sentence with given words; files hold the words as one text.",
    domain="structure_to_text",
)

WIKI_BIO = Task(
    name="wiki_bio",
    kind="text",
    fields=("table",),
    templates=(
        Template("plain", "table: {table}"),
        Template("opening", "Write the first line of a biography with these facts: {table}"),
        Template("person", "These are facts about a person: {table} In a sentence:"),
    ),
    metrics=_SQUAD,
    sizes=_sizes(582_659, 72_831),
    licence="CC BY-SA 3.0",
    description="The first sentence of a biography of Wikipedia from its table; files hold the"
    " table as one text.",
    max_input=512,
    domain="structure_to_text",
    max_target=64,
)


def _summary(
    name: str,
    field: str,
    noun: str,
    sizes: tuple[int, int],
    licence: str,
    tfds: TfdsSource | None = None,
    hf: HubSource | None = None,
) -> Task:
    return Task(
        name=name,
        kind="text",
        fields=(field,),
        templates=summary(field, noun),
        metrics=_SQUAD,
        tfds=tfds,
        hf=hf,
        sizes=_sizes(*sizes),
        licence=licence,
        description=f"The summary of a {noun}; scored by the F1 of its words here, not by ROUGE.",
        max_input=512,
        domain="summary",
        max_target=128,
    )


_SHORT = (("answers", "summary"),)
TASKS = (
    HELLASWAG,
    STORY_CLOZE,
    WIKI_QA,
    KILT_HOTPOTQA,
    _adversarial("dbidaf", "BiDAF"),
    _adversarial("dbert", "BERT"),
    _adversarial("droberta", "RoBERTa"),
    _duorc("SelfRC", 60_721, 12_961, "asked by readers of that plot"),
    _duorc("ParaphraseRC", 69_524, 15_591, "asked by readers of another text on the film"),
    ROPES,
    COSMOS_QA,
    DREAM,
    QASC,
    QUAIL,
    QUAREL,
    QUARTZ,
    SOCIAL_I_QA,
    WIQA,
    AMAZON_POLARITY,
    COMMON_GEN,
    WIKI_BIO,
    _summary(
        "cnn_dailymail",
        "article",
        "news article",
        (287_113, 13_368),
        "Apache-2.0",
        TfdsSource("cnn_dailymail", fields=(("answers", "highlights"),)),
        HubSource("abisee/cnn_dailymail", "3.0.0", fields=(("answers", "highlights"),)),
    ),
    _summary(
        "gigaword",
        "document",
        "first sentence of the news",
        (3_803_957, 189_651),
        _RESEARCH,
        TfdsSource("gigaword", fields=_SHORT),
    ),
    _summary(
        "multi_news",
        "document",
        "pack of news articles",
        (44_972, 5_622),
        "non-commercial research",
        TfdsSource("multi_news", fields=_SHORT),
    ),
    _summary(
        "samsum",
        "dialogue",
        "chat",
        (14_732, 818),
        "CC BY-NC-ND 4.0",
        TfdsSource("samsum", fields=_SHORT),
    ),
    _summary(
        "xsum",
        "document",
        "report of the BBC",
        (204_045, 11_332),
        _RESEARCH,
        TfdsSource("xsum", fields=_SHORT),
        HubSource("EdinburghNLP/xsum", fields=_SHORT, revision=_CONVERTED),
    ),
)
