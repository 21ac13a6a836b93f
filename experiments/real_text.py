"""Transfer on real text with a small T5: prompt tuning, SPoT and full fine-tuning.

    prompt-jax run experiments/real_text.py model=DIR data.root=DIR

The T5 must not have been trained on the targets (RTE, MRPC, MR, TREC, Subj and IMDB are in
`prompt_jax.data.registry.RESERVED`). Result and spread: docs/results/real_text.md.
"""

from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.loop import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig


def get_config() -> ExperimentConfig:
    """Six sources, six targets, k = 16 and all rows, 3 seeds with a source set each."""
    prompt = OptimizerConfig(learning_rate=2.0, warmup_steps=10, schedule="linear", clip_norm=1.0)
    full = OptimizerConfig(
        learning_rate=5e-4, unit="absolute", warmup_steps=10, schedule="linear", clip_norm=1.0
    )
    return ExperimentConfig(
        name="real_text",
        model="mini",
        sources=("snli", "glue/qnli", "glue/sst2", "glue/qqp", "ag_news", "yelp_polarity"),
        targets=("glue/rte", "glue/mrpc", "mr", "trec", "subj", "imdb"),
        methods=("prompt_tuning", "spot", "full_fine_tuning"),
        shots=(16, 0),
        seeds=3,
        prompt=PromptConfig(tokens=20, init="vocab:5000"),
        data=DataConfig(max_input_tokens=64, max_target_tokens=8, dev_rows=100, test_rows=300),
        source=TrainConfig(steps=250, batch_size=8, optimizer=prompt, eval_every=125),
        probe=TrainConfig(steps=25, batch_size=8, optimizer=prompt, eval_every=0),
        target=TrainConfig(steps=250, batch_size=8, optimizer=prompt, eval_every=125),
        few_shot=TrainConfig(steps=150, batch_size=8, optimizer=prompt, eval_every=50),
        fine_tuning=TrainConfig(steps=120, batch_size=8, optimizer=full, eval_every=60),
        fine_tuning_few_shot=TrainConfig(steps=45, batch_size=8, optimizer=full, eval_every=15),
    )
