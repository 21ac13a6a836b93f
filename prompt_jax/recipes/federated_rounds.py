"""The rounds of a federation: train, send, combine, answer, pull; and what is left at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np

from prompt_jax import distributed
from prompt_jax.data import registry
from prompt_jax.errors import TrainingError
from prompt_jax.mailbox import Mailbox, wait
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.federated_sites import METHOD, LocalSites
from prompt_jax.recipes.federation import Coordinator, Federation, decode, encode, round_of
from prompt_jax.recipes.outputs import PromptWriter
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.federated import SiteResult

_LONGEST = 24 * 3600.0  # seconds that a site waits for an answer; without the coordinator it ends

Say = Callable[[str], None]


class Rounds:
    """One federation, as one process sees it.

    Args:
      config: the experiment.
      options: how the sites work together.
      sites: names of all of them.
      own: numbers of those of this process.
      seed: of the federation.
      local: the sites of this process, in the order of `own`.
      mailbox: of all processes.
      writer: of prompts.
      say: receives a line after each round, in process 0.

    Attributes:
      coordinator: in process 0.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        options: Federation,
        sites: tuple[str, ...],
        own: tuple[int, ...],
        seed: int,
        local: LocalSites,
        mailbox: Mailbox,
        writer: PromptWriter,
        say: Say,
    ) -> None:
        self.config, self.options, self.sites, self.own = config, options, sites, own
        self.seed, self.local, self.mailbox, self.writer = seed, local, mailbox, writer
        self.say = say
        self.steps = local.budget.steps
        self.total = -(-self.steps // options.every)
        self.shape: tuple[int, int] = local.initial.shape
        self.coordinator = (
            Coordinator(sites, self.shape, options) if distributed.is_main() else None
        )
        self.restarted = 0
        self._kept: dict[tuple[int, int], np.ndarray] = {}  # vectors to be sent, by site and round
        self._answered = dict.fromkeys(own, 0)  # rounds
        self._bytes = dict.fromkeys(own, 0)
        self._gone: set[int] = set()  # sites that were expected and did not come

    def run(self) -> list[SiteResult]:
        """All rounds; in process 0 the results of every site."""
        number = self._restore()
        if number == 1:
            self.local.evaluate(0, 0, np.ones(len(self.own), bool))
        if number > self.total:  # started again after the last round: there is a test to be made
            self.local.evaluate(0, self.steps, np.ones(len(self.own), bool))
        while number <= self.total:
            number = self._round(number) + 1
        return self._finish()

    def _restore(self) -> int:
        """The round to begin with: 1, or the one after the newest answer to an earlier process."""
        told = {site: self.mailbox.get(self._name("answer", site)) for site in self.own}
        newest = max((round_of(answer) for answer in told.values() if answer), default=0)
        if not newest:
            return 1
        self.restarted = newest + 1
        sent = {site: self.mailbox.get(self._name("vector", site)) for site in self.own}
        changes = {
            place: decode(message, self.shape)[1]
            for place, site in enumerate(self.own)
            if (message := sent[site]) is not None
        }
        self.local.move(changes)
        self._pull({site: answer for site, answer in told.items() if answer})
        for site in self.own:
            self.mailbox.put(self._name("back", site), encode(self.restarted, np.zeros(0)))
        return self.restarted

    def _round(self, number: int) -> int:
        """One round; returns its number, or a later one if the coordinator is ahead."""
        options, sites = self.options, self.sites
        up = np.asarray([options.is_up(sites[site], number) for site in self.own], bool)
        here = [site for site, is_up in zip(self.own, up, strict=True) if is_up]
        begin = (number - 1) * options.every
        end = min(number * options.every, self.steps)
        back = [site for site in here if number > 1 and not options.is_up(sites[site], number - 1)]
        self._pull({s: message for s in back if (message := self._answer(s))})
        self.local.train(begin, end, up)
        self._send(number, here)
        if self.coordinator is not None:
            self._coordinate(number, end)
        answers = {site: self._wait_for_answer(site, number) for site in here}
        self._pull(answers)
        self.local.evaluate(begin, end, up)
        return max([number, *map(round_of, answers.values())])

    def _send(self, number: int, here: list[int]) -> None:
        """Sends the vectors that are due: of this round, or of an earlier one by a late site."""
        vectors = dict(zip(self.own, self.local.vectors(), strict=True)) if here else {}
        for site in here:
            self._kept[site, number] = vectors[site]
            due = self.options.due(self.sites[site], number)
            if (vector := self._kept.pop((site, due), None)) is not None:
                self.mailbox.put(self._name("vector", site), encode(due, vector))

    def _coordinate(self, number: int, step: int) -> None:
        """Waits for the vectors of a round, combines them, and answers."""
        assert self.coordinator is not None
        deadline = time.monotonic() + self.options.patience
        for site, name in enumerate(self.sites):
            wanted = self.options.due(name, number) if self._is_expected(site, number) else 0

            def arrived(site: int = site, wanted: int = wanted) -> bytes | None:
                message = self.mailbox.get(self._name("vector", site))
                return message if message is not None and round_of(message) >= wanted else None

            message = wait(arrived, deadline - time.monotonic()) if wanted else None
            before = self.coordinator.newest[site]
            self.coordinator.receive(site, message or self.mailbox.get(self._name("vector", site)))
            if self.coordinator.newest[site] < wanted:
                self._gone.add(site)
            elif self.coordinator.newest[site] > before:  # slow, but alive
                self._gone.discard(site)
        ended = self.coordinator.end(number, step)
        for site in range(len(self.sites)):
            self.mailbox.put(self._name("answer", site), self.coordinator.answer(site))
        silent = [name for name, no in zip(self.sites, ended.silent, strict=True) if no]
        self.say(
            f"  seed {self.seed}, round {number} of {self.total}:"
            f" {len(self.sites) - len(silent)} of {len(self.sites)} sites"
            + (f"; nothing of {', '.join(silent)}" if silent else "")
        )

    def _is_expected(self, site: int, number: int) -> bool:
        """Whether the coordinator waits for a site: not for one that is gone, unless it is back."""
        back = self.mailbox.get(self._name("back", site))
        if back is not None and round_of(back) >= number:
            return True
        return self.options.is_up(self.sites[site], number) and site not in self._gone

    def _wait_for_answer(self, site: int, number: int) -> bytes:
        def look() -> bytes | None:
            message = self._answer(site)
            return message if message is not None and round_of(message) >= number else None

        message = wait(look, _LONGEST)
        if message is None:
            raise TrainingError(f"the coordinator has not answered {self.sites[site]} for a day.")
        return message

    def _answer(self, site: int) -> bytes | None:
        return self.mailbox.get(self._name("answer", site))

    def _pull(self, answers: dict[int, bytes]) -> None:
        """Moves sites towards their rows of the low-rank matrix."""
        for site, message in answers.items():
            if round_of(message) > self._answered[site]:
                self._answered[site] = round_of(message)
                self._bytes[site] += len(message)
        if not self.options.pull or not answers:
            return
        vectors = self.local.vectors()
        changes = {}
        for place, site in enumerate(self.own):
            if site in answers:
                shared = decode(answers[site], self.shape)[1]
                changes[place] = np.float32(self.options.pull) * (shared - vectors[place])
        self.local.move(changes)

    def _finish(self) -> list[SiteResult]:
        """Tests the sites that are up, writes their prompts, and collects the results of all."""
        up = np.asarray([self.options.is_up(self.sites[i], self.total) for i in self.own], bool)
        outcomes = self.local.results(up)
        for place, (task, outcome) in enumerate(outcomes):
            if not up[place]:
                continue
            site = self.own[place]
            self.writer.target(METHOD, task, outcome)
            trained, metric = outcome.trained, task.metrics[0]
            made = SiteResult(
                site=self.sites[site],
                seed=self.seed,
                process=distributed.process_index(),
                metric=metric,
                test=outcome.test.metrics[metric] if trained.healthy else math.nan,
                dev=trained.best_value,
                best_step=trained.best_step,
                steps=trained.steps,
                planned=self.steps,
                received=self._bytes[site],
                restarted=self.restarted,
                file=str(self.writer.written[-1]),
            )
            self.mailbox.put(self._name("result", site), json.dumps(asdict(made)).encode())
        if self.coordinator is None:
            return []
        return [self._collect(site) for site in range(len(self.sites))]

    def _collect(self, site: int) -> SiteResult:
        """The result of a site, with what the coordinator knows of it."""
        assert self.coordinator is not None
        rounds = self.coordinator.rounds
        silent = tuple(entry.number for entry in rounds if entry.silent[site])
        waits = self.options.patience if self.total not in silent else 0.0
        raw = wait(lambda: self.mailbox.get(self._name("result", site)), waits)
        made = self._lost(site) if raw is None else _site(json.loads(raw))
        return replace(
            made,
            # A new process does not know what the earlier one has trained.
            steps=self._heard(site) if made.restarted else made.steps,
            silent=silent,
            oldest=max(entry.ages[site] or 0 for entry in rounds),
            sent=self.coordinator.received[site],
        )

    def _lost(self, site: int) -> SiteResult:
        """A site without a result: its prompt is its newest vector, which is written too."""
        assert self.coordinator is not None
        newest = self.coordinator.newest[site]
        step = min(newest * self.options.every, self.steps)
        name = self.config.targets[site]
        task = registry.get(name)
        file = ""
        if newest:
            key = RunKey(METHOD, METHOD, name, self.config.shots[0], self.seed)
            vector = self.coordinator.vectors[site]
            self.writer.target(METHOD, task, self.local.last_vector(key, vector, step))
            file = str(self.writer.written[-1])
        rounds = sum(not entry.silent[site] for entry in self.coordinator.rounds)
        return SiteResult(
            site=self.sites[site],
            seed=self.seed,
            process=site % jax.process_count() if distributed.is_multiprocess() else 0,
            metric=task.metrics[0],
            test=math.nan,
            dev=math.nan,
            best_step=step,
            steps=self._heard(site),
            planned=self.steps,
            received=rounds * len(self.coordinator.answer(site)),
            file=file,
        )

    def _heard(self, site: int) -> int:
        """Steps of the rounds in which a site was not silent."""
        assert self.coordinator is not None
        every = self.options.every
        return sum(
            entry.step - (entry.number - 1) * every
            for entry in self.coordinator.rounds
            if not entry.silent[site]
        )

    def _name(self, what: str, site: int) -> str:
        return f"{what}/{self.seed}/{site}"


def _site(fields: dict[str, Any]) -> SiteResult:
    return SiteResult(**{**fields, "silent": tuple(fields["silent"])})
