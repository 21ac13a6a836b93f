"""What studies share: tasks, budgets, rows and seeds of each suite, and declared questions.

A suite is an experiment without methods of its own; a study (`experiments/dtvg.py`, ...) takes one
and adds methods. Experiments of equal tasks, seeds and budgets share trained prompts through the
cache, so what one command has trained the next one reads.

- `SANDBOX`: fourteen targets whose related sources are known, k = 16, ten seeds, the mini T5.
- `REAL_TEXT`: six sources and four targets of real text for a small T5, k = 16, five seeds.
- `SMOLLM2`: six sources and eleven targets of real text for SmolLM2-135M, k = 16, three seeds.
- `PAPERS`: GLUE and SuperGLUE from six large sources with T5-base, as the transfer papers do it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from prompt_jax.configs import glue_superglue
from prompt_jax.data import sandbox
from prompt_jax.errors import ConfigError
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig, Question, TargetGroup
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig


def declare(
    config: ExperimentConfig,
    primary: Question,
    secondary: tuple[Question, ...] = (),
    calibrated: tuple[str, ...] = (),
) -> ExperimentConfig:
    """The experiment with its declared questions.

    Args:
      config: the experiment.
      primary: the primary contrast, tested alone.
      secondary: the family of secondary contrasts, corrected together.
      calibrated: two methods whose calibration is compared, or none.
    """
    last = (Question(*calibrated, role="calibration"),) if calibrated else ()
    return replace(config, questions=(replace(primary, role="primary"), *secondary, *last))


def pick(
    study: Mapping[tuple[str, str], Callable[[], ExperimentConfig]], variant: str, suite: str
) -> ExperimentConfig:
    """The experiment of a study by its variant and suite.

    Args:
      study: makes an experiment for each (variant, suite) that there is.
      variant: which question of the study.
      suite: on which tasks.

    Raises:
      ConfigError: the study has no such variant on that suite.
    """
    if (variant, suite) not in study:
        there = ", ".join(f"{v} with suite={s}" for v, s in study)
        raise ConfigError(f"there is no variant '{variant}' with suite={suite}; there is {there}.")
    return study[variant, suite]()


def spec(name: str, **options: object) -> str:
    """The spec of a method.

    Args:
      name: of the method.
      **options: those that differ from the defaults, in the order of the text.

    >>> spec("bmtpt", kernel="none", widths=(float("inf"), 10)), spec("spot")
    ('bmtpt(kernel=none,widths=[inf,10])', 'spot')
    """

    def text(value: object) -> str:
        if isinstance(value, tuple):
            return f"[{','.join(map(text, value))}]"
        return str(value).lower() if isinstance(value, bool) else str(value)

    return name + f"({','.join(f'{k}={text(v)}' for k, v in options.items())})" * bool(options)


def budget(steps: int, rate: float, *, every: int = 20, batch: int = 16) -> TrainConfig:
    """AdamW in units of the embeddings, warm-up of 10 steps, linear decay, clipped.

    Args:
      steps: optimizer steps.
      rate: the learning rate.
      every: steps between evaluations on the development set.
      batch: rows of a step.
    """
    optimizer = OptimizerConfig(
        learning_rate=rate, warmup_steps=min(10, steps // 4), schedule="linear", clip_norm=1.0
    )
    return TrainConfig(steps=steps, batch_size=batch, eval_every=every, optimizer=optimizer)


# Prompt tuning with twice the steps (as many on the target as DTVG as published), and the tuned
# baseline: twice the steps, and the best of three rates by development rows.
LONG = spec("prompt_tuning", steps=2)
TUNED = spec("prompt_tuning", steps=2, rates=(1, 0.3, 3))
# SPoT whose keys are the sources' final prompts; the paper's are early ones, which is the default.
SPOT_FINAL = spec("spot", keys="final")
# MVLPT's recipe: the average of three mixtures, then one prompt on all targets together.
MVLPT = spec("spot", variant="mixture", origins=3, joint=True)


# --- the sandbox -----------------------------------------------------------------------------

_TARGETS = tuple(task.name for task in sandbox.TARGETS)
CLASSES = tuple(task.name for task in sandbox.TARGETS if task.labels)  # the others: spans


def _expected(effect: str) -> tuple[str, ...]:
    pairs = sandbox.truth().items()
    return tuple(
        target
        for target in _TARGETS
        if any(expected == effect and pair[1] == target for pair, expected in pairs)
    )


RELATED = _expected("helps")  # targets that some source should help
CONTRARY = _expected("hurts")  # targets that some source should hurt
_FEW_SHOT = budget(100, 0.3)
SANDBOX = ExperimentConfig(
    name="sandbox",
    model="mini",
    sources=tuple(task.name for task in sandbox.SOURCES),
    targets=_TARGETS,
    methods=("prompt_tuning",),
    shots=(16,),
    seeds=10,
    prompt=PromptConfig(tokens=10, init="vocab:2000"),
    data=DataConfig(max_input_tokens=48, max_target_tokens=6, dev_rows=100, test_rows=400),
    source=budget(150, 0.1, every=50),
    probe=budget(20, 0.3, every=0),
    target=_FEW_SHOT,
    few_shot=_FEW_SHOT,
    target_groups=(
        TargetGroup("a source should help", RELATED),
        TargetGroup("a source should hurt", CONTRARY),
    ),
)


# --- real text -------------------------------------------------------------------------------

REAL_PROMPT = OptimizerConfig(learning_rate=2.0, warmup_steps=10, schedule="linear", clip_norm=1.0)
_REAL_SOURCE = TrainConfig(steps=200, batch_size=8, optimizer=REAL_PROMPT, eval_every=50)
_REAL_FEW_SHOT = replace(_REAL_SOURCE, steps=100, eval_every=25)
REAL_TEXT = ExperimentConfig(
    name="real_text",
    model="mini",
    sources=("snli", "glue/qnli", "glue/sst2", "glue/qqp", "ag_news", "yelp_polarity"),
    targets=("glue/rte", "mr", "trec", "subj"),
    methods=("prompt_tuning",),
    shots=(16,),
    seeds=5,
    prompt=PromptConfig(tokens=20, init="vocab:5000"),
    data=DataConfig(max_input_tokens=64, max_target_tokens=8, dev_rows=100, test_rows=300),
    source=_REAL_SOURCE,
    probe=replace(_REAL_SOURCE, steps=25, eval_every=0),
    target=_REAL_FEW_SHOT,
    few_shot=_REAL_FEW_SHOT,
)


# --- a real language model -------------------------------------------------------------------

_SMOLLM2_SOURCE = budget(150, 0.1, every=50, batch=8)
_SMOLLM2_FEW_SHOT = budget(60, 0.1, every=20, batch=8)
SMOLLM2 = ExperimentConfig(
    name="smollm2",
    model="smollm2",
    sources=("glue/sst2", "ag_news", "dbpedia", "glue/qqp", "glue/qnli", "snli"),
    targets=("mr",),
    methods=("prompt_tuning",),
    shots=(16,),
    seeds=3,
    prompt=PromptConfig(tokens=20, init="vocab:5000"),
    data=DataConfig(max_input_tokens=96, max_target_tokens=10, dev_rows=64, test_rows=300),
    source=_SMOLLM2_SOURCE,
    probe=replace(_SMOLLM2_FEW_SHOT, steps=20, eval_every=0),
    target=_SMOLLM2_FEW_SHOT,
    few_shot=_SMOLLM2_FEW_SHOT,
)


# --- the transfer papers ---------------------------------------------------------------------

PAPERS = replace(glue_superglue.get_config(), name="papers", methods=("prompt_tuning",))
