"""Task Prompt Vectors (Belanec et al. 2024, arXiv 2408.01119): arithmetic on what tuning added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prompt_jax import task_vectors
from prompt_jax.errors import ConfigError, PromptError
from prompt_jax.methods.base import Artefact, BaseMethod, Context, Stage, source_number
from prompt_jax.prompts.expression import linear
from prompt_jax.training.protocol import Consts, Params

_ALL = "all"
_WORDS = (_ALL, "none")


@dataclass(frozen=True)
class TaskPromptVectors(BaseMethod):
    """P = P_init + c * (a sum of scaled source vectors), as a start on the target or as it is.

    A source's vector is tau = P_source - P_init. As published: sums of vectors that share an
    initialisation, with coefficient 1; evaluated without training (`zero_shot`), on both tasks of a
    pair where these are targets too; negation (`vectors=-a`); vectors learnt from another
    initialisation than the one they are added to (`origin=other`); and the sum as the start of
    prompt tuning on a new target with few rows.

    Only the start is the method's own: the target trains with prompt tuning's programs.

    Our extensions: the mean and the other merging rules, factors other than 1 and -1, and
    alternatives.

    Attributes:
      vectors: a sum of sources by name, such as `mnli + 0.5*qqp - sst2`, in the grammar of
        `prompt_jax.prompts.linear`; empty or `all`: all sources; `none`: the initialisation.
        Several such sums with `;` between them, as in `none; mnli; all`: one replica each, the
        development set chooses.
      combine: the `sum`, or the `mean`, which divides it by the number of sources in it and so does
        not grow with them; or a rule of `prompt_jax.task_vectors`: `awd`, the sum without what all
        share (`disentangle`); `consensus`, those numbers of the sum that several sources use
        (`tall_masks`); `ties`. A target has no mask of its own: it is tuned from the sources'.
      coefficient: c.
      zero_shot: evaluate the start; the target stage takes no step.
      origin: `shared`: sources were trained from the very prompt that their vectors are added to;
        `other`: from that of the next seed.
      threshold: of `consensus`, lambda of the masks.
      agree: of `consensus`, how many sources use what is kept; at most as many as there are.
      per_token: of `consensus`, masks of whole tokens.
      keep: of `ties`, the share of each vector's numbers that is kept.
    """

    vectors: str = ""
    combine: Literal["sum", "mean", "awd", "consensus", "ties"] = "sum"
    coefficient: float = 1.0
    zero_shot: bool = False
    origin: Literal["shared", "other"] = "shared"
    threshold: float = 0.4
    agree: int = 2
    per_token: bool = False
    keep: float = 0.2

    name = "task_prompt_vectors"
    paper = "Belanec et al. 2024, arXiv 2408.01119"
    status = "as published"

    def __post_init__(self) -> None:
        of = {"threshold": "consensus", "agree": "consensus", "per_token": "consensus"}
        for option, rule in {**of, "keep": "ties"}.items():
            if self.combine != rule and getattr(self, option) != getattr(type(self), option):
                raise ConfigError(f"{self.name}: {option} is of combine={rule}.")
        if not 0 <= self.threshold < math.inf or self.agree < 1 or not 0 < self.keep <= 1:
            raise ConfigError(
                f"{self.name}: threshold must not be negative, agree at least 1, keep in (0, 1]."
            )
        sums = self._sums()
        if len(set(sums)) < len(sums):
            raise ConfigError(f"{self.name}: the alternatives '{self.vectors}' are not different.")
        for text in sums:
            try:
                if text not in _WORDS:
                    linear(text)
            except PromptError as error:
                raise ConfigError(f"{self.name}: {error}") from None

    def _sums(self) -> list[str]:
        """The alternatives."""
        return [text.strip() for text in (self.vectors or _ALL).split(";")]

    def stages(self) -> tuple[Stage, ...]:
        """Sources by prompt tuning, then the target from the sum."""
        other = self.origin == "other"
        return (
            Stage(
                "foreign_sources" if other else "sources",
                on="source",
                trains=BaseMethod(),
                budget="source",
                origin=int(other),
            ),
            Stage(
                "target",
                on="target",
                trains=BaseMethod(),
                trials=len(self._sums()),
                part=(0.0, 0.0) if self.zero_shot else (0.0, 1.0),
            ),
        )

    def init(self, context: Context) -> tuple[Params, Consts]:
        """The sum on top of the replica's initialisation."""
        sources = context.artefact(self.stages()[0].name)
        origin = context.initial if sources.initial is None else sources.initial
        factors = self._factors(sources, context.trial)
        scale = self.coefficient
        if self.combine == "mean":
            scale /= max(1, int(np.count_nonzero(factors)))
        vectors = sources.prompts - origin[None]
        used = np.flatnonzero(factors)
        if self.combine in ("sum", "mean") or not used.size:
            added = np.tensordot(scale * factors, vectors, 1)
        else:
            added = scale * self._merged(factors[used, None, None] * vectors[used])
        return {"prompt": (context.initial + added).astype(np.float32)}, {}

    def _merged(self, vectors: np.ndarray) -> np.ndarray:
        """The sources' scaled vectors [n, L, D], n > 0, by one of the merging rules: [L, D]."""
        vectors = vectors.astype(np.float32)
        if self.combine == "ties":
            return np.asarray(task_vectors.ties(vectors, self.keep))
        if self.combine == "awd":
            return np.asarray(task_vectors.disentangle(vectors).vectors).sum(0)
        masks = task_vectors.tall_masks(vectors, self.threshold, per_token=self.per_token)
        kept = np.asarray(task_vectors.consensus(masks, min(self.agree, len(vectors))))
        return np.where(kept[:, None] if self.per_token else kept, vectors.sum(0), 0)

    def selected_sources(self, context: Context, params: Params) -> np.ndarray | None:
        """The sources of the alternative that was taken; None for a single sum."""
        if len(self._sums()) == 1:
            return None
        return self._factors(context.artefact(self.stages()[0].name), context.trial) != 0

    def _factors(self, sources: Artefact, trial: int) -> np.ndarray:
        """One number per source, [K] float64."""
        text = self._sums()[trial]
        if text in _WORDS:
            return np.full(len(sources.names), 1.0 if text == _ALL else 0.0)
        factors = np.zeros(len(sources.names))
        for name, factor in linear(text).items():
            factors[source_number(self.name, name, sources.names)] += factor
        return factors
