"""How a T5's weights are split over the mesh axis 'model'.

Each attention keeps whole heads on a device (where their number divides), each feed-forward a slice
of its hidden units, and the embedding table and the head a slice of the vocabulary. An axis that
does not divide its dimension is left whole (see `prompt_jax.sharding.spec_for`).
"""

from __future__ import annotations

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
