"""What the reports of recipes have in common: two files of the run directory, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.evaluation import summarise
from prompt_jax.rundir.tables import cell_text


@dataclass(frozen=True, eq=False)
class RecipeReport:
    """Results of a recipe.

    Attributes:
      folder: the run directory.
      name: of the experiment.
    """

    folder: Path
    name: str

    __repr__ = fields_repr

    @property
    def stem(self) -> str:
        """The name of the two files without their suffix."""
        raise NotImplementedError

    @property
    def json_path(self) -> Path:
        """Where all numbers are written."""
        return self.folder / f"{self.stem}.json"

    @property
    def markdown_path(self) -> Path:
        """Where the tables are written."""
        return self.folder / f"{self.stem}.md"

    def to_dict(self) -> dict[str, Any]:
        """Everything; JSON-able."""
        raise NotImplementedError

    def markdown(self) -> str:
        """The tables, and how to read them."""
        raise NotImplementedError


def points(values: Sequence[float] | np.ndarray) -> str:
    """A cell in points: mean and standard deviation of the values of the seeds."""
    return cell_text(summarise(values))


def stem_of(name: str, tuned: bool) -> str:
    """The stem of a report on merged prompts, which may have been tuned first."""
    return f"{name}_tuned" if tuned else name
