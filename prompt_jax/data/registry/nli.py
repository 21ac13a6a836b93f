"""Inference and paraphrase outside GLUE."""

from __future__ import annotations

from prompt_jax.data.registry.wording import inference, paraphrase
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_THREE_WAY = ("entailment", "neutral", "contradiction")
_TWO_WAY = ("entailment", "not_entailment")
_THREE_SPLITS = (("train", "train"), ("validation", "validation"), ("test", "test"))
# Label names of SciTail's files; "neutral" means no entailment.
_SCITAIL = ("entails", "neutral")


SCITAIL = Task(
    name="scitail",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_SCITAIL,
    templates=(
        *inference("premise", "hypothesis", _SCITAIL, "scitail"),
        Template(
            "science",
            'A science teacher wants proof that "{hypothesis}" Is this line enough? {premise}',
            labels=("yes", "no"),
        ),
    ),
    tfds=TfdsSource("sci_tail"),
    hf=HubSource("allenai/scitail", "tsv_format"),
    sizes=(("train", 23_097), ("validation", 1_304)),
    licence="Apache-2.0",
    description="Whether a sentence from the web supports the answer to a science question.",
    domain="nli",
)

SCITAIL_SNLI = Task(
    name="scitail_snli",
    kind="classification",
    fields=SCITAIL.fields,
    labels=("entailment", "neutral"),
    templates=SCITAIL.templates,
    hf=HubSource(
        "allenai/scitail",
        "snli_format",
        fields=(("premise", "sentence1"), ("hypothesis", "sentence2"), ("label", "gold_label")),
    ),
    sizes=(("train", 23_596), ("validation", 1_304)),
    licence="Apache-2.0",
    description="SciTail as its snli_format has it, which ATTEMPT, MPT and their followers use: 499"
    " more training rows than scitail.",
    domain="nli",
)

PAWS = Task(
    name="paws",
    kind="classification",
    fields=("sentence1", "sentence2"),
    labels=("different", "paraphrase"),
    templates=paraphrase("sentence1", "sentence2", "paws"),
    tfds=TfdsSource("paws_wiki/labeled_final_raw", splits=_THREE_SPLITS),
    hf=HubSource("google-research-datasets/paws", "labeled_final", splits=_THREE_SPLITS),
    sizes=(("train", 49_401), ("validation", 8_000), ("test", 8_000)),
    licence="free for any purpose, with attribution (PAWS terms)",
    description="Paraphrases against sentences of the same words in another order (Wikipedia).",
    domain="paraphrase",
)

SNLI = Task(
    name="snli",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_THREE_WAY,
    templates=(
        *inference("premise", "hypothesis", _THREE_WAY, "snli"),
        Template(
            "photo",
            "A photo is described as: {premise} Could the same photo be described as: {hypothesis}",
            labels=("surely", "perhaps", "never"),
        ),
    ),
    # Rows without annotator agreement have label -1, which is outside the map.
    tfds=TfdsSource("snli", label_map=(0, 1, 2)),
    hf=HubSource("stanfordnlp/snli", "plain_text", label_map=(0, 1, 2)),
    sizes=(("train", 550_152), ("validation", 10_000)),
    licence="CC BY-SA 4.0",
    description="Three-way inference over captions of photos.",
    domain="nli",
)


def _anli(number: int, train: int, validation: int) -> Task:
    splits = (("train", f"train_r{number}"), ("validation", f"dev_r{number}"))
    return Task(
        name=f"anli/r{number}",
        kind="classification",
        fields=("premise", "hypothesis"),
        labels=_THREE_WAY,
        templates=(
            *inference("premise", "hypothesis", _THREE_WAY, "anli"),
            Template(
                "trap",
                "Careful, this may be a trap. Passage: {premise} Statement: {hypothesis} Is the"
                " statement true, open or false?",
                labels=("true", "open", "false"),
            ),
        ),
        tfds=TfdsSource(f"anli/r{number}", fields=(("premise", "context"),)),
        hf=HubSource("facebook/anli", "plain_text", splits=splits),
        sizes=(("train", train), ("validation", validation)),
        licence="CC BY-NC 4.0",
        description=f"Adversarial three-way inference, round {number}.",
        domain="nli",
    )


JOCI = Task(
    name="joci",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_THREE_WAY,
    templates=(
        *inference("premise", "hypothesis", _THREE_WAY, "joci"),
        Template(
            "likely",
            "Imagine this scene: {premise} How likely is it that the following holds as well?"
            " {hypothesis}",
            labels=("certain", "possible", "impossible"),
        ),
    ),
    sizes=(("train", 8_412), ("validation", 939)),
    licence="none stated, research use",
    description="Common-sense inference (JOCI) in three classes.",
    domain="nli",
)

MPE = Task(
    name="mpe",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_THREE_WAY,
    templates=(
        *inference("premise", "hypothesis", _THREE_WAY, "mpe"),
        Template(
            "captions",
            "Four people describe one picture: {premise} A fifth says: {hypothesis} Given the four,"
            " is the fifth right?",
            labels=("yes", "maybe", "no"),
        ),
    ),
    sizes=(("train", 9_000), ("validation", 1_000)),
    licence="none stated, research use",
    description="Three-way inference from four captions of one picture together.",
    domain="nli",
)

ADD_ONE_RTE = Task(
    name="add_one_rte",
    kind="classification",
    fields=("premise", "hypothesis"),
    labels=_TWO_WAY,
    templates=(
        *inference("premise", "hypothesis", _TWO_WAY, "add_one_rte"),
        Template(
            "adjective",
            'One word was added to "{premise}" to make "{hypothesis}" Must the longer sentence be'
            " true if the first is?",
            labels=("yes", "no"),
        ),
    ),
    sizes=(("train", 4_991), ("validation", 387)),
    licence="none stated, research use",
    description="Whether a sentence still holds after an adjective was put into it.",
    domain="nli",
)

TASKS = (
    SCITAIL,
    SCITAIL_SNLI,
    PAWS,
    SNLI,
    _anli(1, 16_946, 1_000),
    _anli(2, 45_460, 1_000),
    _anli(3, 100_459, 1_200),
    JOCI,
    MPE,
    ADD_ONE_RTE,
)
