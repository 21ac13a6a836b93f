"""TAPS (Wallingford et al. 2022, arXiv 2203.16708): how many tokens must be of the task's own.

Written from facts of the released code, which shares the layers of a network; here the tokens of a
prompt. docs/methods.md says of every choice whether it is published, reconstructed or ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import TOGETHER, BaseMethod, Context, Panel, Stage, by_task, together
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_SHARED = "mixture"


@dataclass(frozen=True)
class Taps(BaseMethod):
    """A shared prompt, of which each task replaces the tokens whose score is above a threshold.

        P_t = P_shared + 1{s_t >= threshold} o D_t          s_t [L], D_t [L, D]
        loss + sparsity * mean over tokens of |s_t|         after `warm_up` steps

    The gradient of the step function is taken as 1 (straight-through). P_shared is one prompt tuned
    on the mixture of the sources, and frozen on the target. With `shared=true` it is trained
    together with all targets, without sources.

    As published (code): the threshold, the start of the scores and of the residuals D_t (0), the
    straight-through gradient, the penalty. Ours: tokens in place of layers, the length of the
    warm-up, and a rate of the scores that is the published one at a relative rate of 0.3.

    Params: `residual` [K, L, D] and `scores` [K, L] of each task of the rows (K = 1 unless tasks
    are trained together), the scores in units of the embeddings' root mean square; `prompt` [L, D]
    where it is trained.

    Attributes:
      threshold: at which a token is the task's own.
      start: of the scores.
      sparsity: weight of the penalty, lambda; mean over tasks.
      warm_up: steps without the penalty.
      score_rate: learning rate of the scores relative to the prompts'. At a rate of 0.3 of these in
        units of the embeddings, 1 / 30 moves scores by the published 0.01 a step.
      shared: all targets together, with the prompt that they share.
    """

    threshold: float = 0.1
    start: float = 0.15
    sparsity: float = 1.0
    warm_up: int = 100
    score_rate: float = 1 / 30
    shared: bool = False

    name = "taps"
    paper = "Wallingford et al. 2022, arXiv 2203.16708"
    status = "our extension"
    panels = (
        Panel(
            "own_tokens",
            "lines",
            "Tokens of the task's own",
            "How many tokens of the prompt are not shared; the mean over tasks.",
        ),
        Panel(
            "token_scores",
            "heatmap",
            "Scores of tokens",
            "At the end, tasks downwards: above the threshold a token is the task's own.",
        ),
    )

    def __post_init__(self) -> None:
        for name in ("threshold", "start"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{self.name}: {name} must be finite, not {getattr(self, name)}.")
        if not 0 <= self.sparsity < math.inf:
            raise ConfigError(f"{self.name}: sparsity must not be negative: {self.sparsity}.")
        if not 0 < self.score_rate < math.inf:
            raise ConfigError(f"{self.name}: score_rate must be positive, not {self.score_rate}.")
        if self.warm_up < 0:
            raise ConfigError(f"{self.name}: warm_up must not be negative, but is {self.warm_up}.")

    @property
    def rowwise(self) -> bool:
        """Tasks that are trained together have prompts of their own."""
        return self.shared

    def stages(self) -> tuple[Stage, ...]:
        """One prompt on all sources and then the target, or all targets together."""
        if self.shared:
            return together(), Stage("target", on="target", trains=BaseMethod(), part=(0.0, 0.0))
        mixture = Stage(_SHARED, on="mixture", trains=BaseMethod(), budget="source")
        return mixture, Stage("target", on="target")

    def init(self, context: Context) -> tuple[Params, Consts]:
        """No residual and equal scores; a target's prompt where all were trained together."""
        initial = np.asarray(context.initial, np.float32)
        unit = np.float32(context.lm.embedding_rms())
        if self.shared and context.stage != TOGETHER:
            joint = context.artefact(TOGETHER).params[0]
            place = context.place
            own = {name: joint[name][place : place + 1] for name in ("residual", "scores")}
            made = self._of_tasks({"prompt": joint["prompt"], **own}, {"unit": unit})
            return {"prompt": np.asarray(made[0], np.float32)}, {}
        tasks = len(context.targets) if self.shared else 1
        params = {
            "residual": np.zeros((tasks, *initial.shape), np.float32),
            "scores": np.full((tasks, len(initial)), self.start * unit, np.float32),
        }
        if self.shared:
            return {"prompt": initial, **params}, {"unit": unit}
        shared = np.asarray(context.artefact(_SHARED).prompts[0], np.float32)
        return params, {"prompt": shared, "unit": unit}

    def _of_tasks(self, params: Params, consts: Consts) -> jax.Array:
        """The prompt of each task, [K, L, D]."""
        shared = (params if self.shared else consts)["prompt"]
        scores = jnp.asarray(params["scores"]) / consts["unit"]
        own = (scores >= self.threshold).astype(scores.dtype)
        own += scores - jax.lax.stop_gradient(scores)
        return jnp.asarray(shared)[None] + own[..., None] * params["residual"]

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The target's prompt [1, L, D], or that of each row's task; scores [K, L] in `aux`."""
        made, scores = self._of_tasks(params, consts), params["scores"] / consts["unit"]
        if self.shared:
            made = by_task(made, rows.task)[None]
        return Prompted(made, carry=carry, aux=scores)

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """The mean absolute score, after the warm-up."""
        value = self.sparsity * jnp.abs(aux).mean()
        return jnp.where(step >= self.warm_up, value, jnp.zeros_like(value))

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """The number of tokens of the tasks' own; of several tasks also all scores."""
        scores = prompted.aux
        own = (scores >= self.threshold).astype(scores.dtype)
        found = {"own_tokens": own.sum(1).mean()}
        if len(scores) > 1:
            found["token_scores"] = scores
        return found

    def groups(self, params: Params) -> Any:
        """Groups `prompt` and `scores`."""
        return {name: "scores" if name == "scores" else "prompt" for name in params}

    def group_rates(self) -> dict[str, float]:
        """The scores have a rate of their own."""
        return {"scores": self.score_rate}

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """The target's prompt; None where tasks are trained together."""
        return None if self.shared else self._of_tasks(params, consts)[0]
