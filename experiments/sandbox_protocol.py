"""What all experiments on the sandbox share: tasks, budgets, rows and seeds, in one place.

Runs of equal tasks, seeds and budgets are kept in the cache and shared by all of them, so what one
command has trained the next one reads. A command that is stopped (Ctrl-C, SIGTERM) goes on where it
was when it is given again.

Every experiment declares its questions before it is run: one primary contrast, tested alone, and a
family of secondary ones, corrected together. `experiments.sandbox_contrasts` answers them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_jax.data import sandbox
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.loop import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig

MODEL = "mini"
K = 16  # rows per class
SEEDS = 10
PROMPT = PromptConfig(tokens=10, init="vocab:2000")
DATA = DataConfig(max_input_tokens=48, max_target_tokens=6, dev_rows=100, test_rows=400)

SOURCES = tuple(task.name for task in sandbox.SOURCES)
TARGETS = tuple(task.name for task in sandbox.TARGETS)
CLASSES = tuple(task.name for task in sandbox.TARGETS if task.labels)  # the others: spans


def _expected(what: str) -> tuple[str, ...]:
    pairs = sandbox.truth().items()
    return tuple(t for t in TARGETS if any(x == what and pair[1] == t for pair, x in pairs))


RELATED = _expected("helps")  # targets that some source should help
CONTRARY = _expected("hurts")  # targets that some source should hurt


def budget(steps: int, rate: float, *, every: int = 20, batch: int = 16) -> TrainConfig:
    """AdamW in units of the embeddings, warm-up of 10 steps, linear decay, clipped."""
    optimizer = OptimizerConfig(
        learning_rate=rate, warmup_steps=min(10, steps // 4), schedule="linear", clip_norm=1.0
    )
    return TrainConfig(steps=steps, batch_size=batch, eval_every=every, optimizer=optimizer)


SOURCE = budget(150, 0.1, every=50)
FEW_SHOT = budget(100, 0.3)
PROBE = budget(20, 0.3, every=0)


class Question(NamedTuple):
    """A contrast that is declared before the run: the mean over targets of a - b.

    Attributes:
      a: a method's spec.
      b: another one; it may be of another run directory.
      targets: all of the experiment's where empty.
      templates: of the test rows; all where empty.
      why: what the difference says.
    """

    a: str
    b: str
    targets: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    why: str = ""


def few_shot(
    name: str, methods: Sequence[str], targets: Sequence[str] = TARGETS, **changes: Any
) -> ExperimentConfig:
    """An experiment at k = 16 with the shared settings.

    Args:
      name: of the run directory.
      methods: specs, the baseline of the automatic contrasts first.
      targets: names.
      **changes: other fields of `ExperimentConfig`.
    """
    shared: Mapping[str, Any] = {
        "model": MODEL,
        "sources": SOURCES,
        "shots": (K,),
        "seeds": SEEDS,
        "prompt": PROMPT,
        "data": DATA,
        "source": SOURCE,
        "probe": PROBE,
        "target": FEW_SHOT,
        "few_shot": FEW_SHOT,
    }
    return ExperimentConfig(
        name=name, methods=tuple(methods), targets=tuple(targets), **{**shared, **changes}
    )


LONG = "prompt_tuning(steps=2)"  # as many steps on the target as DTVG as published
TUNED = "prompt_tuning(steps=2,rates=[1,0.3,3])"  # and the best of three rates on development rows
