"""Evaluates trained parameters: the deployed prompt of a replica, or one for each row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax import sharding
from prompt_jax.evaluation import Evaluation, Job, evaluate, evaluate_ensemble
from prompt_jax.evaluation.sweep import EmbeddedBy
from prompt_jax.models.base import LanguageModel
from prompt_jax.training.protocol import Method, Rows


def evaluate_runs(
    lm: LanguageModel,
    method: Method,
    params: Any,
    consts: Any,
    jobs: Sequence[Job],
    metrics: Sequence[tuple[str, ...]],
    mesh: jax.sharding.Mesh | None = None,
) -> list[Evaluation]:
    """Evaluates trained parameters of a population, each job under its own replica.

    Args:
      lm: the frozen model.
      method: whose parameters these are.
      params: leaves [R, ...].
      consts: leaves [R, ...].
      jobs: `Job(split, r)` for replica r.
      metrics: metric names of each job.
      mesh: rows are split over its 'data' axis, trained model weights over 'model'.
    """
    if not jobs:
        return []
    frozen = lm
    if method.trains_lm:
        weights = method.lm_params(jax.tree.map(lambda x: x[0], params))
        if mesh is not None and mesh.shape["model"] > 1:
            weights = sharding.shard_tree(weights, lm.partition_rules, mesh)
        lm = lm.replace(params=weights)
    if method.rowwise:
        cached = _by_template(method)(params, consts)
        if cached is not None:
            return evaluate(
                lm, jobs, cached, metrics=metrics, prompt_fn=take_by_template, mesh=mesh
            )
        state: Any = (params, consts)
        if method.needs_embeddings:  # of the model before training, as in training
            state = EmbeddedBy(frozen, state)
        return evaluate(
            lm, jobs, state, metrics=metrics, prompt_fn=prompt_of_row(method), mesh=mesh
        )
    several = jax.vmap(method.ensemble)(params, consts)
    if several is not None:
        return evaluate_ensemble(lm, jobs, several, metrics=metrics, mesh=mesh)
    return evaluate(lm, jobs, jax.vmap(method.deploy)(params, consts), metrics=metrics, mesh=mesh)


def take_by_template(state: Any, index: jax.Array, rows: Any) -> jax.Array:
    """The evaluator's `prompt_fn` where prompts were made once per template: [R, P, L, D]."""
    return state[index, rows.template]


@functools.lru_cache(maxsize=64)
def _by_template(method: Method) -> Any:
    return jax.jit(jax.vmap(method.template_prompts))


@functools.lru_cache(maxsize=64)
def prompt_of_row(method: Method) -> Any:
    """The evaluator's `prompt_fn` of a row-wise method: one object, so that it compiles once."""

    def prompt_fn(state: Any, index: jax.Array, rows: Any) -> jax.Array | None:
        def one(r: jax.Array, one_row: Any) -> Any:
            params, consts = jax.tree.map(lambda x: x[r], state)
            ids, mask, task, template, embedded = jax.tree.map(lambda x: x[None], one_row)
            row = Rows(ids, mask, task, template, jnp.ones((1,), jnp.float32), embedded)
            made = method.row_prompts(params, consts, row)
            return None if made is None else made[0]

        return jax.vmap(one)(index, rows)

    return prompt_fn
