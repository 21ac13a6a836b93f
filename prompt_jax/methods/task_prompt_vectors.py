"""Task Prompt Vectors (Belanec et al. 2024, arXiv 2408.01119): arithmetic on what tuning added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

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

    Our extensions: the mean, other factors than 1 and -1, and alternatives.

    Attributes:
      vectors: a sum of sources by name, such as `mnli + 0.5*qqp - sst2`, in the grammar of
        `prompt_jax.prompts.linear`; empty or `all`: all sources; `none`: the initialisation.
        Several such sums with `;` between them, as in `none; mnli; all`: one replica each, the
        development set chooses.
      combine: the `sum`, or the `mean`, which divides it by the number of sources in it and so does
        not grow with them.
      coefficient: c.
      zero_shot: evaluate the start; the target stage takes no step.
      origin: `shared`: sources were trained from the very prompt that their vectors are added to;
        `other`: from that of the next seed.
    """

    vectors: str = ""
    combine: Literal["sum", "mean"] = "sum"
    coefficient: float = 1.0
    zero_shot: bool = False
    origin: Literal["shared", "other"] = "shared"

    name = "task_prompt_vectors"
    paper = "Belanec et al. 2024, arXiv 2408.01119"
    status = "as published"

    def __post_init__(self) -> None:
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
        added = np.tensordot(scale * factors, sources.prompts - origin[None], 1)
        return {"prompt": (context.initial + added).astype(np.float32)}, {}

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
