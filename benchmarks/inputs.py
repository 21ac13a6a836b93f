"""Models with random weights, and token rows: nothing is downloaded.

Importing it imports nothing of this library, see `peers`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from prompt_jax.data.tokenise import TokenisedSplit
    from prompt_jax.models import LanguageModel

# Every fifth percentile of the input lengths of 250 validation rows each of RTE, MRPC, QNLI, SST-2
# and BoolQ in their plain templates, T5's vocabulary, truncated at 256: mean 75.
REAL_LENGTHS = (
    *(6, 22, 29, 34, 38, 42, 46, 49, 52, 56, 59),
    *(63, 66, 71, 77, 85, 102, 124, 152, 198, 256),
)
MODELS = "PROMPT_JAX_BENCHMARK_MODELS"
"""The environment variable with the folder of the models."""


def published(name: str) -> tuple[Any, Any]:
    """Class and configuration of a model by the last part of its published name, in any case.

    "toy-t5" and "toy-decoder" are small enough to try the code.
    """
    if name == "toy-t5":
        from prompt_jax.models.t5 import FrozenT5, T5Config

        sizes = {"vocab_size": 512, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2}
        return FrozenT5, T5Config(**sizes, num_layers=2, num_decoder_layers=2)
    if name == "toy-decoder":
        from prompt_jax.models.decoder import DecoderConfig, FrozenDecoder

        sizes = {"vocab_size": 512, "d_model": 32, "d_ff": 64, "num_layers": 2, "head_dim": 8}
        config = DecoderConfig(**sizes, num_heads=4, num_kv_heads=2, eos_token_ids=(1,))
        return FrozenDecoder, config
    from prompt_jax.models import registry

    for family in registry.FAMILIES:
        model_class = family.load_class()
        for shape, config in model_class.SHAPES.items():
            if shape.rpartition("/")[2].lower() == name.lower():
                return model_class, config
    raise SystemExit(f"the shape of '{name}' is not known")


def folder(name: str) -> Path:
    """A directory with the model, random weights of its shape.

    It is in the folder that the suite names (`MODELS`), where other families find it too; without
    one in a folder that is removed when the process ends.
    """
    path = Path(os.environ.get(MODELS) or _own()) / name
    if not path.exists():
        model_class, config = published(name)
        unfinished = path.with_name(f"{name}.{os.getpid()}")
        model_class.from_config(config, seed=0).save_pretrained(unfinished)
        unfinished.rename(path)
    return path


@functools.cache
def _own() -> str:
    path = tempfile.mkdtemp(prefix="prompt-jax-benchmark-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def load(path: Path, dtype: str) -> LanguageModel:
    """A model from a directory."""
    from prompt_jax.models import registry

    return registry.load(path, dtype)


def lengths(kind: str, count: int, tokens: int, seed: int = 0) -> np.ndarray:
    """Input lengths: `tokens` each ("fixed"), or as those of real tasks ("real")."""
    if kind == "fixed":
        return np.full(count, tokens)
    drawn = np.random.default_rng(seed).random(count)
    return np.interp(drawn, np.linspace(0, 1, len(REAL_LENGTHS)), REAL_LENGTHS).astype(int)


def rows(
    sizes: np.ndarray, vocab: int, *, targets: int = 3, choices: int = 0, seed: int = 0
) -> TokenisedSplit:
    """Random token rows.

    Args:
      sizes: input tokens of each row.
      vocab: tokens are below, but for the last 200.
      targets: target tokens of each row, the end of sequence included.
      choices: candidate answers, the same for every row, of `targets` tokens; 0: none.
      seed: of the tokens.
    """
    from prompt_jax.data.ragged import Ragged
    from prompt_jax.data.render import Example
    from prompt_jax.data.tokenise import TokenisedSplit

    count = len(sizes)
    starts, ends = texts(sizes, vocab, targets, seed)
    answers, _ = texts(np.full(choices, targets), vocab, 0, seed + 1)
    none = np.zeros(count, np.int32)
    words = tuple(f"answer {i}" for i in range(choices))
    one = Example("", "", None, words, (words[0],)) if choices else Example("", "")
    return TokenisedSplit(
        "benchmark",
        Ragged.of(starts),
        Ragged.of(ends),
        none - 1,
        none,
        none,
        Ragged.of([list(range(choices))] * count),
        Ragged.of(answers),
        none.astype(bool),
        none.astype(bool),
        (one,) * count,
        ("plain",),
        ("benchmark",),
    )


def texts(
    sizes: np.ndarray, vocab: int, targets: int, seed: int = 0
) -> tuple[list[list[int]], list[list[int]]]:
    """Inputs of these sizes and a target of each, random tokens that end with the id 1."""
    rng = np.random.default_rng(seed)

    def text(tokens: int) -> list[int]:
        return [*rng.integers(3, vocab - 200, max(tokens - 1, 0)).tolist(), 1]

    return [text(int(n)) for n in sizes], [text(targets) for _ in sizes]


def prompt(lm: LanguageModel, tokens: int, seed: int = 0) -> np.ndarray:
    """A prompt [L, D] float32 of token embeddings."""
    ids = np.random.default_rng(seed).integers(0, lm.vocab_size, tokens)
    return np.asarray(lm.embed(ids.astype(np.int32)), np.float32)
