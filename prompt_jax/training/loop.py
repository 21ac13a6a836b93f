"""Trains a population: R runs, each with its own rows, parameters, rate and development set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import distributed, sharding
from prompt_jax.data import batching
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.errors import ConfigError, ModelError, TrainingError
from prompt_jax.evaluation import Job
from prompt_jax.streams import key as stream_key
from prompt_jax.training import memory, optimizers
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.deployed import evaluate_runs
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.protocol import Method, Rows
from prompt_jax.training.resume import CheckpointCallback
from prompt_jax.training.speed import StepTimer
from prompt_jax.training.step import Batch, Programs, State, StepMetrics, Sums, Table, programs
from prompt_jax.training.tracking import NullTracker, Tracker


@dataclass(frozen=True)
class TrainConfig:
    """The budget of one stage.

    Attributes:
      steps: optimizer steps.
      batch_size: rows of one run per step, B.
      optimizer: optimizer and schedule.
      eval_every: steps between development evaluations; the best step is kept. 0: only the start
        and the end.
      patience: stop a run after this many evaluations without improvement; 0: never.
      micro_batch_tokens: encoder tokens, prompts included, that pass through the T5 at once; 0
        chooses from the compiled memory analysis. Gradients are accumulated over micro-batches.
      log_every: steps between lines in metrics.jsonl.
    """

    steps: int = 300
    batch_size: int = 16
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval_every: int = 50
    patience: int = 0
    micro_batch_tokens: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        for name in ("eval_every", "patience", "micro_batch_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, but is {getattr(self, name)}.")

    def evaluates_at(self, step: int) -> bool:
        """Whether the development set is read after `step` steps."""
        every = self.eval_every or self.steps
        return step == self.steps or step % every == 0


@dataclass(frozen=True, eq=False)
class Replica:
    """One member of a population.

    Attributes:
      name: for logs.
      feed: its rows.
      params: initial parameters of this run, without the axis R.
      consts: what the method reads but never trains.
      seed: of its random streams.
      dev: development rows; None keeps the last step instead of the best.
      dev_metrics: the first decides which step is best.
      rate: multiplies the learning rate.
      keep_start: whether the starting point may be the best step.
    """

    name: str
    feed: Feed
    params: Any
    consts: Any = ()
    seed: int = 0
    dev: TokenisedSplit | None = None
    dev_metrics: tuple[str, ...] = ("accuracy",)
    rate: float = 1.0
    keep_start: bool = True


@dataclass(frozen=True, eq=False)
class TrainedReplica:
    """What training leaves of a run.

    Attributes:
      name: of the run.
      params: numpy parameters at the best step.
      prompt: the deployed prompt [L, D] float32; None for prompt-free and row-wise methods.
      best_step: the step the parameters are from.
      best_value: development value there; NaN without a development set or a finite value on it.
      history: (step, development value) pairs.
      steps: steps paid for, until the end, early stopping or the report of a run that died.
      rows_seen: training rows, repetitions counted.
      tokens_seen: input tokens of these rows, prompt and padding not counted.
      targets_seen: target tokens of these rows.
      healthy: False when the run's loss or gradient was not finite; it kept its last good state.
      seconds: wall-clock share of this run, where it was measured.
    """

    name: str
    params: Any
    prompt: np.ndarray | None
    best_step: int
    best_value: float
    history: tuple[tuple[int, float], ...]
    steps: int
    rows_seen: int
    tokens_seen: int
    targets_seen: int
    healthy: bool
    seconds: float = 0.0


def train(
    lm: Any,
    method: Method,
    runs: Sequence[Replica],
    config: TrainConfig,
    *,
    stage: str = "train",
    mesh: jax.sharding.Mesh | None = None,
    tracker: Tracker | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[TrainedReplica]:
    """Trains a population of runs of one method.

    A run's result does not depend on its neighbours, on the micro-batches or on the mesh, beyond
    floating-point summation order. Training that goes on from a checkpoint gives the same bits as
    training that was never stopped.

    Args:
      lm: the frozen model.
      method: what is trained.
      runs: the members; all have the batch size of `config` and equal parameter shapes.
      config: the budget.
      stage: for logs.
      mesh: rows are split over its 'data' axis, and so are runs where it divides their number; None
        uses one device.
      tracker: receives the numbers.
      checkpoints: where the state is kept on the way, and gone on from if there is any. SIGTERM
        then finishes the step and saves. What they hold is the caller's to delete at the end.

    Raises:
      ConfigError: no runs, unequal shapes, several runs of a method that trains the T5, or
        checkpoints of other training.
      ModelError: rows of another model's tokenizer.
      TrainingError: out of device memory; says what to lower. Or checkpoints that are damaged or
        cannot be written.
      StoppedError: SIGTERM came, and everything is saved.
    """
    tracker = tracker or NullTracker()
    population = Population(lm, method, runs, config, mesh)
    tracker.start(stage, config.steps, len(runs))
    with CheckpointCallback(population, checkpoints, tracker, stage) as guard:
        done = guard.begin()
        if not done:
            population.evaluate(0, tracker)
        watch = StepTimer(population, tracker)
        while done < config.steps and population.active.any():
            metrics = watch.step(done)
            done += 1
            if done % config.log_every == 0 or done == config.steps:
                watch.report(done)
                population.log(done, metrics, tracker)
            if evaluated := config.evaluates_at(done):
                watch.pause()
                population.evaluate(done, tracker)
            guard.after(done, evaluated)
        population.summarize(tracker)
        return population.results(guard.seconds)


def _check(lm: Any, method: Method, runs: Sequence[Replica], config: TrainConfig) -> None:
    if not runs:
        raise ConfigError("a population needs at least one run.")
    if method.trains_lm and len(runs) > 1:
        raise ConfigError(f"{method.name} trains the T5 itself: train its runs one at a time.")
    shapes = [jax.tree.map(lambda x: (x.shape, str(x.dtype)), (r.params, r.consts)) for r in runs]
    for run, shape in zip(runs, shapes, strict=True):
        if shape != shapes[0]:
            raise ConfigError(
                f"run {run.name} has parameters {shape}, but {runs[0].name} has {shapes[0]}:"
                " runs of one population have equal shapes."
            )
        if run.feed.batch_size != config.batch_size:
            raise ConfigError(
                f"run {run.name} feeds {run.feed.batch_size} rows per step, not"
                f" batch_size={config.batch_size}."
            )
    for split in {id(run.feed.split): run.feed.split for run in runs}.values():
        check_tokens(lm, split)


def check_tokens(lm: Any, split: TokenisedSplit) -> None:
    """Refuses rows with tokens that the model does not have.

    Such a token would embed as NaN, and the run would seem to diverge.

    Raises:
      ModelError: the split is of another model's tokenizer.
    """
    parts = (("an input", split.inputs), ("a target", split.targets), ("an answer", split.answers))
    for part, ids in parts:
        largest = int(ids.values.max(initial=0))
        if largest >= lm.vocab_size:
            raise ModelError(
                f"{part} of {split.name} holds token {largest}, outside the vocabulary of"
                f" {lm.vocab_size}: was the split tokenised for another model?"
            )


class Population:
    """The mutable middle of `train`, for callers who drive the steps themselves.

    Args:
      lm: the frozen model.
      method: what is trained.
      runs: the members.
      config: the budget.
      mesh: rows are split over its 'data' axis, and so are runs where it divides their number; None
        uses one device.

    Raises:
      ConfigError: no runs, unequal shapes, or several runs of a method that trains the T5.
      ModelError: rows of another model's tokenizer.
    """

    def __init__(
        self,
        lm: Any,
        method: Method,
        runs: Sequence[Replica],
        config: TrainConfig,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        _check(lm, method, runs, config)
        self.lm, self.method, self.runs, self.config, self.mesh = lm, method, runs, config, mesh
        splits = [run.feed.split for run in runs]
        self.pool = batching.Pool(splits)
        self.first = np.asarray([self.pool.rows_of(split)[0] for split in splits])
        longest = max(int(split.targets.lengths.max()) for split in splits)
        self.target_width = batching.target_width(longest)
        self.targets = [
            split.targets.padded(np.arange(len(split)), self.target_width, -100)
            for split in self.pool.splits
        ]
        self.target_lengths = np.concatenate([s.targets.lengths for s in self.pool.splits])
        self.input_width = batching.input_width(int(self.pool.lengths.max()))
        # Everything with the axis R, where the devices divide it; over the devices of one process.
        data = 1 if mesh is None or distributed.is_multiprocess() else mesh.shape["data"]
        self.split = data > 1 and len(runs) % data == 0
        # Trained T5 weights, their gradient and moments, likewise over the devices of one process.
        model = 1 if mesh is None or distributed.is_multiprocess() else mesh.shape["model"]
        self.weights_split = method.trains_lm and model > 1
        placing = mesh if self.split or self.weights_split else None
        self.programs: Programs = programs(method, config.optimizer, placing, lm.partition_rules)

        def stack(*leaves: Any) -> np.ndarray:
            return np.stack([np.asarray(leaf) for leaf in leaves])

        self.consts = self.put(jax.tree.map(stack, *(r.consts for r in runs)))
        params = self.put(jax.tree.map(stack, *(r.params for r in runs)))
        self.state: State = self.programs.init(params, self.consts)
        self.best: Any = jax.tree.map(jnp.copy, self.state.params)
        self.keys = jnp.stack([stream_key(run.seed, "order") for run in runs])
        unit = lm.embedding_rms() if config.optimizer.unit == "embedding_rms" else 1.0
        peak = config.optimizer.learning_rate * unit
        self.peaks = np.asarray([peak * run.rate for run in runs], np.float32)
        # A run that stopped early leaves the fold. One that died keeps its place in it: the others'
        # rows stay in the same micro-batches, whose sums stay the same to the last bit.
        self.folded = np.ones(len(runs), bool)
        self.healthy = np.ones(len(runs), bool)
        self.best_value = np.full(len(runs), -np.inf)
        self.best_step = np.zeros(len(runs), np.int64)
        self.stale = np.zeros(len(runs), np.int64)
        self.steps = np.zeros(len(runs), np.int64)
        self.tokens = np.zeros((2, len(runs)), np.int64)  # input, target
        self.history: list[list[tuple[int, float]]] = [[] for _ in runs]
        self.prompt_tokens = self._prompt_tokens()
        self.token_budget = self._token_budget()

    @property
    def active(self) -> np.ndarray:
        """Which runs still train, bool [R]."""
        return self.folded & self.healthy

    def put(self, tree: Any) -> Any:
        """Places host arrays [R, ...]."""
        if self.weights_split:
            assert self.mesh is not None
            return sharding.put_state(tree, self.lm.partition_rules, self.mesh)
        return sharding.put(tree, self.mesh, *(("data",) if self.split else ()))

    def _prompt_tokens(self) -> int:
        index = np.tile(self.first[:, None], (1, self.config.batch_size))
        table, _ = jax.eval_shape(
            self.programs.prepare,
            self.state,
            self.consts,
            self._method_rows(index),
            np.int32(0),
            self.keys,
        )
        return 0 if table.prompts is None else int(table.prompts.shape[-2])

    def _token_budget(self) -> int:
        """Tokens (`LanguageModel.row_tokens`) of a micro-batch, over all devices."""
        devices = 1 if self.mesh is None else self.mesh.shape["data"]
        budget = self.config.micro_batch_tokens or memory.token_budget(
            self.lm,
            self.method,
            self.config.optimizer,
            width=self.input_width,
            targets=self.target_width,
            prompt_tokens=self.prompt_tokens,
            state=self.state if self.method.trains_lm else None,
        )
        return budget * devices

    def _method_rows(self, index: np.ndarray, scale: np.ndarray | None = None) -> Rows:
        """What `Method.prompts` sees of the pool rows `index` [R, B]."""
        flat = index.reshape(-1)
        ids: Any = np.zeros((*index.shape, 0), np.int32)
        mask: Any = ids
        if self.method.needs_inputs:
            gathered, _ = self.pool.gather(flat, self.input_width, self.lm.pad_id)
            ids = gathered.input_ids.reshape(*index.shape, -1)
            mask = gathered.mask.reshape(*index.shape, -1)
        task, template = self.pool.tasks_and_templates(flat)
        if scale is None:
            scale = np.ones(index.shape, np.float32)
        return Rows(ids, mask, task.reshape(index.shape), template.reshape(index.shape), scale)

    def step(self, step: int) -> StepMetrics:
        """One optimizer step of every active run."""
        local = [run.feed.rows(step) for run in self.runs]
        pairs = zip(self.runs, local, strict=True)
        scale = np.stack([run.feed.scale(rows) for run, rows in pairs]).astype(np.float32)
        index = np.stack(local) + self.first[:, None]  # [R, B], pool rows
        rows = self.put(self._method_rows(index, scale))
        at = np.int32(step)
        keys = jax.vmap(jax.random.fold_in, (0, None))(self.keys, at)
        table, sums = self.programs.prepare(self.state, self.consts, rows, at, keys)
        for batch in self._micro_batches(index, scale):
            sums = self._micro(table, sums, batch)
        rates = self.peaks * np.float32(
            optimizers.rate(self.config.optimizer, step, self.config.steps)
        )
        self.state, metrics = self.programs.finish(
            self.state, self.consts, rows, sums, self.active, rates, keys, at
        )
        self.steps += self.active
        for seen, lengths in zip(
            self.tokens, (self.pool.lengths, self.target_lengths), strict=True
        ):
            seen += np.where(self.active, lengths[index].sum(1), 0)
        return metrics

    def _micro(self, table: Table, sums: Sums, batch: Batch) -> Sums:
        try:
            state = self.state if self.method.trains_lm else None
            return self.programs.micro(self.lm, state, table, sums, batch)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            rows, width = batch.input_ids.shape
            raise TrainingError(
                f"out of device memory in a micro-batch of {rows} rows x"
                f" {width + self.prompt_tokens} tokens. Lower micro_batch_tokens (now"
                f" {self.token_budget}), data.max_input_tokens or prompt.tokens, or use"
                " dtype=bfloat16."
            ) from error

    def _micro_batches(self, index: np.ndarray, scale: np.ndarray) -> list[Batch]:
        """Folds the rows of runs under all views and cuts them into micro-batches."""
        batch, views = index.shape[1], self.method.views
        grid = np.meshgrid(
            np.flatnonzero(self.folded), np.arange(views), np.arange(batch), indexing="ij"
        )
        r, v, b = (axis.reshape(-1) for axis in grid)
        if self.method.per_view_batches:
            tasks, _ = self.pool.tasks_and_templates(index.reshape(-1))
            owner, share = batching.assign_views(tasks.reshape(index.shape), views)
            r, v, b = (axis[owner[r, b] == v] for axis in (r, v, b))
            scale = scale * share
        rows = index[r, b]
        view = r * views + v
        prompt = view * batch + b if self.method.rowwise else view
        devices = 1 if self.mesh is None else self.mesh.shape["data"]
        made = []
        extra = self.lm.row_tokens(0, self.target_width, self.prompt_tokens)
        for micro in batching.plan(self.pool.lengths[rows], extra, self.token_budget, devices):
            filler = np.full(micro.size - len(micro.rows), micro.rows[-1])
            at = np.concatenate([micro.rows, filler])
            inputs, labels = self.pool.gather(rows[at], micro.width, self.lm.pad_id, self.targets)
            made.append(
                Batch(
                    inputs.input_ids,
                    inputs.mask,
                    labels,
                    prompt[at].astype(np.int32),
                    view[at].astype(np.int32),
                    scale[r[at], b[at]],
                    np.arange(micro.size) < len(micro.rows),
                )
            )
        return [sharding.put(batch, self.mesh, "data") for batch in made]

    def log(self, step: int, metrics: StepMetrics, tracker: Tracker) -> None:
        """Writes one line per run and notices runs that died."""
        loss, norm, healthy, own = jax.device_get(metrics)
        self._notice(step, healthy, tracker)
        for r, run in enumerate(self.runs):
            if self.active[r]:
                tracker.log(
                    {
                        "run": run.name,
                        "step": step,
                        "loss": float(loss[r]),
                        "gradient_norm": float(norm[r]),
                        **{name: value[r].tolist() for name, value in own.items()},
                    }
                )
        live = loss[self.active]
        tracker.advance(step, f"loss {live.mean():.3f}" if live.size else "stopped")

    def summarize(self, tracker: Tracker) -> None:
        """Logs what the method has to say of each run at its end."""
        carry = jax.device_get(self.state.carry)
        for r, run in enumerate(self.runs):
            said = self.method.summarize(jax.tree.map(lambda x, r=r: x[r], carry))
            if said:
                tracker.log({"run": run.name, "step": int(self.steps[r]), "summary": said})

    def _notice(self, step: int, healthy: np.ndarray, tracker: Tracker) -> None:
        died = np.flatnonzero(self.healthy & ~healthy).tolist()
        if died:
            updates = jax.device_get(self.state.updates)
            for r in died:
                tracker.log(
                    {
                        "run": self.runs[r].name,
                        "step": step,
                        "last_good_step": int(updates[r]),
                        "event": "stopped: the loss or its gradient was not finite; the last good"
                        " state is kept. Lower learning_rate.",
                    }
                )
        self.healthy &= healthy

    def evaluate(self, step: int, tracker: Tracker) -> None:
        """Reads the development sets; keeps the parameters of the runs that improved."""
        self._notice(step, jax.device_get(self.state.healthy), tracker)
        better = np.zeros(len(self.runs), bool)
        having = [
            r
            for r in np.flatnonzero(self.folded).tolist()
            if self.runs[r].dev is not None and (step or self.runs[r].keep_start)
        ]
        values = self._development(having)
        for r, value in zip(having, values, strict=True):
            if not self.healthy[r]:
                continue
            self.history[r].append((step, value))
            tracker.log({"run": self.runs[r].name, "step": step, "dev": value})
            if value > self.best_value[r]:
                better[r], self.best_value[r], self.best_step[r] = True, value, step
                self.stale[r] = 0
            elif step:
                self.stale[r] += 1
        if step and better.any():
            self.best = self.programs.keep(self.best, self.state.params, better)
        if self.config.patience:
            self.folded &= (self.stale < self.config.patience) | ~self.healthy

    def _development(self, having: Sequence[int]) -> list[float]:
        jobs, metrics = [], [self.runs[r].dev_metrics for r in having]
        for r in having:
            dev = self.runs[r].dev
            assert dev is not None
            jobs.append(Job(dev, r))
        results = evaluate_runs(
            self.lm, self.method, self.state.params, self.consts, jobs, metrics, self.mesh
        )
        return [
            float(result.metrics[names[0]]) for result, names in zip(results, metrics, strict=True)
        ]

    def results(self, seconds: float = 0.0) -> list[TrainedReplica]:
        """The population's outcome, on the host; the runs share the seconds it took."""
        # Without a development value: the last step, or the last good one.
        last = np.isneginf(self.best_value)
        if last.any():
            self.best = self.programs.keep(self.best, self.state.params, last)
            self.best_step = np.where(last, jax.device_get(self.state.updates), self.best_step)
        params = jax.device_get(self.best)
        prompts = jax.device_get(self.programs.deploy(self.best, self.consts))
        return [
            TrainedReplica(
                run.name,
                jax.tree.map(lambda x, r=r: x[r], params),
                None if prompts is None else prompts[r],
                int(self.best_step[r]),
                float(self.best_value[r]) if np.isfinite(self.best_value[r]) else float("nan"),
                tuple(self.history[r]),
                int(self.steps[r]),
                int(self.steps[r]) * self.config.batch_size,
                int(self.tokens[0, r]),
                int(self.tokens[1, r]),
                bool(self.healthy[r]),
                seconds / len(self.runs),
            )
            for r, run in enumerate(self.runs)
        ]
