"""A tiny T5 with random weights, tokenised rows without a tokenizer, and runs on a learnable task.

Shared by the tests of training, methods and recipes. Programs are cached by (method, optimizer) and
shape, so tests that keep to the shapes here (L = 4, B = 8, inputs of up to 8 tokens) share their
compilations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax import testing
from prompt_jax.data import Feed, TokenisedSplit
from prompt_jax.methods import Artefact, Context
from prompt_jax.models.decoder import DecoderConfig, FrozenDecoder
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.run_key import RunKey
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import Replica, TrainConfig

CONFIG = T5Config(
    vocab_size=128,
    d_model=32,
    d_kv=16,
    d_ff=64,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    activation="gelu_new",
    gated=True,
    tied_head=False,
    scale_decoder_outputs=False,
)
L, B, D = 4, 8, CONFIG.d_model
EOS, MARKER, FIRST_ANSWER, FIRST_WORD = 1, 2, 8, 40
# Sixteen rows of the narrow width go through the T5 at once.
MICRO_TOKENS = 16 * (L + 8)


@functools.cache
def tiny_t5() -> FrozenT5:
    """2 + 2 layers, 128 tokens, width 32."""
    return FrozenT5.from_config(CONFIG, seed=7, name="tiny")


@functools.cache
def tiny_decoder() -> FrozenDecoder:
    """2 layers, the vocabulary and width of `tiny_t5`.

    Its weights are larger than at the start of a pre-training: each sublayer matters.
    """
    import jax

    config = DecoderConfig(
        vocab_size=CONFIG.vocab_size,
        d_model=D,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        eos_token_ids=(EOS,),
        tied_head=False,
    )
    lm = FrozenDecoder.from_config(config, seed=7, name="tiny")
    large = jax.tree.map(lambda x: x * 10 if x.ndim > 2 else x * 3, lm.params)
    return FrozenDecoder(large, dataclasses.replace(lm.spec, weights_hash=""))


def make_split(
    rows: int = 32,
    seed: int = 0,
    *,
    labels: int = 2,
    longest: int = 8,
    answer: int = 2,
    tasks: int = 1,
    templates: int = 1,
    name: str = "toy",
) -> TokenisedSplit:
    """Rows whose answer is the number of markers in the input.

    Args:
      rows: n.
      seed: of the rows; also decides which tokens the answers are.
      labels: number of answers.
      longest: longest input, its end included.
      answer: tokens of an answer, its end included.
      tasks: the rows belong to this many tasks in turn.
      templates: likewise.
      name: of the split.
    """
    return testing.toy_split(
        CONFIG.vocab_size,
        EOS,
        rows=rows,
        seed=seed,
        labels=labels,
        longest=longest,
        answer=answer,
        tasks=tasks,
        templates=templates,
        name=name,
        marker=MARKER,
        first_answer=FIRST_ANSWER,
        first_word=FIRST_WORD,
    )


def prompt(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """A random prompt, [L, D] float32."""
    values = np.random.default_rng(1000 + seed).normal(size=(L, D))
    return (scale * values).astype(np.float32)


def context(
    stage: str = "target", artefacts: dict[str, Artefact] | None = None, **changes: Any
) -> Context:
    """A target with three sources and one other target, in some stage."""
    fields: dict[str, Any] = {
        "initial": prompt(),
        "seed": 0,
        "target": "two",
        "artefacts": artefacts or {},
        "stage": stage,
        "sources": ("a", "b", "c"),
        "targets": ("one", "two"),
    }
    return Context(tiny_t5(), **{**fields, **changes})


def trained_together(params: Any) -> Artefact:
    """What a stage leaves that trains several tasks and deploys no prompt."""
    return Artefact(("",), np.zeros((0, 0, 0)), np.zeros(1), (params,))


def make_run(
    seed: int = 0,
    *,
    params: Any = None,
    consts: Any = None,
    dev: bool = False,
    rate: float = 1.0,
    batch_size: int = B,
    split: TokenisedSplit | None = None,
    **rows: Any,
) -> Replica:
    """A run of prompt tuning, or of another method with other params and consts."""
    split = make_split(seed=seed, **rows) if split is None else split
    return Replica(
        RunKey("toy", "toy", f"run{seed}", seed=seed),
        Feed(split, batch_size, seed),
        {"prompt": prompt(seed)} if params is None else params,
        {} if consts is None else consts,
        split.take(np.arange(16)) if dev else None,
        rate=rate,
    )


def budget(steps: int = 5, **options: Any) -> TrainConfig:
    """A training budget; what is not of `TrainConfig` goes to its optimizer."""
    own = {"batch_size": B, "eval_every": 0, "micro_batch_tokens": MICRO_TOKENS, "log_every": 1}
    own |= {k: options.pop(k) for k in tuple(options) if k in TrainConfig.__dataclass_fields__}
    own.setdefault("optimizer", OptimizerConfig(**{"schedule": "constant", **options}))
    return TrainConfig(steps=steps, **own)


class Recorder:
    """A tracker that keeps everything."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.records: list[dict[str, Any]] = []
        self.notes: list[tuple[int, str]] = []
        self.speeds: list[dict[str, Any]] = []
        self.doings: list[str] = []
        self.measures = True

    def start(self, stage: str, steps: int, replicas: int) -> None:
        self.started.append((stage, steps, replicas))

    def log(self, key: RunKey, record: Any) -> None:
        self.records.append({**key.fields(), **record})

    def advance(self, step: int, note: str) -> None:
        self.notes.append((step, note))

    def doing(self, what: str) -> None:
        self.doings.append(what)

    def position(self) -> int:
        return len(self.records)

    def rewind(self, position: int) -> None:
        del self.records[position:]

    def before_step(self, wait: Any) -> None:
        pass

    def measure(self, record: Any) -> None:
        self.speeds.append(dict(record))

    def of(self, name: str, replica: RunKey | None = None) -> list[Any]:
        """Every value of a name, of one replica or of all, in order."""
        return [
            record[name]
            for record in self.records
            if name in record and replica in (None, RunKey.of(record))
        ]


def distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Distance relative to the norm of b, and the largest difference."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b)), float(np.abs(a - b).max())


def stack(trees: Sequence[Any]) -> Any:
    """Adds the axis R."""
    import jax

    return jax.tree.map(lambda *x: np.stack([np.asarray(leaf) for leaf in x]), *trees)
