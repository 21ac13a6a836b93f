import jax
import numpy as np
import pytest

from prompt_jax.errors import ConfigError
from prompt_jax.streams import STREAMS, key, rng, stream_id


def test_numbers_depend_on_seed_stream_and_words_only():
    words = [(0, "init"), (0, "order"), (1, "order"), (0, "order", 0), (0, "order", 0, 0)]
    draws = {w: rng(*w).integers(2**62, size=4).tolist() for w in words}
    assert len({tuple(draw) for draw in draws.values()}) == len(words)
    for w in reversed(words):
        assert rng(*w).integers(2**62, size=4).tolist() == draws[w]


def test_keys_depend_on_seed_stream_and_words_only():
    words = [(0, "init"), (0, "source"), (1, "init"), (0, "init", 0), (0, "init", 1)]
    keys = {w: tuple(np.asarray(jax.random.key_data(key(*w))).tolist()) for w in words}
    assert len(set(keys.values())) == len(words)
    inside = jax.jit(lambda step: key(0, "init", step))(np.int32(1))
    assert (jax.random.key_data(inside) == jax.random.key_data(key(0, "init", 1))).all()
    assert inside.shape == ()


def test_unknown_streams_and_negative_seeds():
    assert STREAMS == {"init": 0, "source": 1, "few_shot": 2, "order": 3}
    with pytest.raises(ConfigError, match="Did you mean 'order'"):
        stream_id("ordr")
    with pytest.raises(ConfigError, match="negative"):
        rng(-1, "order")
