"""SPT's full form on the sandbox after k = 16 rows per class of a held-out task.

    prompt-jax run experiments/sandbox_spt_full_tuned.py
    python -m experiments.sandbox_contrasts experiments/sandbox_spt_full_tuned.py \
        runs/sandbox_spt_full_tuned runs/sandbox_spt_tuned

From the banks and T5s of experiments/sandbox_spt_full.py, both tuned on at the rates of the
mixture, one run at a time. Rows and wordings are those of experiments/sandbox_spt_tuned.py, whose
tuned bank is the frozen line.

Primary contrast, declared before any run: retrieval minus one shared prompt, both in the full form
and tuned, mean over all targets and templates.
"""

from experiments.sandbox_protocol import CONTRARY, RELATED, Question, budget, few_shot
from experiments.sandbox_spt import BANK, SPT_DATA, line
from experiments.sandbox_spt_full import OTHERS, full
from prompt_jax.recipes import ExperimentConfig

RETRIEVED, SHARED = full(transfer="bank"), full("shared", "bank")

PRIMARY = Question(RETRIEVED, SHARED, why="full form, tuned")
SECONDARY = (
    Question(RETRIEVED, SHARED, RELATED, why="where a source should help"),
    Question(RETRIEVED, SHARED, CONTRARY, why="where a source should hurt"),
    Question(RETRIEVED, line(transfer="bank"), why="full against frozen, both tuned"),
    *(Question(RETRIEVED, full(other, "bank"), why=f"against {other}, tuned") for other in OTHERS),
)


def get_config() -> ExperimentConfig:
    """Five full lines, all targets, k = 16."""
    others = (full(other, "bank") for other in OTHERS)
    return few_shot(
        "sandbox_spt_full_tuned",
        (SHARED, *others, RETRIEVED),
        data=SPT_DATA,
        source=BANK,
        fine_tuning_few_shot=budget(100, 0.1, every=50),
    )
