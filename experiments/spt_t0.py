"""SPT's zero-shot protocol, after T0: a bank trained on 31 tasks, tested on 9 held-out sets.

    prompt-jax run experiments/spt_t0.py --dry-run
    prompt-jax run experiments/spt_t0.py

The paper (arXiv 2212.10929) trains the whole model on 31 tasks of 8 domains and tests it without
further training on 9 held-out sets of 5 categories. **Which tasks these are is not public: the list
below is reconstructed** from what this library knows, so that no held-out category is trained on.

- Trained on: paraphrase and similarity (4), sentiment and emotion (9), topic (3), extractive
  questions (8), questions about a passage (3), acceptability (1), question type and intent (2),
  subjectivity (1).
- Held out: inference (RTE, CB, ANLI), coreference (WSC, Winogrande), word sense (WiC), commonsense
  (COPA), science questions (ARC, OpenBookQA).

Rows are trained under all templates of a task in turn, and tested under each. `data.templates=rest`
keeps the first template of every task out of training: with a `target` of the same task
(`allow_overlap=true`), that is the test of held-out wordings.

The budget is ours. All lines have Adafactor at 0.3, as in prompt tuning; `spt_full` trains the T5
beside its bank at `lm_rate` times that, 9e-4, one run at a time. The frozen form's T5 is the
LM-adapted one, as in T0. P3's own prompts (bigscience/P3) are rendered rows: docs/user_tasks.md
says how a subset becomes a task of this shape.

Not run yet: it needs an accelerator and the data sets (`prompt-jax tasks fetch NAME`).
"""

from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.loop import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig

TRAINED = {
    "paraphrase and similarity": ("glue/mrpc", "glue/qqp", "paws", "glue/stsb"),
    "sentiment and emotion": (
        "glue/sst2",
        "sst5",
        "mr",
        "mpqa",
        "imdb",
        "yelp_polarity",
        "yelp_review_full",
        "amazon_review_full",
        "tweeteval_emotion",
    ),
    "topic": ("ag_news", "dbpedia", "yahoo_answers"),
    "extractive questions": (
        "squad",
        "super_glue/record",
        "mrqa/natural_questions",
        "mrqa/hotpot_qa",
        "mrqa/search_qa",
        "mrqa/news_qa",
        "quoref",
        "nq_qed",
    ),
    "questions about a passage": ("super_glue/boolq", "super_glue/multirc", "glue/qnli"),
    "acceptability": ("glue/cola",),
    "question type and intent": ("trec", "banking77"),
    "subjectivity": ("subj",),
}
HELD_OUT = {
    "inference": ("glue/rte", "super_glue/cb", "anli/r1"),
    "coreference": ("super_glue/wsc.fixed", "winogrande"),
    "word sense": ("super_glue/wic",),
    "commonsense": ("super_glue/copa",),
    "science questions": ("arc_challenge", "openbookqa"),
}


def get_config() -> ExperimentConfig:
    """Five lines, frozen; the full form and its control; zero-shot, 3 seeds."""
    adafactor = OptimizerConfig(
        name="adafactor", learning_rate=0.3, unit="absolute", warmup_steps=500, schedule="constant"
    )
    return ExperimentConfig(
        name="spt_t0",
        model="google/t5-base-lm-adapt",
        remat=True,
        sources=tuple(name for tasks in TRAINED.values() for name in tasks),
        targets=tuple(name for tasks in HELD_OUT.values() for name in tasks),
        methods=(
            "spt(retrieval=shared,transfer=zero_shot)",
            "spt(retrieval=task,transfer=zero_shot)",
            "spt(retrieval=random,transfer=zero_shot)",
            "spt(retrieval=attention,transfer=zero_shot)",
            "spt(transfer=zero_shot)",
            "spt_full(retrieval=shared,transfer=zero_shot)",
            "spt_full(transfer=zero_shot)",
        ),
        shots=(0,),
        seeds=3,
        prompt=PromptConfig(tokens=100, init="vocab:5000"),
        data=DataConfig(
            max_input_tokens=256,
            max_target_tokens=32,
            train_rows=50_000,
            dev_rows=200,
            templates="cycle",
            test_templates="all",
        ),
        source=TrainConfig(steps=30_000, batch_size=32, optimizer=adafactor, eval_every=0),
    )
