"""The transfer papers' protocol on T5-base: GLUE and SuperGLUE from six large sources.

    prompt-jax run glue_superglue --dry-run
    prompt-jax run glue_superglue model=DIR data.root=DIR

Not run: it needs an accelerator, T5-base and the data sets (`prompt-jax tasks fetch NAME`). The dry
run needs none of them, and prints what the whole table costs on some accelerators.

ATTEMPT, MPT, DTVG and BMTPT share it: prompts of MNLI, QNLI, QQP, SST-2, SQuAD and ReCoRD are
transferred to eight tasks of GLUE and five of SuperGLUE. 100 tokens drawn from the 5,000 most
frequent pieces, inputs of 256 tokens, batches of 32, AdamW at an absolute 0.3 (it presumes T5's
embedding scale) with weight decay 1e-5, 500 steps of warm-up and a linear decay; the development
and test rows of ATTEMPT's released code (`data.protocol=attempt`); 3 seeds with source prompts of
their own.

All registered methods of these papers, each by its own paper's spec; DTVG at its released rates
for T5. Metrics are the papers': Pearson for STS-B, Matthews for CoLA, F1 over answers for MultiRC,
accuracy for the others, and beside these accuracy and F1 where a set has both. The report shows
published numbers beside the run's (docs/results/published.md).

Before a number is compared with a paper's:

- Overlap. Four sources (MNLI, QNLI, QQP, SST-2) are targets as well, as in the papers, so
  `allow_overlap` is set: there a target may start from a prompt that was trained on its own rows,
  and that is more training, not transfer. The nine other targets are free of it.
- Steps. The papers train for 20 epochs (ATTEMPT), 30,000 steps (prompt tuning) or up to 300,000
  (DePT, large sets). Here every replica has 30,000. Long training alone closes much of the gap
  between weak baselines and transfer: give every method the same budget.
- Ours. The learning rate of full fine-tuning, the 1,000 probe steps of SPoT, and the 1,000 steps of
  a few-shot replica (the last as in Task Prompt Vectors).

Few shots (a published k counts all rows, the library's default is k rows per class), and the MRQA
and other targets; the first two lines are one command:

    shots=4,16,32 data.shots_count=total targets=super_glue/boolq,super_glue/cb,scitail_snli
    out=runs/few_shot
    targets=mrqa/natural_questions,mrqa/hotpot_qa,mrqa/search_qa,mrqa/news_qa out=runs/mrqa
    targets=winogrande,yelp_polarity,scitail_snli,paws out=runs/others
"""

from __future__ import annotations

from dataclasses import replace

from prompt_jax.data import registry
from prompt_jax.methods import REGISTRY
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.rundir.questions import TargetGroup
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig

GLUE = ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola")
SUPERGLUE = ("multirc", "boolq", "wic", "wsc.fixed", "cb")

METHODS = tuple(
    spec
    for spec in (
        "prompt_tuning",
        "spot",
        "attempt",
        "mpt",
        "task_prompt_vectors",
        "dtvg(rates=released_t5)",
        "bmtpt",
        "spt",
        "full_fine_tuning",
    )
    if spec.partition("(")[0] in REGISTRY
)


def get_config() -> ExperimentConfig:
    """The papers' methods and full fine-tuning: 13 targets, all rows, 3 seeds."""
    glue = tuple(f"glue/{task}" for task in GLUE)
    superglue = tuple(f"super_glue/{task}" for task in SUPERGLUE)
    prompt = OptimizerConfig(
        learning_rate=0.3, unit="absolute", warmup_steps=500, schedule="linear", weight_decay=1e-5
    )
    full = replace(prompt, learning_rate=3e-4)
    budget = TrainConfig(steps=30_000, batch_size=32, optimizer=prompt, eval_every=1_000)
    few_shot = replace(budget, steps=1_000, eval_every=100)
    return ExperimentConfig(
        name="glue_superglue",
        model="t5-base",
        sources=registry.PAPER_SOURCES,
        targets=glue + superglue,
        allow_overlap=True,
        methods=METHODS,
        shots=(0,),
        seeds=3,
        prompt=PromptConfig(tokens=100, init="vocab:5000"),
        data=DataConfig(
            max_input_tokens=256,
            max_target_tokens=32,
            protocol="attempt",
        ),
        source=budget,
        probe=replace(few_shot, eval_every=0),
        target=budget,
        few_shot=few_shot,
        fine_tuning=replace(budget, optimizer=full),
        fine_tuning_few_shot=replace(few_shot, optimizer=full),
        target_groups=(TargetGroup("GLUE", glue), TargetGroup("SuperGLUE", superglue)),
    )
