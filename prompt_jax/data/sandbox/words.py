"""Word lists of the sandbox, in a fixed order.

Where a list is split, sources use its front and targets its back. The two parts overlap by half, so
a target's words are partly new to a prompt trained on a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType


def _list(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


TOPICS = ("food", "sport", "music", "travel")

THINGS = MappingProxyType(
    {
        "food": _list(
            "bread soup cheese cake apple butter onion pepper honey rice potato salad lemon pie"
            " noodle sausage tomato pancake biscuit mushroom carrot omelette stew jam"
        ),
        "sport": _list(
            "ball goal racket helmet medal trophy jersey net bat whistle glove puck oar javelin"
            " referee scoreboard sprint penalty tournament marathon goalkeeper skate hurdle saddle"
        ),
        "music": _list(
            "violin drum song piano guitar flute trumpet melody cello opera concert harp chorus"
            " album rhythm ballad orchestra clarinet banjo waltz hymn symphony accordion tune"
        ),
        "travel": _list(
            "ticket suitcase passport train map ship hotel luggage ferry tent harbour airport visa"
            " voyage compass carriage rucksack caravan platform guidebook tram border cabin canal"
        ),
    }
)
ACTIONS = MappingProxyType(
    {
        "food": _list("cooked tasted sliced served baked peeled boiled seasoned fried stirred"),
        "sport": _list("kicked threw caught won trained_with chased swung hurled passed aimed"),
        "music": _list(
            "played sang tuned rehearsed composed hummed strummed performed recorded whistled"
        ),
        "travel": _list(
            "packed booked boarded unpacked reserved stamped unfolded missed carried awaited"
        ),
    }
)
PLACES = MappingProxyType(
    {
        "food": _list("kitchen bakery market cafe diner orchard pantry canteen"),
        "sport": _list("stadium gym pitch court arena rink track clubhouse"),
        "music": _list("theatre studio bandstand chapel ballroom stage conservatory cellar"),
        "travel": _list("station port quay lodge terminal campsite frontier inn"),
    }
)

PEOPLE = _list(
    "baker teacher sailor nurse farmer painter doctor clerk pilot barber tailor singer miner"
    " lawyer gardener waiter porter judge captain student butcher dancer guard weaver plumber"
    " scholar poet driver hunter cook widow uncle"
)
MANNERS = _list("old young tall quiet cheerful tired clever careful proud stubborn")

# Adjectives without sentiment.
LOOKS = _list(
    "red blue green small large heavy round wooden silver striped narrow yellow square tiny black"
    " white"
)

LIKED = _list(
    "wonderful delightful superb excellent lovely charming splendid brilliant perfect pleasant"
    " marvellous fantastic gorgeous magnificent enjoyable terrific glorious flawless impressive"
    " graceful thrilling admirable heavenly refreshing"
)
DISLIKED = _list(
    "terrible awful dreadful horrible nasty disgusting boring miserable disappointing unpleasant"
    " hideous ghastly appalling dismal shoddy tedious wretched lousy pathetic clumsy gloomy"
    " worthless revolting annoying"
)
ENJOYED = _list("loved enjoyed praised admired adored cherished recommended treasured")
REGRETTED = _list("hated disliked regretted despised loathed detested resented cursed")

DAYS = _list(
    "on_monday on_tuesday on_friday on_sunday in_the_morning at_noon in_the_evening at_midnight"
    " last_summer in_winter last_week after_dinner before_dawn in_april yesterday this_year"
)
NUMBERS = _list("two three four five six seven eight nine ten eleven twelve twenty thirty forty")

# Word -> synonym.
SYNONYMS = MappingProxyType(
    {
        "small": "little",
        "large": "big",
        "tiny": "minute",
        "cooked": "prepared",
        "tasted": "sampled",
        "sliced": "cut",
        "threw": "tossed",
        "won": "gained",
        "chased": "pursued",
        "played": "performed on",
        "sang": "voiced",
        "rehearsed": "practised",
        "packed": "put away",
        "booked": "ordered",
        "boarded": "got on",
        "carried": "bore",
        "doctor": "physician",
        "clerk": "office worker",
        "captain": "skipper",
        "student": "pupil",
        "in the evening": "at dusk",
        "before dawn": "very early",
        "yesterday": "the day before today",
        "in the morning": "after sunrise",
        "suitcase": "bag",
        "ship": "vessel",
        "song": "air",
        "inn": "guesthouse",
        "stadium": "sports ground",
        "market": "bazaar",
    }
)

GAVE = _list("gave handed lent sold showed sent offered threw")
GIVEN = MappingProxyType(
    {
        "gave": "given",
        "handed": "handed",
        "lent": "lent",
        "sold": "sold",
        "showed": "shown",
        "sent": "sent",
        "offered": "offered",
        "threw": "thrown",
    }
)


def front(words: Sequence[str]) -> tuple[str, ...]:
    """The part of a list for sources: its first three quarters."""
    return tuple(words[: -(-3 * len(words) // 4)])


def back(words: Sequence[str]) -> tuple[str, ...]:
    """The part of a list for targets: its last three quarters."""
    return tuple(words[len(words) // 4 :])
