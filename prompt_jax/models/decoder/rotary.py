"""Rotary positions (Su et al. 2021), halves of a head rotated against each other."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.models.decoder.config import DecoderConfig


@functools.lru_cache(maxsize=32)
def frequencies(config: DecoderConfig) -> np.ndarray:
    """Angle per position of each pair of coordinates, `[head_dim / 2]` float32.

    With Llama 3.1's scaling the long wavelengths are divided by `factor`, the short ones kept, and
    those between interpolated. Computed in float32 like the reference implementation.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    plain = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    wavelengths = np.float32(2 * np.pi) / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = (scaling.original_positions / wavelengths - low) / (high - low)
    mixed = (1.0 - kept) * plain / scaling.factor + kept * plain
    out = np.where(wavelengths > scaling.original_positions / low, plain / scaling.factor, mixed)
    out = np.where(wavelengths < scaling.original_positions / high, plain, out)
    return out.astype(np.float32)


def tables(config: DecoderConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every angle.

    Args:
      config: the shape.
      positions: `[N, Q]` int32.

    Returns:
      Two arrays `[N, Q, head_dim / 2]` float32.
    """
    line = jnp.asarray(frequencies(config))[None, None]
    angles = positions.astype(jnp.float32)[..., None] * line
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates `x [N, Q, heads, head_dim]` by the tables of its positions, in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = (jnp.broadcast_to(table[:, :, None], first.shape) for table in (cos, sin))
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
