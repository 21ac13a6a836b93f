"""DTVG (Zhang et al., ACL Findings 2025, arXiv 2503.18063): merge the vectors of sources that help.

Written from the paper's formulas; the mathematics stands in `prompt_jax.task_vectors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import BaseMethod, Context, Panel, Stage
from prompt_jax.training.protocol import Array, Carry, Consts, Params, Prompted, Rows

_BY_TARGET = ("prefix", "objective", "positive")  # rules that ask what resembles the target
_Unit = Literal["relative", "absolute"]


class _Rates(NamedTuple):
    """Learning rates of stage 2."""

    prompt: float = 1.0
    prompt_unit: _Unit = "relative"
    scales: float = 1.0
    scales_unit: _Unit = "relative"


_RELEASED = {
    "released_t5": _Rates(1 / 300, "relative", 1e-3, "absolute"),
    "released_llama": _Rates(1.0, "relative", 1e-3, "absolute"),
}


@dataclass(frozen=True)
class Dtvg(BaseMethod):
    """P = P_init + a_t T_t + sum over a group of sources of a_s T_s, regrouped at every step.

    Stage 1 tunes a prompt for every source and for the target from one initialisation; a task
    vector is the difference. Stage 2 continues with the target's prompt and trains one scale per
    token and vector, while P_init and the sources' vectors stay frozen. The group is chosen inside
    the step, from the vectors as they are scaled at that moment, and has no derivative. What is
    deployed is the merged prompt alone.

    As published: the released heuristic (`prefix`) at every step, scales that start at 1, stage 1
    for the target, dot products of mean tokens. Reconstructed: the length of the stages on T5, and
    its rates on tasks with classes. Our extensions: `cosine`, `objective` solved exactly,
    `regroup_every`, the split of one budget between the stages, and `rates=budget`.

    The rates of stage 2 (`rates`), where the budget's rate is stage 1's:

    - `released_t5`, as in the released scripts for T5 (text generation; 0.3 in stage 1, 0.001 for
      prompt and scales in stage 2): the prompt continues at 1 / 300 of its rate, scales change by
      0.001 a step. The scripts also tried 0.0001 and 0.01 for the sources' scales: the budget's
      `group_rates=source_scales=0.1` or `10`.
    - `released_llama`, as in those for Llama (0.001 throughout): the prompt continues at its rate,
      scales change by 0.001 a step.
    - `budget` (the default, ours): `second_rate` and `scale_rate`. The prompt continues at the
      budget's rate, and scales change by the same relative amount as embeddings.

    Params: `prompt` [L, D]; `target_scale` [L] and `source_scales` [K, L] times a constant that
    makes the prompt's learning rate the right one for them: the RMS of the model's embeddings, or,
    where their rate is absolute, the quotient of the two rates.

    The ablations of the paper's released code: 1 is `rule=positive`, 2 `rule=consistency`,
    3 `rule=none`, 4 `rule=all`, 5 `regroup_every=0`, 6 `target_vector=false`, 10 the method `spot`.

    Attributes:
      rule: how a group is chosen, as in `prompt_jax.task_vectors.group_from_gram`.
      metric: of similarities, `dot` or `cosine`.
      threshold: the smallest similarity of a source that may join.
      consistency_weight: lambda of `rule=objective`.
      regroup_every: steps between choices; 0: the group of the first step is kept. The deployed
        prompt is grouped for its own parameters, unless the group is kept.
      target_vector: False: the target's own vector takes part in the choice alone, and only the
        scales of the sources are trained.
      budget: `published`: both stages on the target get its whole budget. `matched`: together they
        get it once, as prompt tuning does.
      first_share: of the matched budget, what stage 1 gets; 0 leaves it out.
      rates: of stage 2, see above.
      second_rate: stage 2's learning rate of the prompt.
      second_unit: whether that is relative to the budget's rate, or absolute.
      second_steps: steps of stage 2, where they are not the budget's: the released scripts have
        30,000, after up to 300,000 of stage 1. 0: the budget's.
      scale_rate: learning rate of the scales; 0 keeps them at 1. The optimizer groups
        `target_scale` and `source_scales` can be told apart by the budget's `group_rates`.
      scale_unit: `relative`: to the prompt's rate in units of the embeddings; at a rate r of these
        Adam moves a scale by up to r x scale_rate a step. `absolute`: by up to scale_rate.
    """

    rule: task_vectors.Rule = "prefix"
    metric: task_vectors.Metric = "dot"
    threshold: float = 0.0
    consistency_weight: float = 1.0
    regroup_every: int = 1
    target_vector: bool = True
    budget: Literal["published", "matched"] = "published"
    first_share: float = 0.25
    scale_rate: float = 1.0
    scale_unit: _Unit = "relative"
    second_rate: float = 1.0
    second_unit: _Unit = "relative"
    second_steps: int = 0
    rates: Literal["budget", "released_t5", "released_llama"] = "budget"

    name = "dtvg"
    paper = "Zhang et al. 2025, arXiv 2503.18063"
    status = "as published"
    panels = (
        Panel(
            "group",
            "timeline",
            "Group",
            "Which sources are merged into the target's prompt at each step.",
            "sources",
        ),
        Panel(
            "similarity",
            "lines",
            "Similarity to the target",
            "Of each source's scaled task vector to the target's; below the threshold a source is"
            " not considered.",
            "sources",
        ),
        Panel(
            "consistency",
            "lines",
            "Consistency of the group",
            "Mean similarity between different members of the group; 0 for fewer than two.",
        ),
        Panel(
            "source_scale",
            "lines",
            "Scales of the sources",
            "Mean over tokens; only members of the group have a gradient at a step.",
            "sources",
        ),
        Panel(
            "target_norm",
            "lines",
            "Norm of the target's vector",
            "Scaled. Where it is 0 no source resembles the target, and the group is empty.",
        ),
    )

    def __post_init__(self) -> None:
        if self.regroup_every < 0:
            raise ConfigError(f"dtvg: regroup_every must not be negative: {self.regroup_every}.")
        if not 0 <= self.first_share < 1:
            raise ConfigError(f"dtvg: first_share must lie in [0, 1), not {self.first_share}.")
        if not (self._tunes_first or self.regroup_every) and self.rule in _BY_TARGET:
            raise ConfigError(
                "dtvg: without stage 1 the target has no vector at its first step, and no source"
                " resembles it: with regroup_every=0 the group would stay empty. Set first_share"
                " or regroup_every."
            )
        if not 0 <= self.scale_rate < math.inf:
            raise ConfigError(f"dtvg: scale_rate must not be negative: {self.scale_rate}.")
        if not 0 < self.second_rate < math.inf:
            raise ConfigError(f"dtvg: second_rate must be a positive number: {self.second_rate}.")
        if self.second_steps < 0:
            raise ConfigError(f"dtvg: second_steps must not be negative: {self.second_steps}.")
        if self.second_steps and self.budget == "matched":
            raise ConfigError(
                "dtvg: with budget=matched both stages share one budget (first_share), so"
                " second_steps has no meaning: leave it out, or set budget=published."
            )
        if self.rates != "budget" and self._rates != _Rates():
            raise ConfigError(
                f"dtvg: rates={self.rates} sets the rates of stage 2: leave out second_rate,"
                " second_unit, scale_rate and scale_unit, or set rates=budget."
            )

    @property
    def _rates(self) -> _Rates:
        """The rates that the options say, whatever `rates` is."""
        return _Rates(self.second_rate, self.second_unit, self.scale_rate, self.scale_unit)

    @property
    def _second(self) -> _Rates:
        return self._rates if self.rates == "budget" else _RELEASED[self.rates]

    def stages(self) -> tuple[Stage, ...]:
        """Sources and the target by prompt tuning from one initialisation, then the merged one."""
        first = Stage("first", on="target", trains=BaseMethod())
        last = Stage("target", on="target")
        if self.budget == "matched":
            share = self.first_share
            first = Stage("first", on="target", trains=BaseMethod(), part=(0.0, share))
            last = Stage("target", on="target", part=(share, 1.0))
        second = self._second
        last = replace(
            last,
            steps=self.second_steps,
            rate=second.prompt,
            absolute_rate=second.prompt_unit == "absolute",
        )
        sources = Stage("sources", on="source", trains=BaseMethod(), budget="source")
        return (sources, first, last) if self._tunes_first else (sources, last)

    @property
    def _tunes_first(self) -> bool:
        return self.budget == "published" or self.first_share > 0

    def init(self, context: Context) -> tuple[Params, Consts]:
        """Stage 1's target prompt and vectors, and scales of 1."""
        sources = context.artefact("sources").prompts
        initial = np.asarray(context.initial, np.float32)
        start = context.artefact("first").prompts[0] if self._tunes_first else initial
        length, unit = len(initial), float(context.lm.embedding_rms())
        second = self._second
        if second.scales_unit == "absolute" and second.scales and context.rate is not None:
            unit = context.rate / second.scales
        params = {
            "prompt": np.asarray(start, np.float32),
            "target_scale": np.full(length, unit, np.float32),
            "source_scales": np.full((len(sources), length), unit, np.float32),
        }
        consts = {
            "init": initial,
            "source_vectors": (sources - initial[None]).astype(np.float32),
            "unit": np.float32(unit),
        }
        if not self.regroup_every:
            consts["group"] = np.asarray(self._choose(params, consts)["group"])
        return params, consts

    def selected_sources(self, context: Context, params: Params) -> np.ndarray:
        """The group of the deployed prompt."""
        _, consts = self.init(context)
        return np.asarray(self._choose(params, consts)["group"])

    def carry(self, params: Params, consts: Consts) -> Carry:
        """The group of the start, with what it was chosen by."""
        return self._choose(params, consts)

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The merged prompt, [1, L, D]; aux and carry are the choice that it was made with."""
        choice = carry
        if self.regroup_every == 1:
            choice = self._choose(params, consts)
        elif self.regroup_every:
            choice = jax.lax.cond(
                step % self.regroup_every == 0,
                lambda: self._choose(params, consts),
                lambda: carry,
            )
        return Prompted(self._merged(params, consts, choice)[None], carry=choice, aux=choice)

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """The choice of the step and the scales: what `panels` draws."""
        target_scale, source_scales = _scales(params, consts)
        own = target_scale[:, None] * (params["prompt"] - consts["init"])
        return {
            **prompted.aux,
            "source_scale": source_scales.mean(1),
            "target_scale": target_scale.mean(),
            "target_norm": jnp.sqrt(jnp.sum(own**2)),
        }

    def groups(self, params: Params) -> Any:
        """Three: `prompt`, `target_scale`, `source_scales`."""
        return {name: name for name in params}

    def group_rates(self) -> dict[str, float]:
        """Scales have a rate of their own; an absolute one is in the unit that they are kept in."""
        second = self._second
        absolute = second.scales_unit == "absolute" and second.scales
        rate = 1.0 if absolute else second.scales
        return dict.fromkeys(("target_scale", "source_scales"), rate)

    def deploy(self, params: Params, consts: Consts) -> jax.Array:
        """The merged prompt."""
        return self._merged(params, consts, self._choose(params, consts))

    def _choose(self, params: Params, consts: Consts) -> dict[str, jax.Array]:
        """The group of these parameters, with its similarities and consistency; no derivative."""
        params = jax.lax.stop_gradient(jax.tree.map(jnp.asarray, params))
        target_scale, source_scales = _scales(params, consts)
        # The mean over tokens of scaled vectors is (scales^T T) / L: nothing of [K, L, D] is made.
        target_dot, gram = task_vectors.pairwise(
            task_vectors.pool(params["prompt"] - consts["init"], target_scale),
            task_vectors.pool(consts["source_vectors"], source_scales),
            self.metric,
        )
        group = consts.get("group")
        if group is None:
            group = task_vectors.group_from_gram(
                target_dot,
                gram,
                rule=self.rule,
                threshold=self.threshold,
                consistency_weight=self.consistency_weight,
            )
        consistency = task_vectors.consistency_from_gram(gram, group)
        return {"group": jnp.asarray(group), "similarity": target_dot, "consistency": consistency}

    def _merged(self, params: Params, consts: Consts, choice: Mapping[str, Array]) -> jax.Array:
        own = params["prompt"] - consts["init"]
        if not self.target_vector:
            own = jnp.zeros_like(own)
        return task_vectors.merge(
            consts["init"],
            own,
            consts["source_vectors"],
            *_scales(params, consts),
            choice["group"],
        )


def _scales(params: Params, consts: Consts) -> tuple[jax.Array, jax.Array]:
    """The scales [L] and [K, L] as the paper has them, around 1."""
    return params["target_scale"] / consts["unit"], params["source_scales"] / consts["unit"]
