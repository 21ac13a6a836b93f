"""Instructions about texts of the sandbox: the instruction decides what is answered.

A row is an instruction, a colon and a text with several properties at once. The instruction names
the property that is meant and the words to answer with, mostly words drawn at random: the model
must read the answers from the instruction, whose place a soft prompt takes later.

Instructions use only words and sentence forms of the sandbox's *source* side. No row of a target
and no test row of a source is used, and no inverted or permuted labels of a target.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prompt_jax.data import sandbox
from prompt_jax.data.render import Example, render
from prompt_jax.data.sandbox import grammar, words
from prompt_jax.data.sandbox.grammar import Writer


@dataclass(frozen=True)
class Aspect:
    """A property of a text that an instruction can ask for.

    Attributes:
      cues: ways to name it.
      classes: ways to name its classes, in order; the first words of a way are also label words.
    """

    cues: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]


ASPECTS = {
    "sentiment": Aspect(
        ("mood", "opinion", "does the writer like it ?", "is this praise or blame ?"),
        (("bad", "good"), ("negative", "positive"), ("blame", "praise")),
    ),
    "topic": Aspect(
        ("topic", "subject", "what is this about ?", "which page of the paper ?"),
        (
            words.TOPICS,
            ("cook", "athlete", "musician", "traveller"),
            ("meal", "game", "song", "trip"),
        ),
    ),
    "entailment": Aspect(
        (
            "does the second follow from the first ?",
            "consequence",
            "do these agree ?",
            "if the first is true , is the second ?",
        ),
        (("no", "yes"), ("false", "true"), ("differ", "agree")),
    ),
    "acceptability": Aspect(
        ("grammar", "are these words in order ?", "sound sentence ?", "word order"),
        (("wrong", "right"), ("mixed", "ordered"), ("odd", "fine")),
    ),
    "question_type": Aspect(
        (
            "what is asked for ?",
            "which kind of answer is wanted ?",
            "kind of question",
            "answer type",
        ),
        (grammar.ASKED, ("human", "location", "date", "amount"), ("who", "where", "when", "many")),
    ),
}

# What can be copied from a text.
ROLES = {
    "giver": ("who gave it ?", "giver", "from whom did it come ?", "the one who had it first"),
    "receiver": ("who got it ?", "receiver", "to whom did it go ?", "the one who has it now"),
    "thing": ("which thing ?", "thing", "what was it ?", "name the object"),
    "person": ("which person ?", "person", "name the man or woman"),
    "place": ("which place ?", "place", "where did it happen ?"),
    "day": ("which time ?", "time", "when did it happen ?"),
    "look": ("which look ?", "look", "what did it look like ?"),
}
_THINGS = """
blue red up down left river stone cloud seven nine lamp paper gold iron north south early late open
shut hot cold soft hard one two apple chair door star moon sun dog cat horse bird king queen plus
minus first last high low in out on off day night letter number alpha beta box ring key road tree
leaf rain snow salt sugar tea milk keep drop take leave stop go win lose rise fall begin end full
empty light dark fast slow near far thick thin rich poor loud still
"""
_CLASSES = {word for aspect in ASPECTS.values() for way in aspect.classes for word in way}
ANSWERS = tuple(sorted(_CLASSES | set(_THINGS.split())))
_FILLER = ("the", "task", "answer", "with", "please", "now", ",", "say", "is", "choose", "word")


def _schemes(name: str) -> frozenset[frozenset[str]]:
    return frozenset(frozenset(way) for way in ASPECTS[name].classes)


def labels(draw: random.Random, name: str) -> tuple[str, ...]:
    """Random answer words for the classes of an aspect.

    Words that name the classes in any of our ways are never permuted: targets with inverted or
    permuted labels stay unseen.
    """
    count = len(ASPECTS[name].classes[0])
    while True:
        chosen = tuple(draw.sample(ANSWERS, count))
        if frozenset(chosen) not in _schemes(name):
            return chosen


def instruction(draw: random.Random, name: str) -> tuple[str, tuple[str, ...]]:
    """An instruction for an aspect, and the answer words of its classes."""
    aspect = ASPECTS[name]
    cue, way = draw.choice(aspect.cues), draw.choice(aspect.classes)
    if draw.random() < 0.6:  # the answer words name the classes
        answers = way
        options = list(way)
        draw.shuffle(options)
        text = draw.choice(
            (
                f"{cue} {' or '.join(options)} ?",
                f"{cue} : {' , '.join(options)}",
                f"{' '.join(options)} {cue}",
                f"answer {' or '.join(options)} . {cue}",
            )
        )
    else:
        answers = labels(draw, name)
        pairs = list(zip(way, answers, strict=True))
        draw.shuffle(pairs)
        style = draw.randrange(4)
        if style == 0:
            text = f"{cue} " + " , ".join(f"{k} is {a}" for k, a in pairs)
        elif style == 1:
            text = " , ".join(f"{k} {a}" for k, a in pairs) + f" {cue}"
        else:
            text = " , ".join(f"{k} {a}" for k, a in pairs)
    return _loosen(draw, text), answers


def _loosen(draw: random.Random, text: str) -> str:
    """Inserts words without meaning in some rows: a soft prompt has no grammar either."""
    if draw.random() < 0.7:
        return text
    parts = text.split()
    for _ in range(draw.randint(1, 5)):
        parts.insert(draw.choice((0, len(parts))), draw.choice(_FILLER))
    return " ".join(parts)


# Shares of opinions, scenes, sentences (sound or not), pairs, questions, gifts and events: harder
# kinds have more.
_SHARES = (4, 1, 5, 5, 4, 3, 2)


def _situation(w: Writer) -> tuple[str, dict[str, int], dict[str, str]]:
    """A text, its classes by aspect and what can be copied from it by role."""
    kind = w.draw.choices(range(7), _SHARES)[0]
    topic = w.draw.randrange(4)
    name = words.TOPICS[topic]
    if kind == 0:
        liked = w.draw.randrange(2)
        return grammar.opinion(w, liked == 1, name), {"sentiment": liked, "topic": topic}, {}
    if kind == 1:
        return grammar.scene(w, name), {"topic": topic}, {}
    if kind == 2:
        sound = w.draw.randrange(2)
        text = grammar.sentence(w, name)
        text = text if sound else grammar.spoil(w, text)
        return text, {"acceptability": sound, "topic": topic}, {}
    if kind == 3:
        follows = w.draw.randrange(2)
        row = grammar.entailment(w, follows == 1)
        return f"{row['premise']} | {row['hypothesis']}", {"entailment": follows}, {}
    if kind == 4:
        asked = w.draw.randrange(4)
        text = grammar.question(w, grammar.ASKED[asked], name)
        return text, {"question_type": asked, "topic": topic}, {}
    if kind == 5:
        row = grammar.gift(w)
        return row["text"], {}, {role: row[role] for role in ("giver", "receiver", "thing", "day")}
    e = grammar.event(w)
    roles = {role: getattr(e, role) for role in ("person", "thing", "place", "day", "look")}
    return grammar.full(e), {"topic": words.TOPICS.index(e.topic)}, roles


_WEIGHT = {"topic": 0.35}  # nearly every text has one


def asked(seed: int) -> Iterator[Example]:
    """Endless instruction rows.

    Args:
      seed: of the draw.
    """
    draw = random.Random(f"pretrain instructions {seed}")
    w = Writer(draw, "source")
    known = held_out()
    for _ in itertools.count():
        text, classes, roles = _situation(w)
        if text in known:
            continue
        names = [*classes, *roles]
        weights = [_WEIGHT.get(name, 1.0) for name in names]
        name = draw.choices(names, weights)[0]
        if name in classes:
            lead, answers = instruction(draw, name)
            target = answers[classes[name]]
        else:
            lead, target = _loosen(draw, draw.choice(ROLES[name])), roles[name]
        yield Example(f"{lead} : {text}", target, template=name)


def recalled(seed: int) -> Iterator[Example]:
    """Endless rows of pairs of words and a question for the partner of one of them.

    Reading an answer from an instruction is the same skill with a class in place of the question;
    alone it is learnt in a fraction of the time.

    Args:
      seed: of the draw.
    """
    draw = random.Random(f"pretrain recall {seed}")
    for _ in itertools.count():
        count = draw.choice((2, 2, 3, 4))
        chosen = draw.sample(ANSWERS, 2 * count)
        pairs = list(zip(chosen[:count], chosen[count:], strict=True))
        link = draw.choice((" is ", " ", " "))
        key, value = draw.choice(pairs)
        lead = _loosen(draw, " , ".join(f"{k}{link}{a}" for k, a in pairs))
        yield Example(f"{lead} : {key}", value, template="recall")


def worded(seed: int) -> Iterator[Example]:
    """Endless rows of the source tasks' training files under their worded templates."""
    draw = random.Random(f"pretrain templates {seed}")
    pools = [(task, _train(task.make_rows)) for task in sandbox.SOURCES]
    known = held_out()
    for _ in itertools.count():
        task, rows = draw.choice(pools)
        row = draw.choice(rows)
        example = render(task, draw.choice(task.templates[1:]), row)
        plain = render(task, task.templates[0], row).input
        if plain not in known:
            yield Example(example.input, example.target, template=example.template)


def _train(make_rows: Callable[[str], Sequence[grammar.Row]] | None) -> Sequence[grammar.Row]:
    assert make_rows is not None
    return make_rows("train")


@functools.cache
def held_out() -> frozenset[str]:
    """Plain texts that may not be trained on: all rows of the targets, test rows of the sources."""
    texts = set()
    for task in sandbox.TASKS:
        assert task.make_rows is not None
        for split in sandbox.SIZES:
            if split == "validation" or task.reserved:
                for row in task.make_rows(split):
                    texts.add(render(task, task.templates[0], row).input)
    return frozenset(texts)


def prose(seed: int) -> Iterator[str]:
    """Endless paragraphs of the sandbox, without questions: its words in context, and a dictionary.

    Words and sentence forms of both sides occur, so that no word of a target is new to the model.
    """
    draw = random.Random(f"pretrain prose {seed}")
    source, target, both = (Writer(draw, side) for side in ("source", "target", "all"))
    known = held_out()
    for _ in itertools.count():
        topic = draw.choice(words.TOPICS)
        liked = draw.random() < 0.5
        parts = []
        for _ in range(draw.randint(2, 3)):
            w = draw.choice((source, target))
            kind = draw.randrange(8)
            if kind <= 1:
                parts.append(grammar.opinion(w, liked, topic))
            elif kind == 2:
                parts.append(grammar.scene(w, topic))
            elif kind == 3:
                parts.append(grammar.sentence(w, topic))
            elif kind == 4:
                parts.append(grammar.question(w, draw.choice(grammar.ASKED), topic))
            elif kind == 5:
                parts.append(grammar.gift(w)["text"])
            elif kind == 6:
                row = grammar.entailment(w, True)
                parts.append(f"{row['premise']} , so {row['hypothesis']}")
            else:
                parts.append(_entry(both, topic, liked))
        if not known.intersection(parts):
            yield " . ".join(parts) + " ."


def _entry(w: Writer, topic: str, liked: bool) -> str:
    """A line of a dictionary."""
    lex = w.lexicon
    opinions = lex.liked if liked else lex.disliked
    some, other = w.draw.sample(opinions, 2)
    pair = w.draw.choice(sorted(words.SYNONYMS.items()))
    return w.of(
        f"a {w.thing(topic)} belongs to {topic} , like a {w.thing(topic)} or a {w.place(topic)}",
        f"in a {w.place(topic)} they speak of {topic} , {w.thing(topic)} and {w.thing(topic)}",
        f"{some} is much the same as {other} : {'praise' if liked else 'blame'}",
        f"those who {w.felt(liked)} it call it {some} and {other}",
        f"{pair[0]} means {pair[1]}",
        f"a {w.person()} is a person , and so is a {w.person()}",
    )
