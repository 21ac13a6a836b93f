"""Schedules, messages and the coordinator of a federation, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError
from prompt_jax.mailbox import LocalMailbox
from prompt_jax.recipes.federated_rounds import Rounds
from prompt_jax.recipes.federation import (
    Absence,
    Coordinator,
    Delay,
    Federation,
    decode,
    encode,
    parse_absence,
    parse_delay,
    round_of,
)

SITES, SHAPE = ("a", "b/c", "d"), (4, 5)


def vector(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def coordinator(**options):
    return Coordinator(SITES, SHAPE, Federation(**options))


def test_a_message_is_a_prompt_and_its_round():
    message = encode(7, vector(0))
    assert len(message) == 8 + 4 * 20
    assert round_of(message) == 7
    number, found = decode(message, SHAPE)
    assert number == 7
    np.testing.assert_array_equal(found, vector(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:3-5", Absence("a", 3, 5)), ("b/c:4", Absence("b/c", 4, 4))],
)
def test_absences_are_read(text, expected):
    assert parse_absence(text) == expected


@pytest.mark.parametrize("text", ["a", "a:", ":3", "a:3-", "a:x", "a:-2", "a:1-2-3"])
def test_other_texts_are_no_absences(text):
    with pytest.raises(ConfigError, match=r"--lose is SITE:FIRST-LAST"):
        parse_absence(text)
    if text != "a:3-":
        with pytest.raises(ConfigError, match=r"--delay is SITE:ROUNDS"):
            parse_delay(text)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "every must be at least 1, but is 0"),
        ({"directions": 0}, "directions must be at least 1"),
        ({"pull": 1.5}, "pull must lie in 0 ... 1, but is 1.5"),
        ({"radius": 0.0}, "radius must be a positive fraction"),
        ({"radius": float("nan")}, "radius must be a positive fraction"),
        ({"patience": -1.0}, "patience must be a number of seconds"),
        ({"lost": (Absence("a", 0, 2),)}, "rounds are counted from 1"),
        ({"lost": (Absence("a", 5, 3),)}, "the first is not after the last"),
        ({"delays": (Delay("a", -1),)}, "must not be negative"),
        ({"delays": (Delay("a", 1), Delay("a", 2))}, "a has two delays"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Federation(**options)


def test_unknown_sites_are_refused():
    options = Federation(lost=(Absence("bc", 1, 2),))
    with pytest.raises(ConfigError, match=r"no site 'bc'.*Did you mean 'b/c'"):
        options.named(SITES)


def test_due_vectors_follow_absences_and_delays():
    options = Federation(lost=(Absence("a", 3, 5),), delays=(Delay("b/c", 2), Delay("a", 1)))
    assert [options.is_up("a", n) for n in range(1, 8)] == [1, 1, 0, 0, 0, 1, 1]
    # Late by two rounds: nothing in the first two.
    assert [options.due("b/c", n) for n in range(1, 6)] == [0, 0, 1, 2, 3]
    # Late by one and away: what would have been sent in round 3 (that of 2) never was.
    assert [options.due("a", n) for n in range(1, 9)] == [0, 1, 1, 1, 1, 1, 6, 7]
    assert [options.due("d", n) for n in range(1, 4)] == [1, 2, 3]


def test_coordinator_takes_frank_wolfe_steps_towards_the_newest_vectors():
    made = coordinator(radius=0.6, directions=2)
    wanted = np.stack([vector(i) for i in range(3)])
    for site in range(3):
        made.receive(site, encode(1, wanted[site]))
    ended = made.end(1, 20)
    radius = 0.6 * np.linalg.norm(wanted.reshape(3, -1), axis=1).sum()
    expected = np.zeros_like(wanted)
    for _ in range(2):
        expected, rate, _ = map(
            np.asarray, task_vectors.nuclear_step(expected, wanted, np.float32(radius))
        )
    np.testing.assert_allclose(made.low_rank, expected, rtol=1e-5, atol=1e-6)
    assert ended.rate == pytest.approx(float(rate))
    assert (ended.number, ended.step, ended.ages, ended.silent) == (1, 20, (0, 0, 0), (False,) * 3)
    number, answer = decode(made.answer(2), SHAPE)
    assert number == 1
    np.testing.assert_array_equal(answer, made.low_rank[2])


def test_newest_vector_stands_in_for_a_silent_site():
    made = coordinator()
    made.receive(0, encode(1, vector(0)))
    made.receive(1, encode(1, vector(1)))
    first = made.end(1, 20)
    assert (first.ages, first.silent) == ((0, 0, None), (False, False, True))
    made.receive(0, encode(2, vector(2)))
    made.receive(1, encode(1, vector(3)))  # what is known already
    second = made.end(2, 40)
    assert (second.ages, second.silent) == ((0, 1, None), (False, True, True))
    np.testing.assert_array_equal(made.vectors[1], vector(1))
    assert not made.vectors[2].any()
    assert made.received == [2 * 88, 88, 0]


def test_vectors_that_are_not_finite_harm_nobody():
    made = coordinator()
    made.receive(0, encode(1, vector(0)))
    bad = vector(1)
    bad[0, 0] = np.nan
    made.receive(1, encode(1, bad))
    ended = made.end(1, 20)
    assert ended.silent == (False, True, True)
    assert np.isfinite(made.low_rank).all()
    assert made.received[1] == 88  # it was sent all the same


def test_a_round_without_any_vector_moves_nothing():
    made = coordinator()
    ended = made.end(1, 20)
    assert (ended.rate, ended.gap, ended.ages) == (0.0, 0.0, (None,) * 3)
    assert not made.low_rank.any()


def test_a_site_that_is_gone_is_waited_for_again_once_something_came():
    box, local = (
        LocalMailbox(),
        SimpleNamespace(budget=SimpleNamespace(steps=8), initial=np.zeros(SHAPE, np.float32)),
    )
    options, nothing = Federation(every=2, patience=0.0), SimpleNamespace()
    fixed: Any = (nothing, options, SITES, (0,), 0, local, box, nothing, lambda line: None)
    rounds = Rounds(*fixed)
    box.put("vector/0/0", encode(1, vector(0)))
    rounds._coordinate(1, 2)
    expected = [[rounds._is_expected(site, 2) for site in range(3)]]
    box.put("vector/0/1", encode(1, vector(1)))  # of a slow site, after its round
    rounds._coordinate(2, 4)
    expected.append([rounds._is_expected(site, 3) for site in range(3)])
    box.put("back/0/2", encode(4, np.zeros(0)))  # of a process that was started again
    expected.append([rounds._is_expected(site, 4) for site in range(3)])
    assert expected == [[True, False, False], [False, True, False], [False, True, True]]
    assert rounds.coordinator is not None
    assert [entry.ages for entry in rounds.coordinator.rounds] == [(0, None, None), (1, 1, None)]
    assert round_of(box.get("answer/0/1") or b"") == 2
