"""Template sets that several tasks share, written for this project.

Three rules hold for all of them. The first template is the plain `field: value` form with short
label words, the default for training. The field that may be long comes last, so that truncation of
an input never removes the question. No template suggests an answer that is not among the task's
labels.

Models that continue their input answer the plain template after a cue that says what is asked, with
the task's own words: on training rows of sources (SST-2, Yelp, AG News) this was far better than
`Answer:` and short words.
"""

from __future__ import annotations

from prompt_jax.data.tasks import Template

# Label words of (entailment, neutral, contradiction) under each template, and of (entailment, not)
# for tasks with two classes.
_THREE = {
    "plain": ("yes", "maybe", "no"),
    "follows": ("yes", "maybe", "no"),
    "certainty": ("certain", "possible", "impossible"),
    "conclusion": ("right", "unclear", "wrong"),
}
_TWO = {
    "plain": ("yes", "no"),
    "follows": ("yes", "no"),
    "certainty": ("certain", "uncertain"),
    "conclusion": ("right", "wrong"),
}


def _inference_words(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    words = []
    for label in labels:
        follows = label.startswith("entail")
        if len(labels) == 2:
            words.append(_TWO[name][0 if follows else 1])
        else:
            words.append(_THREE[name][0 if follows else 1 if label == "neutral" else 2])
    return tuple(words)


def inference(
    premise: str, hypothesis: str, labels: tuple[str, ...], prefix: str
) -> tuple[Template, ...]:
    """Templates of textual inference over two fields.

    Args:
      premise: name of the field with the premise.
      hypothesis: name of the field with the hypothesis.
      labels: the task's labels in its order; one starts with "entail".
      prefix: name of the task in T5's own mixture, the first word of that template.
    """
    given, claim = f"{{{premise}}}", f"{{{hypothesis}}}"
    texts = {
        "plain": f"{premise}: {given} {hypothesis}: {claim}",
        "follows": f'Text: {given} Does it follow from this text that "{claim}"?',
        "certainty": f'This much is known: {given} So how sure is it that "{claim}"?',
        "conclusion": f"Somebody reads: {given} They conclude: {claim} Their conclusion is",
    }
    ours = tuple(Template(n, text, labels=_inference_words(n, labels)) for n, text in texts.items())
    return (*ours, Template("t5", f"{prefix} {hypothesis}: {claim} {premise}: {given}"))


def paraphrase(
    first: str, second: str, prefix: str, noun: str = "sentence"
) -> tuple[Template, ...]:
    """Templates of paraphrase detection; the labels are (different, same).

    Args:
      first: name of the first field.
      second: name of the second field.
      prefix: name of the task in T5's own mixture.
      noun: what the fields hold, "sentence" or "question".
    """
    one, two = f"{{{first}}}", f"{{{second}}}"
    return (
        Template("plain", f"{first}: {one} {second}: {two}", labels=("no", "yes")),
        Template(
            "meaning",
            f'Do the {noun}s "{one}" and "{two}" mean the same?',
            labels=("no", "yes"),
        ),
        Template(
            "compare",
            f"Compare two {noun}s. First: {one} Second: {two} Their meanings are",
            labels=("different", "equal"),
        ),
        Template(
            "editor",
            f"An editor wants to drop one of two {noun}s if it only repeats the other."
            f" (1) {one} (2) {two} Keep one or both?",
            labels=("both", "one"),
        ),
        Template("t5", f"{prefix} {first}: {one} {second}: {two}"),
    )


POLARITY = ("negative", "positive")
FIVE_DEGREES = ("very negative", "negative", "neutral", "positive", "very positive")


def polarity(noun: str, *, field: str = "sentence", prefix: str = "") -> tuple[Template, ...]:
    """Templates of two-way sentiment; the labels are (negative, positive).

    Args:
      noun: what the text is, like "film review".
      field: name of the field with the text.
      prefix: name of the task in T5's own mixture, if it is there.
    """
    text = f"{{{field}}}"
    own = (
        Template(
            "plain",
            f"{field}: {text}",
            labels=("bad", "good"),
            cue="Sentiment",
            cue_labels=POLARITY,
        ),
        Template("tone", f"Is the tone of this {noun} negative or positive? {text}"),
        Template(
            "happy",
            f"Was the writer of this {noun} happy with what it is about? {text}",
            labels=("no", "yes"),
        ),
        Template(
            "thumb",
            f"Thumb up or thumb down? Judge by this {noun}: {text}",
            labels=("down", "up"),
        ),
    )
    return (*own, Template("t5", f"{prefix} {field}: {text}")) if prefix else own


def five_degrees(noun: str, *, field: str = "sentence") -> tuple[Template, ...]:
    """Templates of five-way sentiment, from very negative to very positive.

    Args:
      noun: what the text is, like "film review".
      field: name of the field with the text.
    """
    text = f"{{{field}}}"
    return (
        Template(
            "plain",
            f"{field}: {text}",
            labels=("terrible", "bad", "okay", "good", "great"),
            cue="Sentiment",
            cue_labels=FIVE_DEGREES,
        ),
        Template("tone", f"How negative or positive is this {noun}? {text}"),
        Template(
            "stars",
            f"Give the stars, from 1 to 5, that belong to this {noun}: {text}",
            labels=("1", "2", "3", "4", "5"),
        ),
        Template(
            "feeling",
            f"How does the writer of this {noun} feel about its subject? {text}",
            labels=("awful", "unhappy", "indifferent", "happy", "delighted"),
        ),
    )


def reading(*, title: str = "squad") -> tuple[Template, ...]:
    """Templates of extractive question answering.

    Args:
      title: a short name of the data set, part of one template.
    """
    return (
        Template("plain", "question: {question} context: {context}"),
        Template(
            "words",
            "Answer with words taken from the text. Question: {question} Text: {context}",
        ),
        Template(
            "look_up",
            "Somebody asks: {question} Find the answer in this passage: {context}",
        ),
        Template("named", f"{title} question: {{question}} passage: {{context}} answer:"),
    )


def listed_choices(field: str = "question") -> tuple[Template, ...]:
    """Templates of questions with a list of choices.

    Args:
      field: name of the field with the question.
    """
    ask = f"{{{field}}}"
    return (
        Template("plain", f"{field}: {ask} choices: {{choices}}"),
        Template(
            "pick",
            f"{ask} Pick the best of these answers. {{choices}} The letter of the best answer is",
        ),
        Template(
            "exam",
            f"An exam has this question: {ask} The candidates may tick one box: {{choices}}"
            " Which box is right?",
        ),
        Template(
            "text",
            f"question: {ask} choices: {{choices}} Write out the right choice.",
            choice_answers="text",
        ),
        Template("open", f"{ask} The answer is", choice_answers="text"),
    )


def told_choices(field: str = "context") -> tuple[Template, ...]:
    """Templates of questions about a text, with a list of choices.

    Args:
      field: name of the field with the text.
    """
    text = f"{{{field}}}"
    return (
        Template("plain", f"question: {{question}} choices: {{choices}} {field}: {text}"),
        Template("which", f"{{question}} Which of these is it? {{choices}} Read: {text}"),
        Template(
            "text",
            f"{{question}} Write out the best of these answers. {{choices}} They are about: {text}",
            choice_answers="text",
        ),
    )


def summary(field: str, noun: str) -> tuple[Template, ...]:
    """Templates of summaries.

    Args:
      field: name of the field with the text.
      noun: what the text is, like "news article".
    """
    text = f"{{{field}}}"
    return (
        Template("plain", f"summarize: {text}"),
        Template("short", f"What does this {noun} say, in short? {text}"),
        Template("gist", f"Somebody has no time to read a {noun}. Tell them what matters: {text}"),
    )
