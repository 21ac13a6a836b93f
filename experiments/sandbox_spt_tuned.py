"""SPT on the sandbox after k = 16 rows per class of a held-out task.

    prompt-jax run experiments/sandbox_spt_tuned.py
    python -m experiments.sandbox_contrasts experiments/sandbox_spt_tuned.py \
        runs/sandbox_spt_tuned

From the banks of experiments/sandbox_spt.py, tuned under all templates but the last and tested
under every one: the retrieved prompt, the retrieved slots or the whole bank, against prompt tuning
from scratch and the prompts of the other lines, tuned in the same way: the shared one (SPoT's
generic mixture), that of the source with the nearest templates, that of random slots, and that of
soft attention over all slots.

Primary contrast, declared before any run: the retrieved prompt, tuned, minus the shared prompt,
tuned, mean over all targets and templates.
"""

from experiments.sandbox_protocol import CONTRARY, RELATED, TUNED, Question, few_shot
from experiments.sandbox_spt import BANK, HELD_OUT, SPT_DATA, line
from prompt_jax.recipes import ExperimentConfig

PROMPT, SLOTS, WHOLE = (line(transfer=name) for name in ("prompt", "slots", "bank"))
SHARED, TASK, RANDOM, ATTENTION = (
    line(name, "prompt") for name in ("shared", "task", "random", "attention")
)

PRIMARY = Question(PROMPT, SHARED, why="retrieved against shared start")
SECONDARY = (
    Question(PROMPT, "prompt_tuning", why="against no source"),
    Question(PROMPT, "prompt_tuning", RELATED, why="where a source should help"),
    Question(PROMPT, "prompt_tuning", CONTRARY, why="where a source should hurt"),
    Question(PROMPT, TUNED, why="against the well-tuned line"),
    Question(PROMPT, TASK, why="against the prompt of the nearest source"),
    Question(PROMPT, RANDOM, why="against random fixed slots"),
    Question(PROMPT, ATTENTION, why="against soft attention over all slots"),
    Question(SLOTS, PROMPT, why="tuning slots instead of the prompt"),
    Question(WHOLE, PROMPT, why="tuning the bank instead of the prompt"),
    Question(WHOLE, PROMPT, templates=HELD_OUT, why="likewise, under a held-out wording"),
)


def get_config() -> ExperimentConfig:
    """Nine lines, all targets, k = 16."""
    methods = ("prompt_tuning", TUNED, SHARED, TASK, RANDOM, ATTENTION, PROMPT, SLOTS, WHOLE)
    return few_shot("sandbox_spt_tuned", methods, data=SPT_DATA, source=BANK)
