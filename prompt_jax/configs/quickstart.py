"""The library's main job on its embedded default, offline: `prompt-jax run quickstart`.

The mini T5 of the package stays frozen. Soft prompts are trained for four source tasks of the
sandbox, transferred to four targets with 16 rows per class (SPoT: from the most similar source
prompt), and compared with prompt tuning, over 8 seeds with their own source prompts. Two to four
minutes on two cores.

The primary question was declared before these seeds were run: is SPoT ahead on average over the
targets? Steps and number of seeds were chosen with other seeds (from 100).

What is known of the targets beforehand (`prompt_jax.data.sandbox.truth`): `sentiment_talk` and
`paraphrase` ask what a source asks, in other sentences and with a fifth of the training labels
wrong; `topic_next` has a source's labels moved on, and clean, and `acceptability` should hurt it;
`giver_tales` has no related source here. Like every config it takes overrides:
`prompt-jax run quickstart shots=4,16 seeds=10 out=runs/more`.
"""

from __future__ import annotations

from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.rundir.questions import Question
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.types import TrainConfig


def get_config() -> ExperimentConfig:
    """Two methods on four targets, 16 rows per class, 8 seeds, prompts of 10 tokens."""
    gentle, brisk = (
        OptimizerConfig(learning_rate=rate, warmup_steps=10, schedule="linear", clip_norm=1.0)
        for rate in (0.1, 0.3)
    )
    few = TrainConfig(steps=80, batch_size=16, optimizer=brisk, eval_every=20)
    return ExperimentConfig(
        name="quickstart",
        model="mini",
        sources=(
            "sandbox/sentiment",
            "sandbox/topic",
            "sandbox/entailment",
            "sandbox/acceptability",
        ),
        targets=(
            "sandbox/sentiment_talk",
            "sandbox/paraphrase",
            "sandbox/topic_next",
            "sandbox/giver_tales",
        ),
        methods=("prompt_tuning", "spot"),
        shots=(16,),
        seeds=8,
        prompt=PromptConfig(tokens=10, init="vocab:2000"),
        data=DataConfig(max_input_tokens=48, max_target_tokens=6, dev_rows=100, test_rows=300),
        source=TrainConfig(steps=100, batch_size=16, optimizer=gentle, eval_every=50),
        probe=TrainConfig(steps=20, batch_size=16, optimizer=brisk, eval_every=0),
        target=few,
        few_shot=few,
        questions=(
            Question(
                "spot",
                "prompt_tuning",
                why="Does a source prompt help with few rows, on average over the targets?",
                role="primary",
            ),
        ),
    )
