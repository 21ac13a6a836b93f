"""Multiple choice: science and common sense, pronouns, minimal pairs."""

from __future__ import annotations

from prompt_jax.data.registry.wording import listed_choices
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_OPTIONS = ("option1", "option2")
_RESOLVE = (
    Template("plain", "sentence: {sentence} pronoun: {pronoun} choices: {choices}"),
    Template(
        "refers",
        'In "{sentence}" whom or what does "{pronoun}" mean? {choices}',
    ),
    Template(
        "replace",
        '{sentence} Which of these could stand in place of "{pronoun}"? {choices}'
        " The better one is",
    ),
    Template(
        "text",
        'sentence: {sentence} "{pronoun}" means',
        choice_answers="text",
    ),
)

WINOGRANDE = Task(
    name="winogrande",
    kind="choice",
    fields=("sentence", *_OPTIONS),
    choices=_OPTIONS,
    labels=_OPTIONS,
    templates=(
        Template("plain", "sentence: {sentence} choices: {choices}"),
        Template("gap", "{sentence} Which of the two belongs where the _ stands? {choices}"),
        Template(
            "options",
            "A word was blotted out: {sentence} It was either {option1} or {option2}."
            " {choices} The letter of the lost word is",
        ),
        Template("text", "sentence: {sentence} The _ is", choice_answers="text"),
    ),
    tfds=TfdsSource("winogrande", splits=(("train", "train_xl"), ("validation", "validation"))),
    split_protocol="own",
    sizes=(("train", 40_398), ("validation", 1_267)),
    licence="CC BY",
    description="Which of two names fills a gap; local files split the official development set"
    " into 1,000 and 267 rows, TFDS has the official splits.",
    domain="coreference",
    reserved=True,
)

DPR = Task(
    name="dpr",
    kind="choice",
    fields=("sentence", "pronoun", *_OPTIONS),
    choices=_OPTIONS,
    labels=_OPTIONS,
    templates=_RESOLVE,
    sizes=(("train", 1_322), ("validation", 564)),
    licence="none stated",
    description="To which of two candidates a pronoun refers; validation is the official test.",
    domain="coreference",
    reserved=True,
)

WSC273 = Task(
    name="wsc273",
    kind="choice",
    fields=("sentence", "pronoun", *_OPTIONS),
    choices=_OPTIONS,
    labels=_OPTIONS,
    templates=_RESOLVE,
    split_protocol="evaluation",
    sizes=(("validation", 273),),
    licence="CC BY 4.0",
    description="Winograd schema challenge, for evaluation only; its sentences are in glue/wnli.",
    domain="coreference",
    reserved=True,
)


def _arc(config: str, train: int, validation: int) -> Task:
    return Task(
        name=f"arc_{config.lower()}",
        kind="choice",
        fields=("question", "choices"),
        templates=listed_choices(),
        tfds=TfdsSource(
            f"ai2_arc/ARC-{config}",
            fields=(("choices", "choices/text"), ("label", "answerKey")),
            splits=(("train", "train"), ("validation", "test")),
        ),
        sizes=(("train", train), ("validation", validation)),
        licence="CC BY-SA 4.0",
        description=f"Science questions of school exams, the {config.lower()} part; validation is"
        " the official test.",
        domain="science",
        reserved=True,
    )


OPENBOOKQA = Task(
    name="openbookqa",
    kind="choice",
    fields=("question", "choices"),
    templates=listed_choices(),
    hf=HubSource(
        "allenai/openbookqa",
        "main",
        fields=(
            ("question", "question_stem"),
            ("choices", "choices/text"),
            ("label", "answerKey"),
        ),
    ),
    sizes=(("train", 4_957), ("validation", 500)),
    licence="Apache-2.0",
    description="Science questions that need one fact and common sense.",
    domain="science",
    reserved=True,
)

COMMONSENSEQA = Task(
    name="commonsenseqa",
    kind="choice",
    fields=("question", "choices"),
    templates=listed_choices(),
    sizes=(("train", 7_610), ("validation", 950)),
    licence="MIT",
    description="Questions of common sense, version 1.0 with three choices.",
    domain="commonsense",
    reserved=True,
)

COMMONSENSEQA_V11 = Task(
    name="commonsenseqa_v1.1",
    kind="choice",
    fields=("question", "choices"),
    templates=listed_choices(),
    hf=HubSource(
        "tau/commonsense_qa",
        fields=(("choices", "choices/text"), ("label", "answerKey")),
    ),
    sizes=(("train", 9_741), ("validation", 1_221)),
    licence="MIT",
    description="Questions of common sense, version 1.1 with five choices; shares its questions"
    " with commonsenseqa.",
    domain="commonsense",
    reserved=True,
)

BLIMP = Task(
    name="blimp",
    kind="choice",
    fields=("sentence_good", "sentence_bad"),
    choices=("sentence_good", "sentence_bad"),
    # The good sentence always comes first, so the letter would give the answer away: both sentences
    # are scored as texts.
    templates=(
        Template("plain", "grammatical sentence:", choice_answers="text"),
        Template("native", "A native speaker of English would say:", choice_answers="text"),
        Template(
            "teacher",
            "Write down a sentence of correct English.",
            target='"{answer}"',
            choice_answers="text",
        ),
    ),
    fixed_label=0,
    split_protocol="evaluation",
    sizes=(("validation", 1_943),),
    licence="CC BY 4.0",
    description="Minimal pairs of a grammatical and an ungrammatical sentence, 29 of each of 67"
    " paradigms, for evaluation only.",
    domain="acceptability",
    max_target=64,
    reserved=True,
)

TASKS = (
    WINOGRANDE,
    DPR,
    WSC273,
    _arc("Easy", 2_251, 2_376),
    _arc("Challenge", 1_119, 1_172),
    OPENBOOKQA,
    COMMONSENSEQA,
    COMMONSENSEQA_V11,
    BLIMP,
)
