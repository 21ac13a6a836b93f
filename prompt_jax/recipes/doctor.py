"""A self-check of a model on this machine: does everything that training a prompt relies on hold?

Each check is a measured number and the limit that it has to keep. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.data import Feed, TokenisedSplit, registry
from prompt_jax.data.sources import Subset, open_split
from prompt_jax.data.tokenise import task_for, tokenise_rows
from prompt_jax.methods import BaseMethod
from prompt_jax.models.base import LanguageModel
from prompt_jax.prompts import parse
from prompt_jax.run_key import RunKey
from prompt_jax.training import Replica, TrainConfig, train
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.tracking import NullTracker

TASK = "sandbox/sentiment_talk"
LOSS = 1.0
"""The loss per target token, in nats, that training has to reach: two labels at random are less."""

_ROWS, _BATCH, _NEW = 32, 8, 6
# Fewer steps lower the loss of no model that has to find its way from a random prompt to the label
# words: SmolLM2 begins at 13 nats, is at 2.2 after ten and below 0.8 after twenty.
_STEPS = (25, 100)
_RATE = 0.1  # in units of the embeddings' root mean square


class Check(NamedTuple):
    """One promise and whether it holds.

    Attributes:
      name: what has to hold.
      passed: whether it does.
      value: the measured number.
      limit: what it is compared with.
      detail: the number in words.
      seconds: that it took, compiling included.
    """

    name: str
    passed: bool
    value: float
    limit: float
    detail: str
    seconds: float = 0.0


def examine(
    lm: LanguageModel,
    *,
    task: str = TASK,
    tokens: int = 10,
    seconds: float = 60.0,
    report: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Checks a model: tokenizer, prompt, padding, decoding, and training of a prompt.

    Args:
      lm: a model of any family, with a tokenizer.
      task: whose training rows are used.
      tokens: L.
      seconds: how long training should take at most; it takes 25 steps at least.
      report: receives every check when it is done.

    Raises:
      PromptJaxError: the model has no tokenizer, or the task cannot be opened.
    """
    known = task_for(lm.tokenizer, registry.get(task))
    source = open_split(known, "train")
    source = Subset(source, range(min(_ROWS, len(source))))
    rows = tokenise_rows(known, source, tokenizer=lm.tokenizer, max_input=128, max_target=16)
    prompt = np.asarray(parse(f"vocab:{min(5000, lm.vocab_size)}")(lm, tokens, 0).embeddings)
    # bfloat16 has 8 bits: sums of a few hundred terms agree to a few percent.
    near = 1e-3 if lm.dtype == jnp.float32 else 0.1
    batch = _batch(lm, rows)
    found = []
    for make in (
        lambda: _texts(lm, rows),
        lambda: _prompt(lm, batch, prompt, near),
        lambda: _padding(lm, batch, prompt, near),
        lambda: _decoding(lm, batch, prompt, near),
    ):
        found.append(_timed(make, report))
    began = time.monotonic()
    frozen, lowered = training(lm, rows, prompt, seconds)
    # One training serves both; the second line has its time.
    for done in (frozen, lowered._replace(seconds=time.monotonic() - began)):
        report(done)
        found.append(done)
    return found


def _timed(make: Callable[[], Check], report: Callable[[Check], None]) -> Check:
    began = time.monotonic()
    check = make()
    check = check._replace(seconds=time.monotonic() - began)
    report(check)
    return check


class _Batch(NamedTuple):
    ids: np.ndarray  # [B, S]
    mask: np.ndarray  # [B, S]
    labels: np.ndarray  # [B, T]


def _batch(lm: LanguageModel, rows: TokenisedSplit) -> _Batch:
    picked = np.arange(min(_BATCH, len(rows)))
    lengths = rows.inputs.lengths[picked]
    width = int(lengths.max())
    ids = rows.inputs.padded(picked, width, lm.pad_id)
    mask = (np.arange(width)[None] < lengths[:, None]).astype(np.int32)
    labels = rows.targets.padded(picked, int(rows.targets.lengths[picked].max()), -100)
    return _Batch(ids, mask, labels)


def _texts(lm: LanguageModel, rows: TokenisedSplit) -> Check:
    """Whether the tokenizer gives back the texts that it has read."""
    texts = [*dict.fromkeys(text for e in rows.examples[:_BATCH] for text in (e.input, e.target))]
    decoded = lm.tokenizer.decode_batch(lm.tokenizer.encode(texts))
    lost = [a for a, b in zip(texts, decoded, strict=True) if a.split() != b.split()]
    shown = f": {lost[0]!r} comes back as another text" if lost else ""
    return Check(
        "texts come back from the tokenizer",
        not lost,
        float(len(lost)),
        0.0,
        f"{len(texts) - len(lost)} of {len(texts)} texts are the same{shown}",
    )


def _nll(lm: LanguageModel, batch: _Batch, prompt: Any) -> np.ndarray:
    """Loss per target token of every row, [B]."""
    scores = lm.score(*batch, prompt)
    return np.asarray(scores.nll, np.float64) / np.asarray(scores.tokens)


def _prompt(lm: LanguageModel, batch: _Batch, prompt: np.ndarray, near: float) -> Check:
    """Whether a prompt, and which one, changes every row's loss."""
    without, one, other = (_nll(lm, batch, p) for p in (None, prompt, prompt[::-1] * 2))
    finite = bool(np.isfinite([without, one, other]).all())
    least = min(float(np.abs(a - b).min()) for a, b in ((without, one), (one, other)))
    return Check(
        "the prompt changes the output",
        finite and least > near / 1000,
        least,
        near / 1000,
        f"the loss of every row moves by {least:.2g} nats per token or more"
        if finite
        else "the loss is not finite",
    )


def _padding(lm: LanguageModel, batch: _Batch, prompt: np.ndarray, near: float) -> Check:
    """Whether padding, and the rows beside, leave a row's loss as it is."""
    wide = _Batch(
        np.pad(batch.ids, ((0, 0), (0, 7)), constant_values=lm.pad_id),
        np.pad(batch.mask, ((0, 0), (0, 7))),
        np.pad(batch.labels, ((0, 0), (0, 3)), constant_values=-100),
    )
    expected = _nll(lm, batch, prompt)
    first = _Batch(*(part[:1] for part in batch))
    alone = first._replace(
        ids=first.ids[:, : first.mask.sum()], mask=first.mask[:, : first.mask.sum()]
    )
    worst = max(
        float(np.abs(_nll(lm, wide, prompt) - expected).max()),
        float(np.abs(_nll(lm, alone, prompt) - expected[:1]).max()),
    )
    return Check(
        "padding changes nothing",
        worst <= near,  # False for NaN
        worst,
        near,
        f"the loss moves by {worst:.2g} nats per token at most",
    )


def _decoding(lm: LanguageModel, batch: _Batch, prompt: np.ndarray, near: float) -> Check:
    """Whether decoding with a cache chooses what one pass over the whole sequence would choose."""
    made = np.asarray(lm.generate(batch.ids, batch.mask, prompt, max_new_tokens=_NEW))
    ended = np.cumsum(made == lm.eos_id, axis=1) - (made == lm.eos_id) > 0
    labels = np.where(ended, -100, made)
    logits = np.asarray(
        lm.score(batch.ids, batch.mask, labels, prompt, observe=frozenset({"logits"})).logits,
        np.float64,
    )
    chosen = np.take_along_axis(logits, np.where(ended, 0, made)[..., None], 2)[..., 0]
    short = np.where(ended, 0.0, logits.max(2) - chosen)
    worst = float(short.max())
    return Check(
        "decoding with a cache is decoding without",
        worst <= 10 * near,
        worst,
        10 * near,
        f"no token's logit is further than {worst:.2g} below the best of one pass over the whole",
    )


class _Losses(NullTracker):
    """The losses of the only replica, and when each was logged."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.times: list[float] = []

    def log(self, key: RunKey, record: Any) -> None:
        if "loss" in record:
            self.values.append(float(record["loss"]))
            self.times.append(time.monotonic())


def training(
    lm: LanguageModel, rows: TokenisedSplit, prompt: np.ndarray, seconds: float
) -> list[Check]:
    """Trains a prompt: the weights stay as they are, and the loss falls below `LOSS`.

    Args:
      lm: the model.
      rows: that are trained on.
      prompt: [L, D], where training starts.
      seconds: how long it should take at most.
    """
    before = array_hash(lm.params)
    # The first steps compile; what one costs is known from the last of them.
    trial = _train(lm, rows, prompt, 4)
    pace = max(trial.times[-1] - trial.times[-2], 1e-3) if len(trial.times) > 1 else seconds
    steps = int(np.clip(seconds / pace, *_STEPS))
    losses = _train(lm, rows, prompt, steps)
    same = array_hash(lm.params) == before
    first, last = losses.values[0], float(np.mean(losses.values[-5:]))
    return [
        Check(
            "training leaves the weights as they are",
            same,
            float(not same),
            0.0,
            "every bit is the same" if same else "the weights of the frozen model have changed",
        ),
        Check(
            "training lowers the loss",
            last < min(LOSS, first),
            last,
            LOSS,
            f"from {first:.2f} to {last:.2f} nats per token in {steps} steps of"
            f" {_BATCH} rows, {pace:.2g} s each",
        ),
    ]


def _train(lm: LanguageModel, rows: TokenisedSplit, prompt: np.ndarray, steps: int) -> _Losses:
    optimizer = OptimizerConfig(learning_rate=_RATE, schedule="constant", clip_norm=1.0)
    config = TrainConfig(
        steps=steps, batch_size=_BATCH, optimizer=optimizer, eval_every=0, log_every=1
    )
    replica = Replica(
        RunKey("prompt_tuning", "doctor", "rows"), Feed(rows, _BATCH, 0), {"prompt": prompt}, {}
    )
    losses = _Losses()
    train(lm, BaseMethod(), [replica], config, tracker=losses)
    return losses


def summary(lm: LanguageModel, checks: list[Check]) -> dict[str, Any]:
    """All of it, JSON-able."""
    device = jax.devices()[0]
    return {
        "model": lm.name,
        "dtype": str(np.dtype(lm.dtype)),
        "weights_sha256": lm.weights_hash,
        "device": f"{jax.device_count()} x {device.device_kind}",
        "jax": jax.__version__,
        "passed": all(check.passed for check in checks),
        "checks": [check._asdict() for check in checks],
    }
