"""One pass of a model over the rows of many jobs, with one prompt per row."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_jax import sharding
from prompt_jax.arrays import stack, unwrap
from prompt_jax.data import batching
from prompt_jax.data.batching import EvalRows
from prompt_jax.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from prompt_jax.data import TokenisedSplit

PromptFn = Callable[[Any, jax.Array, EvalRows], jax.Array | None]
Progress = Callable[[int, int], None]

# Tokens (prompt, input and answers) of a batch. On a CPU 2,048 fits its caches (measured: 1,024 and
# 4,096 are slower). 32,768 fits a 16 GiB accelerator together with a T5-base, even if every token
# belongs to an answer, with 32,128 float32 logits.
_CPU_TOKENS, _DEVICE_TOKENS = 2048, 32_768
_IN_FLIGHT = 3  # batches prepared on the host while the device computes


class Job(NamedTuple):
    """One evaluation of a population: the rows of a split under one prompt."""

    split: TokenisedSplit
    prompt: int = 0  # index of each row for `prompt_fn`


class EmbeddedBy(NamedTuple):
    """The state of a `prompt_fn` that reads `rows.embedded`."""

    lm: Any  # embeds the rows' tokens; it need not be the model that is evaluated
    state: Any  # what the `prompt_fn` receives


@jax.jit
def embed_rows(lm: Any, rows: Any) -> Any:
    """Rows with their token embeddings in `embedded`, [..., S, D] float32.

    A program of its own, to which the model is an argument: nothing holds a copy of its table.
    """
    return rows._replace(embedded=lm.embed(rows.input_ids).astype(jnp.float32))


def take_prompt(state: Any, index: jax.Array, rows: EvalRows) -> jax.Array | None:
    """The default `prompt_fn`: row i gets `state[index[i]]`, or no prompt if there is no state.

    Args:
      state: [P, L, D], or None.
      index: int32 [b].
      rows: The rows (not used).
    """
    return None if state is None else state[index]


class Sweep:
    """One pass over the rows of all jobs; arguments as in `evaluators.rank`."""

    def __init__(
        self,
        lm: Any,
        jobs: Sequence[Job],
        state: Any,
        prompt_fn: PromptFn,
        token_budget: int | None,
        mesh: Mesh | None,
        progress: Progress | None,
    ) -> None:
        lm, mesh = sharding.on_auto_axes(lm), sharding.row_mesh(mesh)
        if token_budget is None:
            token_budget = _CPU_TOKENS if jax.default_backend() == "cpu" else _DEVICE_TOKENS
        if token_budget < 1:
            raise ConfigError(f"token_budget must be positive, not {token_budget}.")
        if prompt_fn is take_prompt and state is not None:
            state = _stacked(state)
            if np.ndim(state) != 3:
                raise ConfigError(
                    "without a prompt_fn, state is an array of stacked prompts [P, L, D] (or None)."
                )
            for job in jobs:
                # A gather inside jit clamps silently: job 7 would get prompt 3.
                if not 0 <= job.prompt < state.shape[0]:
                    raise ConfigError(
                        f"a job has prompt {job.prompt}, but there are {state.shape[0]} prompts."
                    )
        self.lm, self.jobs, self.prompt_fn, self.mesh = lm, list(jobs), prompt_fn, mesh
        self.progress, self.token_budget = progress, token_budget
        self.embedder: Any = None
        if isinstance(state, EmbeddedBy):
            self.embedder, state = state
        self.pool = batching.Pool([job.split for job in jobs])
        for split in self.pool.splits:
            largest = int(split.inputs.values.max(initial=0))
            if largest >= lm.vocab_size:
                raise ModelError(
                    f"an input has token {largest}, outside the vocabulary of {lm.vocab_size}: "
                    "was the split tokenised for another model?"
                )
        self.state = jax.device_put(state) if mesh is None else sharding.put(state, mesh)

    def run(
        self,
        program: Callable[..., Any],
        tables: Sequence[np.ndarray | None],
        answer_tokens: int = 0,
        token_budget: int | None = None,
        **options: Hashable,
    ) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
        """Runs a program over all rows.

        Jobs whose answers have different shapes do not share batches.

        Args:
          program: `(lm, state, index, rows, answers, prompt_fn=, mesh=, **options) -> arrays`,
            each with the rows of the batch as first axis.
          tables: Per split of the pool, answers int32 [n, ...], or None for all.
          answer_tokens: Answer tokens of a row without a table.
          token_budget: Overrides that of the sweep.
          **options: Static arguments of the program.

        Yields:
          (job number, its arrays in the order of its split) for every job with rows.
        """
        budget = token_budget or self.token_budget
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, job in enumerate(self.jobs):
            table = tables[self.pool.number(job.split)]
            groups.setdefault(() if table is None else table.shape[1:], []).append(number)
        total, done = sum(len(job.split) for job in self.jobs), 0
        for shape, numbers in groups.items():
            rows = np.concatenate([self.pool.rows_of(self.jobs[n].split) for n in numbers])
            sizes = [len(self.jobs[n].split) for n in numbers]
            index = np.repeat([self.jobs[n].prompt for n in numbers], sizes).astype(np.int32)
            extra = self._prompt_tokens() + (math.prod(shape) if shape else answer_tokens)
            multiple = 1 if self.mesh is None else self.mesh.shape["data"]
            plan = batching.plan(self.pool.lengths[rows], extra, budget, multiple)
            out: list[np.ndarray] = []
            for positions, arrays in self._batches(program, tables, plan, rows, index, options):
                if not out:
                    out = [np.empty((len(rows), *a.shape[1:]), a.dtype) for a in arrays]
                for whole, part in zip(out, arrays, strict=True):
                    whole[positions] = part[: len(positions)]
                done += len(positions)
                if self.progress is not None:
                    self.progress(done, total)
            ends = np.cumsum(sizes)
            for number, start, end in zip(numbers, ends - sizes, ends, strict=True):
                if out:
                    yield number, tuple(whole[start:end] for whole in out)

    def _batches(
        self,
        program: Callable[..., Any],
        tables: Sequence[np.ndarray | None],
        plan: Sequence[batching.BatchPlan],
        rows: np.ndarray,
        index: np.ndarray,
        options: dict[str, Any],
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Yields (positions, outputs) of every batch, after a few more were dispatched."""
        in_flight: deque[tuple[np.ndarray, Any]] = deque()
        for batch in plan:
            padded = batch.padded()
            inputs = self.pool.gather(rows[padded], batch.width, self.lm.pad_id, tables)
            at, gathered_rows, answers = sharding.put((index[padded], *inputs), self.mesh, "data")
            if self.embedder is not None:
                gathered_rows = embed_rows(self.embedder, gathered_rows)
            placed = at, gathered_rows, answers
            arrays = program(
                self.lm, self.state, *placed, prompt_fn=self.prompt_fn, mesh=self.mesh, **options
            )
            in_flight.append((batch.rows, arrays))
            if len(in_flight) > _IN_FLIGHT:
                positions, ready = in_flight.popleft()
                yield positions, [np.asarray(a) for a in ready]
        for positions, ready in in_flight:
            yield positions, [np.asarray(a) for a in ready]

    def _prompt_tokens(self) -> int:
        one: Any = jax.ShapeDtypeStruct((1,), jnp.int32)
        wide: Any = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        rows: Any = EvalRows(wide, wide, one, one)
        if self.embedder is not None:
            rows = jax.eval_shape(embed_rows, self.embedder, rows)
        shape = jax.eval_shape(self.prompt_fn, self.state, one, rows)
        if shape is None:
            return 0
        if shape.ndim != 3:
            raise ConfigError(
                f"prompt_fn must return one prompt per row [b, L, D], not {shape.shape}."
            )
        return int(shape.shape[1])


def _stacked(prompts: Any) -> Any:
    """Prompts [P, L, D]: an array, prompts in a list or stacked, or one prompt (P = 1)."""
    array = stack(prompts, "the prompts")
    one = array is not prompts and not isinstance(prompts, list | tuple) and np.ndim(array) == 2
    return unwrap(prompts)[None] if one else array


def prompts_of(
    prompt_fn: PromptFn, state: Any, index: jax.Array, rows: EvalRows
) -> tuple[jax.Array | None, jax.Array]:
    """Prompts per row, zero where they are not finite, and which rows are finite, bool [b]."""
    prompts = prompt_fn(state, index, rows)
    if prompts is None:
        return None, jnp.ones(index.shape, bool)
    finite = jnp.isfinite(prompts).all(axis=(1, 2))
    return jnp.where(finite[:, None, None], prompts, jnp.zeros_like(prompts)), finite


def replicated(arrays: tuple[jax.Array, ...], mesh: Mesh | None) -> tuple[jax.Array, ...]:
    """Replicates results on every device, so that every process can read all of them."""
    if mesh is None:
        return arrays
    return jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, PartitionSpec()))
