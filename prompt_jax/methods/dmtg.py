"""DMTG (Gao et al. 2024, arXiv 2407.05082): tasks learn which of a few groups they belong to.

Written from facts of the released code, which trains networks; here each group has one prompt.
docs/methods.md says of every choice whether it is published, reconstructed or ours.
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
from prompt_jax.methods.base import TOGETHER, BaseMethod, Context, Panel, Stage, by_task, together
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_STARTS = 13  # word of the stream "init" that the groups' starts are drawn from
_SOURCES = "groups"
_SMALLEST = 1e-6  # probability within the logarithms of the entropy


@dataclass(frozen=True)
class Dmtg(BaseMethod):
    """Each task's rows train the prompts of a few groups, weighted by a learnt membership.

        G_i = softmax((A_i + g) / tau),  g Gumbel noise, drawn anew for each task and step
        losses:   loss = sum over groups j of G_ij NLL(rows of task i; P_j)      V = groups
        prompts:  loss = NLL(rows of task i; sum over groups j of G_ij P_j)      V = 1

    First the sources form groups, on their mixture with equal shares. Then the target joins: it
    continues with the prompts of all groups, and with a membership of its own, which starts even.
    With `shared=true` all targets form groups together, as the tasks of the paper do, without
    sources.

    As published (code): weighted losses, memberships that start even, soft Gumbel noise, tau = 4,
    the largest membership alone at the end, no entropy. Ours: prompts in place of networks, the
    form `prompts`, a target that joins the groups of the sources, the starts of the groups, and the
    rate of the memberships. Left out: the rescaling of gradients by groups and tasks.

    The loss that is logged is the mean over the groups: with weighted losses it is the objective
    divided by their number.

    Params: `prompts` [G, L, D]; `membership` [K, G], A in units of the embeddings' root mean
    square: at a rate r of these, a step moves A by `membership_rate` r.

    Attributes:
      branches: number of groups, G.
      form: weighted `losses`, each row under the prompts of all groups; or one mixture of the
        `prompts`, which costs 1 / G of it. Both are equal where memberships are hard.
      draw: `soft` memberships, or `hard` ones with the gradient of the soft (straight-through).
      temperature: tau.
      entropy: weight of a penalty on undecided memberships: the entropy of every entry of
        softmax(A), taken as the probability of one event, summed over groups, mean over tasks.
      spread: standard deviation of the noise that sets the groups' starts apart around the seed's
        initialisation, in units of the embeddings.
      membership_rate: learning rate of A relative to the prompts'.
      shared: all targets together, without sources.
    """

    branches: int = 3
    form: Literal["losses", "prompts"] = "losses"
    draw: Literal["soft", "hard"] = "soft"
    temperature: float = 4.0
    entropy: float = 0.0
    spread: float = 0.1
    membership_rate: float = 0.1
    shared: bool = False

    name = "dmtg"
    paper = "Gao et al. 2024, arXiv 2407.05082"
    status = "our extension"
    panels = (
        Panel(
            "membership",
            "lines",
            "Membership in the groups",
            "softmax of A, without noise: of the target, or the mean over the tasks.",
        ),
        Panel(
            "task_groups",
            "heatmap",
            "Groups of tasks",
            "Memberships at the end, tasks downwards, in the first seed: groups have other numbers"
            " in others.",
            first_seed=True,
        ),
    )

    def __post_init__(self) -> None:
        if self.branches < 1:
            raise ConfigError(f"{self.name}: branches must be at least 1, not {self.branches}.")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"{self.name}: temperature must be positive, not {self.temperature}.")
        for name in ("entropy", "spread", "membership_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{self.name}: {name} must not be negative, but is {getattr(self, name)}."
                )

    @property
    def views(self) -> int:
        """Every row under the prompts of all groups, where losses are weighted."""
        return self.branches if self.form == "losses" else 1

    @property
    def rowwise(self) -> bool:
        """Tasks that are trained together have prompts of their own."""
        return self.shared

    def stages(self) -> tuple[Stage, ...]:
        """The sources and then the target, or all targets together."""
        if self.shared:
            return together(), Stage("target", on="target", trains=BaseMethod(), part=(0.0, 0.0))
        alike = dataclasses.replace(self, shared=True)
        groups = Stage(_SOURCES, on="mixture", trains=alike, budget="source", mixing="stratified")
        return groups, Stage("target", on="target")

    def init(self, context: Context) -> tuple[Params, Consts]:
        """New groups of the sources or targets; the target's, which it joins or has formed."""
        unit = np.float32(context.lm.embedding_rms())
        consts = {"unit": unit}
        if context.stage == _SOURCES:
            return self._new(context, unit, len(context.sources)), consts
        if context.stage == TOGETHER:
            return self._new(context, unit, len(context.targets)), consts
        if self.shared:
            joint = context.artefact(TOGETHER).params[0]
            place = context.place
            logits = joint["membership"][place] / unit
            return {"prompt": np.asarray(self._of_one(joint["prompts"], logits))}, {}
        groups = context.artefact(_SOURCES).params[0]["prompts"]
        return {"prompts": groups, "membership": np.zeros((1, self.branches), np.float32)}, consts

    def _new(self, context: Context, unit: np.float32, tasks: int) -> dict[str, np.ndarray]:
        initial = np.asarray(context.initial, np.float32)
        noise = streams.rng(context.seed, "init", _STARTS).normal(
            size=(self.branches, *initial.shape)
        )
        return {
            "prompts": (initial[None] + self.spread * unit * noise).astype(np.float32),
            "membership": np.zeros((tasks, self.branches), np.float32),
        }

    def selected_sources(self, context: Context, params: Params) -> np.ndarray | None:
        """The sources whose group is the target's."""
        if self.shared:
            return None
        sources = np.asarray(context.artefact(_SOURCES).params[0]["membership"])
        return sources.argmax(1) == int(np.asarray(params["membership"])[0].argmax())

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The groups' prompts with the rows' weights, or a mixture for the task or for each row."""
        logits = params["membership"] / consts["unit"]
        drawn = self._drawn(logits, key)
        prompts = params["prompts"]
        if self.form == "prompts":
            mixed = jnp.einsum("kg,gld->kld", drawn, prompts, precision="highest")
            made = by_task(mixed, rows.task)[None] if self.shared else mixed
            return Prompted(made, carry=carry, aux=logits)
        if self.shared:
            shape = (len(prompts), len(rows.task), *prompts.shape[1:])
            prompts = jnp.broadcast_to(prompts[:, None], shape)
        weights = by_task(drawn, rows.task).T
        return Prompted(prompts, carry=carry, aux=logits, row_weights=weights)

    def _drawn(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """G of a step, [K, G]."""
        noisy = (logits + jax.random.gumbel(key, logits.shape)) / self.temperature
        soft = jax.nn.softmax(noisy)
        if self.draw == "soft":
            return soft
        hard = jax.nn.one_hot(noisy.argmax(1), self.branches, dtype=soft.dtype)
        return hard + (soft - jax.lax.stop_gradient(soft))

    def _of_one(self, prompts: Array, logits: Array) -> jax.Array:
        """What a task with this row of A [G] is answered under, [L, D].

        The prompt of its group; where mixtures were trained, the mixture without noise.
        """
        if self.form == "prompts" and self.draw == "soft":
            weights = jax.nn.softmax(jnp.asarray(logits) / self.temperature)
            return jnp.einsum("g,gld->ld", weights, prompts, precision="highest")
        return jnp.asarray(prompts)[jnp.asarray(logits).argmax()]

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """The entropy of the memberships, if it has a weight."""
        if not self.entropy:
            return jnp.zeros((), jnp.float32)
        p = jnp.clip(jax.nn.softmax(aux), _SMALLEST, 1 - _SMALLEST)
        each = -p * jnp.log(p) - (1 - p) * jnp.log1p(-p)
        return self.entropy * each.sum(1).mean()

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Memberships without noise: the mean over tasks, and of several tasks each."""
        shares = jax.nn.softmax(prompted.aux)
        found = {"membership": shares.mean(0)}
        if len(shares) > 1:
            found["task_groups"] = shares
        return found

    def groups(self, params: Params) -> Any:
        """Groups `prompt` and `membership`."""
        return {name: "membership" if name == "membership" else "prompt" for name in params}

    def group_rates(self) -> dict[str, float]:
        """The memberships have a rate of their own."""
        return {"membership": self.membership_rate}

    def row_prompts(self, params: Params, consts: Consts, rows: Rows) -> jax.Array:
        """Of each row, what its task is answered under; nothing is drawn."""
        logits = params["membership"] / consts["unit"]
        each = jax.vmap(self._of_one, (None, 0))(params["prompts"], logits)
        return by_task(each, rows.task)

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """What the target is answered under; None where tasks are trained together."""
        if self.shared:
            return None
        return self._of_one(params["prompts"], params["membership"][0] / consts["unit"])
