"""The four named random streams.

A random number is a pure function of (seed, stream, more integers). There is no random state, so a
resumed run is identical to an uninterrupted one, and the number of draws from one stream does not
affect another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prompt_jax.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import jax

STREAMS: dict[str, int] = {"init": 0, "source": 1, "few_shot": 2, "order": 3}
"""Initialisation, source training, few-shot draws (and all splitting of rows), row order."""


def stream_id(stream: str) -> int:
    """Returns the number of a named stream.

    Raises:
      ConfigError: for an unknown name.
    """
    if stream not in STREAMS:
        raise ConfigError(
            f"unknown random stream '{stream}'.{did_you_mean(stream, STREAMS)}"
            f" Known: {', '.join(STREAMS)}."
        )
    return STREAMS[stream]


def rng(seed: int, stream: str, *more: int) -> np.random.Generator:
    """NumPy generator of (seed, stream, *more); all integers must be non-negative.

    >>> bool(rng(1, "order", 2).integers(100) == rng(1, "order", 2).integers(100))
    True
    """
    words = [seed, stream_id(stream), *more]
    if min(words) < 0:
        raise ConfigError(f"seeds must not be negative, not {words}.")
    # SeedSequence pads with zeros, so [1, 3] and [1, 3, 0] would be the same stream; the leading
    # length makes them different.
    return np.random.default_rng([len(words), *words])


def key(seed: int, stream: str, *more: int) -> jax.Array:
    """JAX key (typed, scalar) of (seed, stream, *more), by `jax.random.fold_in`.

    `more` may be traced int32 scalars, so that a step number can be folded in inside jit.
    """
    import jax

    result = jax.random.fold_in(jax.random.key(seed), stream_id(stream))
    for word in more:
        result = jax.random.fold_in(result, word)
    return result
