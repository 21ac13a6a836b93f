"""Sentiment and emotion of sentences, phrases, reviews and tweets."""

from __future__ import annotations

from prompt_jax.data.registry.wording import FIVE_DEGREES, POLARITY, five_degrees, polarity
from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

# The external data sets name the field "text"; here it is "sentence" in all tasks.
_TEXT = (("sentence", "text"),)
# Only train and test are published: the published test split is our test set.
_TRAIN_TEST = (("train", "train"), ("validation", "test"))


YELP_POLARITY = Task(
    name="yelp_polarity",
    kind="classification",
    fields=("sentence",),
    labels=POLARITY,
    templates=polarity("review of a business"),
    tfds=TfdsSource("yelp_polarity_reviews", fields=_TEXT, splits=_TRAIN_TEST),
    hf=HubSource("fancyzhx/yelp_polarity", "plain_text", fields=_TEXT, splits=_TRAIN_TEST),
    sizes=(("train", 560_000), ("validation", 38_000)),
    licence="Yelp data set terms, academic use",
    description="Reviews of Yelp with 1-2 against 4-5 stars; made from yelp_review_full.",
    domain="sentiment",
)

YELP_REVIEW_FULL = Task(
    name="yelp_review_full",
    kind="classification",
    fields=("sentence",),
    labels=FIVE_DEGREES,
    templates=five_degrees("review of a business"),
    hf=HubSource("Yelp/yelp_review_full", "yelp_review_full", fields=_TEXT, splits=_TRAIN_TEST),
    sizes=(("train", 650_000), ("validation", 50_000)),
    licence="Yelp data set terms, academic use",
    description="Reviews of Yelp with 1 to 5 stars.",
    domain="sentiment",
)

AMAZON_REVIEW_FULL = Task(
    name="amazon_review_full",
    kind="classification",
    fields=("sentence",),
    labels=FIVE_DEGREES,
    templates=five_degrees("review of a product"),
    sizes=(("train", 3_000_000), ("validation", 650_000)),
    licence="Amazon reviews terms, research use",
    description="Reviews of Amazon, title and text, with 1 to 5 stars.",
    domain="sentiment",
)

IMDB = Task(
    name="imdb",
    kind="classification",
    fields=("sentence",),
    labels=POLARITY,
    templates=polarity("film review"),
    tfds=TfdsSource("imdb_reviews/plain_text", fields=_TEXT, splits=_TRAIN_TEST),
    hf=HubSource("stanfordnlp/imdb", "plain_text", fields=_TEXT, splits=_TRAIN_TEST),
    sizes=(("train", 25_000), ("validation", 25_000)),
    licence="none stated, research use",
    description="Sentiment of long film reviews.",
    domain="sentiment",
    reserved=True,
)

SST5 = Task(
    name="sst5",
    kind="classification",
    fields=("sentence",),
    labels=FIVE_DEGREES,
    templates=five_degrees("sentence from a film review"),
    hf=HubSource("SetFit/sst5", fields=_TEXT, revision="refs/convert/parquet"),
    sizes=(("train", 8_544), ("validation", 1_101)),
    licence="none stated",
    description="Stanford sentiment in five classes, whole sentences.",
    domain="sentiment",
    reserved=True,
)

MR = Task(
    name="mr",
    kind="classification",
    fields=("sentence",),
    labels=POLARITY,
    templates=polarity("sentence from a film review"),
    split_protocol="own",
    sizes=(("train", 9_662), ("validation", 1_000)),
    licence="none stated, research use",
    description="Sentiment of sentences from film reviews; there is no official split.",
    domain="sentiment",
    reserved=True,
)

MPQA = Task(
    name="mpqa",
    kind="classification",
    fields=("sentence",),
    labels=POLARITY,
    templates=(
        Template(
            "plain",
            "phrase: {sentence}",
            labels=("bad", "good"),
            cue="Sentiment",
            cue_labels=POLARITY,
        ),
        Template("tone", "Does this expression carry a negative or a positive view? {sentence}"),
        Template(
            "praise",
            'Somebody is called "{sentence}" Is that praise or blame?',
            labels=("blame", "praise"),
        ),
        Template(
            "favour",
            'In favour of something or against it: which of the two does "{sentence}" suggest?',
            labels=("against", "for"),
        ),
    ),
    split_protocol="own",
    sizes=(("train", 9_603), ("validation", 1_000)),
    licence="MPQA terms, research use",
    description="Polarity of opinion phrases of a few words; there is no official split.",
    domain="sentiment",
)

TWEETEVAL_EMOTION = Task(
    name="tweeteval_emotion",
    kind="classification",
    fields=("sentence",),
    labels=("anger", "joy", "optimism", "sadness"),
    templates=(
        Template(
            "plain",
            "tweet: {sentence}",
            labels=("anger", "joy", "hope", "sad"),
            cue="Emotion",
            cue_labels=("anger", "joy", "optimism", "sadness"),
        ),
        Template("feeling", "Which feeling speaks from this tweet? {sentence}"),
        Template(
            "writer",
            "The writer of this tweet is angry, glad, hopeful or sad: {sentence}",
            labels=("angry", "glad", "hopeful", "sad"),
        ),
        Template(
            "emotion",
            "sentence: {sentence} emotion:",
        ),
    ),
    metrics=("accuracy", "macro_f1"),
    hf=HubSource("cardiffnlp/tweet_eval", "emotion", fields=_TEXT),
    sizes=(("train", 3_257), ("validation", 374)),
    licence="tweets under their own terms",
    description="Which of four emotions a tweet shows.",
    domain="emotion",
)

TASKS = (
    YELP_POLARITY,
    YELP_REVIEW_FULL,
    AMAZON_REVIEW_FULL,
    IMDB,
    SST5,
    MR,
    MPQA,
    TWEETEVAL_EMOTION,
)
