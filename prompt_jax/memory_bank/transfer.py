"""Transfer modes: what of a trained bank is tuned on a new task.

    `WholeBank`         all of it
    `RetrievedSlots`    the slots that the task's templates retrieve
    `RetrievedPrompt`   the prompt that they retrieve, as a prompt of its own
    `ZeroShot`          nothing

A bank in training is a dictionary of `values` [N, m, D] and, where there are any, `keys` [N, D] and
`projection` W [D, D].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from prompt_jax.memory_bank.strategies import Retrieved

Bank = Mapping[str, Any]
Start = tuple[dict[str, Any], dict[str, Any]]
"""Parameters, and constants."""


@dataclass(frozen=True)
class Transfer:
    """A transfer mode.

    Attributes:
      tunes: whether steps are taken on the target.
      tunes_prompt: whether they train one prompt, which all templates retrieve together.
      by_template: whether what is retrieved has to be known before training, and so may not depend
        on the row.
      selects: whether slots that no template retrieves are left out.
    """

    tunes: ClassVar[bool] = True
    tunes_prompt: ClassVar[bool] = False
    by_template: ClassVar[bool] = False
    selects: ClassVar[bool] = False

    def start(self, bank: Bank, consts: Mapping[str, Any], read: Callable[[], Retrieved]) -> Start:
        """Where training on the target begins.

        Args:
          bank: the trained one.
          consts: with which it is read.
          read: returns what the target's templates retrieve from it.
        """
        return dict(bank), dict(consts)


@dataclass(frozen=True)
class WholeBank(Transfer):
    """Tunes all of the bank."""


@dataclass(frozen=True)
class ZeroShot(Transfer):
    """Uses the bank as it is."""

    tunes = False


@dataclass(frozen=True)
class RetrievedSlots(Transfer):
    """Tunes the values of the slots that are retrieved; all else becomes constant."""

    by_template = True
    selects = True

    def start(self, bank: Bank, consts: Mapping[str, Any], read: Callable[[], Retrieved]) -> Start:
        """The values of these slots; `whole_bank` puts them back among the others."""
        indices = np.asarray(read().indices)
        slots = len(bank["values"])
        # As many for every replica of a population: filled up with slots that nobody retrieves.
        first = list(dict.fromkeys(indices.T.reshape(-1).tolist()))
        others = [n for n in range(slots) if n not in set(first)]
        where = np.asarray((first + others)[: min(slots, indices.size)], np.int32)
        values = np.asarray(bank["values"])[where]
        return {"values": values}, {**consts, "bank": bank, "where": where}


@dataclass(frozen=True)
class RetrievedPrompt(Transfer):
    """Tunes the retrieved prompt, without the bank."""

    tunes_prompt = True
    by_template = True

    def start(self, bank: Bank, consts: Mapping[str, Any], read: Callable[[], Retrieved]) -> Start:
        """The prompt of the first text, [L, D] float32."""
        return {"prompt": np.asarray(read().prompts[0], np.float32)}, {}


def whole_bank(params: Bank, consts: Mapping[str, Any]) -> Bank:
    """The bank that is read: the parameters, after `RetrievedSlots` among the constant slots."""
    if "bank" not in consts:
        return params
    values = jnp.asarray(consts["bank"]["values"])
    return {**consts["bank"], "values": values.at[consts["where"]].set(params["values"])}


def bank_size(params: Bank, consts: Mapping[str, Any]) -> int:
    """N of `whole_bank`."""
    bank: Any = consts.get("bank", params)
    return len(bank["values"])
