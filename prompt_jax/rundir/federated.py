"""Results of a federation: what every site reached, what was lost, and the bytes exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prompt_jax.arrays import fields_repr
from prompt_jax.rundir.recipe_report import RecipeReport
from prompt_jax.rundir.tables import Table, heading, markdown
from prompt_jax.training.tracking import finite
from prompt_jax.units import format_bytes

_NOTE = (
    "A site's rows stay with it; its prompt is the best on its own development rows. Silent rounds:"
    " nothing new came of the site, and its newest vector stood in. Oldest: by how many rounds such"
    " a vector was late. Bytes: of the vectors that a site sent and received, with their round."
)


@dataclass(frozen=True)
class SiteResult:
    """One site of one federation.

    Attributes:
      site: name of its task.
      seed: of the federation.
      process: that holds its rows.
      metric: name of the primary metric.
      test: its value; NaN where the site was lost at the end, or diverged.
      dev: development value of the prompt.
      best_step: the step that the prompt is from.
      steps: optimizer steps that the site took.
      planned: that it should have taken.
      silent: rounds of which nothing came.
      oldest: the largest age of a vector that stood in, in rounds.
      sent: bytes from the site to the coordinator.
      received: bytes the other way.
      restarted: the round before which a new process took over the site; 0: none did.
      file: of the prompt.
    """

    site: str
    seed: int
    process: int
    metric: str
    test: float
    dev: float
    best_step: int
    steps: int
    planned: int
    silent: tuple[int, ...] = ()
    oldest: int = 0
    sent: int = 0
    received: int = 0
    restarted: int = 0
    file: str = ""


@dataclass(frozen=True, eq=False)
class FederatedReport(RecipeReport):
    """Results of a federation, one for each seed.

    Attributes:
      k: shots; 0: all rows.
      numbers: of a prompt, L x D.
      options: how the sites worked together.
      rounds: of each seed, as plain values.
      sites: every site of every seed.
    """

    k: int
    numbers: int
    options: Mapping[str, Any]
    rounds: Mapping[int, Sequence[Mapping[str, Any]]]
    sites: tuple[SiteResult, ...]

    __repr__ = fields_repr

    @property
    def stem(self) -> str:
        """The name of the two files without their suffix."""
        return "federated"

    def to_dict(self) -> dict[str, Any]:
        """Everything; JSON-able."""
        return {
            "experiment": self.name,
            "k": self.k,
            "prompt_numbers": self.numbers,
            "options": dict(self.options),
            "bytes": self.bytes,
            "lost": self.lost(),
            "sites": [
                {name: finite(value) for name, value in asdict(site).items()} for site in self.sites
            ],
            "rounds": {str(seed): list(rounds) for seed, rounds in self.rounds.items()},
        }

    @property
    def bytes(self) -> int:
        """What all sites sent and received."""
        return sum(site.sent + site.received for site in self.sites)

    def lost(self) -> list[str]:
        """One sentence on every site that was away, late or started again."""
        found = []
        for site in self.sites:
            said = []
            if site.silent:
                total = len(self.rounds[site.seed])
                said.append(f"silent in {_spans(site.silent)} of {total}")
            if site.steps < site.planned:
                said.append(f"{site.planned - site.steps:,} of {site.planned:,} steps not trained")
            if site.oldest:
                said.append(f"a vector up to {_rounds(site.oldest)} old stood in for it")
            if site.restarted:
                said.append(
                    f"a new process took over in round {site.restarted}, from its last vector and"
                    " without the optimizer's moments"
                )
            if site.test != site.test:
                said.append("no test result; its prompt is the last that came")
            if said:
                found.append(f"{site.site}, seed {site.seed}: {'; '.join(said)}.")
        return found

    def table(self) -> Table:
        """A row for each site and seed."""
        rows = tuple(
            (
                site.site,
                str(site.seed),
                site.metric,
                _points(site.test),
                _points(site.dev),
                f"{site.best_step:,}",
                f"{site.steps:,} of {site.planned:,}",
                _numbers(site.silent) or "-",
                str(site.oldest or "-"),
                format_bytes(site.sent),
                format_bytes(site.received),
            )
            for site in self.sites
        )
        columns = ("site", "seed", "metric", "test", "dev", "best step", "steps")
        return Table(
            "federated",
            f"{len({site.site for site in self.sites})} sites, {heading(self.k)}, an exchange every"
            f" {self.options['every']} steps: {format_bytes(self.bytes)} exchanged in all",
            (*columns, "silent rounds", "oldest", "sent", "received"),
            rows,
            3,
            note=_NOTE,
        )

    def markdown(self) -> str:
        """The table, how to read it, and what was lost."""
        table = self.table()
        parts = [f"# {self.name}: federated sites\n", f"{table.title}.\n", markdown(table)]
        parts.append(f"{table.note}\n")
        return "\n".join([*parts, *(f"- {line}" for line in self.lost())]) + "\n"


def _points(value: float) -> str:
    return f"{100 * value:.1f}" if value == value else "-"


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _numbers(rounds: Sequence[int]) -> str:
    """Round numbers, neighbours joined.

    >>> _numbers((3, 4, 5, 9))
    '3-5, 9'
    """
    spans: list[list[int]] = []
    for number in rounds:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in spans)


def _spans(rounds: Sequence[int]) -> str:
    return f"round{'s' if len(rounds) > 1 else ''} {_numbers(rounds)}"
