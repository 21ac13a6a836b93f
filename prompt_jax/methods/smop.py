"""SMoP (Choi et al. 2023, EMNLP): a router chooses one of a few expert prompts for each row.

Written from facts of the released code. With routers that know the task it is a task-aware mixture
of expert prompts, after Gupta et al. 2022, arXiv 2204.07689. docs/methods.md says of every choice
whether it is published, reconstructed or ours.
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

from prompt_jax import memory_bank as mb
from prompt_jax import streams
from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import TOGETHER, BaseMethod, Context, Panel, Stage, by_task, together
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_DRAWS = 14  # word of the stream "init" that experts and router are drawn from
_SOURCES = "experts"


@dataclass(frozen=True)
class Smop(BaseMethod):
    """Each row gets the prompts of the experts that its router prefers, times their probability.

        p(x) = softmax(r + noise n r),   r = W mean(E(x)) / (temperature u) + A_task
        P(x) = sum over the `top` largest of p_j(x) P_j
        loss + balance * G sum_j f_j mean(p_j)        f_j: share of the rows that j was chosen for

    E(x) are the embeddings of the row's real tokens, u their root mean square over the vocabulary,
    n is normal, drawn anew for each row and step, and 0 in evaluation.

    As published (code): a linear router without bias on the mean embedding, orthogonal at first,
    four experts, one chosen, its probability as a factor, noise relative to the scores, the balance
    and its weight. Ours: experts as long as the experiment's prompts (5 tokens in the paper: set
    prompt.tokens=5), the unit of the router and its rate, experts that start around the
    initialisation, and whatever knows tasks or starts from sources (A, `pretrained`, `shared`).

    Params: `experts` [G, L, D]; `router` [D, G], W; `task` [K, G], A of each task of the rows
    (K = 1 unless tasks are trained together); the last two in units of u.

    Attributes:
      experts: how many, G.
      router: what it reads: the `input`, the `task` alone, or `both`.
      top: how many experts a row gets; 0: all.
      noise: relative standard deviation while training.
      balance: weight of the penalty.
      temperature: of the router's scores, in units of u: 0.1 gives those of the paper where u is
        10, as of T5-base.
      spread: standard deviation of the noise that sets the experts' starts apart around the seed's
        initialisation, in units of u.
      router_rate: learning rate of W and A relative to the experts'.
      pretrained: experts and router start as they are after training on the mixture of sources; A
        at the mean over the sources.
      tuned: on the target: `all`, or the `router` alone under the experts of the sources.
      shared: all targets together share the experts.
    """

    experts: int = 4
    router: Literal["input", "task", "both"] = "input"
    top: int = 1
    noise: float = 1.0
    balance: float = 0.01
    temperature: float = 0.1
    spread: float = 0.1
    router_rate: float = 1e-3
    pretrained: bool = False
    tuned: Literal["all", "router"] = "all"
    shared: bool = False

    name = "smop"
    paper = "Choi et al. 2023, EMNLP (2023.emnlp-main.884)"
    status = "as published"
    panels = (
        Panel("expert_share", "lines", "Rows of each expert", "Share of the rows of a step."),
        Panel(
            "task_experts",
            "heatmap",
            "Experts of tasks",
            "softmax of A at the end, tasks downwards, in the first seed: experts have other"
            " numbers in others.",
            first_seed=True,
        ),
    )

    def __post_init__(self) -> None:
        if self.experts < 1:
            raise ConfigError(f"{self.name}: experts must be at least 1, not {self.experts}.")
        if not 0 <= self.top <= self.experts:
            raise ConfigError(
                f"{self.name}: top is from 1 to experts={self.experts}, or 0 for all of them, not"
                f" {self.top}."
            )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"{self.name}: temperature must be positive, not {self.temperature}.")
        for name in ("noise", "balance", "spread", "router_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{self.name}: {name} must not be negative, but is {getattr(self, name)}."
                )
        if self.tuned == "router" and not self.pretrained:
            raise ConfigError(
                f"{self.name}: tuned=router keeps the experts of the sources: add pretrained=true."
            )

    @property
    def rowwise(self) -> bool:
        """A row's prompt depends on its tokens, or on its task where several are together."""
        return self.router != "task" or self.shared

    @property
    def needs_embeddings(self) -> bool:
        """Of the row, unless the router reads the task alone."""
        return self.router != "task"

    def stages(self) -> tuple[Stage, ...]:
        """The sources' mixture if pre-trained; the target, or all targets together."""
        first = []
        if self.pretrained:
            sources = dataclasses.replace(self, pretrained=False, tuned="all", shared=True)
            first.append(
                Stage(_SOURCES, on="mixture", trains=sources, budget="source", mixing="stratified")
            )
        if not self.shared:
            return (*first, Stage("target", on="target"))
        trains = BaseMethod() if self.router == "task" else None
        return (*first, together(), Stage("target", on="target", trains=trains, part=(0.0, 0.0)))

    def init(self, context: Context) -> tuple[Params, Consts]:
        """Experts and a router: new, those of the sources, or those of all targets together."""
        unit = np.float32(context.lm.embedding_rms())
        consts: dict[str, Any] = {"unit": unit}
        if context.stage == _SOURCES:
            return self._new(context, unit, len(context.sources)), consts
        if self.shared and context.stage != TOGETHER:
            joint = dict(context.artefact(TOGETHER).params[0])
            place = context.place
            if "task" in joint:
                joint["task"] = joint["task"][place : place + 1]
            if self.tuned == "router":
                consts["experts"] = context.artefact(_SOURCES).params[0]["experts"]
            if self.router != "task":
                return joint, consts
            alone = dataclasses.replace(self, shared=False)
            return {"prompt": np.asarray(alone.deploy(joint, consts), np.float32)}, {}
        tasks = len(context.targets) if self.shared else 1
        params = self._new(context, unit, tasks)
        if self.pretrained:
            trained = context.artefact(_SOURCES).params[0]
            params |= {name: trained[name] for name in params if name != "task"}
            if "task" in params:
                mean = trained["task"].mean(0, dtype=np.float64)
                params["task"] = np.repeat(mean.astype(np.float32)[None], tasks, 0)
        if self.tuned == "router":
            consts["experts"] = params.pop("experts")
        return params, consts

    def _new(self, context: Context, unit: np.float32, tasks: int) -> dict[str, Any]:
        initial = np.asarray(context.initial, np.float32)
        draw = streams.rng(context.seed, "init", _DRAWS)
        noise = draw.normal(size=(self.experts, *initial.shape))
        made = {"experts": (initial[None] + self.spread * unit * noise).astype(np.float32)}
        square = draw.normal(size=(initial.shape[1], self.experts))
        task = draw.normal(size=(tasks, self.experts))
        if self.router != "task":
            made["router"] = (unit * np.linalg.qr(square)[0]).astype(np.float32)
        if self.router != "input":
            made["task"] = (unit * task).astype(np.float32)
        return made

    def _scores(self, params: Params, consts: Consts, rows: Rows) -> jax.Array:
        """R of each row, [B, G]; without rows' tokens and tasks, of the one task, [1, G]."""
        scores: Any = 0.0
        if self.router != "input":
            task = params["task"] / consts["unit"]
            scores = by_task(task, rows.task) if self.rowwise else task
        if self.router != "task":
            mean = mb.pool(rows.embedded, rows.mask, "mean") / (self.temperature * consts["unit"])
            weights = params["router"] / consts["unit"]
            scores = scores + jnp.matmul(mean, weights, precision="highest")
        return scores

    def _mixed(
        self, params: Params, consts: Consts, scores: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The prompts [n, L, D] of scores [n, G], p [n, G], and the chosen experts [n, top]."""
        shares = jax.nn.softmax(scores)
        _, chosen = jax.lax.top_k(shares, self.top or self.experts)
        kept = shares * jax.nn.one_hot(chosen, self.experts, dtype=shares.dtype).sum(1)
        experts = jnp.asarray((consts if self.tuned == "router" else params)["experts"])
        return jnp.einsum("bg,gld->bld", kept, experts, precision="highest"), shares, chosen

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The prompt of each row, [1, B, L, D], or of the one task, [1, L, D]."""
        scores = self._scores(params, consts, rows)
        noise = self.noise * jax.random.normal(key, scores.shape)
        scores = scores + noise * jax.lax.stop_gradient(scores)
        made, shares, chosen = self._mixed(params, consts, scores)
        aux = {"chosen": mb.usage(chosen, self.experts) / chosen.size}
        # One task of its own is meant to prefer an expert.
        if self.rowwise:
            aux["balance"] = mb.load_balance(shares, chosen)
        return Prompted(made[None] if self.rowwise else made, carry=carry, aux=aux)

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """The load balance: its weight where all experts are chosen equally."""
        return self.balance * aux.get("balance", jnp.zeros((), jnp.float32))

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """The share of rows of each expert, and the preferences of several tasks."""
        found = {"expert_share": prompted.aux["chosen"]}
        if "task" in params and len(params["task"]) > 1:
            found["task_experts"] = jax.nn.softmax(params["task"] / consts["unit"])
        return found

    def groups(self, params: Params) -> Any:
        """Groups `prompt` and `router`."""
        return {name: "prompt" if name in ("experts", "prompt") else "router" for name in params}

    def group_rates(self) -> dict[str, float]:
        """The router has a rate of its own."""
        return {"router": self.router_rate}

    def row_prompts(self, params: Params, consts: Consts, rows: Rows) -> jax.Array:
        """The prompt of each row without noise, [B, L, D]."""
        return self._mixed(params, consts, self._scores(params, consts, rows))[0]

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """The target's prompt where the router reads the task alone; else None: rows differ."""
        if self.rowwise:
            return None
        return self._mixed(params, consts, params["task"] / consts["unit"])[0][0]
