"""Sentence generators of the sandbox; the label of each sentence is an argument or an output.

A sentence has several attributes at once (a topic, an opinion, a person, a place, a time), so the
question about it must come from the instruction or the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prompt_jax.data.sandbox import words

Side = Literal["source", "target", "all"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Lexicon:
    """The words of one side (sources, targets or both)."""

    things: Mapping[str, tuple[str, ...]]
    actions: Mapping[str, tuple[str, ...]]
    places: Mapping[str, tuple[str, ...]]
    people: tuple[str, ...]
    manners: tuple[str, ...]
    looks: tuple[str, ...]
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    enjoyed: tuple[str, ...]
    regretted: tuple[str, ...]
    days: tuple[str, ...]
    numbers: tuple[str, ...]
    gave: tuple[str, ...]


def lexicon(side: Side) -> Lexicon:
    """The words of a side: "source" and "target" overlap by half of each list."""
    parts: dict[Side, Callable[[Sequence[str]], tuple[str, ...]]] = {
        "source": words.front,
        "target": words.back,
        "all": tuple,
    }
    part = parts[side]

    def by_topic(lists: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {topic: part(lists[topic]) for topic in words.TOPICS}

    return Lexicon(
        by_topic(words.THINGS),
        by_topic(words.ACTIONS),
        by_topic(words.PLACES),
        part(words.PEOPLE),
        part(words.MANNERS),
        part(words.LOOKS),
        part(words.LIKED),
        part(words.DISLIKED),
        part(words.ENJOYED),
        part(words.REGRETTED),
        part(words.DAYS),
        part(words.NUMBERS),
        part(words.GAVE),
    )


class Writer:
    """Draws words of one side; every draw comes from one `random.Random`.

    Args:
      draw: random generator.
      side: which words are used.
    """

    def __init__(self, draw: random.Random, side: Side) -> None:
        self.draw, self.side, self.lexicon = draw, side, lexicon(side)

    def of(self, *choices: str) -> str:
        """One of the given texts."""
        return self.draw.choice(choices)

    def topic(self) -> str:
        """A topic."""
        return self.draw.choice(words.TOPICS)

    def person(self, *but: str) -> str:
        """A person who is not named yet."""
        return self.draw.choice([p for p in self.lexicon.people if p not in but])

    def agent(self, *but: str) -> str:
        """A person with an article, now and then with an adjective."""
        manner = f"{self.draw.choice(self.lexicon.manners)} " if self.draw.random() < 0.3 else ""
        return f"the {manner}{self.person(*but)}"

    def thing(self, topic: str, *but: str) -> str:
        """A thing of a topic."""
        return self.draw.choice([t for t in self.lexicon.things[topic] if t not in but])

    def action(self, topic: str, *but: str) -> str:
        """A verb of a topic, in the past tense."""
        return self.draw.choice([a for a in self.lexicon.actions[topic] if a not in but])

    def place(self, topic: str, *but: str) -> str:
        """A place of a topic."""
        return self.draw.choice([p for p in self.lexicon.places[topic] if p not in but])

    def look(self, *but: str) -> str:
        """An adjective without sentiment."""
        return self.draw.choice([x for x in self.lexicon.looks if x not in but])

    def day(self, *but: str) -> str:
        """A time."""
        return self.draw.choice([d for d in self.lexicon.days if d not in but])

    def number(self) -> str:
        """A number word."""
        return self.draw.choice(self.lexicon.numbers)

    def verdict(self, liked: bool) -> str:
        """An adjective with an opinion; one time in eight the negated opposite."""
        if self.draw.random() < 0.125:
            opposite = self.lexicon.disliked if liked else self.lexicon.liked
            return f"not {self.draw.choice(opposite)}"
        degree = self.of("", "", "very ", "quite ", "truly ", "rather ")
        return degree + self.draw.choice(self.lexicon.liked if liked else self.lexicon.disliked)

    def felt(self, liked: bool) -> str:
        """A verb with an opinion, in the past tense."""
        return self.draw.choice(self.lexicon.enjoyed if liked else self.lexicon.regretted)


# --- opinions and topics: one sentence -----------------------------------------------------------


def opinion(w: Writer, liked: bool, topic: str = "") -> str:
    """A positive or negative sentence about a thing, of a random topic unless one is given."""
    topic = topic or w.topic()
    thing, place, look = w.thing(topic), w.place(topic), w.look()
    if w.side == "target":
        return w.of(
            f"i must say the {look} {thing} seemed {w.verdict(liked)} to me",
            f"my {w.person()} called our {thing} {w.verdict(liked)} {w.day()}",
            f"of all we saw in the {place} , the {thing} was what {w.agent()} {w.felt(liked)} most",
            f"what a {w.verdict(liked)} {thing} , said {w.agent()} in the {place}",
        )
    return w.of(
        f"the {look} {thing} at the {place} was {w.verdict(liked)}",
        f"{w.agent()} {w.felt(liked)} the {look} {thing} {w.day()}",
        f"{w.agent()} {w.action(topic)} the {thing} {w.day()} and it was {w.verdict(liked)}",
        f"{w.day()} {w.agent()} found the {thing} {w.verdict(liked)}",
    )


def scene(w: Writer, topic: str) -> str:
    """A sentence about a topic, with or without an opinion."""
    thing, place, look = w.thing(topic), w.place(topic), w.look()
    verdict = w.verdict(w.draw.random() < 0.5)
    if w.side == "target":
        return w.of(
            f"{thing} and {w.thing(topic, thing)} to be shown {w.day()} , says {w.person()}",
            f"{look} {thing} of {w.person()} found near {place}",
            f"{w.number()} new plans for the {place} : {w.person()} calls them {verdict}",
            f"{w.person()} {w.action(topic)} {look} {thing} {w.day()}",
        )
    return w.of(
        f"{w.agent()} {w.action(topic)} the {look} {thing} {w.day()}",
        f"{w.agent()} saw a {look} {thing} and a {w.thing(topic, thing)} at the {place}",
        f"{w.day()} the {thing} of {w.agent()} was {verdict}",
        f"{w.agent()} went to the {place} {w.day()} and it was {verdict}",
    )


# --- grammatical and ungrammatical sentences ------------------------------------------------------


def sentence(w: Writer, topic: str = "") -> str:
    """A grammatical sentence: a statement for sources, a question or a request for targets."""
    topic = topic or w.topic()
    thing, place, look = w.thing(topic), w.place(topic), w.look()
    if w.side == "target":
        return w.of(
            f"why was the {look} {thing} in the {place} so {w.verdict(w.draw.random() < 0.5)}",
            f"please bring the {thing} of {w.agent()} to the {place} {w.day()}",
            f"was the {thing} near the {place} really {look}",
            f"did you know that {w.agent()} {w.action(topic)} the {thing} {w.day()}",
        )
    return w.of(
        f"{w.agent()} {w.action(topic)} the {look} {thing} {w.day()}",
        f"the {look} {thing} was in the {place} {w.day()}",
        f"{w.agent()} was in the {place} with the {thing}",
        f"{w.day()} {w.agent()} {w.action(topic)} the {thing} in the {place}",
    )


def spoil(w: Writer, text: str) -> str:
    """Makes a sentence ungrammatical: an article moved, missing or doubled, or words swapped."""
    parts = text.split()
    articles = [i for i, part in enumerate(parts[:-1]) if part == "the"]
    i = w.draw.choice(articles)
    kind = w.draw.randrange(4)
    if kind == 0:  # the article after its noun
        parts[i], parts[i + 1] = parts[i + 1], parts[i]
    elif kind == 1:  # no article
        del parts[i]
    elif kind == 2:  # two articles
        parts.insert(i, "the")
    else:  # two words swapped, never an article with an article
        j = w.draw.randrange(len(parts) - 2)
        parts[j], parts[j + 2] = parts[j + 2], parts[j]
        if parts[j] == parts[j + 2]:
            parts.insert(i, "the")
    return " ".join(parts)


# --- pairs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Who did what to what, where and when."""

    person: str
    action: str
    look: str
    thing: str
    place: str
    day: str
    topic: str


def event(w: Writer) -> Event:
    """An event."""
    topic = w.topic()
    return Event(
        w.person(), w.action(topic), w.look(), w.thing(topic), w.place(topic), w.day(), topic
    )


def say(w: Writer, text: str) -> str:
    """A word or its synonym."""
    return words.SYNONYMS[text] if text in words.SYNONYMS and w.draw.random() < 0.2 else text


def full(e: Event) -> str:
    """The full description of an event."""
    return f"the {e.person} {e.action} the {e.look} {e.thing} in the {e.place} {e.day}"


def deny(w: Writer, person: str, rest: str) -> str:
    """A sentence that denies that a person did something, with different forms for each side."""
    if w.side == "target":
        return w.of(
            f"it is false that the {person} {rest}",
            f"the {person} by no means {rest}",
            f"the {person} never {rest}",
        )
    return w.of(
        f"it is not true that the {person} {rest}",
        f"nobody {rest} , nor did the {person}",
        f"the {person} never {rest}",
    )


def entailment(w: Writer, follows: bool) -> Row:
    """A premise and a hypothesis that gives part of the same event, or denies it.

    The wording of the hypothesis reveals the label, as often in real data sets (Gururangan et al.
    2018, arXiv 1803.02324): a small model can learn that.
    """
    e = event(w)
    person, action, thing = say(w, e.person), say(w, e.action), say(w, e.thing)
    look, place, day = say(w, e.look), say(w, e.place), say(w, e.day)
    rest = w.of(
        f"{action} the {thing}",
        f"{action} the {look} {thing}",
        f"{action} the {thing} {day}",
        f"{action} the {thing} in the {place}",
    )
    if w.side == "target":
        teller = w.person(e.person)
        premise = w.of(
            f"the {teller} told us that the {e.person} {e.action} the {e.look} {e.thing} in the"
            f" {e.place} {e.day}",
            f"{e.day} , in the {e.place} , it was the {e.person} who {e.action} the {e.look}"
            f" {e.thing}",
        )
        entailed = w.of(f"the {person} {rest}", f"so the {person} {rest}")
    else:
        premise = full(e)
        entailed = w.of(f"the {person} {rest}", f"it is true that the {person} {rest}")
    return {"premise": premise, "hypothesis": entailed if follows else deny(w, person, rest)}


def paraphrase(w: Writer, same: bool) -> Row:
    """Two full descriptions of the same event, or a description and a denial of all of it."""
    e = event(w)
    person, action, thing = say(w, e.person), say(w, e.action), say(w, e.thing)
    look, place, day = say(w, e.look), say(w, e.place), say(w, e.day)
    rest = f"{action} the {look} {thing} in the {place}"
    other = w.of(f"{day} the {person} {rest}", f"it was the {person} who {rest} {day}")
    return {"premise": full(e), "hypothesis": other if same else f"{deny(w, person, rest)} {day}"}


# --- questions and roles -------------------------------------------------------------------------

ASKED = ("person", "place", "time", "number")


def question(w: Writer, asked: str, topic: str = "") -> str:
    """A question for a person, place, time or number, often with question words of another type."""
    topic = topic or w.topic()
    thing, place, look, day = w.thing(topic), w.place(topic), w.look(), w.day()
    if w.side == "target":
        core = {
            "person": (
                f"the name of the one who {w.action(topic)} the {thing}",
                f"who {w.action(topic)} the {look} {thing} {day}",
                f"whose {thing} it was that lay in the {place}",
            ),
            "place": (
                f"where the {look} {thing} was left {day}",
                f"in which town the {thing} of {w.agent()} is",
                f"the spot at which the {thing} was seen",
            ),
            "time": (
                f"when the {thing} came to the {place}",
                f"on which day {w.agent()} {w.action(topic)} the {thing}",
                f"the hour at which the {place} was shut",
            ),
            "number": (
                f"how many of them {w.action(topic)} the {thing} {day}",
                f"how much the {look} {thing} has cost",
                f"the number of people in the {place}",
            ),
        }[asked]
        lead = w.of(
            "tell me",
            "nobody knows",
            f"{w.agent()} asked",
            "i wonder",
            "we forgot",
            f"when i met {w.agent()} , i asked",
            f"one who lives where {w.agent()} does told me",
        )
        return f"{lead} {w.of(*core)}"
    core = {
        "person": (
            f"who {w.action(topic)} the {look} {thing} {day}",
            f"by whom was the {thing} left in the {place}",
            f"whose {thing} was in the {place} {day}",
        ),
        "place": (
            f"where was the {look} {thing} {day}",
            f"in which town is the {thing} of {w.agent()}",
            f"at what spot was the {thing} left {day}",
        ),
        "time": (
            f"when was the {thing} in the {place}",
            f"on which day was {w.agent()} in the {place}",
            f"at what hour was the {place} shut",
        ),
        "number": (
            f"how many people {w.action(topic)} the {thing} {day}",
            f"how much was the {look} {thing} in the {place}",
            f"what number of things did {w.agent()} see",
        ),
    }[asked]
    lead = w.of(
        "",
        "",
        "",
        "when it rains , ",
        "where the road ends , ",
        f"{day} , ",
        "for one who was there , ",
        f"after {w.number()} days , ",
    )
    return f"{lead}{w.of(*core)} ?"


def gift(w: Writer) -> Row:
    """A text about a gift, with its giver, receiver, thing and day."""
    topic = w.topic()
    gave = w.draw.choice(w.lexicon.gave)
    giver = w.person()
    receiver = w.person(giver)
    thing, look, day = w.thing(topic), w.look(), w.day()
    if w.side == "target":
        text = w.of(
            f"i saw how the {giver} {gave} the {receiver} a {look} {thing} {day}",
            f"{day} a {look} {thing} was {words.GIVEN[gave]} to the {receiver} by the {giver}",
            f"it was the {receiver} to whom the {giver} {gave} the {thing} {day}",
        )
    else:
        text = w.of(
            f"the {giver} {gave} the {look} {thing} to the {receiver} {day}",
            f"{day} the {giver} {gave} the {receiver} a {look} {thing}",
            f"the {look} {thing} was {words.GIVEN[gave]} to the {receiver} by the {giver} {day}",
        )
    return {"text": text, "giver": giver, "receiver": receiver, "thing": thing, "day": day}
