"""The learning rate of DTVG's scales, chosen on the development targets of the sandbox.

    prompt-jax run experiments/sandbox_dtvg_rates.py
    python -m experiments.sandbox_contrasts experiments/sandbox_dtvg_rates.py \
        runs/sandbox_dtvg_rates

The papers do not say at which rate the scales are trained on T5. For text generation they searched
0.01, 0.001 and 0.0001 beside a prompt's rate of 0.001; with the field's 0.3 for a prompt, the same
numbers are a thirtieth to a three-thousandth of it. Here the budget's 0.3 lets a scale, which
starts at 1, move by up to 0.3 a step (`scale_rate=1`), or by a tenth, a thirtieth, or a three
hundredth of that. Targets that other results are allowed to be chosen by, other seeds than those
of any table. No rate was told apart from any other (docs/results/dtvg.md), so the default stayed.

Primary contrast, declared before any run: a tenth minus the budget's rate, mean over the targets.
"""

from experiments.sandbox_protocol import TARGETS, Question, few_shot
from prompt_jax.data import sandbox
from prompt_jax.recipes import ExperimentConfig

RATES = ("1", "0.1", "0.03", "0.003")
DEVELOPMENT = tuple(name for name in TARGETS if name not in sandbox.FROZEN)


def slower(rate: str) -> str:
    """The spec of DTVG inside the target's budget with slower scales."""
    return f"dtvg(budget=matched,scale_rate={rate})"


PRIMARY = Question(slower("0.1"), slower("1"), why="do scales run away")
SECONDARY = tuple(
    Question(slower(rate), other, why=why)
    for rate in RATES[1:]
    for other, why in ((slower("1"), "slower scales"), ("prompt_tuning", "against no source"))
    if (slower(rate), other) != PRIMARY[:2]
)


def get_config() -> ExperimentConfig:
    """Prompt tuning and four rates, development targets, five seeds of their own."""
    lines = ("prompt_tuning", *map(slower, RATES))
    return few_shot("sandbox_dtvg_rates", lines, DEVELOPMENT, seeds=5, first_seed=100)
