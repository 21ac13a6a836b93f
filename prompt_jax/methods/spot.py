"""SPoT (Vu et al. 2022, arXiv 2110.07904): initialise the target prompt from source prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from prompt_jax.errors import ConfigError
from prompt_jax.methods.base import TOGETHER, Artefact, BaseMethod, Context, Stage, together
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


def _mixture(origin: int) -> str:
    """The name of the stage that trains a mixture from an initialisation."""
    return "mixture" if origin == 0 else f"mixture {origin + 1}"


@dataclass(frozen=True)
class Spot(BaseMethod):
    """Prompt tuning on the target that starts from source prompts.

    Only the start is SPoT's own: the target stage trains with prompt tuning's programs.

    Sources are ranked by the cosine of mean-pooled prompts. The target's is an early prompt of its
    own (the `probe` stage, whose steps count as the target's). A source's key is an early prompt
    too, as published (`keys=early`: another short stage, under the probe's budget, shared by all
    targets), or its final one (`keys=final`: no further stage). What is inherited is the final one.

    As published, in four variants:

    - `nearest`: the source prompt of highest similarity.
    - `top_k_average`: the average of the k nearest, weighted by similarity (negative ones by 0).
    - `best_of_top_k`: a replica from each of the k nearest, of which the best on the development
      set is kept.
    - `mixture`: one prompt trained on all sources mixed (the paper's generic form).

    Reconstructed: the number of early steps and the weights of the average, which the paper's
    public summaries do not state; and, from memory, `nearest_mixture`: for each target, one prompt
    trained on the mixed rows of the k nearest sources.

    `variant=mixture, origins=3, joint=true` is the recipe of MVLPT (Shen et al. 2022, arXiv
    2211.11720) on text: a mixture for each of three initialisations, their average, and one prompt
    that goes on from there on all targets together. The paper groups targets by a search over their
    transfers; here all of an experiment are one group.

    Attributes:
      variant: see above.
      keys: which source prompts are compared with the target's.
      top_k: k; at most the number of sources is used.
      steps: of a mixture: multiplies the steps of the source budget.
      batch: of a mixture: multiplies the rows of its steps.
      origins: of the mixture: as many of them, from the initialisations of seed, seed + 1, ...;
        the target starts from their average.
      joint: of the mixture: train one prompt on all targets together, which each of them deploys.
    """

    variant: Literal["nearest", "top_k_average", "best_of_top_k", "mixture", "nearest_mixture"] = (
        "nearest"
    )
    top_k: int = 3
    steps: int = 1
    batch: int = 1
    keys: Literal["early", "final"] = "early"
    origins: int = 1
    joint: bool = False

    name = "spot"
    paper = "Vu et al. 2022, arXiv 2110.07904"
    status = "as published"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"spot: top_k must be at least 1, but is {self.top_k}.")
        if min(self.steps, self.batch) < 1:
            raise ConfigError("spot: steps and batch must be at least 1.")
        if max(self.steps, self.batch) > 1 and "mixture" not in self.variant:
            raise ConfigError("spot: steps and batch are of the mixture: variant=mixture.")
        if self.origins < 1:
            raise ConfigError(f"spot: origins must be at least 1, but is {self.origins}.")
        if (self.origins > 1 or self.joint) and self.variant != "mixture":
            raise ConfigError("spot: origins and joint are of the mixture: variant=mixture.")
        if self.variant == "mixture" and self.keys != "early":
            raise ConfigError("spot: variant=mixture compares no prompts: leave out keys.")

    def stages(self) -> tuple[Stage, ...]:
        """Sources (cached, shared with other methods), a short probe of the target, the target."""
        tuning = BaseMethod()
        mixture = Stage(
            "mixture",
            on="mixture",
            trains=tuning,
            budget="source",
            part=(0.0, float(self.steps)),
            batch=self.batch,
            chosen=self.variant == "nearest_mixture",
        )
        trials = self.top_k if self.variant == "best_of_top_k" else 1
        target = Stage("target", on="target", trains=tuning, trials=trials)
        if self.variant == "mixture":
            mixtures = (
                mixture if n == 0 else replace(mixture, name=_mixture(n), origin=n)
                for n in range(self.origins)
            )
            if not self.joint:
                return (*mixtures, target)
            return (*mixtures, together(), replace(target, part=(0.0, 0.0)))
        sources = Stage("sources", on="source", trains=tuning, budget="source")
        keys = Stage("keys", on="source", trains=tuning, budget="probe")
        probe = Stage("probe", on="target", trains=tuning, budget="probe")
        early = self.keys == "early"
        inherits = self.variant != "nearest_mixture"
        return (
            *((sources,) if inherits or not early else ()),
            *((keys,) if early else ()),
            probe,
            *(() if inherits else (mixture,)),
            target,
        )

    def init(self, context: Context) -> tuple[Params, Consts]:
        """The start that the variant chooses."""
        if self.joint and context.stage != TOGETHER:
            start = context.artefact(TOGETHER).prompts[0]
        elif "mixture" in self.variant:
            mixed = [context.artefact(_mixture(n)).prompts[0] for n in range(self.origins)]
            start = mixed[0] if self.origins == 1 else np.mean(mixed, 0)
        else:
            start = self._from_sources(context, context.artefact("sources"))
        return {"prompt": np.asarray(start, np.float32)}, {}

    def selected_sources(self, context: Context, params: Params) -> np.ndarray | None:
        """The sources that the replica started from; None for the mixture, which is of all."""
        if self.variant == "mixture":
            return None
        numbers, weights = self._choice(context)
        group = np.zeros(len(self._keys(context).prompts), bool)
        group[numbers[weights > 0]] = True
        return group

    def mixed_sources(self, context: Context) -> tuple[int, ...]:
        """The k nearest sources, whose rows `nearest_mixture` mixes."""
        return tuple(self._choice(context)[0].tolist())

    def _keys(self, context: Context) -> Artefact:
        """The source prompts that are compared with the target's."""
        return context.artefact("keys" if self.keys == "early" else "sources")

    def _from_sources(self, context: Context, sources: Artefact) -> np.ndarray:
        numbers, weights = self._choice(context)
        if len(numbers) == 1:
            return sources.prompts[numbers[0]]
        return np.tensordot(weights, sources.prompts[numbers], 1)

    def _choice(self, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sources of the start, and their weights, which add up to 1."""
        keys = self._keys(context).prompts
        similarity = source_similarity(context.artefact("probe").prompts[0], keys)
        ranked = np.argsort(-similarity, kind="stable")[: self.top_k]
        if self.variant == "top_k_average":
            weights = np.maximum(similarity[ranked], 0.0)
            if not weights.any():
                weights = np.ones_like(weights)
            return ranked, weights / weights.sum()
        if self.variant == "nearest_mixture":
            return ranked, np.full(len(ranked), 1 / len(ranked))
        place = 0 if self.variant == "nearest" else min(context.trial, len(ranked) - 1)
        return ranked[place : place + 1], np.ones(1)
