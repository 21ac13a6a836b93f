"""ForkMerge (Jiang et al. 2023, arXiv 2301.12618): branches with other sources, merged by turns.

Written from facts of the released code, which trains networks; here a branch is a prompt. For each
target, k and seed:

1. A short run for each source, on the rows of the target and of that source, ranks the sources by
   the target's development score. (That of the best source is the first round's branch with it.)
2. In every round all branches start from the same prompt: one on the target's rows alone, others on
   those of the target and of its n best sources. Each keeps its best step of the round.
3. The branches are merged, P = sum over b of (w_b / sum of w) P_b, with weights that are found one
   after the other on the development rows (`greedy_merge`). The next round starts from there.

The branches of all targets and seeds are one population, and every round is a stage whose replicas
are stored, so an interrupted run resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.data.feed import Mixture
from prompt_jax.data.tokenise import concat
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation.subsets import nan_to_neg_inf
from prompt_jax.methods import BaseMethod, Stage
from prompt_jax.models.base import LanguageModel
from prompt_jax.recipes import experiment, outputs
from prompt_jax.recipes.config import ExperimentConfig
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.outcomes import Cost, Outcome, cost_of
from prompt_jax.recipes.stages import StageJob
from prompt_jax.recipes.survey import evaluate_prompts
from prompt_jax.run_key import RunKey
from prompt_jax.rundir.forkmerge import Branching, ForkMergeCell, ForkMergeReport, Round
from prompt_jax.rundir.tables import heading
from prompt_jax.training.types import Replica, TrainedReplica

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""What a branch may weigh relative to the mean of those before it; 0 where none of them helps."""

_FEEDS = 1_000_003  # between the seeds of the row orders of rounds
_SPEC, _RANKING = "forkmerge", "ranking"

Place = tuple[str, int]  # target, seed


@dataclass(frozen=True, eq=False)
class GreedyMerge:
    """A weighted mean of prompts.

    Attributes:
      prompt: [L, D] float32.
      weights: [B], their sum is not 1.
      value: its score.
    """

    prompt: np.ndarray
    weights: np.ndarray
    value: float

    __repr__ = fields_repr


def greedy_merge(
    prompts: np.ndarray,
    values: Sequence[float] | np.ndarray,
    score: Callable[[np.ndarray], np.ndarray],
) -> GreedyMerge:
    """The best prompt, and then one after the other what the next best ones add to it.

    The n-th best prompt (n = 1, 2, ... after the best) gets the weight `share * (sum of weights) /
    n` of the share that scores best, or 0 if none scores higher than without it.

    Args:
      prompts: [B, L, D].
      values: [B], their scores; NaN: the prompt takes no part.
      score: of prompts [n, L, D], float [n].
    """
    values = nan_to_neg_inf(np.asarray(values, np.float64))
    order = np.argsort(-values, kind="stable")
    weights = np.zeros(len(prompts))
    weights[order[0]] = 1.0
    best, merged = float(values[order[0]]), np.asarray(prompts[order[0]], np.float32)
    for place, branch in enumerate(order[1:].tolist(), start=1):
        if np.isneginf(values[branch]):
            break
        tried = np.repeat(weights[None], len(SHARES), 0)
        tried[:, branch] = np.asarray(SHARES) * weights.sum() / place
        means = np.einsum("nb,bld->nld", tried / tried.sum(1, keepdims=True), np.float64(prompts))
        found = nan_to_neg_inf(np.asarray(score(means.astype(np.float32)), np.float64))
        n = int(found.argmax())
        if found[n] > best:
            best, weights, merged = float(found[n]), tried[n], means[n].astype(np.float32)
    return GreedyMerge(merged, weights, best)


def forkmerge(
    config: ExperimentConfig,
    lm: LanguageModel,
    *,
    rounds: int = 5,
    branches: Sequence[int] = (0, 3, 5),
    show: bool = True,
    say: Callable[[str], None] = print,
) -> ForkMergeReport:
    """Trains one merged prompt for every target, k and seed, and writes a table and all numbers.

    The files are `forkmerge.md` and `forkmerge.json` of the run directory, and the prompts in its
    folder `prompts/forkmerge`.

    Args:
      config: the experiment. The rounds share the target's budget of steps, and each restarts its
        schedule and optimizer.
      lm: the frozen model that `config.model` names.
      rounds: how often the branches are merged.
      branches: how many of the best sources each branch has; numbers above K mean all.
      show: progress lines on a terminal.
      say: receives what a person should read while it runs.

    Raises:
      PromptJaxError: for anything a user can cause, before any compute is spent where possible.
    """
    sizes = check(config, rounds, branches)
    with experiment.opened(config, lm, show=show) as (folder, executor):
        writer = outputs.PromptWriter(folder, config, lm)
        cells = []
        for k in config.shots:
            found = _Fork(executor, k, rounds, sizes, say).run()
            for target in config.targets:
                task, made = executor.rows.task(target), []
                for seed in config.seed_list:
                    branching, outcome = found[target, seed]
                    writer.target(_SPEC, task, outcome)
                    made.append(branching)
                cells.append(ForkMergeCell(task.name, k, task.metrics[0], tuple(made)))
        names = tuple(executor.rows.task(source).name for source in config.sources)
        report = ForkMergeReport(folder, config.name, names, sizes, tuple(cells))
        outputs.write_report(report)
    return report


def check(config: ExperimentConfig, rounds: int, branches: Sequence[int]) -> tuple[int, ...]:
    """Checks what can be checked without the model.

    Args:
      config: the experiment.
      rounds: as of `forkmerge`.
      branches: likewise.

    Returns:
      The number of sources of each branch, ascending.

    Raises:
      ConfigError: no sources, no branch with one, too few steps or rows of a step.
    """
    if not config.sources:
        raise ConfigError("forkmerge needs sources, as in sources=snli,glue/qqp.")
    sizes = tuple(sorted({min(n, len(config.sources)) for n in branches}))
    if min(branches, default=-1) < 0 or len(sizes) < 2:
        raise ConfigError(
            "forkmerge merges at least two branches with different numbers of sources, as in 0,3:"
            f" {', '.join(map(str, branches)) or 'none'} makes"
            f" {len(sizes)} of the {len(config.sources)} sources."
        )
    for k in config.shots:
        budget = config.budget("target", k)
        if not 1 <= rounds <= budget.steps:
            raise ConfigError(
                f"{rounds} rounds cannot share the target's budget of {budget.steps} steps."
            )
        if budget.batch_size < max(sizes) + 1:
            raise ConfigError(
                f"a branch with {max(sizes)} sources needs at least {max(sizes) + 1} rows a step,"
                f" not {budget.batch_size}: raise batch_size of the target's budget for"
                f" {heading(k)}, or lower the branches."
            )
    return sizes


class _Fork:
    """The rounds of all targets and seeds at one k."""

    def __init__(
        self,
        executor: Executor,
        k: int,
        rounds: int,
        sizes: tuple[int, ...],
        say: Callable[[str], None],
    ) -> None:
        self.executor, self.k, self.rounds, self.sizes, self.say = executor, k, rounds, sizes, say
        self.config = executor.config
        self.places = [(t, s) for t in self.config.targets for s in self.config.seed_list]
        self.costs = dict.fromkeys(self.places, Cost())

    def run(self) -> dict[Place, tuple[Branching, Outcome]]:
        """All rounds, and the best merged prompt of each target and seed on its test rows."""
        for target, seed in self.places:
            if not len(self.executor.rows.rows(target, seed, self.k).dev):
                raise ConfigError(
                    f"{target} has no development rows, on which branches are merged: raise"
                    " data.dev_rows."
                )
        ranked = self._ranked()
        prompts = {
            (target, seed): np.asarray(self.executor.initial(seed).embeddings, np.float32)
            for target, seed in self.places
        }
        history: dict[Place, list[Round]] = {place: [] for place in self.places}
        best = dict.fromkeys(self.places, (-np.inf, 0))
        kept, alive = dict(prompts), dict.fromkeys(self.places, True)
        for number in range(self.rounds):
            mixed = {
                (target, seed, n): ranked[target, seed][:size]
                for target, seed in self.places
                for n, size in enumerate(self.sizes)
            }
            made = self._trained(f"round {number + 1}", number, prompts, mixed)
            for place in self.places:
                own = [made[(*place, n)] for n in range(len(self.sizes))]
                merged = self._merged(place, own)
                alive[place] = any(one.healthy for one in own)
                prompts[place] = merged.prompt
                history[place].append(
                    Round([one.best_value for one in own], merged.weights.tolist(), merged.value)
                )
                if merged.value > best[place][0]:
                    best[place], kept[place] = (merged.value, number + 1), merged.prompt
            self.say(f"  {heading(self.k)}, round {number + 1} of {self.rounds}: merged")
        return {
            place: self._outcome(place, kept[place], best[place], history, ranked, alive[place])
            for place in self.places
        }

    def _ranked(self) -> dict[Place, tuple[str, ...]]:
        """The sources of each target and seed, the best first."""
        sources = self.config.sources
        starts = {
            (target, seed): np.asarray(self.executor.initial(seed).embeddings, np.float32)
            for target, seed in self.places
        }
        mixed = {
            (target, seed, n): (source,)
            for target, seed in self.places
            for n, source in enumerate(sources)
        }
        made = self._trained(_RANKING, 0, starts, mixed)
        ranked = {}
        for place in self.places:
            values = [made[(*place, n)].best_value for n in range(len(sources))]
            order = np.argsort(-nan_to_neg_inf(np.asarray(values)), kind="stable")
            ranked[place] = tuple(sources[n] for n in order.tolist())
        return ranked

    def _trained(
        self,
        name: str,
        number: int,
        prompts: Mapping[Place, np.ndarray],
        mixed: Mapping[tuple[str, int, int], Sequence[str]],
    ) -> dict[tuple[str, int, int], TrainedReplica]:
        """Prompt tuning from the prompts, on rows of the target and of some sources each."""
        part = (number / self.rounds, (number + 1) / self.rounds)
        stage = Stage(name, on="target", part=part)
        budget = self.config.stage_budget(stage, self.k)
        assert budget is not None
        replicas = {}
        for (target, seed, n), sources in mixed.items():
            rows = self.executor.rows.rows(target, seed, self.k)
            parts = [rows.train, *(self.executor.rows.rows(s, seed).train for s in sources)]
            order = seed + _FEEDS * (number + 1)  # other rows in every round
            feed = Mixture(concat(parts), budget.batch_size, order, "order", "stratified")
            key = RunKey(_SPEC, name, target, self.k, seed, n)
            params = {"prompt": prompts[target, seed]}
            metrics = rows.task.metrics
            replicas[key] = Replica(key, feed, params, {}, rows.dev, metrics, keep_start=False)
        label = f"{_SPEC}: {name}, {heading(self.k)}"
        job = StageJob(label, BaseMethod(), replicas, budget)
        result = self.executor.runner.run(job)
        self.executor.reused.append((label, result.reused, len(replicas)))
        for key, trained in result.trained.items():
            if number == 0 and name != _RANKING and len(mixed[key.task, key.seed, key.trial]) == 1:
                continue  # the replica that has ranked this source, read from the store
            cost = cost_of(
                self.executor.lm,
                BaseMethod(),
                stage,
                trained,
                prompt_tokens=self.config.prompt.tokens,
            )
            self.costs[key.task, key.seed] += cost
        return {(key.task, key.seed, key.trial): one for key, one in result.trained.items()}

    def _merged(self, place: Place, branches: Sequence[TrainedReplica]) -> GreedyMerge:
        target, seed = place
        rows = self.executor.rows.rows(target, seed, self.k)

        def score(prompts: np.ndarray) -> np.ndarray:
            metric = rows.task.metrics[0]
            found = evaluate_prompts(self.executor, rows.dev, metric, prompts)
            return np.asarray([one.metrics[metric] for one in found], np.float64)

        values = [one.best_value if one.healthy else np.nan for one in branches]
        return greedy_merge(np.stack([np.asarray(one.prompt) for one in branches]), values, score)

    def _outcome(
        self,
        place: Place,
        prompt: np.ndarray,
        best: tuple[float, int],
        history: Mapping[Place, Sequence[Round]],
        ranked: Mapping[Place, Sequence[str]],
        healthy: bool,
    ) -> tuple[Branching, Outcome]:
        """The best merged prompt on the test rows, and how it came about."""
        target, seed = place
        rows = self.executor.rows.rows(target, seed, self.k)
        (test,) = evaluate_prompts(self.executor, rows.test, rows.task.metrics[0], prompt[None])
        cost = self.costs[place]
        names = [self.executor.rows.task(source).name for source in ranked[place]]
        value = best[0] if np.isfinite(best[0]) else float("nan")
        made = TrainedReplica(
            RunKey(_SPEC, "merged", target, self.k, seed),
            {"prompt": prompt},
            prompt,
            best[1],
            value,
            tuple((n + 1, one.value) for n, one in enumerate(history[place])),
            cost.target_steps,
            0,
            0,
            0,
            healthy,
        )
        start = self.executor.initial(seed).record
        outcome = Outcome(made.key, made, test, cost, prompt.size, len(self.sizes), start=start)
        branching = Branching(
            seed,
            tuple(names),
            tuple(history[place]),
            best[1],
            value,
            float(test.metrics[rows.task.metrics[0]]),
            cost.target_steps,
        )
        return branching, outcome
