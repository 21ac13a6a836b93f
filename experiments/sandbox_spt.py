"""SPT on the sandbox, zero-shot: held-out tasks and held-out templates.

    prompt-jax run experiments/sandbox_spt.py
    python -m experiments.sandbox_contrasts experiments/sandbox_spt.py runs/sandbox_spt
    python -m experiments.sandbox_retrieval runs/sandbox_spt --svg FILE

Banks are trained on the mixture of the six sources, under all templates of a task but the last
(`data.templates=most`), with as many steps as six single sources have together. They are tested
without a further step, under every template, on the fourteen targets (held-out tasks; those of a
source's own question are worded as the source is, the contrary ones are not) and on the sources
themselves, where the last template is a held-out wording. The first template says nothing and its
answers are code words: nobody can know them of a held-out task, so the questions are about the
worded ones.

Equal prompt length and budget in all lines: one shared prompt, a prompt for each source (a new task
takes that of the nearest templates), random fixed slots, soft attention over all slots, retrieval.
After k = 16: experiments/sandbox_spt_tuned.py; the full form: experiments/sandbox_spt_full.py.

Primary contrast, declared before any run: retrieval minus one shared prompt, held-out tasks under
worded templates, mean over the fourteen.
"""

from dataclasses import replace

from experiments.sandbox_protocol import (
    DATA,
    RELATED,
    SOURCE,
    SOURCES,
    TARGETS,
    Question,
    few_shot,
)
from prompt_jax.recipes import ExperimentConfig

# Every row is answered under each of four templates: a quarter of the rows costs as much.
SPT_DATA = replace(DATA, templates="most", test_templates="all", test_rows=100)
BANK = replace(SOURCE, steps=SOURCE.steps * len(SOURCES), eval_every=0)
WORDED = ("asked_1", "asked_2", "asked_3")
HELD_OUT = ("asked_3",)


def line(retrieval: str = "top_k", transfer: str = "zero_shot", name: str = "spt") -> str:
    """The spec of a line: 64 slots of two tokens, of which five make a prompt."""
    return f"{name}(slots=64,retrieval={retrieval},transfer={transfer})"


RETRIEVED, SHARED = line(), line("shared")

PRIMARY = Question(RETRIEVED, SHARED, TARGETS, WORDED, "held-out tasks")
SECONDARY = (
    Question(RETRIEVED, SHARED, RELATED, WORDED, "held-out tasks that ask a source's question"),
    Question(RETRIEVED, SHARED, SOURCES, HELD_OUT, "held-out wordings of trained tasks"),
    *(
        Question(RETRIEVED, line(other), targets, templates, f"{what}: against {other}")
        for other in ("task", "random", "attention")
        for what, targets, templates in (
            ("held-out tasks", TARGETS, WORDED),
            ("held-out wordings", SOURCES, HELD_OUT),
        )
    ),
)


def zero_shot(name: str, methods: tuple[str, ...]) -> ExperimentConfig:
    """An experiment on banks without a step on any target."""
    return few_shot(
        name, methods, (*TARGETS, *SOURCES), allow_overlap=True, data=SPT_DATA, source=BANK
    )


def get_config() -> ExperimentConfig:
    """Five lines, twenty tasks, zero-shot."""
    others = tuple(line(name) for name in ("task", "random", "attention"))
    return zero_shot("sandbox_spt", (SHARED, *others, RETRIEVED))
