"""A T5, a tokenizer, four tasks and an experiment small enough to be run for real.

Populations are of two runs everywhere, and test and development sets of eight rows, so that all of
it needs a handful of compiled programs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from prompt_jax.cli import main
from prompt_jax.models.t5 import FrozenT5, T5Config

# Every sentence has as many words, so that few programs have to be compiled.
SUBJECTS = ("the dog", "a cat", "one bird", "my horse", "that cow")
VERBS = ("eats", "sees", "likes", "hears")
OBJECTS = {"food": ("bread", "cheese", "apples"), "tool": ("hammers", "saws", "spades")}
LABELS = ("food", "tool")


class Result(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Result]


class World(NamedTuple):
    """Files that the tests share."""

    root: Path
    model: str
    other_model: str
    tasks: dict[str, str]
    config: str
    folder: Path

    def prompt(self, method: str, target: str = "one", shots: str = "all") -> str:
        """The path of a prompt that the run left."""
        return str(self.folder / "prompts" / method / f"{target}-{shots}-seed0.safetensors")

    @property
    def arguments(self) -> list[str]:
        """The run that made `folder`."""
        return ["run", self.config, f"out={self.folder}"]


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
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_task(root: Path, name: str, shift: int) -> str:
    """A classification of one field, 60 rows to train on and 8 to test on."""
    for split, count, start in (("train", 60, shift), ("validation", 8, shift + 61)):
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


def get_config():
    prompt = OptimizerConfig(learning_rate=1.0)
    full = OptimizerConfig(learning_rate=1e-3, unit="absolute")
    few = dict(steps=3, batch_size=4, eval_every=1, log_every=1, micro_batch_tokens=88)
    return ExperimentConfig(
        name="toy",
        model={model!r},
        sources=({first!r}, {second!r}),
        targets=({one!r}, {two!r}),
        shots=(4, 0),
        seeds=1,
        prompt=PromptConfig(tokens=3, init="vocab:20"),
        data=DataConfig(cache={cache!r}, max_input_tokens=8, max_target_tokens=4, dev_rows=8),
        source=TrainConfig(optimizer=prompt, **few),
        probe=TrainConfig(optimizer=prompt, **{{**few, "steps": 1}}),
        target=TrainConfig(optimizer=prompt, **few),
        few_shot=TrainConfig(optimizer=prompt, **few),
        fine_tuning=TrainConfig(optimizer=full, **few),
        fine_tuning_few_shot=TrainConfig(optimizer=full, **few),
    )
"""


def make_world(root: Path) -> World:
    """Writes everything but the run directory."""
    write_tokenizer(root / "tokenizer")
    shape = T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2
    )
    models = []
    for seed, name in ((0, "tiny"), (1, "other")):
        lm = FrozenT5.from_config(shape, seed=seed, tokenizer=root / "tokenizer")
        lm.save_pretrained(root / name)
        models.append(str(root / name))
    tasks = {
        name: write_task(root, name, shift)
        for name, shift in (("first", 0), ("second", 3), ("one", 1), ("two", 7))
    }
    config = root / "toy.py"
    config.write_text(CONFIG.format(model=models[0], cache=str(root / "cache"), **tasks))
    return World(root, models[0], models[1], tasks, str(config), root / "run")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Model, tasks and config; nothing has been run."""
    return make_world(tmp_path_factory.mktemp("cli"))


class Ran(NamedTuple):
    """The shared run: its files and what it printed."""

    world: World
    result: Result


@pytest.fixture(scope="session")
def ran(files: World) -> Ran:
    """The one real experiment of these tests."""
    return Ran(files, call(files.arguments))


@pytest.fixture(scope="session")
def world(ran: Ran) -> World:
    """The files of the experiment after it has run."""
    assert ran.result.code == 0, ran.result.err
    return ran.world


class Rowwise(NamedTuple):
    """A run of a method whose prompt depends on the tokens of the row."""

    result: Result
    folder: Path

    @property
    def file(self) -> str:
        """The path of the trained method."""
        (path,) = (self.folder / "prompts").rglob("one-all-seed0*.safetensors")
        return str(path)


@pytest.fixture(scope="session")
def rowwise(world: World) -> Rowwise:
    """SPT with a query of each row, on task `one`."""
    folder = world.root / "rowwise"
    spec = "spt(slots=4,tokens=1,query=instance)"
    changes = [f"methods={spec}", f"targets={world.tasks['one']}", "shots=0"]
    result = call(["run", world.config, f"out={folder}", *changes])
    assert result.code == 0, result.err
    return Rowwise(result, folder)


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


@pytest.fixture
def invoke() -> Invoke:
    """Calls the command line: `invoke("tasks", "list", stdin=b"")`."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        return call([str(argument) for argument in arguments], stdin)

    return run
