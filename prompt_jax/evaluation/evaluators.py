"""Evaluates a population: rows of all jobs share batches, each row with the prompt of its job.

A job is a split and the number of a prompt. The prompts are a pytree of arrays (`state`, for
instance stacked prompts [P, L, D]) that a pure `prompt_fn` turns into one prompt per row, so a
method whose prompt depends on the row is evaluated by the same compiled programs. A program is
compiled once per batch shape, and JAX caches it between calls.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_jax.arrays import fields_repr
from prompt_jax.data import batching
from prompt_jax.errors import ConfigError, DataError
from prompt_jax.evaluation import metrics as scoring
from prompt_jax.evaluation import ties as tied
from prompt_jax.evaluation.sweep import (
    Job,
    Progress,
    PromptFn,
    Sweep,
    prompts_of,
    replicated,
    take_prompt,
)

if TYPE_CHECKING:
    from prompt_jax.data import TokenisedSplit
    from prompt_jax.models.base import LanguageModel

Mode = Literal["auto", "rank", "generate"]


class RankResult(NamedTuple):
    """Rank classification of one job."""

    # [n, C] float32 NLL, lower is better; inf: no such candidate; NaN: the prompt was not finite
    scores: np.ndarray
    # [n] int64, the smallest score (`ties.choose`); -1 where the prompt was not finite
    prediction: np.ndarray
    ties: tied.Ties = MappingProxyType({})  # candidates that share the smallest score, by row

    def __repr__(self) -> str:
        return fields_repr(self)


class Evaluation(NamedTuple):
    """Metrics and predictions of one job."""

    metrics: dict[str, float]  # all NaN when the prompt was not finite
    predictions: np.ndarray | list[str]  # candidate indices (rank) or texts (generate)
    per_item: dict[str, np.ndarray]  # of the metrics that are means of items, see metrics.per_item
    unparsable: int  # rows whose answer the first metric could not parse
    scores: np.ndarray | None = None  # RankResult.scores; None after generation
    ties: int = 0  # rows whose best score several candidates share; each counts 1 / their number

    def __repr__(self) -> str:
        return fields_repr(self)


_LARGEST = np.finfo(np.float32).max  # the worst score of a candidate that exists
_NO_ROWS = RankResult(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))


def rank(
    lm: LanguageModel,
    jobs: Sequence[Job],
    state: Any = None,
    *,
    prompt_fn: PromptFn = take_prompt,
    normalise: Literal["mean", "sum"] | None = None,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> list[RankResult]:
    """Rank classification: the answer is the candidate with the smallest NLL.

    Candidates of the same tokens have the same score; `ties` decides between equal scores.

    Args:
      lm: The model.
      jobs: Splits whose rows have candidates.
      state: Pytree of arrays, the first argument of `prompt_fn`; by default prompts [P, L, D] or
        None.
      prompt_fn: `(state, index [b], rows) -> [b, L, D] or None`, pure. Pass the same function
        object every time: each new lambda is compiled again.
      normalise: "mean" divides the NLL by the candidate's tokens, "sum" does not; None: as the
        split of each job says (`TokenisedSplit.rank_by`).
      token_budget: Tokens of a batch (prompt + input + candidates); None: a default for the device.
      mesh: Rows are split over its axis 'data'.
      progress: Called as `progress(rows done, total rows)`.

    Returns:
      One result per job, rows in the order of its split.

    Raises:
      ConfigError: An option is wrong, or a job's prompt is not in `state`.
      DataError: A row has no candidates.
      ModelError: Token ids lie outside the model's vocabulary.
    """
    if normalise not in ("mean", "sum", None):
        raise ConfigError(f"normalise is 'mean' or 'sum', not '{normalise}'.")
    for job in jobs:
        _check_candidates(job.split)
    sweep = Sweep(lm, jobs, state, prompt_fn, token_budget, mesh, progress)
    tables = [_candidates(split) for split in sweep.pool.splits]
    results: list[RankResult] = [_NO_ROWS] * len(jobs)
    for number, (nll, tokens, finite) in sweep.run(_rank_program, tables):
        split = jobs[number].split
        mean = (normalise or split.rank_by) == "mean"
        score = nll / np.maximum(tokens, 1) if mean else nll
        score = np.where(tokens > 0, np.minimum(score, _LARGEST), np.float32(np.inf))
        score = np.where(finite[:, None], score, np.float32(np.nan))
        score = tied.equalise(score, split)
        ties = tied.of(score)
        results[number] = RankResult(score, tied.choose(score, split, ties), ties)
    return results


def generate(
    lm: LanguageModel,
    jobs: Sequence[Job],
    state: Any = None,
    *,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    prompt_fn: PromptFn = take_prompt,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> list[list[str]]:
    """Generates an answer for every row.

    Args:
      lm: The model, with a tokenizer.
      jobs: The jobs.
      state: See `rank`.
      max_new_tokens: Longest answer; None: the longest target or candidate of all jobs, rounded
        up to a multiple of 8.
      num_beams: 1 decodes greedily.
      prompt_fn: See `rank`.
      token_budget: See `rank`; beams count as rows.
      mesh: See `rank`.
      progress: See `rank`.

    Returns:
      Texts per job, in the order of its split; "" where the prompt was not finite.

    Raises:
      ConfigError: An option is wrong, or a job's prompt is not in `state`.
      ModelError: Token ids lie outside the model's vocabulary, or it has no tokenizer.
    """
    texts, _ = _generate(
        lm, jobs, state, max_new_tokens, num_beams, prompt_fn, token_budget, mesh, progress
    )
    return texts


def nll(
    lm: LanguageModel,
    jobs: Sequence[Job],
    state: Any = None,
    *,
    prompt_fn: PromptFn = take_prompt,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Negative log-likelihood of the targets per target token.

    Args:
      lm: The model.
      jobs: The jobs.
      state: See `rank`.
      prompt_fn: See `rank`.
      token_budget: See `rank`.
      mesh: See `rank`.
      progress: See `rank`.

    Returns:
      Nats per token of each job (summed first, divided at the end); NaN where the prompt was not
      finite or there are no target tokens.
    """
    sweep = Sweep(lm, jobs, state, prompt_fn, token_budget, mesh, progress)
    tables = [_targets(split) for split in sweep.pool.splits]
    values = [math.nan] * len(jobs)
    for number, (total, tokens, finite) in sweep.run(_nll_program, tables):
        if finite.all() and tokens.sum() > 0:
            values[number] = float(total.sum(dtype=np.float64) / tokens.sum(dtype=np.float64))
    return values


def evaluate(
    lm: LanguageModel,
    jobs: Sequence[Job],
    state: Any = None,
    *,
    metrics: Sequence[str] | Sequence[Sequence[str]],
    mode: Mode = "auto",
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    normalise: Literal["mean", "sum"] | None = None,
    prompt_fn: PromptFn = take_prompt,
    token_budget: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Predicts and scores every job.

    A prompt that is not finite (a diverged replica) gives NaN metrics for its own job only.

    Args:
      lm: The model.
      jobs: The jobs.
      state: See `rank`.
      metrics: Names for all jobs, or one sequence of names per job.
      mode: "rank", "generate", or "auto": rank where every row of the job has candidates, unless
        its task generates answers (`Task.generated`).
      max_new_tokens: See `generate`.
      num_beams: See `generate`.
      normalise: See `rank`.
      prompt_fn: See `rank`.
      token_budget: See `rank`.
      mesh: See `rank`.
      progress: See `rank`; counts the rows of all jobs.

    Returns:
      One evaluation per job.

    Raises:
      ConfigError: An unknown metric or option, or a job's prompt that is not in `state`.
      DataError: A metric or mode does not fit the rows. Both are raised before any computation.
      ModelError: See `rank` and `generate`.
    """
    if mode not in ("auto", "rank", "generate"):
        raise ConfigError(f"mode is 'auto', 'rank' or 'generate', not '{mode}'.")
    names = names_per_job(metrics, len(jobs))
    check_metrics(jobs, names)
    ranks = [
        number
        for number, job in enumerate(jobs)
        if mode == "rank" or (mode == "auto" and _has_candidates(job.split))
    ]
    generates = sorted(set(range(len(jobs))) - set(ranks))
    for number in ranks:
        _check_candidates(jobs[number].split)
    ranked_rows = sum(len(jobs[number].split) for number in ranks)
    all_rows = sum(len(job.split) for job in jobs)

    results: dict[int, Evaluation] = {}
    if ranks:
        ranked = rank(
            lm,
            [jobs[i] for i in ranks],
            state,
            prompt_fn=prompt_fn,
            normalise=normalise,
            token_budget=token_budget,
            mesh=mesh,
            progress=progress and (lambda done, _: progress(done, all_rows)),
        )
        for i, result in zip(ranks, ranked, strict=True):
            finite = bool((result.prediction >= 0).all())
            evaluation = score_predictions(
                jobs[i].split, names[i], result.prediction, finite, result.ties
            )
            results[i] = evaluation._replace(scores=result.scores)
    if generates:
        texts, finite_jobs = _generate(
            lm,
            [jobs[i] for i in generates],
            state,
            max_new_tokens,
            num_beams,
            prompt_fn,
            token_budget,
            mesh,
            progress and (lambda done, _: progress(ranked_rows + done, all_rows)),
        )
        for i, answers, finite in zip(generates, texts, finite_jobs, strict=True):
            results[i] = score_predictions(jobs[i].split, names[i], answers, finite)
    return [results[i] for i in range(len(jobs))]


# Programs: one per batch shape -------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("prompt_fn", "mesh"))
def _rank_program(
    lm: Any, state: Any, index: Any, rows: Any, candidates: Any, *, prompt_fn: PromptFn, mesh: Any
) -> tuple[jax.Array, ...]:
    prompts, finite = prompts_of(prompt_fn, state, index, rows)
    total, tokens = lm.rank(rows.input_ids, rows.mask, candidates, prompts)
    return replicated((total, tokens, finite), mesh)


@functools.partial(jax.jit, static_argnames=("prompt_fn", "mesh"))
def _nll_program(
    lm: Any, state: Any, index: Any, rows: Any, labels: Any, *, prompt_fn: PromptFn, mesh: Any
) -> tuple[jax.Array, ...]:
    prompts, finite = prompts_of(prompt_fn, state, index, rows)
    scores = lm.score(rows.input_ids, rows.mask, labels, prompts)
    return replicated((scores.nll, scores.tokens, finite), mesh)


@functools.partial(jax.jit, static_argnames=("prompt_fn", "mesh", "max_new_tokens", "num_beams"))
def _generate_program(
    lm: Any,
    state: Any,
    index: Any,
    rows: Any,
    answers: None,
    *,
    prompt_fn: PromptFn,
    mesh: Any,
    max_new_tokens: int,
    num_beams: int,
) -> tuple[jax.Array, ...]:
    prompts, finite = prompts_of(prompt_fn, state, index, rows)
    ids = lm.generate(
        rows.input_ids, rows.mask, prompts, max_new_tokens=max_new_tokens, num_beams=num_beams
    )
    return replicated((ids, finite), mesh)


def _generate(
    lm: Any,
    jobs: Sequence[Job],
    state: Any,
    max_new_tokens: int | None,
    num_beams: int,
    prompt_fn: PromptFn,
    token_budget: int | None,
    mesh: Mesh | None,
    progress: Progress | None,
) -> tuple[list[list[str]], list[bool]]:
    """Returns texts per job, and whether all prompts of each job were finite."""
    if num_beams < 1:
        raise ConfigError(f"num_beams must be at least 1, not {num_beams}.")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    from prompt_jax.models import texts as model_texts

    tokenizer = lm.tokenizer
    sweep = Sweep(lm, jobs, state, prompt_fn, token_budget, mesh, progress)
    if max_new_tokens is None:
        longest = max((_longest_answer(split) for split in sweep.pool.splits), default=1)
        max_new_tokens = -(-longest // 8) * 8
    texts: list[list[str]] = [[] for _ in jobs]
    finite_jobs = [True] * len(jobs)
    tables = [None] * len(sweep.pool.splits)
    budget = sweep.token_budget // num_beams
    options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams}
    for number, (ids, finite) in sweep.run(
        _generate_program, tables, max_new_tokens, max(budget, 1), **options
    ):
        decoded = model_texts.decode_answers(tokenizer, ids.tolist())
        texts[number] = [t if ok else "" for t, ok in zip(decoded, finite.tolist(), strict=True)]
        finite_jobs[number] = bool(finite.all())
    return texts, finite_jobs


# Answers and checks -------------------------------------------------------------------------


def _has_candidates(split: TokenisedSplit) -> bool:
    return all(example.candidates and not example.generated for example in split.examples)


def _check_candidates(split: TokenisedSplit) -> None:
    for row, example in enumerate(split.examples):
        if not example.candidates:
            raise DataError(
                f"row {row} of '{split.name}' has no candidates to rank: use mode='generate'."
            )


def _candidates(split: TokenisedSplit) -> np.ndarray:
    """Candidates int32 [n, C, T] with T one of a few widths."""
    width = batching.target_width(_longest_candidate(split))
    return split.candidate_matrix(np.arange(len(split)), None, width)


def _longest_candidate(split: TokenisedSplit) -> int:
    return int(split.answers.lengths[split.candidates.values].max(initial=1))


def _targets(split: TokenisedSplit) -> np.ndarray:
    """Targets int32 [n, T] with T one of a few widths."""
    width = batching.target_width(int(split.targets.lengths.max(initial=1)))
    return split.targets.padded(np.arange(len(split)), width, -100)


def _longest_answer(split: TokenisedSplit) -> int:
    return max(int(split.targets.lengths.max(initial=1)), _longest_candidate(split))


def names_per_job(
    names: Sequence[str] | Sequence[Sequence[str]], jobs: int
) -> list[tuple[str, ...]]:
    """One tuple of metric names per job.

    Raises:
      ConfigError: A string, or a different number of jobs.
    """
    if isinstance(names, str):
        raise ConfigError(f"metrics is a sequence of names: pass ('{names}',).")
    if all(isinstance(name, str) for name in names):
        return [tuple(str(name) for name in names)] * jobs
    if len(names) != jobs:
        raise ConfigError(f"metrics of {len(names)} jobs were given for {jobs} jobs.")
    return [tuple(each) for each in names]


def check_metrics(jobs: Sequence[Job], names: Sequence[tuple[str, ...]]) -> None:
    """Computes all metrics on empty answers, so that errors are raised before the model runs."""
    for split, job_names in {
        (id(j.split), n): (j.split, n) for j, n in zip(jobs, names, strict=True)
    }.values():
        scoring.compute(job_names, [""] * len(split), split)


def score_predictions(
    split: TokenisedSplit,
    names: Sequence[str],
    predictions: Any,
    finite: bool,
    ties: tied.Ties | None = None,
) -> Evaluation:
    """The evaluation of one job; `finite`: whether its prompt was finite."""
    values = scoring.compute(names, predictions, split, ties)
    items = {name: scoring.per_item(name, predictions, split, ties) for name in names}
    means = {name: value for name, value in items.items() if value is not None}
    unparsable = 0
    if names:
        form = scoring.get_metric(names[0]).form
        unparsable = scoring.unparsable(predictions, form, split.examples)
    if not finite:
        values = dict.fromkeys(values, math.nan)
        means = {name: np.full_like(value, np.nan) for name, value in means.items()}
    return Evaluation(values, predictions, means, unparsable, ties=len(ties or ()))
