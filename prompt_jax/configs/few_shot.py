"""A template for your own data: do source prompts help on a task with few rows?

    prompt-jax run few_shot model=DIR data.root=DIR sources=snli,ag_news targets=tickets.toml

`model` is any language model (a directory, a GGUF file or a hub id), `targets` are TOML files
(docs/user_tasks.md) or registered tasks. Without sources:
`sources= methods=prompt_tuning,full_fine_tuning`. The tasks named below are placeholders; none of
the sources shares texts with the target.
"""

from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig


def get_config() -> ExperimentConfig:
    """16 rows per class and all rows, 3 seeds with source prompts of their own, 20 tokens."""
    prompt = OptimizerConfig(learning_rate=0.1, warmup_steps=20, schedule="linear", clip_norm=1.0)
    full = OptimizerConfig(
        learning_rate=3e-4, unit="absolute", warmup_steps=20, schedule="linear", clip_norm=1.0
    )
    return ExperimentConfig(
        name="few_shot",
        sources=("snli", "glue/qnli", "ag_news"),
        targets=("mr",),
        methods=("prompt_tuning", "spot", "full_fine_tuning"),
        shots=(16, 0),
        seeds=3,
        prompt=PromptConfig(tokens=20, init="vocab:5000"),
        data=DataConfig(max_input_tokens=128, max_target_tokens=16, dev_rows=200, test_rows=1000),
        source=TrainConfig(steps=1000, batch_size=16, optimizer=prompt, eval_every=100),
        probe=TrainConfig(steps=50, batch_size=16, optimizer=prompt, eval_every=0),
        target=TrainConfig(steps=1000, batch_size=16, optimizer=prompt, eval_every=100),
        few_shot=TrainConfig(steps=300, batch_size=16, optimizer=prompt, eval_every=25),
        fine_tuning=TrainConfig(steps=1000, batch_size=16, optimizer=full, eval_every=100),
        fine_tuning_few_shot=TrainConfig(steps=100, batch_size=16, optimizer=full, eval_every=20),
    )
