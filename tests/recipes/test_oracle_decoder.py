"""The oracle over a decoder-only model: it knows no family."""

from __future__ import annotations

import numpy as np
import pytest
import toy
from world import World

from prompt_jax.models.decoder import FrozenDecoder
from prompt_jax.recipes.oracle import oracle

from .test_oracle import AVERAGED, BEST, K, subsets
from .test_oracle import planted as planted


@pytest.fixture
def world(files: World, monkeypatch: pytest.MonkeyPatch) -> World:
    tokenizer = files.lm.tokenizer
    monkeypatch.setattr(FrozenDecoder, "tokenizer", property(lambda self: tokenizer))
    return files._replace(lm=toy.tiny_decoder())


@pytest.mark.slow
def test_the_planted_subset_is_found(planted, world, pretender):
    config, asked = planted
    (cell,) = oracle(config, world.lm, show=False, say=lambda line: None).cells
    best = next(n for n, g in enumerate(subsets(K)) if set(np.flatnonzero(g)) == BEST)
    assert [land.test[best] for land in cell.landscapes] == [AVERAGED] * 2
    assert [held.chosen for held in cell.any] == [(best, best)] * 2
    before = len(asked)
    oracle(config, world.lm, show=False, say=lambda line: None)
    assert len(asked) == before  # what was evaluated is read
