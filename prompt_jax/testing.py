"""Checks that a method of one's own keeps the contract of the protocol: `check_method`.

Made for a test of one's own: it needs no data, no files and no network, and takes seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prompt_jax.data import Example, Feed, Ragged, TokenisedSplit
from prompt_jax.methods import REGISTRY, BaseMethod, Stage, as_method, create
from prompt_jax.models import LanguageModel
from prompt_jax.models import load as load_model
from prompt_jax.models.base import Scores
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.method_checks import Checks, own_errors
from prompt_jax.recipes.method_checks import check_method as check_shapes
from prompt_jax.recipes.method_stages import check_declared, initialised, made_up
from prompt_jax.run_key import RunKey
from prompt_jax.training import Replica, TrainConfig, TrainedReplica, train
from prompt_jax.training.fingerprint import array_hash
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.tracking import NullTracker

MODEL = "mini"
"""What methods are checked on by default: the T5 in the package."""

_ROWS, _BATCH, _LONGEST = 32, 8, 8
_FALLS = 0.9  # the loss at the end, as a fraction of that at the start


def check_method(
    method: BaseMethod | str,
    lm: LanguageModel | None = None,
    *,
    tokens: int = 4,
    steps: int = 30,
    learning_rate: float = 0.1,
) -> None:
    """Checks a method as the package checks its own.

    Its attributes and stages; what `init` returns, twice the same; the shapes and types of what
    every function returns, traced; that the loss of a row depends on that row alone. Then two
    replicas are trained on an easy task: the loss falls, the frozen weights stay as they are, a
    second training gives the same bits, its functions are traced once, replicas differ, the prompt
    that is kept is the one that `deploy` makes, and what is stored comes back.

    Args:
      method: an object of the method class, or a spec.
      lm: the model; None: `MODEL`.
      tokens: L of the prompts.
      steps: of training.
      learning_rate: of training, in the parameters' own units.

    Raises:
      ConfigError: the first thing that is wrong; the message names the method and its file.

    >>> from prompt_jax.methods import PromptTuning
    >>> check_method(PromptTuning())  # doctest: +SKIP
    """
    method = as_method(method)
    lm = load_model(MODEL) if lm is None else lm
    check_declared(method)
    check = Checks(method)
    if REGISTRY.get(method.name) is type(method) and create(method.spec) != method:
        raise check.says(f"its spec {method.spec} makes another object: {create(method.spec)!r}")
    stages = method.stages()
    for stage, maker, context in made_up(method, lm, tokens):
        params, consts = initialised(maker, context)
        if array_hash((params, consts)) != array_hash(initialised(maker, context)):
            raise check.says("init() returns other values when it is called again")
        check_shapes(stage.trains or method, params, consts, lm, every=True)
        if stage.trains is None or stage is stages[-1]:
            _check_training(method, stage, lm, tokens, steps, learning_rate)
    _check_rows(method)


def toy_split(
    vocab_size: int,
    eos_id: int,
    *,
    rows: int = _ROWS,
    seed: int = 0,
    labels: int = 2,
    longest: int = _LONGEST,
    answer: int = 2,
    tasks: int = 1,
    templates: int = 1,
    name: str = "toy",
    marker: int = 2,
    first_answer: int = 8,
    first_word: int = 40,
) -> TokenisedSplit:
    """Rows of made-up tokens whose answer is the number of markers in the input.

    Args:
      vocab_size: ids are below.
      eos_id: the last token of inputs and answers.
      rows: n.
      seed: of the rows; also decides which tokens the answers are.
      labels: number of answers.
      longest: longest input, its end included.
      answer: tokens of an answer, its end included.
      tasks: the rows belong to this many tasks in turn.
      templates: likewise.
      name: of the split.
      marker: the token that is counted.
      first_answer: the lowest token of answers.
      first_word: the lowest token of inputs beside the marker.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels, rows).astype(np.int32)
    inputs = []
    for k in label.tolist():
        words = rng.integers(first_word, vocab_size, rng.integers(labels, longest)).tolist()
        words[:k] = [marker] * k
        inputs.append([*rng.permutation(words).tolist(), eos_id])
    first = first_answer + 3 * (seed % 8)
    answers = [[first + k] * (answer - 1) + [eos_id] for k in range(labels)]
    texts = tuple(f"answer {k}" for k in range(labels))
    return TokenisedSplit(
        name=name,
        inputs=Ragged.of(inputs),
        targets=Ragged.of([answers[k] for k in label]),
        label=label,
        template=(np.arange(rows) % templates).astype(np.int32),
        task=(np.arange(rows) % tasks).astype(np.int32),
        candidates=Ragged.of([list(range(labels))] * rows),
        answers=Ragged.of(answers),
        input_truncated=np.zeros(rows, bool),
        target_truncated=np.zeros(rows, bool),
        examples=tuple(
            Example(f"row {i}", texts[k], k, texts, (texts[k],))
            for i, k in enumerate(label.tolist())
        ),
        template_names=tuple(f"toy/{i}" for i in range(templates)),
        task_names=tuple(f"task{i}" for i in range(tasks)),
    )


class _Losses(NullTracker):
    """Keeps the losses of every replica."""

    def __init__(self) -> None:
        self.of: dict[RunKey, list[float]] = {}

    def log(self, key: RunKey, record: Any) -> None:
        if "loss" in record:
            self.of.setdefault(key, []).append(float(record["loss"]))


def _check_training(
    method: BaseMethod, stage: Stage, lm: LanguageModel, tokens: int, steps: int, rate: float
) -> None:
    check, trainer, name = Checks(method), stage.trains or method, stage.name
    optimizer = OptimizerConfig(
        schedule="constant", learning_rate=rate, unit="absolute", clip_norm=5.0
    )
    config = TrainConfig(
        steps=steps, optimizer=optimizer, batch_size=_BATCH, eval_every=0, log_every=1
    )
    replicas = [_replica(method, lm, tokens, name, seed) for seed in range(2)]
    replicas = replicas[:1] if trainer.trains_lm else replicas
    before, losses = array_hash(lm.params), _Losses()
    with own_errors(method), _traces(trainer) as traces:
        trained = train(lm, trainer, replicas, config, tracker=losses)
        first = len(traces)
        again = train(lm, trainer, replicas, config)
    for replica, one in zip(replicas, trained, strict=True):
        found = losses.of[replica.key]
        if not one.healthy or not np.isfinite(found).all():
            raise check.says(f"its loss in stage '{name}' is not finite: {_shown(found)}")
        if not np.mean(found[-5:]) < _FALLS * found[0]:
            raise check.says(
                f"its loss in stage '{name}' does not fall on an easy task, in {steps} steps at"
                f" the rate {rate:g}: {_shown(found)}"
            )
    if array_hash(lm.params) != before:
        raise check.says("training changes the weights of the frozen model")
    if [array_hash(one.params) for one in trained] != [array_hash(one.params) for one in again]:
        raise check.says(
            "a second training gives other parameters: is something drawn without key?"
        )
    if first > 2 or len(traces) > first:
        raise check.says(
            f"prompts() is traced {first} times, and {len(traces) - first} times when it is trained"
            " again, in place of 2 and 0: do its shapes or options change from step to step?"
        )
    if len(trained) == 2 and array_hash(trained[0].params) == array_hash(trained[1].params):
        raise check.says("replicas of two seeds end with the same parameters")
    _check_kept(check, trainer, replicas, trained)


def _check_kept(
    check: Checks, method: BaseMethod, replicas: list[Replica], trained: list[TrainedReplica]
) -> None:
    """The kept prompt is that of `deploy`, and what is stored comes back."""
    for replica, one in zip(replicas, trained, strict=True):
        made = method.deploy(one.params, replica.consts)
        if made is None and one.prompt is None:
            if not (method.rowwise or method.trains_lm):
                raise check.says(
                    "deploy() may return None only if the method is rowwise or trains_lm: there"
                    " is nothing else to keep"
                )
        elif made is None or one.prompt is None:
            raise check.says("deploy() returns None for some parameters and a prompt for others")
        elif not np.allclose(one.prompt, made, rtol=1e-5, atol=1e-6):
            raise check.says("deploy() gives another prompt when it is called again")
    with tempfile.TemporaryDirectory(prefix="prompt-jax-") as folder:
        store = ArtefactStore(Path(folder))
        store.save("key", trained[0])
        found = store.load("key", trained[0].key)
    if found is None or array_hash(found.params) != array_hash(trained[0].params):
        raise check.says("its parameters do not come back as they were stored")


def _check_rows(method: BaseMethod) -> None:
    """The loss of a row is the same whichever rows are beside it."""
    rng = np.random.default_rng(0)

    def scores() -> Scores:
        drawn = {
            "nll": rng.uniform(1, 5, 4),
            "tokens": np.full(4, 2.0),
            "logits": rng.normal(size=(4, 3, 11)),
            "hidden": rng.normal(size=(4, 3, 5)),
        }
        kept = {"nll", "tokens", *method.observe}
        made: Any = (drawn[k].astype(np.float32) if k in kept else None for k in Scores._fields)
        return Scores(*made)

    out, teacher = scores(), scores()
    check = Checks(method)
    together = check.called("row_loss", method.row_loss, out, teacher)
    for i in range(4):
        one, two = (jax.tree.map(lambda x, i=i: x[i : i + 1], s) for s in (out, teacher))
        alone = check.called("row_loss", method.row_loss, one, two)
        for a, b in zip(alone, together, strict=True):
            if not np.allclose(a[0], b[i], rtol=1e-5):
                raise check.says(
                    "row_loss() of a row depends on the rows beside it; terms of several rows"
                    " belong in penalty()"
                )


def _replica(method: BaseMethod, lm: LanguageModel, tokens: int, stage: str, seed: int) -> Replica:
    """A replica of a stage from its own initialisation, on rows of its own."""
    stages = made_up(method, lm, tokens, seed=seed)
    ((maker, context),) = ((maker, c) for found, maker, c in stages if found.name == stage)
    params, consts = initialised(maker, context)
    split = toy_split(lm.vocab_size, lm.eos_id, seed=seed)
    key = RunKey(method.name, stage, "toy", seed=seed)
    return Replica(key, Feed(split, _BATCH, seed), params, consts)


@contextmanager
def _traces(method: BaseMethod) -> Iterator[list[int]]:
    """Counts how often `prompts` of the method's class is traced."""
    kind: Any = type(method)
    traces: list[int] = []
    original, own = kind.prompts, "prompts" in vars(kind)

    def counted(self: BaseMethod, *arguments: Any) -> Any:
        traces.append(1)
        return original(self, *arguments)

    kind.prompts = counted
    try:
        yield traces
    finally:
        if own:
            kind.prompts = original
        else:
            del kind.prompts


def _shown(losses: list[float]) -> str:
    some = losses if len(losses) < 5 else [losses[0], losses[len(losses) // 2], losses[-1]]
    return ", ".join(f"{value:.3g}" for value in some)
