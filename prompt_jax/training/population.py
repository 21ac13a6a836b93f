"""A population while it trains: R replicas, each with its own rows, parameters, rate and state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import distributed, sharding
from prompt_jax.data import batching
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.errors import ConfigError, ModelError, TrainingError
from prompt_jax.evaluation import Job
from prompt_jax.evaluation.sweep import embed_rows
from prompt_jax.models.base import LanguageModel
from prompt_jax.streams import key as stream_key
from prompt_jax.training import memory, optimizers
from prompt_jax.training.deployed import evaluate_runs
from prompt_jax.training.protocol import Method, Rows
from prompt_jax.training.step import (
    MicroBatch,
    Programs,
    State,
    StepMetrics,
    Sums,
    Table,
    micro_program,
    programs,
)
from prompt_jax.training.tracking import Tracker
from prompt_jax.training.types import Replica, TrainConfig, TrainedReplica

_DROPOUT = 2**31 - 1  # second word of a replica's stream, for its dropout: no step is that late


class Population:
    """The mutable state of `train`, for callers who drive the steps themselves.

    Args:
      lm: the frozen model.
      method: what is trained.
      replicas: the members.
      config: the budget.
      mesh: rows are split over its 'data' axis, and so are replicas where it divides their number;
        None uses one device.

    Raises:
      ConfigError: no replicas, unequal shapes, or several replicas of a method that trains the
        model.
      ModelError: rows of another model's tokenizer.
    """

    def __init__(
        self,
        lm: LanguageModel,
        method: Method,
        replicas: Sequence[Replica],
        config: TrainConfig,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        check(lm, method, replicas, config)
        lm, mesh = sharding.on_auto_axes(lm), sharding.row_mesh(mesh)
        self.lm, self.method, self.config, self.mesh = lm, method, config, mesh
        self.replicas = replicas
        # Told the rows and tokens of a row of every micro-batch before its program is called.
        self.on_shape: Callable[[int, int], None] | None = None
        splits = [replica.feed.split for replica in replicas]
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
        self.split = data > 1 and len(replicas) % data == 0
        # Trained weights, their gradient and moments, likewise over the devices of one process.
        model = 1 if mesh is None or distributed.is_multiprocess() else mesh.shape["model"]
        self.weights_split = method.trains_lm and model > 1
        placing = mesh if self.split or self.weights_split else None
        self.programs: Programs = programs(method, config.optimizer, placing, lm.partition_rules)

        def stack(*leaves: Any) -> np.ndarray:
            return np.stack([np.asarray(leaf) for leaf in leaves])

        self.consts = self.put(jax.tree.map(stack, *(r.consts for r in replicas)))
        params = self.put(jax.tree.map(stack, *(r.params for r in replicas)))
        self.state: State = self.programs.init(params, self.consts)
        self.best: Any = jax.tree.map(jnp.copy, self.state.params)
        self.keys = jnp.stack([stream_key(replica.seed, "order") for replica in replicas])
        self.dropout_keys: jax.Array | None = None
        if config.dropout:
            self.programs = self.programs._replace(micro=micro_program(method, config.dropout))
            self.dropout_keys = jnp.stack(
                [stream_key(r.seed, r.feed.stream, _DROPOUT) for r in replicas]
            )
        unit = lm.embedding_rms() if config.optimizer.unit == "embedding_rms" else 1.0
        peak = config.optimizer.learning_rate * unit
        self.peaks = np.asarray([peak * replica.rate for replica in replicas], np.float32)
        # A replica that stopped early leaves the fold. One that diverged keeps its place in it: the
        # others' rows stay in the same micro-batches, whose sums stay the same to the last bit.
        self.folded = np.ones(len(replicas), bool)
        self.healthy = np.ones(len(replicas), bool)
        self.best_value = np.full(len(replicas), -np.inf)
        self.best_step = np.zeros(len(replicas), np.int64)
        self.stale = np.zeros(len(replicas), np.int64)
        self.steps = np.zeros(len(replicas), np.int64)
        self.tokens = np.zeros((2, len(replicas)), np.int64)  # input, target
        self.history: list[list[tuple[int, float]]] = [[] for _ in replicas]
        table = self._table()
        self.prompt_tokens = 0 if table.prompts is None else int(table.prompts.shape[-2])
        self.has_teacher = table.teacher is not None
        self.weights_rows = table.row_weights is not None
        self.token_budget = self._token_budget()

    @property
    def active(self) -> np.ndarray:
        """Which replicas still train, bool [R]."""
        return self.folded & self.healthy

    def put(self, tree: Any) -> Any:
        """Places host arrays [R, ...]."""
        if self.weights_split:
            assert self.mesh is not None
            return sharding.put_state(tree, self.lm.partition_rules, self.mesh)
        return sharding.put(tree, self.mesh, *(("data",) if self.split else ()))

    def _table(self) -> Table:
        """The shapes of what `prepare` makes."""
        rows = self._method_rows(np.tile(self.first[:, None], (1, self.config.batch_size)))
        if self.method.needs_embeddings:
            rows = jax.eval_shape(embed_rows, self.lm, rows)
        table, _ = jax.eval_shape(
            self.programs.prepare,
            self.state,
            self.consts,
            rows,
            np.int32(0),
            self.keys,
        )
        return table

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
            teacher=self.has_teacher,
            dropout=self.config.dropout,
        )
        return budget * devices

    def _method_rows(self, index: np.ndarray, scale: np.ndarray | None = None) -> Rows:
        """What `Method.prompts` sees of the pool rows `index` [R, B]."""
        flat = index.reshape(-1)
        ids: Any = np.zeros((*index.shape, 0), np.int32)
        mask: Any = ids
        if self.method.needs_inputs or self.method.needs_embeddings:
            gathered, _ = self.pool.gather(flat, self.input_width, self.lm.pad_id)
            ids = gathered.input_ids.reshape(*index.shape, -1)
            mask = gathered.mask.reshape(*index.shape, -1)
        task, template = self.pool.tasks_and_templates(flat)
        if scale is None:
            scale = np.ones(index.shape, np.float32)
        return Rows(ids, mask, task.reshape(index.shape), template.reshape(index.shape), scale)

    def step(self, step: int) -> StepMetrics:
        """One optimizer step of every active replica."""
        local = self._local_rows(step)
        pairs = zip(self.replicas, local, strict=True)
        scale = np.stack([replica.feed.scale(rows) for replica, rows in pairs]).astype(np.float32)
        index = local + self.first[:, None]  # [R, B], pool rows
        rows = self.put(self._method_rows(index, scale))
        if self.method.needs_embeddings:
            rows = embed_rows(self.lm, rows)
        at = np.int32(step)
        keys = _of_step(self.keys, at)
        table, sums = self.programs.prepare(self.state, self.consts, rows, at, keys)
        if self.dropout_keys is not None:
            table = table._replace(keys=_of_step(self.dropout_keys, at))
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

    def shapes(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Rows and tokens of a row of the micro-batches of some steps, each once, in order of use.

        Each is a program to compile. Only the host computes.

        Args:
          start: the first step.
          stop: after the last one.
        """
        found: dict[tuple[int, int], None] = {}
        for step in range(start, stop):
            _, _, plans = self._plan(self._local_rows(step) + self.first[:, None])
            found.update(dict.fromkeys((p.size, p.width + self.prompt_tokens) for p in plans))
        return list(found)

    def _local_rows(self, step: int) -> np.ndarray:
        """The rows [R, B] of a step, numbered within the split of each replica."""
        return np.stack([replica.feed.rows(step) for replica in self.replicas])

    def _micro(self, table: Table, sums: Sums, batch: MicroBatch) -> Sums:
        rows, width = batch.input_ids.shape
        if self.on_shape is not None:
            self.on_shape(rows, width + self.prompt_tokens)
        try:
            state = self.state if self.method.trains_lm else None
            return self.programs.micro(self.lm, state, table, sums, batch)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise TrainingError(
                f"out of device memory in a micro-batch of {rows} rows x"
                f" {width + self.prompt_tokens} tokens. Lower micro_batch_tokens (now"
                f" {self.token_budget}), data.max_input_tokens or prompt.tokens, or use"
                " dtype=bfloat16."
            ) from error

    def _plan(
        self, index: np.ndarray
    ) -> tuple[batching.Folded, np.ndarray, list[batching.BatchPlan]]:
        """Folds the rows of all replicas under all views; their pool rows; the micro-batches."""
        method, devices = self.method, 1 if self.mesh is None else self.mesh.shape["data"]
        folded = batching.fold(
            index.shape,
            self.folded,
            method.views,
            by_row=method.rowwise,
            tasks=self._tasks(index) if method.per_view_batches else None,
        )
        rows = index[folded.replica, folded.row]
        extra = self.lm.row_tokens(0, self.target_width, self.prompt_tokens)
        plans = batching.plan(self.pool.lengths[rows], extra, self.token_budget, devices)
        return folded, rows, plans

    def _micro_batches(self, index: np.ndarray, scale: np.ndarray) -> list[MicroBatch]:
        """The rows of a step, cut into micro-batches of a few shapes."""
        folded, rows, plans = self._plan(index)
        scale = (scale * folded.share)[folded.replica, folded.row]
        place = (folded.view * index.shape[1] + folded.row).astype(np.int32)
        placed = []
        for plan in plans:
            at = plan.padded()
            inputs, labels = self.pool.gather(rows[at], plan.width, self.lm.pad_id, self.targets)
            batch = MicroBatch(
                inputs.input_ids,
                inputs.mask,
                labels,
                folded.prompt[at],
                folded.view[at],
                scale[at],
                np.arange(plan.size) < len(plan.rows),
                place[at] if self.weights_rows else None,
                folded.row[at].astype(np.int32) if self.config.dropout else None,
            )
            placed.append(batch)
        return [sharding.put(batch, self.mesh, "data") for batch in placed]

    def _tasks(self, index: np.ndarray) -> np.ndarray:
        return self.pool.tasks_and_templates(index.reshape(-1))[0].reshape(index.shape)

    def log(self, step: int, metrics: StepMetrics, tracker: Tracker) -> None:
        """Logs one line per active replica, and which replicas diverged."""
        loss, norm, healthy, own = jax.device_get(metrics)
        self._update_health(step, healthy, tracker)
        for r, replica in enumerate(self.replicas):
            if self.active[r]:
                numbers = {
                    "step": step,
                    "loss": float(loss[r]),
                    "gradient_norm": float(norm[r]),
                    **{name: value[r].tolist() for name, value in own.items()},
                }
                tracker.log(replica.key, numbers)
        live = loss[self.active]
        tracker.advance(step, f"loss {live.mean():.3f}" if live.size else "stopped")

    def summarize(self, tracker: Tracker) -> None:
        """Logs the method's summary of each replica at its end."""
        carry = jax.device_get(self.state.carry)
        for r, replica in enumerate(self.replicas):
            summary = self.method.summarize(jax.tree.map(lambda x, r=r: x[r], carry))
            if summary:
                tracker.log(replica.key, {"step": int(self.steps[r]), "summary": summary})

    def _update_health(self, step: int, healthy: np.ndarray, tracker: Tracker) -> None:
        diverged = np.flatnonzero(self.healthy & ~healthy).tolist()
        updates = jax.device_get(self.state.updates) if diverged else ()
        for r in diverged:
            event = {
                "step": step,
                "last_good_step": int(updates[r]),
                "event": "stopped: the loss or its gradient was not finite; the last good state is"
                " kept. Lower learning_rate.",
            }
            tracker.log(self.replicas[r].key, event)
        self.healthy &= healthy

    def evaluate(self, step: int, tracker: Tracker) -> None:
        """Evaluates the development sets; keeps the parameters of the replicas that improved."""
        self._update_health(step, jax.device_get(self.state.healthy), tracker)
        better = np.zeros(len(self.replicas), bool)
        having = [
            r
            for r in np.flatnonzero(self.folded).tolist()
            if self.replicas[r].developments and (step or self.replicas[r].keep_start)
        ]
        values = self._development(having)
        for r, value in zip(having, values, strict=True):
            if not self.healthy[r]:
                continue
            self.history[r].append((step, value))
            tracker.log(self.replicas[r].key, {"step": step, "dev": value})
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
        return development_values(
            self.lm,
            self.method,
            self.state.params,
            self.consts,
            {r: self.replicas[r] for r in having},
            self.mesh,
        )

    def results(self, seconds: float = 0.0) -> list[TrainedReplica]:
        """The population's results, on the host; the replicas share the seconds it took."""
        # Without a development value: the last step, or the last good one.
        last = np.isneginf(self.best_value)
        if last.any():
            self.best = self.programs.keep(self.best, self.state.params, last)
            self.best_step = np.where(last, jax.device_get(self.state.updates), self.best_step)
        params = jax.device_get(self.best)
        prompts = jax.device_get(self.programs.deploy(self.best, self.consts))
        values = np.where(np.isfinite(self.best_value), self.best_value, np.nan)
        return [
            TrainedReplica(
                key=replica.key,
                params=jax.tree.map(lambda x, r=r: x[r], params),
                prompt=None if prompts is None else prompts[r],
                best_step=int(self.best_step[r]),
                best_value=float(values[r]),
                history=tuple(self.history[r]),
                steps=int(self.steps[r]),
                rows_seen=int(self.steps[r]) * self.config.batch_size,
                tokens_seen=int(self.tokens[0, r]),
                targets_seen=int(self.tokens[1, r]),
                healthy=bool(self.healthy[r]),
                seconds=seconds / len(self.replicas),
            )
            for r, replica in enumerate(self.replicas)
        ]


def development_values(
    lm: LanguageModel,
    method: Method,
    params: Any,
    consts: Any,
    replicas: Mapping[int, Replica],
    mesh: jax.sharding.Mesh | None = None,
) -> list[float]:
    """The development values of replicas: the first metric, or the mean of those of their tasks.

    Args:
      lm: the frozen model.
      method: whose replicas these are.
      params: leaves [R, ...].
      consts: leaves [R, ...].
      replicas: those with development rows, by their place on the axis R.
      mesh: rows are split over its 'data' axis.
    """
    parts = [(r, *part) for r, replica in replicas.items() for part in replica.developments]
    jobs, metrics = [Job(rows, r) for r, rows, _ in parts], [names for _, _, names in parts]
    results = evaluate_runs(lm, method, params, consts, jobs, metrics, mesh)
    values: dict[int, list[float]] = {r: [] for r in replicas}
    for (r, _, names), result in zip(parts, results, strict=True):
        values[r].append(float(result.metrics[names[0]]))
    # One value as it is: a mean of one is the same number.
    return [sum(each) / len(each) for each in values.values()]


def _of_step(keys: jax.Array, step: np.int32) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, step)


def check(
    lm: LanguageModel, method: Method, replicas: Sequence[Replica], config: TrainConfig
) -> None:
    """Refuses replicas that cannot be trained together.

    Raises:
      ConfigError: no replicas, unequal shapes or batch sizes, or several replicas of a method that
        trains the model.
      ModelError: rows of another model's tokenizer.
    """
    if not replicas:
        raise ConfigError("a population needs at least one replica.")
    if method.trains_lm and len(replicas) > 1:
        raise ConfigError(f"{method.name} trains the model itself: train its replicas one by one.")
    shapes = [
        jax.tree.map(lambda x: (x.shape, str(x.dtype)), (replica.params, replica.consts))
        for replica in replicas
    ]
    for replica, shape in zip(replicas, shapes, strict=True):
        if shape != shapes[0]:
            raise ConfigError(
                f"replica {replica.key} has parameters {shape}, but {replicas[0].key} has"
                f" {shapes[0]}: replicas of one population have equal shapes."
            )
        if replica.feed.batch_size != config.batch_size:
            raise ConfigError(
                f"replica {replica.key} feeds {replica.feed.batch_size} rows per step, not"
                f" batch_size={config.batch_size}."
            )
    for split in {id(replica.feed.split): replica.feed.split for replica in replicas}.values():
        check_tokens(lm, split)


def check_tokens(lm: LanguageModel, split: TokenisedSplit) -> None:
    """Refuses rows with tokens that the model does not have.

    Such a token would embed as NaN, and the replica would seem to diverge.

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
