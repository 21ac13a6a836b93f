"""DTVG on real text with a small T5: the lines of experiments/sandbox_dtvg.py, five seeds.

    prompt-jax run experiments/real_dtvg.py model=DIR data.root=DIR
    prompt-jax oracle experiments/real_dtvg.py model=DIR data.root=DIR
    python -m experiments.sandbox_contrasts experiments/real_dtvg.py runs/real_dtvg

The T5 must not have been trained on the targets (all are in `prompt_jax.data.registry.RESERVED`).
`model=mini` is the one of the package, which was made for the sandbox; sources, rows and rates are
those of experiments/real_text.py, whose run showed that its T5 is hard to steer.

Primary contrast, declared before any run: DTVG with both stages inside the target's budget minus
prompt tuning with that budget, mean over the four targets. With five seeds, p comes from the items.
"""

from dataclasses import replace

from experiments.sandbox_protocol import LONG, TUNED, Question
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.loop import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig

MATCHED = "dtvg(budget=matched)"
TPV = "task_prompt_vectors"
SOURCES = ("snli", "glue/qnli", "glue/sst2", "glue/qqp", "ag_news", "yelp_polarity")
TARGETS = ("glue/rte", "mr", "trec", "subj")

PRIMARY = Question(MATCHED, "prompt_tuning", why="do grouped sources help at equal steps")
SECONDARY = (
    Question("dtvg", LONG, why="as published, at equal steps on the target"),
    Question(MATCHED, TUNED, why="against the well-tuned line"),
    Question(MATCHED, "spot", why="against the nearest source"),
    Question(MATCHED, TPV, why="against the sum of all sources"),
    Question("spot", "prompt_tuning", why="SPoT itself"),
    Question(MATCHED, "prompt_tuning", ("mr",), why="where two sources ask the same (sentiment)"),
)


def few_shot(name: str, methods: tuple[str, ...]) -> ExperimentConfig:
    """Six sources, four targets, k = 16, five seeds with a source set each."""
    prompt = OptimizerConfig(learning_rate=2.0, warmup_steps=10, schedule="linear", clip_norm=1.0)
    source = TrainConfig(steps=200, batch_size=8, optimizer=prompt, eval_every=50)
    few = replace(source, steps=100, eval_every=25)
    return ExperimentConfig(
        name=name,
        model="mini",
        sources=SOURCES,
        targets=TARGETS,
        methods=methods,
        shots=(16,),
        seeds=5,
        prompt=PromptConfig(tokens=20, init="vocab:5000"),
        data=DataConfig(max_input_tokens=64, max_target_tokens=8, dev_rows=100, test_rows=300),
        source=source,
        probe=replace(source, steps=25, eval_every=0),
        target=few,
        few_shot=few,
    )


def get_config() -> ExperimentConfig:
    """Seven lines."""
    return few_shot("real_dtvg", ("prompt_tuning", LONG, TUNED, "spot", TPV, "dtvg", MATCHED))
