"""Tasks, a tokenizer and a T5 for tiny experiments, and a trainer that only pretends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import toy

from prompt_jax.evaluation import Evaluation
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.recipes import DataConfig, ExperimentConfig, PromptConfig, stages
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.execute import Executor
from prompt_jax.recipes.rows import RowStore
from prompt_jax.training.types import TrainedReplica

WORDS = tuple(f"w{i}" for i in range(40))
TASKS = ("a", "b", "one", "two")
TRAIN, TEST = 40, 24


def write_tokenizer(folder: Path) -> None:
    """Whole words, with T5's special ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ("<pad>", "</s>", "<unk>", "no", "yes", "mark", *WORDS)
    tokenizer = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_task(root: Path, name: str, seed: int) -> str:
    """Does a sentence hold the word "mark"? Sentences of two to six words."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", TRAIN), ("validation", TEST)):
        lines = []
        for i in range(count):
            words = rng.choice(WORDS, rng.integers(2, 7)).tolist()
            words[0] = "mark" if i % 2 else words[0]
            text = " ".join(rng.permutation(words).tolist())
            lines.append(json.dumps({"text": text, "label": i % 2}))
        path = root / name / f"{part}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    metrics = '["f1", "accuracy"]' if name == "two" else '["accuracy"]'
    path = root / f"{name}.toml"
    path.write_text(
        f"""name = "{name}"
kind = "classification"
fields = ["text"]
labels = ["no", "yes"]
metrics = {metrics}
description = "Is the word there?"

[[templates]]
name = "plain"
text = "{{text}}"

[[templates]]
name = "other"
text = "w0 {{text}}"

[files]
train = "{name}/train.jsonl"
validation = "{name}/validation.jsonl"
""",
        encoding="utf-8",
    )
    return str(path)


class World(NamedTuple):
    """What the tests share."""

    root: Path
    lm: FrozenT5
    tasks: dict[str, str]

    def config(self, folder: Path, **changes: Any) -> ExperimentConfig:
        """Two sources, two targets, two seeds; `cache` and `out` lie in `folder`."""
        steps = {"source": 6, "probe": 2, "target": 4, "few_shot": 3, "fine_tuning": 2}
        rate = {"learning_rate": 0.5, "unit": "absolute"}
        budgets = {name: toy.budget(n, eval_every=2, **rate) for name, n in steps.items()}
        few = toy.budget(1, eval_every=2, learning_rate=0.01, unit="absolute")
        made = {
            "name": "toy",
            "model": "tiny",
            "sources": (self.tasks["a"], self.tasks["b"]),
            "targets": (self.tasks["one"], self.tasks["two"]),
            "methods": ("prompt_tuning", "spot"),
            "shots": (4, 0),
            "seeds": 2,
            "prompt": PromptConfig(tokens=toy.L, init="vocab:40"),
            "data": DataConfig(
                cache=str(folder / "cache"), max_input_tokens=8, max_target_tokens=4, dev_rows=8
            ),
            "out": str(folder / "run"),
            "fine_tuning_few_shot": few,
            **budgets,
        }
        return ExperimentConfig(**{**made, **changes})


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("recipes")
    write_tokenizer(root)
    lm = FrozenT5.from_config(toy.CONFIG, seed=7, name="tiny", tokenizer=root)
    return World(root, lm, {name: write_task(root, name, i) for i, name in enumerate(TASKS)})


def name_of(run: Any) -> str:
    """A run within its stage: the stage's label says whether it has all rows."""
    return str(run.key).replace(" all rows", "")


class Pretender:
    """Stands for `train` and `evaluate_runs`: remembers what it was asked and moves nothing much.

    Attributes:
      calls: (stage, names of the runs, budget) of every population.
      values: development value by (stage, name); others get 0.5.
      dead: (stage, name) of runs that die.
      evaluated: how many sets of rows were evaluated.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], Any]] = []
        self.runs: dict[tuple[str, str], Any] = {}
        self.values: dict[tuple[str, str], float] = {}
        self.prompts: dict[tuple[str, str], np.ndarray] = {}
        self.dead: set[tuple[str, str]] = set()
        self.evaluated = 0

    def train(
        self, lm: Any, method: Any, runs: Sequence[Any], config: Any, *, stage: str, **_: Any
    ) -> list[TrainedReplica]:
        self.calls.append((stage, [name_of(run) for run in runs], config))
        assert len({run.key for run in runs}) == len(runs)
        trained = []
        for run in runs:
            name = (stage, name_of(run))
            self.runs[name] = run
            params = jax.tree.map(lambda x: np.asarray(x) + 0.5, run.params)
            if name in self.prompts:
                params = {"prompt": self.prompts[name]}
            rows = config.steps * config.batch_size
            trained.append(
                TrainedReplica(
                    run.key,
                    params,
                    params.get("prompt"),
                    config.steps,
                    self.values.get(name, 0.5),
                    ((config.steps, 0.5),),
                    config.steps,
                    rows,
                    6 * rows,
                    2 * rows,
                    name not in self.dead,
                )
            )
        return trained

    def evaluate_runs(
        self, lm: Any, method: Any, params: Any, consts: Any, jobs: Any, metrics: Any, mesh: Any
    ) -> list[Evaluation]:
        self.evaluated += len(jobs)
        first = jax.tree.leaves(params)[0]
        values = [float(np.asarray(first[job.prompt]).mean()) for job in jobs]
        return [
            Evaluation(
                dict.fromkeys(names, value),
                np.zeros(len(job.split), np.int64),
                {"accuracy": np.full(len(job.split), value, np.float32)},
                0,
            )
            for job, names, value in zip(jobs, metrics, values, strict=True)
        ]

    def steps(self) -> int:
        """Optimizer steps of all runs."""
        return sum(len(names) * config.steps for _, names, config in self.calls)


@pytest.fixture
def pretender(monkeypatch: pytest.MonkeyPatch) -> Pretender:
    made = Pretender()
    monkeypatch.setattr(stages, "train", made.train)
    monkeypatch.setattr(stages, "evaluate_runs", made.evaluate_runs)
    return made


@pytest.fixture
def executor(world: World, tmp_path: Path) -> Callable[..., Executor]:
    """Makes executors over one cache folder."""

    def make(config: ExperimentConfig | None = None, **changes: Any) -> Executor:
        config = config or world.config(tmp_path, **changes)
        cache = None if config.data.cache == "" else Path(config.data.cache)
        rows = RowStore(config.data, world.lm.tokenizer, cache)
        store = ArtefactStore(None if cache is None else cache / "runs")
        runner = stages.StageRunner(world.lm, store, population=config.population)
        return Executor(config, rows, runner)

    return make
