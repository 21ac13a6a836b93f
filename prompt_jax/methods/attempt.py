"""ATTEMPT (Asai et al. 2022, arXiv 2205.11961): each row attends over frozen source prompts.

Written from the paper's formulas and the facts of the released code; docs/methods.md says of every
choice whether it is published, reconstructed or ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import streams
from prompt_jax.errors import ConfigError
from prompt_jax.memory_bank import pool
from prompt_jax.methods.base import TOGETHER, BaseMethod, Context, Panel, Stage, by_task, together
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_ATTENTION = 11  # word of the stream "init" that the attention's weights are drawn from
_SOURCES, _PRETRAINING = "sources", "attention"


@dataclass(frozen=True)
class Attempt(BaseMethod):
    """P(x) = P_T + sum over the sources and P_T itself of a_j(x) P_j; sources and model are frozen.

        a(x) = softmax_j( max(P_j) . H(x) / (e D) ),   H = LayerNorm(W_up SiLU(W_down max(E(x))))

    The maxima are over tokens. Of a row they are over its real tokens, so a prompt does not depend
    on padding (ours: the released code pools padding too). Each row has a prompt of its own, so
    what is kept of a target is the trained method, not one prompt.

    As published: the formulas, frozen sources, one rate for all that is trained, a layer norm that
    stays the identity, P_T that starts at the first source. Reconstructed: the draw of W_down and
    W_up (torch's for a linear layer), what the pre-trained attention is trained on. Ours: e D in
    place of the constant 2087, which is that of T5-base.

    Params: `prompt` [K', L, D], one P_T for each task of the rows (K' = 1 unless tasks are trained
    together), `down` [D, W], `up` [W, D], and with `norm=trained` `scale` and `shift` [D].

    Attributes:
      shared: one attention for all targets, which are trained together, each with its own P_T
        (ATTEMPT-m); every step has as many rows of each target as one that is trained alone.
      pretrained: the attention starts as it is after training on the mixture of the sources, each
        with a P_T of its own, which is then dropped.
      width: of the attention's bottleneck, W.
      temperature: multiplies e D; `inf` gives every prompt the same weight. Scores grow with the
        scale of the embeddings: where their root mean square is far below T5-base's 10, a
        temperature of 1 is nearly `inf`.
      norm: of H: `frozen` at the identity as in the released code, or with a `trained` scale and
        shift as in the paper's count of parameters.
      start: of P_T: the `first` source, or the seed's `initial` prompt.
      attention_rate: learning rate of the attention relative to P_T's. (The released configuration
        names 0.1 beside 0.3, but its code trains both at 0.3.)
    """

    shared: bool = False
    pretrained: bool = False
    width: int = 100
    temperature: float = 1.0
    norm: Literal["frozen", "trained"] = "frozen"
    start: Literal["first", "initial"] = "first"
    attention_rate: float = 1.0

    name = "attempt"
    paper = "Asai et al. 2022, arXiv 2205.11961"
    status = "as published"
    rowwise = True
    panels = (
        Panel(
            "attention",
            "lines",
            "Attention on the sources",
            "Mean over the rows of a step; what is missing to 1 is the target's own prompt.",
            "sources",
        ),
    )

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"{self.name}: width must be at least 1, not {self.width}.")
        if not self.temperature > 0:
            raise ConfigError(f"{self.name}: temperature must be positive, not {self.temperature}.")
        if not 0 <= self.attention_rate < math.inf:
            raise ConfigError(
                f"{self.name}: attention_rate must not be negative, but is {self.attention_rate}."
            )

    @property
    def needs_embeddings(self) -> bool:
        """Each row asks with its own tokens."""
        return True

    def stages(self) -> tuple[Stage, ...]:
        """The sources, the attention on their mixture if pre-trained, the target or all targets."""
        first = [Stage(_SOURCES, on="source", trains=BaseMethod(), budget="source")]
        if self.pretrained:
            alone = dataclasses.replace(self, shared=False)
            trains = None if alone == self else alone
            first.append(Stage(_PRETRAINING, on="mixture", trains=trains, budget="source"))
        if self.shared:
            first.append(together())
        return (*first, Stage("target", on="target", part=(0.0, 0.0 if self.shared else 1.0)))

    def init(self, context: Context) -> tuple[Params, Consts]:
        """P_T of every task of the rows, and an attention: new, pre-trained, or that of all."""
        sources = np.asarray(context.artefact(_SOURCES).prompts, np.float32)
        consts = {
            "sources": sources,
            "sharpness": np.float32(1 / (self.temperature * math.e * sources.shape[2])),
        }
        if self.shared and context.stage not in (TOGETHER, _PRETRAINING):
            joint = context.artefact(TOGETHER).params[0]
            place = context.place
            return {**joint, "prompt": joint["prompt"][place : place + 1]}, consts
        tasks = {TOGETHER: context.targets, _PRETRAINING: context.sources}
        count = len(tasks.get(context.stage, (context.target,)))
        start = sources[0] if self.start == "first" else np.asarray(context.initial, np.float32)
        attention = self._new_attention(context)
        if self.pretrained and context.stage != _PRETRAINING:
            trained = context.artefact(_PRETRAINING).params[0]
            attention = {name: trained[name] for name in attention}
        return {"prompt": np.repeat(start[None], count, 0), **attention}, consts

    def _new_attention(self, context: Context) -> dict[str, Any]:
        wide = context.initial.shape[1]
        draw = streams.rng(context.seed, "init", _ATTENTION)

        def linear(inputs: int, outputs: int) -> np.ndarray:
            bound = inputs**-0.5
            return draw.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)

        made = {"down": linear(wide, self.width), "up": linear(self.width, wide)}
        if self.norm == "trained":
            made |= {"scale": np.ones(wide, np.float32), "shift": np.zeros(wide, np.float32)}
        return made

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The prompt of each row, [1, B, L, D]; its attention, [B, K + 1], in `aux`."""
        own = by_task(params["prompt"], rows.task)
        query = self._query(params, pool(rows.embedded, rows.mask, "max"))
        sources = consts["sources"]
        scores = jnp.concatenate(
            [
                jnp.matmul(query, sources.max(1).T, precision="highest"),
                jnp.sum(query * own.max(1), axis=1, keepdims=True),
            ],
            axis=1,
        )
        attention = jax.nn.softmax(scores * consts["sharpness"], axis=1)
        mixed = jnp.einsum("bk,kld->bld", attention[:, :-1], sources, precision="highest")
        prompts = own * (1.0 + attention[:, -1, None, None]) + mixed
        return Prompted(prompts[None], carry=carry, aux=attention)

    def _query(self, params: Params, pooled: jax.Array) -> jax.Array:
        """H, [B, D]."""
        hidden = jax.nn.silu(jnp.matmul(pooled, params["down"], precision="highest"))
        x = jnp.matmul(hidden, params["up"], precision="highest")
        x = x - x.mean(1, keepdims=True)
        # A small epsilon: torch's 1e-5 is as nothing at T5's scale, but not at a small model's.
        x = x * jax.lax.rsqrt((x**2).mean(1, keepdims=True) + 1e-12)
        if self.norm == "trained":
            x = x * params["scale"][None] + params["shift"][None]
        return x

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Mean attention on each source, and on the target's own prompt."""
        mean = prompted.aux.mean(0)
        return {"attention": mean[:-1], "own_attention": mean[-1]}

    def groups(self, params: Params) -> Any:
        """Groups `prompt` and `attention`."""
        return {name: "prompt" if name == "prompt" else "attention" for name in params}

    def group_rates(self) -> dict[str, float]:
        """The attention has a rate of its own."""
        return {"attention": self.attention_rate}

    def deploy(self, params: Params, consts: Consts) -> None:
        """No single prompt: it depends on the row."""
