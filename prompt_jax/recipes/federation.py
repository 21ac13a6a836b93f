"""What federated sites exchange, when they are away, and how their vectors are combined.

Site k trains Theta_k = P_k - P_init [L, D] on its own rows. After `every` steps it sends Theta_k.
The coordinator keeps the newest vector of every site, Y [K, L, D], moves a matrix W of low rank
towards it within the nuclear-norm ball of radius `radius` x sum_k ||Y_k|| (Frank-Wolfe steps,
`prompt_jax.task_vectors.nuclear`), and answers site k with W_k. The site goes on from

    Theta_k <- Theta_k + pull (W_k - Theta_k).

After the primal-dual method of Yang and Li 2020, arXiv 2004.01305, of which the periodic exchange,
the low-rank relation and the projection-free step are taken; local steps by the experiment's
optimizer, the pull, the line search and the relative radius are ours. A site that is silent is
represented by its newest vector, however old.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError, did_you_mean

_HEAD = struct.Struct("<q")  # the round, before the numbers of a message


class Absence(NamedTuple):
    """A site that neither trains, sends nor receives in rounds `first` ... `last`."""

    site: str
    first: int
    last: int


class Delay(NamedTuple):
    """A site whose vectors arrive this many rounds late."""

    site: str
    rounds: int


@dataclass(frozen=True)
class Federation:
    """How sites work together.

    Attributes:
      every: steps of a site between two exchanges: a round.
      pull: how far a site moves to its row of the low-rank matrix after an exchange, 0 ... 1; 0:
        every site trains alone.
      radius: of the nuclear-norm ball, as a fraction of the sum of the norms of the sites' vectors:
        K sites with one common direction fit into 1 / sqrt(K), sites with nothing in common into 1.
      directions: Frank-Wolfe steps of the coordinator after each round, a direction each.
      lost: sites that are away for some rounds, to see what that costs.
      delays: sites whose vectors arrive late.
      patience: seconds that the coordinator waits for sites of other processes after its own have
        finished a round.
    """

    every: int = 20
    pull: float = 0.5
    radius: float = 0.7
    directions: int = 1
    lost: tuple[Absence, ...] = ()
    delays: tuple[Delay, ...] = ()
    patience: float = 60.0

    def __post_init__(self) -> None:
        for name in ("every", "directions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if not 0 <= self.pull <= 1:
            raise ConfigError(f"pull must lie in 0 ... 1, but is {self.pull}.")
        if not 0 < self.radius < math.inf:
            raise ConfigError(f"radius must be a positive fraction, but is {self.radius}.")
        if not 0 <= self.patience < math.inf:
            raise ConfigError(f"patience must be a number of seconds, but is {self.patience}.")
        for absence in self.lost:
            if not 1 <= absence.first <= absence.last:
                raise ConfigError(
                    f"{absence.site} is lost from round {absence.first} to {absence.last}: rounds"
                    " are counted from 1, and the first is not after the last."
                )
        for delay in self.delays:
            if delay.rounds < 0:
                raise ConfigError(f"the delay of {delay.site} must not be negative.")
            if [other.site for other in self.delays].count(delay.site) > 1:
                raise ConfigError(f"{delay.site} has two delays: name one.")

    def named(self, sites: Sequence[str]) -> Federation:
        """The same, after a check that the sites that are lost or late are among these.

        Raises:
          ConfigError: one of them is not.
        """
        for site in (*(a.site for a in self.lost), *(d.site for d in self.delays)):
            if site not in sites:
                raise ConfigError(
                    f"there is no site '{site}'; the sites are the targets {', '.join(sites)}."
                    + did_you_mean(site, sites)
                )
        return self

    def is_up(self, site: str, number: int) -> bool:
        """Whether a site takes part in a round, which counts from 1."""
        return not any(a.site == site and a.first <= number <= a.last for a in self.lost)

    def delay(self, site: str) -> int:
        """By how many rounds a site's vectors are late."""
        return next((delay.rounds for delay in self.delays if delay.site == site), 0)

    def due(self, site: str, number: int) -> int:
        """The round whose vector has to be there when round `number` ends; 0: none has.

        A site sends nothing while it is away, so its newest one may be older than its delay.
        """
        sent = [
            begun
            for begun in range(1, number - self.delay(site) + 1)
            if self.is_up(site, begun) and self.is_up(site, begun + self.delay(site))
        ]
        return sent[-1] if sent else 0


def parse_absence(text: str) -> Absence:
    """Reads `SITE:FIRST-LAST` or `SITE:ROUND`.

    >>> parse_absence("glue/rte:3-5")
    Absence(site='glue/rte', first=3, last=5)

    Raises:
      ConfigError: it is something else.
    """
    site, _, rounds = text.rpartition(":")
    first, dash, last = rounds.partition("-")
    if not site or not first.isdecimal() or (dash and not last.isdecimal()):
        raise ConfigError(f"--lose is SITE:FIRST-LAST, as in glue/rte:3-5, not '{text}'.")
    return Absence(site, int(first), int(last if dash else first))


def parse_delay(text: str) -> Delay:
    """Reads `SITE:ROUNDS`.

    >>> parse_delay("glue/rte:2")
    Delay(site='glue/rte', rounds=2)

    Raises:
      ConfigError: it is something else.
    """
    site, _, rounds = text.rpartition(":")
    if not site or not rounds.isdecimal():
        raise ConfigError(f"--delay is SITE:ROUNDS, as in glue/rte:2, not '{text}'.")
    return Delay(site, int(rounds))


def encode(number: int, vector: np.ndarray) -> bytes:
    """A message: the round, and a prompt-sized vector [L, D] in float32."""
    return _HEAD.pack(number) + np.ascontiguousarray(vector, "<f4").tobytes()


def decode(message: bytes, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """The round and the vector [L, D] of a message."""
    (number,) = _HEAD.unpack_from(message)
    return number, np.frombuffer(message, "<f4", offset=_HEAD.size).reshape(shape)


def round_of(message: bytes) -> int:
    """The round of a message."""
    return int(_HEAD.unpack_from(message)[0])


@dataclass(frozen=True)
class Round:
    """What the coordinator saw of a round.

    Attributes:
      number: from 1.
      step: of the sites, at its end.
      ages: by how many rounds the newest vector of each site was old; None: none has come yet.
      silent: whether nothing new came of each site.
      rate: of the last Frank-Wolfe step; 0: W did not move.
      gap: duality gap before it, divided by the sum of squares of the vectors.
    """

    number: int
    step: int
    ages: tuple[int | None, ...]
    silent: tuple[bool, ...]
    rate: float
    gap: float


@dataclass
class Coordinator:
    """Keeps the newest vector of every site, and the low-rank matrix.

    Attributes:
      sites: names.
      shape: (L, D).
      options: how the sites work together.
      rounds: that have ended.
      received: bytes that came from each site.
    """

    sites: tuple[str, ...]
    shape: tuple[int, int]
    options: Federation
    rounds: list[Round] = field(default_factory=list)
    received: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.sites)
        self.vectors = np.zeros((count, *self.shape), np.float32)
        self.low_rank = np.zeros_like(self.vectors)
        self.newest = [0] * count  # rounds
        self.received = [0] * count
        self._new = [False] * count

    def receive(self, site: int, message: bytes | None) -> None:
        """Takes a site's message, unless it is known, or holds what is not finite.

        Args:
          site: number.
          message: as `encode` makes it; None: there is none.
        """
        if message is None or round_of(message) <= self.newest[site]:
            return
        number, vector = decode(message, self.shape)
        self.received[site] += len(message)
        if np.isfinite(vector).all():
            self.vectors[site], self.newest[site], self._new[site] = vector, number, True

    def end(self, number: int, step: int) -> Round:
        """Ends a round: moves the low-rank matrix towards the newest vectors.

        Args:
          number: of the round.
          step: of the sites, at its end.
        """
        norms = np.sqrt((self.vectors.astype(np.float64) ** 2).sum((1, 2)))
        rate = gap = 0.0
        if norms.sum() > 0:
            radius = np.float32(self.options.radius * norms.sum())
            for _ in range(self.options.directions):
                made = task_vectors.nuclear_step(self.low_rank, self.vectors, radius)
                self.low_rank = np.asarray(made.low_rank)
            rate, gap = float(made.rate), float(made.gap) / float((norms**2).sum())
        ages = tuple(number - newest if newest else None for newest in self.newest)
        self.rounds.append(
            Round(number, step, ages, tuple(not new for new in self._new), rate, gap)
        )
        self._new = [False] * len(self.sites)
        return self.rounds[-1]

    def answer(self, site: int) -> bytes:
        """What a site is told after the last round: its row of the low-rank matrix."""
        return encode(self.rounds[-1].number, self.low_rank[site])


def as_dict(options: Federation) -> dict[str, object]:
    """The options as plain values."""
    made = dataclasses.asdict(options)
    made["lost"] = [absence._asdict() for absence in options.lost]
    made["delays"] = [delay._asdict() for delay in options.delays]
    return made
