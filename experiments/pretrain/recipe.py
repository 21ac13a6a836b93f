"""Pre-trains a small T5 whose behaviour is decided by the text in front of its input.

    python -m experiments.pretrain out=DIR corpus.root=DATA corpus.texts=A.txt.gz,B.txt.gz
    python -m experiments.pretrain out=DIR train.steps=200 corpus.rows=20000     # a short run

The same command resumes a run that was stopped. The "mini" T5 of the package was made with it; its
model card (`prompt_jax/models/mini/README.md`) has the command, the data and the scores.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.pretrain import attention, corpus, embedding, instructions, score, vocabulary
from experiments.pretrain.corpus import CorpusConfig
from prompt_jax.data.feed import Feed
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.methods.full_fine_tuning import FullFineTuning
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.run_key import RunKey
from prompt_jax.training.checkpoints import Checkpoints
from prompt_jax.training.loop import train
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.protocol import Params
from prompt_jax.training.tracking import RunTracker
from prompt_jax.training.types import Replica, TrainConfig


@dataclass(frozen=True)
class PretrainConfig:
    """A pre-training run.

    Attributes:
      out: directory of the model and of the log.
      seed: of the data, the weights and the order.
      vocabulary: rows of the embedding, sentinels included.
      width: D.
      feed_forward: width of the gated feed-forward layers.
      layers: encoder layers.
      decoder_layers: decoder layers.
      heads: attention heads, of width D / heads.
      corpus: what is read.
      train: the budget; the best step on fresh instructions is kept.
      dev_rows: how many of those.
      checkpoint_seconds: between checkpoints; 0: after every evaluation.
    """

    out: str = "runs/pretrain"
    seed: int = 0
    vocabulary: int = 4096
    width: int = 128
    feed_forward: int = 256
    layers: int = 3
    decoder_layers: int = 3
    heads: int = 4
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=5_500,
            batch_size=64,
            eval_every=500,
            log_every=50,
            optimizer=OptimizerConfig(
                learning_rate=1.5e-3,
                unit="absolute",
                group_rates=("query=0.177",),
                warmup_steps=200,
                schedule="cosine",
                clip_norm=1.0,
                b2=0.98,
            ),
        )
    )

    dev_rows: int = 400
    checkpoint_seconds: float = 60.0

    def shape(self) -> T5Config:
        """The T5."""
        return T5Config(
            vocab_size=self.vocabulary,
            d_model=self.width,
            d_kv=self.width // self.heads,
            d_ff=self.feed_forward,
            num_layers=self.layers,
            num_heads=self.heads,
            num_decoder_layers=self.decoder_layers,
            activation="gelu_new",
            gated=True,
        )


class Pretraining(FullFineTuning):
    """Full training with a separate learning rate for the attention queries.

    T5 includes the attention's d_kv ** -0.5 in the scale of its initial queries. Adam's steps do
    not depend on that scale: at the common rate they are d_kv ** 0.5 times too long, and the
    attention saturates.
    """

    name = "pretraining"

    def groups(self, params: Params) -> Any:
        """`query` and `lm`."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "query" if path[-1].key == "q" else "lm", params
        )


def get_config() -> PretrainConfig:
    """The recipe of the packaged mini T5, except for the texts and tasks at hand."""
    return PretrainConfig()


def prepare(config: PretrainConfig, say: Callable[[str], None]) -> tuple[FrozenT5, TokenisedSplit]:
    """The T5 before training, and its corpus."""
    lm = _untrained(config, say)
    say("corpus ...")
    rows = corpus.build(config.corpus, lm.tokenizer, config.seed)
    for number, name in enumerate(rows.task_names):
        say(f"  {name}: {(rows.task == number).sum():,} rows")
    return lm, rows


def _untrained(config: PretrainConfig, say: Callable[[str], None]) -> FrozenT5:
    """The T5 at step 0; the vocabulary is made once and kept in `out`."""
    out = Path(config.out)
    pieces, texts = out / "spiece.model", _sample(config)
    if not pieces.is_file():
        say("vocabulary ...")
        vocabulary.train(texts, config.vocabulary, pieces)
    lm = FrozenT5.from_config(config.shape(), seed=config.seed, name=out.name, tokenizer=pieces)
    say("embedding ...")
    ids = lm.tokenizer.encode(texts, add_eos=False)
    start = embedding.ppmi_svd(ids, config.vocabulary, config.width, seed=config.seed)
    params = {**lm.params, "shared": jnp.asarray(start)}
    return lm.replace(params=attention.matching(params, config.heads, config.seed))


def _sample(config: PretrainConfig) -> list[str]:
    """Texts for the vocabulary and the initial embedding: a part of every kind of row."""
    part = max(500, config.corpus.rows // 8)
    asked = itertools.islice(instructions.asked(config.seed), part // 2)
    texts = [f"{example.input} {example.target}" for example in asked]
    texts += itertools.islice(instructions.prose(config.seed), part // 2)
    drop = corpus.forbidden(config.corpus.root)
    texts += corpus.english(config.corpus.texts, part, config.seed, drop)
    for row in corpus.task_rows(config.corpus.tasks, config.corpus.root, config.seed, drop)[:part]:
        texts.append(f"{row.input} {row.target}")
    return texts


def _settings(config: PretrainConfig) -> dict[str, Any]:
    """The config without places of one machine: files by their names alone."""
    settings = dataclasses.asdict(config)
    del settings["out"], settings["corpus"]["root"]
    settings["corpus"]["texts"] = [Path(text).name for text in config.corpus.texts]
    return settings


def run(config: PretrainConfig, say: Callable[[str], None] = print) -> FrozenT5:
    """Trains and saves the model.

    Args:
      config: what to do.
      say: receives lines for people.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    lm, rows = prepare(config, say)
    feed = Feed(rows, config.train.batch_size, config.seed, "source")
    say(f"{lm.config.parameter_count:,} parameters, {config.train.steps:,} steps")
    began = time.monotonic()
    replica = Replica(
        RunKey("pretraining", "pretraining", seed=config.seed),
        feed,
        {"lm": lm.params},
        dev=score.development(lm.tokenizer, config.dev_rows),
        dev_metrics=("squad_em",),
        keep_start=False,
    )
    checkpoints = Checkpoints(out / "checkpoints", every_seconds=config.checkpoint_seconds, say=say)
    with RunTracker(out / "metrics.jsonl") as tracker:
        (trained,) = train(
            lm,
            Pretraining(),
            [replica],
            config.train,
            stage="pretraining",
            tracker=tracker,
            checkpoints=checkpoints,
        )
    lm = lm.replace(params=trained.params["lm"])
    lm.save_pretrained(out)
    checkpoints.delete()
    facts = {
        "config": _settings(config),
        "rows": {n: int((rows.task == i).sum()) for i, n in enumerate(rows.task_names)},
        "steps": trained.steps,
        "input_tokens": trained.tokens_seen,
        "target_tokens": trained.targets_seen,
        "seconds": round(time.monotonic() - began),
    }
    (out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    say(f"saved in {out}, {facts['seconds']:,} s")
    return lm
