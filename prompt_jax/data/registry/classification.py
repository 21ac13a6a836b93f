"""Topics, kinds of questions, intents and subjectivity."""

from __future__ import annotations

from prompt_jax.data.tasks import HubSource, Task, Template, TfdsSource

_TEXT = (("sentence", "text"),)
_TRAIN_TEST = (("train", "train"), ("validation", "test"))

AG_NEWS = Task(
    name="ag_news",
    kind="classification",
    fields=("sentence",),
    labels=("World", "Sports", "Business", "Sci/Tech"),
    templates=(
        Template(
            "plain",
            "sentence: {sentence}",
            labels=("world", "sports", "business", "technology"),
            cue="Category",
            cue_labels=("World", "Sports", "Business", "Technology"),
        ),
        Template(
            "section",
            "In which section of a newspaper does this stand? {sentence}",
            labels=("politics", "sport", "economy", "science"),
        ),
        Template("label", "news: {sentence} topic:"),
        Template(
            "desk",
            "Which desk of a news agency wrote this: the world desk, the sports desk, the business"
            " desk or the technology desk? {sentence}",
            labels=("world", "sports", "business", "technology"),
        ),
    ),
    tfds=TfdsSource("ag_news_subset", fields=(("sentence", "description"),), splits=_TRAIN_TEST),
    hf=HubSource("fancyzhx/ag_news", fields=_TEXT, splits=_TRAIN_TEST),
    sizes=(("train", 120_000), ("validation", 7_600)),
    licence="non-commercial use",
    description="Topic of a news item; the Hub's texts start with the headline, the others do not.",
    domain="topic",
)

_DBPEDIA_CLASSES = (
    "Company",
    "Educational Institution",
    "Artist",
    "Athlete",
    "Office Holder",
    "Mean of Transportation",
    "Building",
    "Natural Place",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "Written Work",
)
_DBPEDIA_PLAIN = (
    "company",
    "school",
    "artist",
    "athlete",
    "politician",
    "vehicle",
    "building",
    "nature",
    "village",
    "animal",
    "plant",
    "album",
    "film",
    "book",
)
DBPEDIA = Task(
    name="dbpedia",
    kind="classification",
    fields=("title", "content"),
    labels=_DBPEDIA_CLASSES,
    templates=(
        Template(
            "plain",
            "title: {title} content: {content}",
            labels=_DBPEDIA_PLAIN,
            cue="Category",
            cue_labels=_DBPEDIA_CLASSES,
        ),
        Template("class", "What kind of thing is {title}? {content}", labels=_DBPEDIA_PLAIN),
        Template("ontology", "Class of the entry {title} in an ontology: {content}"),
        Template("text_only", "This text describes something: {content} Its category is"),
    ),
    hf=HubSource("fancyzhx/dbpedia_14", "dbpedia_14", splits=_TRAIN_TEST),
    split_protocol="own",
    sizes=(("train", 560_000), ("validation", 70_000)),
    licence="CC BY-SA 3.0",
    description="Class of an entry of Wikipedia among fourteen; local files have their own split.",
    domain="topic",
)

YAHOO_ANSWERS = Task(
    name="yahoo_answers",
    kind="classification",
    fields=("title", "content", "answer"),
    labels=(
        "Society & Culture",
        "Science & Mathematics",
        "Health",
        "Education & Reference",
        "Computers & Internet",
        "Sports",
        "Business & Finance",
        "Entertainment & Music",
        "Family & Relationships",
        "Politics & Government",
    ),
    templates=(
        Template(
            "plain",
            "title: {title} content: {content} answer: {answer}",
            labels=(
                "society",
                "science",
                "health",
                "education",
                "computers",
                "sports",
                "business",
                "music",
                "family",
                "politics",
            ),
            cue="Category",
        ),
        Template("board", "On which board of a forum was this asked? {title} {content}"),
        Template("topic", "question: {title} topic:"),
        Template("thread", "A thread starts with: {title} It is filed under"),
    ),
    hf=HubSource(
        "community-datasets/yahoo_answers_topics",
        "yahoo_answers_topics",
        fields=(
            ("title", "question_title"),
            ("content", "question_content"),
            ("answer", "best_answer"),
            ("label", "topic"),
        ),
        splits=_TRAIN_TEST,
    ),
    optional_fields=("content", "answer"),
    sizes=(("train", 1_400_000), ("validation", 60_000)),
    licence="Yahoo Webscope terms, research use",
    description="Topic of a question of Yahoo Answers.",
    domain="topic",
)

_TREC_CLASSES = ("description", "entity", "abbreviation", "human", "location", "number")
_TREC_PLAIN = ("description", "thing", "short", "person", "place", "number")
TREC = Task(
    name="trec",
    kind="classification",
    fields=("sentence",),
    labels=_TREC_CLASSES,
    templates=(
        Template(
            "plain",
            "question: {sentence}",
            labels=_TREC_PLAIN,
            cue="Category",
            cue_labels=_TREC_CLASSES,
        ),
        Template("answer", "What sort of answer does this question ask for? {sentence}"),
        Template(
            "expects",
            "Somebody asks: {sentence} They expect to hear of",
            labels=("a meaning", "a thing", "an acronym", "a person", "a place", "a number"),
        ),
        Template(
            "word",
            "Sort a question by one word: why, what, short, who, where or how many. {sentence}",
            labels=("why", "what", "short", "who", "where", "how many"),
        ),
    ),
    tfds=TfdsSource(
        "trec",
        fields=(*_TEXT, ("label", "label-coarse")),
        splits=_TRAIN_TEST,
        # DESC, ENTY, ABBR, HUM, NUM, LOC
        label_map=(0, 1, 2, 3, 5, 4),
    ),
    hf=HubSource(
        "CogComp/trec",
        fields=(*_TEXT, ("label", "coarse_label")),
        splits=_TRAIN_TEST,
        # ABBR, ENTY, DESC, HUM, LOC, NUM
        label_map=(2, 1, 0, 3, 4, 5),
        revision="refs/convert/parquet",
    ),
    sizes=(("train", 5_452), ("validation", 500)),
    licence="none stated, research use",
    description="What kind of answer a question asks for, in six coarse classes.",
    domain="question_type",
    reserved=True,
)

SUBJ = Task(
    name="subj",
    kind="classification",
    fields=("sentence",),
    labels=("subjective", "objective"),
    templates=(
        Template(
            "plain",
            "sentence: {sentence}",
            labels=("opinion", "fact"),
            cue="Category",
            cue_labels=("subjective", "objective"),
        ),
        Template(
            "view",
            "Does this sentence give a view or tell a plot? {sentence}",
            labels=("view", "plot"),
        ),
        Template("kind", "Is this subjective or objective? {sentence}"),
        Template(
            "critic",
            "Who wrote this line about a film, a critic or somebody who retells it? {sentence}",
            labels=("critic", "narrator"),
        ),
    ),
    split_protocol="own",
    sizes=(("train", 9_000), ("validation", 1_000)),
    licence="none stated, research use",
    description="Opinions on films against plots of films; there is no official split.",
    domain="subjectivity",
    reserved=True,
)

BANKING77_INTENTS = (
    "Refund_not_showing_up",
    "activate_my_card",
    "age_limit",
    "apple_pay_or_google_pay",
    "atm_support",
    "automatic_top_up",
    "balance_not_updated_after_bank_transfer",
    "balance_not_updated_after_cheque_or_cash_deposit",
    "beneficiary_not_allowed",
    "cancel_transfer",
    "card_about_to_expire",
    "card_acceptance",
    "card_arrival",
    "card_delivery_estimate",
    "card_linking",
    "card_not_working",
    "card_payment_fee_charged",
    "card_payment_not_recognised",
    "card_payment_wrong_exchange_rate",
    "card_swallowed",
    "cash_withdrawal_charge",
    "cash_withdrawal_not_recognised",
    "change_pin",
    "compromised_card",
    "contactless_not_working",
    "country_support",
    "declined_card_payment",
    "declined_cash_withdrawal",
    "declined_transfer",
    "direct_debit_payment_not_recognised",
    "disposable_card_limits",
    "edit_personal_details",
    "exchange_charge",
    "exchange_rate",
    "exchange_via_app",
    "extra_charge_on_statement",
    "failed_transfer",
    "fiat_currency_support",
    "get_disposable_virtual_card",
    "get_physical_card",
    "getting_spare_card",
    "getting_virtual_card",
    "lost_or_stolen_card",
    "lost_or_stolen_phone",
    "order_physical_card",
    "passcode_forgotten",
    "pending_card_payment",
    "pending_cash_withdrawal",
    "pending_top_up",
    "pending_transfer",
    "pin_blocked",
    "receiving_money",
    "request_refund",
    "reverted_card_payment?",
    "supported_cards_and_currencies",
    "terminate_account",
    "top_up_by_bank_transfer_charge",
    "top_up_by_card_charge",
    "top_up_by_cash_or_cheque",
    "top_up_failed",
    "top_up_limits",
    "top_up_reverted",
    "topping_up_by_card",
    "transaction_charged_twice",
    "transfer_fee_charged",
    "transfer_into_account",
    "transfer_not_received_by_recipient",
    "transfer_timing",
    "unable_to_verify_identity",
    "verify_my_identity",
    "verify_source_of_funds",
    "verify_top_up",
    "virtual_card_not_working",
    "visa_or_mastercard",
    "why_verify_identity",
    "wrong_amount_of_cash_received",
    "wrong_exchange_rate_for_cash_withdrawal",
)
_INTENT_WORDS = tuple(
    name.lower().replace("_", " ").removesuffix("?") for name in BANKING77_INTENTS
)
# The Hub numbers the intents in case-insensitive alphabetical order, local files case-sensitively.
_INTENT_MAP = tuple(
    BANKING77_INTENTS.index(name) for name in sorted(BANKING77_INTENTS, key=str.lower)
)
BANKING77 = Task(
    name="banking77",
    kind="classification",
    fields=("sentence",),
    labels=BANKING77_INTENTS,
    templates=(
        Template("plain", "sentence: {sentence}", labels=_INTENT_WORDS, cue="Category"),
        Template(
            "customer", "A bank's customer writes: {sentence} It is about", labels=_INTENT_WORDS
        ),
        Template(
            "route",
            "Route this message to the team in charge. {sentence} Team:",
            labels=_INTENT_WORDS,
        ),
        Template("intent", "message: {sentence} intent:"),
    ),
    hf=HubSource(
        "legacy-datasets/banking77",
        fields=_TEXT,
        splits=_TRAIN_TEST,
        label_map=_INTENT_MAP,
    ),
    sizes=(("train", 10_003), ("validation", 3_080)),
    licence="CC BY 4.0",
    description="What a customer wants from an online bank, among 77 intents.",
    domain="intent",
)

TASKS = (AG_NEWS, DBPEDIA, YAHOO_ANSWERS, TREC, SUBJ, BANKING77)
