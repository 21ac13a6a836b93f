"""An initialisation of the attention: heads that attend to equal words and copy their values.

Attention that copies and compares takes a small model longest to learn, and its form is known
beforehand (after mimetic initialisation, Trockman & Kolter 2023, arXiv 2305.09828; the form is
ours). Keys are orthonormal, queries a multiple of them, so that a word attends to its own
occurrences; values are orthonormal and outputs their transpose, so that values are copied
unchanged. In the encoder half of the heads do not attend to their own position, a quarter starts at
the word before and a quarter at the word after.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MATCH = 4.5  # logit of a word with itself
COPIED = 0.7  # scale of a copied value
_AWAY, _NEAR = -6.0, 5.0  # position biases
_BEFORE, _AFTER = 1, 17  # buckets of one word before and after, of T5's 32 both ways


def matching(params: Any, heads: int, seed: int) -> Any:
    """The parameters of a T5 with attention that matches and copies.

    Args:
      params: of a T5 with 32 relative position buckets whose heads fill the width: leaves q, k, v
        [layers, D, D] and o [layers, D, D]; `encoder.relative_bias` [32, heads].
      heads: a multiple of 4.
      seed: of the random bases.
    """
    draw = np.random.default_rng(seed)
    width = params["shared"].shape[1]
    inner = width // heads

    def bases(count: int) -> np.ndarray:
        return np.stack(
            [np.linalg.qr(draw.standard_normal((width, width)))[0] for _ in range(count)]
        )

    def attention(old: Any) -> Any:
        keys, values = bases(len(old["q"])), bases(len(old["q"]))
        return {
            **old,
            "k": jnp.asarray(keys, jnp.float32),
            "q": jnp.asarray(keys * (MATCH / inner), jnp.float32),
            "v": jnp.asarray(values, jnp.float32),
            "o": jnp.asarray(COPIED * values.swapaxes(1, 2), jnp.float32),
        }

    def stack(old: Any) -> Any:
        layers = {
            name: attention(part) if name.endswith("attention") else part
            for name, part in old["layers"].items()
        }
        return {**old, "layers": layers}

    bias = np.zeros((32, heads), np.float32)
    quarter = heads // 4
    bias[0, : 2 * quarter] = _AWAY
    bias[_BEFORE, 2 * quarter : 3 * quarter] = _NEAR
    bias[_AFTER, 3 * quarter :] = _NEAR
    encoder = stack(params["encoder"])
    # Heads that attend to a neighbour do so independently of the words.
    query = encoder["layers"]["self_attention"]["q"]
    query = query.at[:, :, 2 * quarter * inner :].multiply(0.1)
    encoder["layers"]["self_attention"]["q"] = query
    encoder["relative_bias"] = jnp.asarray(bias)
    return jax.tree.map(
        jnp.asarray, {**params, "encoder": encoder, "decoder": stack(params["decoder"])}
    )
