"""What each measurement should reach: the one table of goals."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import NamedTuple


class Goal(NamedTuple):
    """A bound.

    Attributes:
      value: the bound.
      sign: ">=" or "<=".
      of: "ratio" or "ours", the number that is bounded.
      jax: the oldest JAX that it holds for, as (major, minor).
    """

    value: float
    sign: str = ">="
    of: str = "ratio"
    jax: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.of} {self.sign} {self.value:g}"

    def met(self, ours: float, ratio: float | None) -> bool | None:
        """Whether it is reached; None where the ratio was not measured."""
        value = ours if self.of == "ours" else ratio
        if value is None:
            return None
        return value >= self.value if self.sign == ">=" else value <= self.value


# JAX 0.10 has no fast product of bfloat16 on CPUs: there bfloat16 saves memory only.
_BF16_CPU = (0, 11)

# Name of a record, with * for any text -> goal; the first that matches counts.
GOALS: Mapping[str, Goal] = {
    "cpu/step/t5-small/float32/fixed": Goal(1.8),
    "cpu/step/t5-small/float32/real": Goal(2.8),
    "cpu/step/smollm2-135m/float32/fixed": Goal(1.5),
    "cpu/step/smollm2-135m/float32/real": Goal(2.5),
    "cpu/step/*/bfloat16/fixed": Goal(1.3, jax=_BF16_CPU),
    "cpu/step/*/bfloat16/real": Goal(2.5, jax=_BF16_CPU),
    "cpu/step/*/float32/fixed/ceiling": Goal(0.85),
    "cpu/step/*/bfloat16/fixed/ceiling": Goal(0.7, jax=_BF16_CPU),
    "cpu/decode/greedy/*": Goal(2.5),
    "cpu/decode/rank/t5-small": Goal(4.0),
    "cpu/decode/rank/smollm2-135m": Goal(6.0),
    "cpu/start/first-step/mini/warm": Goal(3.0, "<=", "ours"),
    "cpu/start/first-step/*/warm": Goal(10.0, "<=", "ours"),
    "*/start/import": Goal(0.5, "<=", "ours"),
    "*/operations/grouping/K=6": Goal(0.01, "<="),
    "*/operations/grouping/K=1000": Goal(0.05, "<="),
    "*/operations/svgd/M=5": Goal(1.0),
    "*/operations/svgd/M=5/update": Goal(0.01, "<="),
    "*/operations/svgd/M=50": Goal(1.0),
    "*/operations/svgd/M=50/update": Goal(0.05, "<="),
    "gpu/step/t5-base/bfloat16/fixed": Goal(3.0),
    "gpu/step/t5-base/bfloat16/fixed/ceiling": Goal(0.5),
    "gpu/population/peft": Goal(10.0),
}


def goal_of(name: str, versions: Mapping[str, str]) -> Goal | None:
    """The goal of a record; None: it has none.

    Args:
      name: of the record, with the platform.
      versions: of the libraries.
    """
    for pattern, goal in GOALS.items():
        if fnmatch(name, pattern):
            numbers = versions.get("jax", "0.0").split(".")
            return goal if (int(numbers[0]), int(numbers[1])) >= goal.jax else None
    return None
