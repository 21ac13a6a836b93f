"""Files of a tiny experiment: a T5 with a tokenizer, four tasks of twelve words, and a config.

Shapes are those of `toy`, so that these tests share compiled programs with those of training. Every
sentence has as many words, so that few programs have to be compiled.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toy

from prompt_jax import config as configs
from prompt_jax.cli import main
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes import ExperimentConfig

SUBJECTS = ("the dog", "a cat", "one bird", "my horse", "that cow")
VERBS = ("eats", "sees", "likes", "hears")
OBJECTS = {"food": ("bread", "cheese", "apples"), "tool": ("hammers", "saws", "spades")}
LABELS = ("food", "tool")
TRAIN, TEST = 60, 24  # rows
METHODS = ("prompt_tuning", "spot", "full_fine_tuning")


class World(NamedTuple):
    """What the tests share.

    Attributes:
      root: holds everything.
      model: directory of `lm`.
      other_model: the same shape with other weights.
      tasks: paths of the task files by name.
      config: path of the config file.
      folder: run directory of the shared run.
      lm: the model, without its directory.
    """

    root: Path
    model: str
    other_model: str
    tasks: dict[str, str]
    config: str
    folder: Path
    lm: FrozenT5

    def prompt(self, method: str, target: str = "one", shots: str = "all", seed: int = 0) -> str:
        """The path of a prompt of the shared run."""
        return str(self.folder / "prompts" / method / f"{target}-{shots}-seed{seed}.safetensors")

    @property
    def arguments(self) -> list[str]:
        """The command that made `folder`."""
        return ["run", self.config, f"out={self.folder}", "seeds=2"]

    def experiment(self, folder: Path, **changes: Any) -> ExperimentConfig:
        """The config file's, with two methods and two seeds; `cache` and `out` lie in `folder`."""
        made = configs.load_config(self.config, [f"data.cache={folder / 'cache'}"])
        assert isinstance(made, ExperimentConfig)
        usual = {
            "model": "tiny",
            "seeds": 2,
            "methods": ("prompt_tuning", "spot"),
            "out": str(folder / "run"),
        }
        return dataclasses.replace(made, **{**usual, **changes})


def sentences(count: int, shift: int) -> list[tuple[str, str]]:
    """Sentences about food and tools in turn, with their labels."""
    made = []
    for i in range(count):
        label, n = LABELS[i % 2], i + shift
        objects = OBJECTS[label]
        words = (SUBJECTS[n % 5], VERBS[(n // 5) % 4], objects[(n // 2) % 3])
        made.append((" ".join(words), label))
    return made


def write_tokenizer(folder: Path) -> None:
    """A tokenizer.json of whole words, with T5's special ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = [text for text, _ in sentences(200, 0)] + ["sentence: yes no"]
    words = sorted({word for text in texts for word in text.replace(":", " :").split()})
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {word: 3 + i for i, word in enumerate([*LABELS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_task(root: Path, name: str, shift: int, metrics: tuple[str, ...] = ()) -> str:
    """A classification of one field under two templates."""
    for split, count, start in (("train", TRAIN, shift), ("validation", TEST, shift + 61)):
        lines = [json.dumps({"text": t, "label": y}) for t, y in sentences(count, start)]
        path = root / name / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    path = root / f"{name}.toml"
    path.write_text(
        f"""name = "{name}"
kind = "classification"
fields = ["text"]
labels = ["food", "tool"]
{f"metrics = {json.dumps(metrics)}" if metrics else ""}
description = "What a sentence is about."

[[templates]]
name = "plain"
text = "sentence: {{text}}"

[[templates]]
name = "short"
text = "{{text}}"

[files]
train = "{name}/train.jsonl"
validation = "{name}/validation.jsonl"
"""
    )
    return str(path)


CONFIG = """
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig
from prompt_jax.training.types import TrainConfig
from prompt_jax.training.optimizers import OptimizerConfig


def budget(steps, learning_rate=0.5):
    optimizer = OptimizerConfig(learning_rate=learning_rate, unit="absolute", schedule="constant")
    return TrainConfig(
        steps, {batch}, optimizer, eval_every=2, log_every=1, micro_batch_tokens={tokens}
    )


def get_config():
    return ExperimentConfig(
        name="toy",
        model={model!r},
        sources=({first!r}, {second!r}),
        targets=({one!r}, {two!r}),
        shots=(4, 0),
        seeds=1,
        prompt=PromptConfig(tokens={length}, init="vocab:20"),
        data=DataConfig(cache={cache!r}, max_input_tokens=8, max_target_tokens=4, dev_rows=8),
        source=budget(6),
        probe=budget(2),
        target=budget(4),
        few_shot=budget(3),
        fine_tuning=budget(2, 0.01),
        fine_tuning_few_shot=budget(1, 0.01),
    )
"""


def make_world(root: Path) -> World:
    """Writes everything but the run directory."""
    write_tokenizer(root / "tokenizer")
    models = {}
    for seed, name in ((7, "tiny"), (1, "other")):
        models[name] = FrozenT5.from_config(
            toy.CONFIG, seed=seed, name="tiny", tokenizer=root / "tokenizer"
        )
        models[name].save_pretrained(root / name)
    tasks = {
        name: write_task(root, name, shift)
        for name, shift in (("first", 0), ("second", 3), ("one", 1))
    }
    tasks["two"] = write_task(root, "two", 7, ("f1", "accuracy"))
    config = root / "toy.py"
    fixed = {"batch": toy.B, "length": toy.L, "tokens": toy.MICRO_TOKENS}
    places = {"model": str(root / "tiny"), "cache": str(root / "cache"), **tasks}
    config.write_text(CONFIG.format(**fixed, **places))
    return World(
        root, places["model"], str(root / "other"), tasks, str(config), root / "run", models["tiny"]
    )


class Result(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


class Ran(NamedTuple):
    """The shared run: its files and what it printed."""

    world: World
    result: Result


class _Stdin(io.TextIOWrapper):
    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="utf-8")


def call(arguments: Sequence[str], stdin: bytes = b"") -> Result:
    """Runs the command line in this process, as the entry point does."""
    with pytest.MonkeyPatch.context() as patch:
        streams = []
        for name in ("stdout", "stderr"):
            streams.append(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
            patch.setattr(f"sys.{name}", streams[-1])
        patch.setattr("sys.stdin", _Stdin(stdin))
        patch.setattr("sys.warnoptions", ["error"])  # warnings stay errors, as in every test
        code = main([str(argument) for argument in arguments])
        texts = []
        for stream in streams:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
    return Result(code, *texts)
