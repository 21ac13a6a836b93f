"""What the trainer uses of a method: pure functions for ONE replica.

The trainer adds the axis R in front with `jax.vmap` and folds R x V x B rows into the frozen model.
`docs/architecture.md` shows how each published method maps onto this protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import optax

from prompt_jax.models.base import Scores

Params = Any
Consts = Any
Carry = Any
Array = Any  # jax.Array inside a program, numpy array where the host makes it


class Rows(NamedTuple):
    """One step's rows of one replica, as `Method.prompts` sees them."""

    input_ids: Array  # [B, S] int32; S = 0 unless it needs inputs or embeddings
    mask: Array  # [B, S] int32
    task: Array  # [B] int32, index of the row's task within the replica's mixture
    template: Array  # [B] int32
    scale: Array  # [B] float32, N_k / |B_k| of the row's task
    embedded: Array | None = None  # [B, S, D] float32, token embeddings if it `needs_embeddings`


class Prompted(NamedTuple):
    """What `Method.prompts` returns."""

    prompts: jax.Array | None  # [V, L, D], or [V, B, L, D] if rowwise; None: the bare model
    teacher: jax.Array | None = None  # same shape; rows are scored under it without gradient
    carry: Carry = ()  # state that is not trained
    aux: Any = ()  # for `penalty` and metrics
    # [V, B] float, what multiplies the loss of each row; its gradient is the row's loss. The
    # normalisation stays that of the unweighted rows. None: 1 for every row.
    row_weights: jax.Array | None = None


class RowLoss(NamedTuple):
    """Sums and weights per row; the trainer adds them up and divides at the very end."""

    sum: jax.Array  # [b] float32
    weight: jax.Array  # [b] float32


class Method(Protocol):
    """A method of prompt training. Static options are fields of the frozen, hashable object."""

    name: ClassVar[str]
    trains_lm: ClassVar[bool]  # params hold the model's weights; one replica at a time
    reduction: ClassVar[Literal["mean", "sum"]]  # token mean, or the full-data sum with Rows.scale

    @property
    def views(self) -> int:
        """V."""

    @property
    def rowwise(self) -> bool:
        """Whether each row has a prompt of its own."""

    @property
    def observe(self) -> frozenset[str]:
        """What `row_loss` reads beyond the loss: "logits", "hidden"."""

    @property
    def needs_inputs(self) -> bool:
        """Whether `prompts` reads the tokens of the rows."""

    @property
    def needs_embeddings(self) -> bool:
        """Whether `prompts` reads `Rows.embedded`; the trainer makes it with the frozen model."""

    @property
    def per_view_batches(self) -> bool:
        """Whether each view sees its own share of the rows, not all of them."""

    def __hash__(self) -> int:
        """Equal methods share their compiled programs."""

    def carry(self, params: Params, consts: Consts) -> Carry:
        """The untrained state at step 0."""

    def prompts(
        self,
        params: Params,
        consts: Consts,
        carry: Carry,
        rows: Rows,
        step: jax.Array,
        key: jax.Array,
    ) -> Prompted:
        """The prompts of this step under each view."""

    def row_loss(self, out: Scores, teacher: Scores | None) -> RowLoss:
        """The data term of each row, from the row's own outputs alone."""

    def penalty(self, params: Params, consts: Consts, aux: Any, step: jax.Array) -> jax.Array:
        """Priors and regularisers: a scalar, added once per step after normalisation."""

    def metrics(self, params: Params, consts: Consts, prompted: Prompted) -> Mapping[str, Array]:
        """Small float or bool arrays of this step for the replica's lines in metrics.jsonl.

        Computed inside the program of the step, from what `prompts` returned and the parameters
        that it was given. `prompt_jax.training.step.RESERVED` lists the names that are taken.
        """

    def update_metrics(self, opt_state: Any) -> Mapping[str, Array]:
        """Likewise, from the state after `transform`'s update."""

    def summarize(self, carry: Carry) -> str:
        """One line for people about a trained replica's carry, or "".

        It is logged under `summary`, and the report shows it.
        """

    def groups(self, params: Params) -> Any:
        """The optimizer group (a string) of every leaf of `params`."""

    def group_rates(self) -> Mapping[str, float]:
        """What multiplies the rate of a group; the budget's `group_rates` multiply it again."""

    def transform(self, base: optax.GradientTransformation) -> optax.GradientTransformation:
        """Wraps the optimizer; identity for most methods, SVGD for BMTPT."""

    def lm_params(self, params: Params) -> Any:
        """The model's weights inside `params` where `trains_lm`, otherwise None."""

    def template_prompts(self, params: Params, consts: Consts) -> jax.Array | None:
        """The prompts [P, L, D] of row-wise methods that only read `Rows.template`, else None.

        Evaluation then makes them once, not once per row.
        """

    def row_prompts(self, params: Params, consts: Consts, rows: Rows) -> jax.Array | None:
        """Of row-wise methods the prompts [B, L, D] of rows in evaluation; None: no prompt."""

    def ensemble(self, params: Params, consts: Consts) -> jax.Array | None:
        """The prompts [M, L, D] whose predictions are averaged in evaluation, or None."""

    def deploy(self, params: Params, consts: Consts) -> jax.Array | None:
        """The single prompt [L, D] that is deployed; None for row-wise or prompt-free methods."""
