"""SPoT (Vu et al. 2022, arXiv 2110.07904): initialise the target prompt from source prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import Artefact, BaseMethod, Context, Stage
from prompt_jax.training.protocol import Consts, Params


def source_similarity(target: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Cosine of mean-pooled prompts (the 'task embeddings' of the paper).

    Args:
      target: [L, D].
      sources: [K, L, D].

    Returns:
      [K] float64 in [-1, 1].
    """
    a = target.astype(np.float64).mean(0)
    b = sources.astype(np.float64).mean(1)
    return b @ a / (np.linalg.norm(b, axis=1) * np.linalg.norm(a) + 1e-12)


@dataclass(frozen=True)
class Spot(BaseMethod):
    """Prompt tuning on the target that starts from what the sources learnt.

    Only the start is SPoT's own: the target stage trains with prompt tuning's programs.

    As published, in four variants:

    - `nearest`: the source prompt of highest cosine similarity to an early target prompt (the
      `probe` stage, whose steps count in the target's budget).
    - `top_k_average`: the average of the k nearest, weighted by similarity (negative ones by 0).
    - `best_of_top_k`: a replica from each of the k nearest, of which the best on the development
      set is kept.
    - `mixture`: one prompt trained on all sources mixed (the paper's generic form).

    Reconstructed: the number of probe steps and the weights of the average, which the paper's
    public summaries do not state.

    Attributes:
      variant: see above.
      top_k: k; at most the number of sources is used.
      steps: of `mixture`: multiplies the steps of the source budget.
      batch: of `mixture`: multiplies the rows of its steps.
    """

    variant: Literal["nearest", "top_k_average", "best_of_top_k", "mixture"] = "nearest"
    top_k: int = 3
    steps: int = 1
    batch: int = 1

    name = "spot"
    paper = "Vu et al. 2022, arXiv 2110.07904"
    status = "as published"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"spot: top_k must be at least 1, but is {self.top_k}.")
        if min(self.steps, self.batch) < 1:
            raise ConfigError("spot: steps and batch must be at least 1.")
        if max(self.steps, self.batch) > 1 and self.variant != "mixture":
            raise ConfigError("spot: steps and batch are of the mixture: variant=mixture.")

    def stages(self) -> tuple[Stage, ...]:
        """Sources (cached, shared with other methods), a short probe of the target, the target."""
        if self.variant == "mixture":
            return (
                Stage(
                    "mixture",
                    on="mixture",
                    trains=BaseMethod(),
                    budget="source",
                    part=(0.0, float(self.steps)),
                    batch=self.batch,
                ),
                Stage("target", on="target", trains=BaseMethod()),
            )
        trials = self.top_k if self.variant == "best_of_top_k" else 1
        return (
            Stage("sources", on="source", trains=BaseMethod(), budget="source"),
            Stage("probe", on="target", trains=BaseMethod(), budget="probe"),
            Stage("target", on="target", trains=BaseMethod(), trials=trials),
        )

    def init(self, context: Context) -> tuple[Params, Consts]:
        """The start that the variant chooses."""
        if self.variant == "mixture":
            start = context.artefact("mixture").prompts[0]
        else:
            start = self._from_sources(context, context.artefact("sources"))
        return {"prompt": np.asarray(start, np.float32)}, {}

    def selected_sources(self, context: Context, params: Params) -> np.ndarray | None:
        """The sources that the replica started from; None for the mixture, which is of all."""
        if self.variant == "mixture":
            return None
        sources = context.artefact("sources")
        numbers, weights = self._choice(context, sources)
        group = np.zeros(len(sources.prompts), bool)
        group[numbers[weights > 0]] = True
        return group

    def _from_sources(self, context: Context, sources: Artefact) -> np.ndarray:
        numbers, weights = self._choice(context, sources)
        if len(numbers) == 1:
            return sources.prompts[numbers[0]]
        return np.tensordot(weights, sources.prompts[numbers], 1)

    def _choice(self, context: Context, sources: Artefact) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sources of the start, and their weights, which add up to 1."""
        similarity = source_similarity(context.artefact("probe").prompts[0], sources.prompts)
        ranked = np.argsort(-similarity, kind="stable")[: self.top_k]
        if self.variant == "top_k_average":
            weights = np.maximum(similarity[ranked], 0.0)
            if not weights.any():
                weights = np.ones_like(weights)
            return ranked, weights / weights.sum()
        place = 0 if self.variant == "nearest" else min(context.trial, len(ranked) - 1)
        return ranked[place : place + 1], np.ones(1)
