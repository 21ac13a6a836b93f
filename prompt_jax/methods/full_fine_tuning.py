"""Full fine-tuning: all weights of the model are trained on the target, as a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from prompt_jax.methods.base import BaseMethod, Context, Stage
from prompt_jax.training.protocol import Carry, Consts, Params, Prompted, Rows


@dataclass(frozen=True)
class FullFineTuning(BaseMethod):
    """Trains the model itself, without a prompt. A reference, not a prompt method.

    One replica at a time: each holds its own copy of the weights and of the optimizer's state.
    """

    name = "full_fine_tuning"
    paper = "Raffel et al. 2020, arXiv 1910.10683"
    status = "reference"
    trains_lm = True

    def stages(self) -> tuple[Stage, ...]:
        """One stage under its own budget, since its learning rates are of another order."""
        return (Stage("target", on="target", budget="fine_tuning"),)

    def init(self, context: Context) -> tuple[Params, Consts]:
        """Starts from the frozen model's weights."""
        return {"lm": context.lm.params}, {}

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """No prompt."""
        return Prompted(None, carry=carry)

    def groups(self, params: Params) -> Any:
        """One group, `lm`."""
        return jax.tree.map(lambda _: "lm", params)

    def lm_params(self, params: Params) -> Any:
        """All weights."""
        return params["lm"]

    def deploy(self, params: Params, consts: Consts) -> None:
        """There is no prompt to deploy."""
