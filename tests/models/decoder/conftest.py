"""Tiny decoder-only models with PyTorch's outputs beside them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from prompt_jax.models.decoder import FrozenDecoder

FIXTURES = Path(__file__).parents[2] / "fixtures" / "decoder"
CASES = ("llama", "llama3", "qwen2", "qwen3")


class Case(NamedTuple):
    """A fixture: the model, where it lies, and what PyTorch computed row by row."""

    lm: FrozenDecoder
    path: Path
    arrays: dict[str, np.ndarray]

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and mask."""
        return self.arrays["input_ids"], self.arrays["attention_mask"]

    @property
    def batch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, mask and labels."""
        return (*self.rows, self.arrays["labels"])

    @property
    def real(self) -> np.ndarray:
        """Where there is a target, `[B, T]`."""
        return self.arrays["labels"] >= 0


@functools.cache
def load_case(name: str) -> Case:
    path = FIXTURES / name
    with np.load(path / "outputs.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Case(FrozenDecoder.from_pretrained(path), path, arrays)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture
def qwen3() -> Case:
    return load_case("qwen3")


@pytest.fixture
def llama3() -> Case:
    return load_case("llama3")
