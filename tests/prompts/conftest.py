"""A language model of a few words, with what `prompts/` asks of one and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.prompts import PromptRecord, SoftPrompt

WORDS = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 60)), "good", "bad", "review"]


class WordTokenizer:
    pad_id, eos_id = 0, 1
    vocab_size = len(WORDS)

    def encode(self, texts: Sequence[str], add_eos: bool = True) -> list[list[int]]:
        rows = [[WORDS.index(word) for word in text.split()] for text in texts]
        return [[*row, self.eos_id] if add_eos else row for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i] for i in ids if i > 2)


@dataclasses.dataclass
class FakeLM:
    table: np.ndarray
    name: str = "fake"
    weights_hash: str = "91c0aa" + "0" * 58
    model_config: dict[str, Any] = dataclasses.field(default_factory=lambda: {"epsilon": 1e-6})
    tokenizer: WordTokenizer = dataclasses.field(default_factory=WordTokenizer)

    @property
    def d_model(self) -> int:
        return self.table.shape[1]

    @property
    def vocab_size(self) -> int:
        return self.table.shape[0]

    def embed(self, ids: Any) -> Any:
        return jnp.take(jnp.asarray(self.table), jnp.asarray(ids), axis=0)


@pytest.fixture(scope="session")
def lm() -> FakeLM:
    """D = 8; two more rows in the table than words, as real checkpoints are padded."""
    table = np.random.default_rng(0).normal(size=(len(WORDS) + 2, 8)).astype(np.float32)
    return FakeLM(table)


@pytest.fixture
def record() -> PromptRecord:
    return PromptRecord(
        model_hash="91c0aa" + "0" * 58,
        model_name="fake",
        method="prompt_tuning",
        task="glue/mrpc",
        init_id="17",
        init="vocab:5000",
        tokens=5,
        d_model=8,
        seed=3,
        config={"train": {"lr": 0.3, "betas": [0.9, 0.999]}, "note": "é \u001b ü"},
        scores={"accuracy": 0.75},
        created="2026-11-21",
        model_config={"epsilon": 1e-6},
    )


@pytest.fixture
def prompt(record: PromptRecord) -> SoftPrompt:
    values = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    return SoftPrompt(values, record)
