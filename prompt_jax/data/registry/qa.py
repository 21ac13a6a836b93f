"""Questions with free or extracted answers."""

from __future__ import annotations

from prompt_jax.data.registry.wording import reading
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_FIELDS = ("question", "context")
_METRICS = ("squad_f1", "squad_em")

SQUAD = Task(
    name="squad",
    kind="span",
    fields=_FIELDS,
    templates=reading(title="squad"),
    metrics=_METRICS,
    tfds=TfdsSource("squad/v1.1", fields=(("answers", "answers/text"),)),
    hf=HubSource("rajpurkar/squad", "plain_text", fields=(("answers", "answers/text"),)),
    sizes=(("train", 87_599), ("validation", 10_570)),
    licence="CC BY-SA 4.0",
    description="SQuAD 1.1: questions answered by a stretch of a paragraph of Wikipedia.",
    max_input=512,
    domain="qa",
)


def _mrqa(config: str, title: str, train: int, validation: int, what: str) -> Task:
    return Task(
        name=f"mrqa/{config}",
        kind="span",
        fields=_FIELDS,
        templates=reading(title=title),
        metrics=_METRICS,
        tfds=TfdsSource(f"mrqa/{config}"),
        sizes=(("train", train), ("validation", validation)),
        licence="MIT for the MRQA format; the data under their own terms",
        description=f"{what}, in the form of the MRQA 2019 shared task.",
        max_input=512,
        domain="qa",
    )


SQUAD_SMALL = Task(
    name="squad_small",
    kind="span",
    fields=_FIELDS,
    templates=reading(title="squad"),
    metrics=_METRICS,
    split_protocol="own",
    sizes=(("train", 1_373), ("validation", 299)),
    licence="CC BY-SA 4.0",
    description="SQuAD 1.1 in small: the 1,190 questions of XQuAD (from SQuAD's development set)"
    " and single sentences of its training set, split by paragraph.",
    max_input=512,
    domain="qa",
)

NQ_QED = Task(
    name="nq_qed",
    kind="span",
    fields=_FIELDS,
    templates=reading(title="natural questions"),
    metrics=_METRICS,
    split_protocol="own",
    sizes=(("train", 958), ("validation", 340)),
    licence="CC BY-SA 3.0",
    description="Natural Questions with the paragraph that answers them (from QED's development"
    " set), split by paragraph.",
    max_input=512,
    domain="qa",
)

HOTPOTQA_SMALL = Task(
    name="hotpotqa_small",
    kind="span",
    fields=_FIELDS,
    templates=reading(title="hotpot"),
    metrics=_METRICS,
    split_protocol="own",
    sizes=(("train", 477), ("validation", 1_000)),
    licence="CC BY-SA 4.0",
    description="Questions over two steps with the sentences that are needed; a sample, not checked"
    " against HotpotQA.",
    max_input=512,
    domain="qa",
)

QUOREF = Task(
    name="quoref",
    kind="span",
    fields=_FIELDS,
    templates=reading(title="quoref"),
    metrics=_METRICS,
    split_protocol="own",
    sizes=(("train", 975), ("validation", 100)),
    licence="CC BY 4.0",
    description="Questions that need coreference within a long paragraph; a sample of Quoref.",
    max_input=512,
    domain="qa",
    reserved=True,
)

SCIQ = Task(
    name="sciq",
    kind="text",
    fields=("question",),
    templates=(
        Template("plain", "question: {question}"),
        Template("pupil", "A pupil asks: {question} The teacher's short answer is"),
        Template("crossword", "Solve this clue of a science crossword. {question}"),
        Template("answer", "science question: {question} answer:"),
    ),
    metrics=_METRICS,
    local="sciq_sni",
    hf=HubSource("allenai/sciq", fields=(("answers", "correct_answer"),)),
    split_protocol="own",
    sizes=(("train", 11_679), ("validation", 1_000)),
    licence="CC BY-NC 3.0",
    description="Science questions answered without a text or choices; local files are a sample.",
    domain="science",
    reserved=True,
)

TASKS = (
    SQUAD,
    _mrqa("natural_questions", "natural questions", 104_071, 12_836, "Natural Questions"),
    _mrqa("hotpot_qa", "hotpot", 72_928, 5_901, "HotpotQA"),
    _mrqa("search_qa", "search", 117_384, 16_980, "SearchQA"),
    _mrqa("news_qa", "news", 74_160, 4_212, "NewsQA"),
    SQUAD_SMALL,
    NQ_QED,
    HOTPOTQA_SMALL,
    QUOREF,
    SCIQ,
)
