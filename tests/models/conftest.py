"""Tiny models with PyTorch's outputs beside them: T5s, and for tests/models/decoder the others."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prompt_jax.models.decoder import FrozenDecoder
from prompt_jax.models.t5 import FrozenT5, T5Config

FAMILIES = {"t5": FrozenT5, "decoder": FrozenDecoder}
ALL_FIXTURES = Path(__file__).parents[1] / "fixtures"
FIXTURES = ALL_FIXTURES / "t5"
CASES = ("v1_0", "v1_1", "buckets", "layers")

TINY = T5Config(
    vocab_size=50,
    d_model=12,
    d_kv=4,
    d_ff=20,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    activation="gelu_new",
    gated=True,
    tied_head=False,
    scale_decoder_outputs=False,
)


class Case(NamedTuple):
    """A fixture: the model, where it lies, and what PyTorch computed."""

    lm: Any
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
def load_case(name: str, family: str = "t5") -> Case:
    path = ALL_FIXTURES / family / name
    with np.load(path / "outputs.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return Case(FAMILIES[family].from_pretrained(path), path, arrays)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture
def v11() -> Case:
    return load_case("v1_1")


@pytest.fixture(scope="session")
def tiny() -> FrozenT5:
    return FrozenT5.from_config(TINY, seed=3)


@pytest.fixture
def torch_t5():
    """Loads a directory with PyTorch; skips where torch or transformers is not installed."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()

    def load(path: Path):
        return transformers.T5ForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32
        ).eval()

    return load


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
