"""The compiled programs of one training step of a population.

`prepare` makes the prompts of all replicas, `micro` sends rows with different prompts through the
frozen model and adds up losses and prompt gradients, `finish` pulls these back to the parameters of
each replica and applies its optimizer. See docs/architecture.md for why they are three.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_jax import sharding
from prompt_jax.errors import ConfigError
from prompt_jax.models.base import LanguageModel
from prompt_jax.models.dropout import Dropout
from prompt_jax.run_key import RunKey
from prompt_jax.sharding import Rules
from prompt_jax.training import optimizers
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.protocol import Array, Method, Prompted, Rows

# Keys of a line in metrics.jsonl that no method may use for its own numbers.
RESERVED = frozenset(RunKey().fields()) | {
    "step",
    "seconds",
    "loss",
    "gradient_norm",
    "dev",
    "event",
    "last_good_step",
    "summary",
}


class State(NamedTuple):
    """Everything a population changes while it trains; leaves have a leading axis R."""

    params: Any
    opt_state: Any
    carry: Any
    healthy: jax.Array  # [R] bool; False once a replica's loss, gradient or update was not finite
    updates: jax.Array  # [R] int32, updates applied so far


class Table(NamedTuple):
    """The prompts of a step, a row per (replica, view) or (replica, view, row), then padding."""

    prompts: jax.Array | None  # [P, L, D] float32
    teacher: jax.Array | None  # [P, L, D]
    row_weights: jax.Array | None = None  # [R * V * B and padding] float32
    keys: jax.Array | None = None  # [R] keys of this step's dropout, where there is any


class MicroBatch(NamedTuple):
    """One micro-batch as the device sees it."""

    input_ids: Array  # [b, S] int32
    mask: Array  # [b, S] int32
    labels: Array  # [b, T] int32, -100 after the end
    prompt: Array  # [b] int32, row of the table
    view: Array  # [b] int32, r * V + v: where the row's loss is added
    scale: Array  # [b] float32, N_k / |B_k|
    real: Array  # [b] bool, False for fillers
    row: Array | None = None  # [b] int32, view * B + its place in the batch, for `row_weights`
    place: Array | None = None  # [b] int32, the row's place in its replica's batch, for dropout


class Sums(NamedTuple):
    """What a step adds up over its micro-batches."""

    prompts: jax.Array | None  # [P, L, D], gradient of the summed row losses
    lm: Any  # gradient of the model's weights where the method trains them
    loss: jax.Array  # [R * V and padding] float32
    weight: jax.Array  # [R * V and padding] float32
    rows: jax.Array | None = None  # [R * V * B and padding], gradient of `Table.row_weights`


class StepMetrics(NamedTuple):
    """Per replica, for the log."""

    loss: jax.Array  # [R] float32, mean over views of the row loss per token
    gradient_norm: jax.Array  # [R] float32
    healthy: jax.Array  # [R] bool
    own: dict[str, jax.Array]  # the method's own numbers, [R, ...]


class Programs(NamedTuple):
    """The jitted functions of a (method, optimizer) pair."""

    init: Any
    prepare: Any
    micro: Any
    finish: Any
    keep: Any
    deploy: Any


@functools.lru_cache(maxsize=64)
def micro_program(method: Method, dropout: float = 0.0) -> Any:
    """The pass of a micro-batch through the model, the only program of any size.

    Args:
      method: the method.
      dropout: `TrainConfig.dropout`. Above 0, a row's mask is a function of its replica's key of
        the step (`Table.keys`) and of its place in the batch: the same under all views.

    Returns:
      A jitted `(lm, state, table, sums, batch) -> sums`; `state` is None unless the method trains
      the model. It does not depend on the optimizer, so budgets share its compilations.
    """

    def micro(
        lm: LanguageModel, state: State | None, table: Table, sums: Sums, batch: MicroBatch
    ) -> Sums:
        _check_batch(table, sums, batch)
        real = batch.real.astype(jnp.float32)

        def objective(trained: tuple[Any, Any]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            prompts, weights = trained
            model = lm if weights is None else lm.replace(params=weights)

            def score(table: jax.Array | None, **options: Any) -> Any:
                chosen = None if table is None else table[batch.prompt]
                return model.score(
                    batch.input_ids,
                    batch.mask,
                    batch.labels,
                    chosen,
                    observe=method.observe,
                    **options,
                )

            teacher = None
            if table.teacher is not None:
                teacher = jax.lax.stop_gradient(score(table.teacher))
            dropped = {"dropout": _dropout(method, dropout, table, batch)} if dropout else {}
            row = method.row_loss(score(prompts, **dropped), teacher)
            chex.assert_shape(
                [row.sum, row.weight],
                real.shape,
                custom_message=f"{method.name}.row_loss returns one sum and one weight per row.",
                exception_type=ConfigError,
            )
            row_sum = row.sum * real
            if method.reduction == "sum":
                row_sum = row_sum * batch.scale
            weighted = row_sum
            if table.row_weights is not None:
                weighted = row_sum * table.row_weights[batch.row]
            return weighted.sum(), (weighted, row.weight * real, row_sum)

        weights = None
        if state is not None:
            weights = method.lm_params(jax.tree.map(lambda x: x[0], state.params))
        (_, (loss, weight, unweighted)), (dprompts, dlm) = jax.value_and_grad(
            objective, has_aux=True
        )((table.prompts, weights))
        return Sums(
            None if sums.prompts is None else sums.prompts + dprompts,
            jax.tree.map(jnp.add, sums.lm, dlm),
            sums.loss.at[batch.view].add(loss),
            sums.weight.at[batch.view].add(weight),
            None if sums.rows is None else sums.rows.at[batch.row].add(unweighted),
        )

    return jax.jit(micro, donate_argnums=(3,))


def programs(
    method: Method, config: OptimizerConfig, mesh: Mesh | None = None, rules: Rules = ()
) -> Programs:
    """The programs of a method; kept, so that equal methods share their compilations.

    Rates are arguments of `finish`: budgets that differ in rate and schedule share them too.

    Args:
      method: the method.
      config: its optimizer.
      mesh: replicas are split over its axis 'data', which divides R; where the method trains the
        model, its weights are split over the axis 'model' instead. None: everything is whole.
      rules: `LanguageModel.partition_rules`; used where the method trains the model on a mesh.
    """
    fixed = dataclasses.replace(
        config, learning_rate=1.0, unit="absolute", warmup_steps=0, schedule="constant"
    )
    if method.reduction == "sum":  # no norm of a mean: it would be cut at nearly every step
        fixed = dataclasses.replace(fixed, clip_norm=0.0)
    if mesh is None or not method.trains_lm:
        rules = ()
    return _programs(method, fixed, mesh, rules)


@functools.lru_cache(maxsize=64)
def _programs(method: Method, config: OptimizerConfig, mesh: Mesh | None, rules: Rules) -> Programs:
    split: NamedSharding | None = None
    whole: NamedSharding | None = None
    if mesh is not None and not method.trains_lm:
        split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))

    def everywhere(x: jax.Array) -> jax.Array:
        """Whole on every device: arrays with padding are split at other places than replicas."""
        return x if whole is None else jax.lax.with_sharding_constraint(x, whole)

    def placed(tree: Any) -> Any:
        """Trained weights, and what is shaped like them, stay where the rule table put them."""
        if mesh is None or not method.trains_lm:
            return tree
        where = sharding.state_shardings(tree, rules, mesh)
        return jax.lax.with_sharding_constraint(tree, where)

    tx = method.transform(optimizers.build(config))
    multipliers = dict(method.group_rates())
    for group, multiplier in config.group_multipliers().items():
        multipliers[group] = multipliers.get(group, 1.0) * multiplier

    def init(params: Any, consts: Any) -> State:
        replicas = jax.tree.leaves(params)[0].shape[0]
        return placed(
            State(
                params,
                jax.vmap(tx.init)(params),
                jax.vmap(method.carry)(params, consts),
                jnp.ones((replicas,), bool),
                jnp.zeros((replicas,), jnp.int32),
            )
        )

    def prompts(params: Any, consts: Any, carry: Any, rows: Rows, step: Any, key: Any) -> Any:
        made = method.prompts(params, consts, carry, rows, step, key)
        _check_prompts(method, made, rows)
        return made

    def prepare(state: State, consts: Any, rows: Rows, step: Any, keys: Any) -> tuple[Table, Sums]:
        made = jax.vmap(prompts, (0, 0, 0, 0, None, 0))(
            state.params, consts, state.carry, rows, step, keys
        )

        def flat(x: jax.Array | None) -> jax.Array | None:
            if x is None:
                return None
            x = everywhere(x)
            x = x.reshape(-1, *x.shape[-2:])
            return jnp.pad(x, ((0, _padded(len(x)) - len(x)), (0, 0), (0, 0)))

        row_weights = made.row_weights
        if row_weights is not None:
            row_weights = everywhere(row_weights).astype(jnp.float32).reshape(-1)
            row_weights = jnp.pad(row_weights, (0, _padded(len(row_weights)) - len(row_weights)))
        table = Table(flat(made.prompts), flat(made.teacher), row_weights)
        views = _padded(state.healthy.shape[0] * method.views)
        lm = placed(jax.tree.map(jnp.zeros_like, method.lm_params(state.params)))
        sums = Sums(
            None if table.prompts is None else jnp.zeros_like(table.prompts),
            jax.tree.map(lambda g: g[0], lm),
            jnp.zeros((views,), jnp.float32),
            jnp.zeros((views,), jnp.float32),
            None if row_weights is None else jnp.zeros_like(row_weights),
        )
        return table, sums

    def finish_one(
        params: Any,
        opt_state: Any,
        carry: Any,
        consts: Any,
        rows: Rows,
        healthy: jax.Array,
        active: jax.Array,
        learning_rate: jax.Array,
        key: jax.Array,
        dprompts: Any,
        dlm: Any,
        loss: jax.Array,
        weight: jax.Array,
        row_losses: Any,
        step: jax.Array,
    ) -> tuple[tuple[Any, Any, Any, jax.Array], StepMetrics]:
        # loss, weight: [V]; dprompts: [V, L, D] or [V, B, L, D]; row_losses: [V, B] or None
        if method.reduction == "mean":
            per_view = 1.0 / jnp.maximum(weight, 1.0)
        else:
            per_view = jnp.ones_like(weight)

        def total(p: Any) -> tuple[jax.Array, Any]:
            # Linear in the prompts, with the model's gradient as coefficients: its derivative is
            # the pull-back of that gradient plus the gradient of the penalty.
            made = prompts(p, consts, carry, rows, step, key)
            value = method.penalty(p, consts, made.aux, step)
            if made.prompts is not None:
                shape = (-1,) + (1,) * (made.prompts.ndim - 1)
                value += jnp.vdot(made.prompts, dprompts * per_view.reshape(shape))
            if made.row_weights is not None:
                value += jnp.vdot(made.row_weights, row_losses * per_view[:, None])
            return value, made

        grads, made = jax.grad(total, has_aux=True)(params)
        if method.trains_lm:
            trained = method.lm_params(params)
            scaled = jax.tree.map(lambda g: g * per_view[0].astype(g.dtype), dlm)
            _, back = jax.vjp(method.lm_params, params)
            grads = jax.tree.map(jnp.add, grads, back(jax.tree.map(_cast_like, scaled, trained))[0])
        mean_loss = (loss / jnp.maximum(weight, 1.0)).mean()
        norm = optax.tree.norm(grads)
        updates, new_opt = tx.update(grads, opt_state, params)

        def scaled_update(update: jax.Array, group: str) -> jax.Array:
            factor = -learning_rate * multipliers.get(group, 1.0)
            return update * factor.astype(update.dtype)

        updates = jax.tree.map(scaled_update, updates, method.groups(params))
        new_params = optax.apply_updates(params, updates)
        # The new parameters too: a step that overflows would otherwise become the last good state.
        finite = jnp.isfinite(mean_loss) & jnp.isfinite(norm)
        for leaf in jax.tree.leaves(new_params):
            finite &= jnp.isfinite(leaf).all()
        healthy = healthy & (finite | ~active)
        take = healthy & active

        def choose(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(take, n, o), new, old)

        kept = choose((new_params, new_opt, made.carry), (params, opt_state, carry))
        own = {**method.metrics(params, consts, made), **method.update_metrics(new_opt)}
        if taken := RESERVED & set(own):
            raise ValueError(f"{method.name}.metrics: {', '.join(sorted(taken))} is the trainer's.")
        return (*kept, healthy), StepMetrics(mean_loss, norm, healthy, own)

    def finish(
        state: State,
        consts: Any,
        rows: Rows,
        sums: Sums,
        active: jax.Array,
        learning_rates: jax.Array,
        keys: jax.Array,
        step: jax.Array,
    ) -> tuple[State, StepMetrics]:
        replicas = state.healthy.shape[0]
        chex.assert_shape([active, learning_rates, keys], (replicas,))
        chex.assert_equal_shape([sums.loss, sums.weight])
        inner = (replicas, method.views) + (
            (rows.task.shape[1],) if method.rowwise and sums.prompts is not None else ()
        )
        dprompts = None
        if sums.prompts is not None:
            dprompts = everywhere(sums.prompts[: math.prod(inner)])
            dprompts = dprompts.reshape(*inner, *dprompts.shape[-2:])
        lm = jax.tree.map(lambda g: g[None], sums.lm)

        def per_view(x: jax.Array) -> jax.Array:
            return everywhere(x[: replicas * method.views]).reshape(replicas, method.views)

        row_losses = None
        if sums.rows is not None:
            by_row = (replicas, method.views, rows.task.shape[1])
            row_losses = everywhere(sums.rows[: math.prod(by_row)]).reshape(by_row)

        new, metrics = jax.vmap(finish_one, (0,) * 14 + (None,))(
            state.params,
            state.opt_state,
            state.carry,
            consts,
            rows,
            state.healthy,
            active,
            learning_rates,
            keys,
            dprompts,
            lm,
            per_view(sums.loss),
            per_view(sums.weight),
            row_losses,
            step,
        )
        params, opt_state, carry, healthy = new
        updates = state.updates + (healthy & active).astype(jnp.int32)
        return placed(State(params, opt_state, carry, healthy, updates)), metrics

    def keep(best: Any, params: Any, better: jax.Array) -> Any:
        """Takes over the parameters of the replicas that improved."""

        def one(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

        return placed(jax.tree.map(one, best, params))

    def jitted(program: Any, where: NamedSharding | None, **options: Any) -> Any:
        if where is not None:
            options["out_shardings"] = where
        return jax.jit(program, **options)

    return Programs(
        jitted(init, split),
        jitted(prepare, whole),
        micro_program(method),
        jitted(finish, split, donate_argnums=(0,)),
        jitted(keep, split, donate_argnums=(0,)),
        jitted(jax.vmap(method.deploy), split),
    )


def _dropout(method: Method, rate: float, table: Table, batch: MicroBatch) -> Dropout:
    assert table.keys is not None
    assert batch.place is not None
    keys = table.keys[batch.view // method.views]
    return Dropout(jax.vmap(jax.random.fold_in)(keys, batch.place), rate)


def _check_batch(table: Table, sums: Sums, batch: MicroBatch) -> None:
    """Array contracts of a micro-batch."""
    chex.assert_rank([batch.input_ids, batch.mask, batch.labels], 2)
    chex.assert_equal_shape([batch.input_ids, batch.mask])
    rows = batch.input_ids.shape[:1]
    chex.assert_shape(batch.labels, (*rows, None))
    chex.assert_shape([batch.prompt, batch.view, batch.scale, batch.real], rows)
    chex.assert_type([batch.prompt, batch.view, batch.real], [jnp.int32, jnp.int32, jnp.bool_])
    chex.assert_equal_shape([sums.loss, sums.weight])
    if table.row_weights is not None:
        chex.assert_equal_shape([table.row_weights, sums.rows])
        chex.assert_shape(batch.row, rows)
    if table.prompts is not None:
        chex.assert_rank(table.prompts, 3)
        tables = [table.prompts, sums.prompts, table.teacher]
        chex.assert_equal_shape([x for x in tables if x is not None])


def _check_prompts(method: Method, output: Prompted, rows: Rows) -> None:
    """The prompts of one replica: [V, L, D], or [V, B, L, D] if row-wise; weights [V, B]."""
    leading = (method.views, rows.task.shape[0]) if method.rowwise else (method.views,)
    letters = "[V, B, L, D]" if method.rowwise else "[V, L, D]"
    message = f"{method.name}.prompts returns floats {letters} with V = {method.views}."
    for prompts in (output.prompts, output.teacher):
        if prompts is not None:
            shape = (*leading, None, None)
            chex.assert_shape(prompts, shape, custom_message=message, exception_type=ConfigError)
            chex.assert_type(prompts, float, custom_message=message, exception_type=ConfigError)
    if output.row_weights is not None:
        chex.assert_shape(
            output.row_weights,
            (method.views, rows.task.shape[0]),
            custom_message=f"{method.name}.prompts returns row_weights [V, B] with V ="
            f" {method.views}.",
            exception_type=ConfigError,
        )


def _padded(count: int) -> int:
    """Rows of a table for `count` of them: few sizes, so that populations share programs."""
    return max(8, 1 << (count - 1).bit_length()) if count <= 64 else -(-count // 64) * 64


def _cast_like(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
    return gradient.astype(parameter.dtype)
