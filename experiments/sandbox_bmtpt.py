"""BMTPT on the sandbox: does the Stein coupling of particles add anything to joint training?

    prompt-jax run experiments/sandbox_bmtpt.py
    python -m experiments.sandbox_contrasts experiments/sandbox_bmtpt.py runs/sandbox_bmtpt \
        runs/sandbox_tuned

Five particles cost five times the gradients of one joint prompt, so the lines of comparison get as
much: one joint prompt (SPoT's generic mixture) with five times the steps, one with five times the
batch, and five independent joint prompts (rows of their own, no kernel), averaged. Only particles
without a kernel on the very same rows differ in nothing but the coupling: SPoT's joint prompts have
no prior and begin at one start instead of the middle of five. A single particle says what is left
of the posterior without particles, at a fifth of the gradients. The average of prompts that were
trained on one source each is the contrast that the paper draws. `widths=[inf]` inherits the start
alone; with a prior its width is one of three trials, which are counted.

One factor at a time around this default: repulsion and number of particles in
experiments/sandbox_bmtpt_repulsion.py, the form of the prior in
experiments/sandbox_bmtpt_priors.py. Joint source stages are dear, so the targets here are those
that some source should help, and three that some source should hurt.

Primary contrast, declared before any run: five particles, start alone, minus the joint prompt with
five times the steps, mean over all targets.
"""

from experiments.sandbox_protocol import CONTRARY, RELATED, TUNED, Question, few_shot
from prompt_jax.recipes import ExperimentConfig

TARGETS = (*RELATED, *CONTRARY[:3])

STEIN = "bmtpt(widths=[inf])"
PRIOR = "bmtpt(widths=[inf,10,1])"
ONE = "bmtpt(particles=1,widths=[inf])"
UNCOUPLED = "bmtpt(kernel=none,widths=[inf])"  # on the same rows: nothing else differs
INDEPENDENT = "bmtpt(kernel=none,batch=own,widths=[inf])"
LONGER = "spot(variant=mixture,steps=5)"
LARGER = "spot(variant=mixture,batch=5)"
AVERAGE = "bmtpt(posterior=independent,widths=[inf])"

PRIMARY = Question(STEIN, LONGER, why="coupled particles against one joint prompt, equal gradients")
SECONDARY = (
    Question(STEIN, LARGER, why="likewise, with the gradients in the batch"),
    Question(STEIN, INDEPENDENT, why="likewise, in five independent joint runs, averaged"),
    Question(STEIN, UNCOUPLED, why="the coupling itself"),
    Question(STEIN, ONE, why="five particles or one, a fifth of the gradients"),
    Question(STEIN, AVERAGE, why="the paper's contrast: joint against averaged sources"),
    Question(PRIOR, STEIN, why="the prior, beyond the start (three trials against one)"),
    Question(PRIOR, "prompt_tuning", why="BMTPT as a whole (three trials against one)"),
    Question(PRIOR, "prompt_tuning", RELATED, why="where a source should help"),
    Question(PRIOR, TUNED, why="against the well-tuned line"),
    Question(STEIN, TUNED, why="likewise, the start alone"),
)


def get_config() -> ExperimentConfig:
    """Nine lines, nine targets, k = 16."""
    joint = (LONGER, LARGER, INDEPENDENT, UNCOUPLED, ONE, AVERAGE)
    return few_shot("sandbox_bmtpt", ("prompt_tuning", *joint, STEIN, PRIOR), TARGETS)
