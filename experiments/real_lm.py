"""Transfer on SmolLM2-135M: every system under one protocol, on a model that a prompt can steer.

    make smollm2
    prompt-jax run experiments/real_lm.py:smoke data.root=DIR
    prompt-jax run experiments/real_lm.py:rates data.root=DIR few_shot.optimizer.learning_rate=0.3
    prompt-jax run experiments/real_lm.py:development data.root=DIR
    prompt-jax run experiments/real_lm.py data.root=DIR
    prompt-jax run experiments/real_lm.py:hundred data.root=DIR

Declared before any run. Rates and budgets are chosen on five development targets, with equal trials
for every method: two rates on two of them (`rates`). Nothing is chosen on the six held-back
targets.

Measured (docs/results/smollm2.md): the rates, and one seed of some lines of `main` on five targets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from experiments import suites
from experiments.suites import LONG, TUNED, declare, spec
from prompt_jax.recipes import ExperimentConfig, Question

Variant = Literal["main", "hundred", "development", "rates", "smoke"]
Suite = Literal["smollm2"]

DEVELOPMENT = ("mr", "trec", "subj", "tweeteval_emotion", "glue/rte")
HELD_BACK = ("mpqa", "sst5", "banking77", "glue/mrpc", "super_glue/cb", "super_glue/boolq")

MATCHED = spec("dtvg", budget="matched")
RELEASED = spec("dtvg", budget="matched", rates="released_llama")
JOINT = spec("spot", variant="mixture", steps=5)
LINES = (
    "prompt_tuning",
    LONG,
    TUNED,
    "spot",
    "attempt",
    "mpt",
    MATCHED,
    RELEASED,
    "bmtpt",
    JOINT,
)


def _declared(config: ExperimentConfig) -> ExperimentConfig:
    """Every system against tuned prompt tuning, which knows no source."""
    return declare(
        config,
        Question("spot", TUNED, why="does any source help a target that is well tuned without?"),
        (
            Question("attempt", TUNED, why="attention of each row over the sources"),
            Question("mpt", TUNED, why="a prompt that the sources share, with low-rank factors"),
            Question(MATCHED, TUNED, why="groups of task vectors at every step"),
            Question(RELEASED, TUNED, why="the same at the released rates"),
            Question("bmtpt", TUNED, why="a posterior over source prompts"),
            Question("bmtpt", JOINT, why="a posterior or one joint prompt with the same work"),
            Question(MATCHED, "spot", why="a group at every step or the nearest source once"),
            Question(TUNED, "prompt_tuning", why="what budget and rate alone give"),
        ),
        calibrated=("bmtpt", TUNED),
    )


def main() -> ExperimentConfig:
    """All methods on the held-back targets, k = 16 per class, three seeds.

    Primary contrast, declared before any run: SPoT minus tuned prompt tuning with twice the steps,
    mean over the held-back targets. All other methods are secondary contrasts with the same line.
    """
    return _declared(replace(suites.SMOLLM2, name="smollm2", targets=HELD_BACK, methods=LINES))


def hundred() -> ExperimentConfig:
    """The same with 100 rows of each target in all.

    Primary contrast, declared before any run: that of `main`.
    """
    data = replace(suites.SMOLLM2.data, shots_count="total")
    return replace(main(), name="smollm2_hundred", data=data, shots=(100,))


def development() -> ExperimentConfig:
    """The same on the development targets, other seeds: rates and budgets are chosen here.

    Primary contrast, declared before any run: that of `main`. It decides nothing.
    """
    return replace(main(), name="smollm2_development", targets=DEVELOPMENT, first_seed=100)


def rates() -> ExperimentConfig:
    """Each method at one rate on two development targets, once at 0.1 and once at 0.3.

    The rate with the highest mean development accuracy over MR and TREC is a method's rate in
    `main`, `hundred` and `development`. The source prompts are those of `main`'s first seed.
    """
    return replace(
        main(),
        name="smollm2_rates",
        targets=("mr", "trec"),
        methods=("prompt_tuning", "spot", "attempt", "mpt", MATCHED),
        seeds=1,
        questions=(),
        target_groups=(),
    )


def smoke() -> ExperimentConfig:
    """The design at one target and one seed, two sources and a fifth of the steps."""
    suite = suites.SMOLLM2
    return replace(
        main(),
        name="smollm2_smoke",
        sources=("glue/sst2", "ag_news"),
        targets=("mr",),
        methods=("prompt_tuning", "spot", MATCHED),
        seeds=1,
        first_seed=100,
        data=replace(suite.data, dev_rows=32, test_rows=100, max_input_tokens=48),
        source=replace(suite.source, steps=30, eval_every=15),
        probe=replace(suite.probe, steps=10),
        few_shot=replace(suite.few_shot, steps=20, eval_every=10),
        questions=(),
        target_groups=(),
    )


STUDY = {
    ("main", "smollm2"): main,
    ("hundred", "smollm2"): hundred,
    ("development", "smollm2"): development,
    ("rates", "smollm2"): rates,
    ("smoke", "smollm2"): smoke,
}


def get_config(variant: Variant = "main", suite: Suite = "smollm2") -> ExperimentConfig:
    """The experiment: `main`, `hundred`, `development`, `rates` or `smoke`."""
    return suites.pick(STUDY, variant, suite)
