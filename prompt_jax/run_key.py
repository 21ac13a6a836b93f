"""The identity of a replica as data, never as a text that is parsed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class RunKey:
    """The identity of a replica. Its fields are part of every record about it.

    Attributes:
      method: spec of the method that is trained, as in `prompt_jax.methods.create`.
      stage: the method's stage, as in `Stage.title`.
      task: the task whose rows are trained on; "" for a mixture of tasks.
      k: shots, as `data.shots_count` counts them; 0: all rows; None: the stage does not depend on
        it (sources).
      seed: of initialisation, few-shot draw and order.
      trial: number of the trial within (task, k, seed).
    """

    method: str = ""
    stage: str = ""
    task: str = ""
    k: int | None = None
    seed: int = 0
    trial: int = 0

    def fields(self) -> dict[str, Any]:
        """The fields as a JSON-able dictionary, in this order."""
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> RunKey:
        """The key in a record that holds its fields among others; absent ones have their default.

        Raises:
          TypeError: a field has another type than `fields` writes.
        """
        key = cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})
        texts = all(isinstance(text, str) for text in (key.method, key.stage, key.task))
        numbers = all(type(number) is int for number in (key.seed, key.trial))
        if not (texts and numbers and (key.k is None or type(key.k) is int)):
            raise TypeError("a field of the run key has the wrong type")
        return key

    def __str__(self) -> str:
        """For people and logs: what distinguishes the replicas of one stage.

        >>> str(RunKey("spot", "target", "glue/rte", 16, 3, 1)), str(RunKey(task="mr"))
        ('glue/rte k=16 seed=3 trial=1', 'mr seed=0')
        """
        shots = "" if self.k is None else " all rows" if self.k == 0 else f" k={self.k}"
        trial = f" trial={self.trial}" if self.trial else ""
        return f"{self.task or 'mixture'}{shots} seed={self.seed}{trial}"
