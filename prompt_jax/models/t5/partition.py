"""How a T5's weights are split over the mesh axis 'model'.

Each attention keeps whole heads on a device (where their number divides), each feed-forward a slice
of its hidden units, and the embedding table and the head a slice of the vocabulary. An axis that
does not divide its dimension is left whole (see `prompt_jax.sharding.spec_for`).
"""

from __future__ import annotations

from prompt_jax.models.t5.config import T5Config
from prompt_jax.sharding import Rules

T5_RULES: Rules = (
    # Kernels are [layers, in, out]; a head is a block of columns of q, k, v and of rows of o.
    (r"attention/(q|k|v)$", (None, None, "model")),
    (r"attention/o$", (None, "model", None)),
    (r"mlp/wi(_0|_1)?$", (None, None, "model")),
    (r"mlp/wo$", (None, "model", None)),
    (r"relative_bias$", (None, "model")),
    (r"(^|/)(shared|lm_head)$", ("model", None)),
)
"""Regex on a parameter's path -> mesh axes of its dimensions, for `sharding.shard_tree`."""


def part_of(config: T5Config, model: int) -> T5Config:
    """The T5 whose products one of `model` devices computes; the residual stream stays whole.

    Its shapes are those of the device's activations, so that a plan can compile them without such
    devices.

    Args:
      config: of the whole model.
      model: devices over which its weights are split.
    """

    def share(size: int) -> int:
        return size // model if size % model == 0 else size

    return config.replace(
        num_heads=share(config.num_heads),
        d_ff=share(config.d_ff),
        vocab_size=share(config.vocab_size),
    )
