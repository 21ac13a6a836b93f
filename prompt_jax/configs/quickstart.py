"""The library's main job in three minutes on a laptop, offline: `prompt-jax run quickstart`.

Trains prompts for three generated source tasks, carries them to two targets with 16 rows per class,
and compares with prompt tuning from scratch and with training the whole T5.

The T5 is a TOY: 2 + 2 layers of width 64, made on the spot by training random weights for less than
a minute on the generated source tasks (never on a target). It shows the mechanics, nothing else:
results on it say nothing about real models, real tasks or which method is better.

Everything is written below `runs/quickstart`: `data/`, `model/` (made once), `cache/`, `run/`. The
generated tasks go with any other T5, too: `prompt-jax run quickstart model=DIR out=OTHER`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from prompt_jax.configs import _quickstart_tasks as tasks
from prompt_jax.data.feed import Mixture
from prompt_jax.data.sources import open_split
from prompt_jax.data.tokenise import TokenisedSplit, concat, tokenise_rows
from prompt_jax.data.toml import load_task
from prompt_jax.methods.full_fine_tuning import FullFineTuning
from prompt_jax.models.t5 import FrozenT5, T5Config
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig, experiment
from prompt_jax.recipes.artefacts import run_key
from prompt_jax.training.fingerprint import describe_feed
from prompt_jax.training.loop import Run, TrainConfig, train
from prompt_jax.training.optimizers import OptimizerConfig
from prompt_jax.training.tracking import RunTracker

ROOT = Path("runs/quickstart")
MODEL = str(ROOT / "model")
SHAPE = T5Config(
    vocab_size=128, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=4,
    relative_attention_num_buckets=16, relative_attention_max_distance=32,
    activation="gelu_new", gated=True,
)  # fmt: skip
TRAINING = TrainConfig(
    steps=600, batch_size=64, eval_every=0, log_every=50,
    optimizer=OptimizerConfig(
        learning_rate=2e-3, unit="absolute", warmup_steps=50, schedule="cosine", clip_norm=1.0
    ),
)  # fmt: skip
SOURCE_ROWS, TARGET_ROWS = (600, 60), (200, 300)  # to train on, to test on
ABOUT = """\
A toy that shows the mechanics: its results say nothing about real tasks. Generated sentences;
sources ask for their mood, time and kind of thing; the target `opinion` asks for the mood again, in
other sentences and with other label words; the target `who` asks for what no source asks for.
"""
_INPUT, _TARGET = 16, 4  # tokens: one width, so that little is compiled


def get_config() -> ExperimentConfig:
    """Three methods on two targets, 16 rows per class, 3 seeds, prompts of 8 tokens."""
    prompt = OptimizerConfig(learning_rate=0.3, warmup_steps=10, schedule="linear", clip_norm=1.0)
    full = OptimizerConfig(learning_rate=1e-3, unit="absolute", warmup_steps=5, clip_norm=1.0)
    few = TrainConfig(steps=200, batch_size=16, optimizer=prompt, eval_every=20)
    tuned = TrainConfig(steps=40, batch_size=16, optimizer=full, eval_every=10)
    paths = [(task, str(ROOT / "data" / f"{task.name}.toml")) for task in tasks.TASKS]
    return ExperimentConfig(
        name="quickstart",
        model=MODEL,
        sources=tuple(path for task, path in paths if task.is_source),
        targets=tuple(path for task, path in paths if not task.is_source),
        methods=("prompt_tuning", "spot", "full_fine_tuning"),
        shots=(16,),
        seeds=3,
        prompt=PromptConfig(tokens=8, init="vocab:100"),
        data=DataConfig(
            cache=str(ROOT / "cache"), max_input_tokens=_INPUT, max_target_tokens=_TARGET,
            dev_rows=100,
        ),
        source=TrainConfig(steps=200, batch_size=16, optimizer=prompt, eval_every=50),
        probe=TrainConfig(steps=40, batch_size=16, optimizer=prompt, eval_every=0),
        target=few,
        few_shot=few,
        fine_tuning=tuned,
        fine_tuning_few_shot=tuned,
        out=str(ROOT / "run"),
    )  # fmt: skip


def prepare(
    config: ExperimentConfig, say: Callable[[str], None], dry_run: bool = False
) -> FrozenT5 | None:
    """Writes the tasks and, where the config names it and it is not there, makes the toy T5.

    Args:
      config: what will be run.
      say: receives a line for people.
      dry_run: write the tasks, which takes no time, but train nothing.

    Returns:
      In a dry run the untrained T5, where the trained one is still to be made; otherwise None.

    Raises:
      PromptJaxError: something cannot be written.
    """
    say(ABOUT)
    paths = tasks.write_tasks(ROOT / "data", SOURCE_ROWS, TARGET_ROWS)
    # What is wrong with the config is said before a minute is spent.
    config.check_tasks()
    experiment.check_folder(config)
    return toy_t5(paths, ROOT / "model", TRAINING, say, dry_run) if config.model == MODEL else None


def toy_t5(
    paths: Mapping[str, Path], folder: Path, budget: TrainConfig, say: Callable[[str], None],
    dry_run: bool = False,
) -> FrozenT5 | None:  # fmt: skip
    """Trains a T5 from random weights on the source tasks, unless the folder holds that very one.

    Args:
      paths: TOML files of tasks; the vocabulary lies beside them.
      folder: of the model.
      budget: of the training.
      say: receives a line for people.
      dry_run: train nothing.

    Returns:
      As `prepare`.
    """
    words = next(iter(paths.values())).parent / tasks.TOKENIZER
    lm = FrozenT5.from_config(SHAPE, name=folder.name, tokenizer=words)
    method, run = FullFineTuning(), mixture(lm, paths, budget)
    key, mark = run_key(lm, method, run, budget, describe_feed(run.feed)), folder / "made_by.txt"
    made = mark.is_file() and mark.read_text("utf-8") == key
    if made and (folder / "model.safetensors").is_file():
        return None
    if dry_run:
        return lm
    say(
        f"First, once: a T5 of {SHAPE.parameter_count / 1000:.0f} k random weights learns the"
        f" source tasks, {budget.steps:,} steps, about half a minute of processor time."
    )
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with RunTracker(folder / "metrics.jsonl") as tracker:
        (trained,) = train(lm, method, [run], budget, stage="toy T5", tracker=tracker)
    lm.replace(params=trained.params["lm"]).save_pretrained(folder)
    mark.write_text(key, "utf-8")  # last: what was interrupted is made again
    say(
        f"It took {time.monotonic() - began:.0f} s and answers {trained.best_value:.0%} of the"
        f" sources' held-out rows. It has never seen a target. It is kept in {folder}.\n"
    )
    return None


def mixture(lm: FrozenT5, paths: Mapping[str, Path], budget: TrainConfig) -> Run:
    """What the toy T5 is trained on: the source tasks under all their instructions, mixed.

    Targets are left out, and so is the plain template, which the experiment trains prompts for.
    """
    parts: dict[str, list[TokenisedSplit]] = {"train": [], "validation": []}
    for task in (load_task(paths[task.name]) for task in tasks.TASKS if task.is_source):
        for split, found in parts.items():
            rows = open_split(task, split)
            found += [
                tokenise_rows(task, rows, lm.tokenizer, templates=template.name)
                for template in task.templates[1:]
            ]
    feed = Mixture(concat(parts["train"]), budget.batch_size, seed=0, stream="source")
    dev = concat(parts["validation"])
    return Run("toy T5", feed, {"lm": lm.params}, dev=dev)
