"""Is the sandbox fit for research? Measures what its tasks promise, with the mini T5.

    python -m experiments.analysis.fitness out=DIR                     # 10 seeds, everything
    python -m experiments.analysis.fitness out=DIR tasks=no first_seed=30 draws=2
                             # the pairs alone, with fresh seeds and two draws of rows for each
    python -m experiments.analysis.fitness out=DIR tasks=no labelled=yes seeds=20 first_seed=10
                             # the pairs of which an effect is expected
    python -m experiments.analysis.fitness out=DIR seeds=2 first_seed=100 frozen=no
                             # while choosing budgets: other seeds, and never a held-out target

Source prompts are trained for every seed. For every task: prompt tuning with all rows and full
fine-tuning; for every target: prompt tuning with k rows per class from the common initialisation
and from each source's prompt, on `draws` draws of the rows, whose mean is the seed's value (single
draws are noisy). The pairs are compared with `sandbox.truth()` by the statistics of
docs/evaluation.md, in two families: the pairs of which an effect is expected, and the neutral ones.
Result: docs/results/sandbox.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, suites
from experiments.suites import SANDBOX
from prompt_jax import config as configs
from prompt_jax.data import sandbox
from prompt_jax.data.tasks import Task
from prompt_jax.errors import ConfigError
from prompt_jax.evaluation import statistics
from prompt_jax.methods import BaseMethod, FullFineTuning, PromptTuning
from prompt_jax.models.t5 import FrozenT5
from prompt_jax.prompts.initialisers import parse
from prompt_jax.recipes.artefacts import ArtefactStore
from prompt_jax.recipes.rows import RowStore
from prompt_jax.recipes.stages import StageJob, StageResult, StageRunner
from prompt_jax.run_key import RunKey
from prompt_jax.training.tracking import RunTracker
from prompt_jax.training.types import Replica, TrainConfig

ALL_ROWS = suites.budget(300, 0.3, every=60)
CARELESS = suites.budget(300, 0.2, every=60, batch=32)
_FINE = suites.budget(150, 1e-3, every=50, batch=32)
FINE_TUNING = dataclasses.replace(
    _FINE, optimizer=dataclasses.replace(_FINE.optimizer, unit="absolute")
)
_DRAW = 1000  # between the seeds of two draws


@dataclass(frozen=True)
class FitnessConfig:
    """What is measured.

    Attributes:
      out: directory of results; finished parts in it are not repeated.
      model: the T5.
      seeds: how many, each with its own source prompts.
      first_seed: the first of them.
      fine_tuned: seeds of full fine-tuning.
      draws: of k rows, their order and the start from scratch, for each seed.
      frozen: whether the held-out targets are measured, too: once, at the end.
      labelled: whether pairs with an expected effect alone are measured.
      tasks: whether tasks as a whole are measured, too (all rows, full fine-tuning).
      targets: the only targets that are measured, for several processes at once; empty: all.
      tokens: L.
      init: initialisation from scratch.
      k: rows per class.
      source: budget of the sources' prompts, on all rows.
      full: budget of the targets' prompts on all rows.
      careless: the same where a share of the labels is wrong: larger batches even that out.
      few: budget of prompts on k rows per class.
      fine: budget of full fine-tuning.
    """

    out: str = "runs/sandbox_fitness"
    model: str = SANDBOX.model
    seeds: int = SANDBOX.seeds
    first_seed: int = 0
    fine_tuned: int = 2
    draws: int = 1
    frozen: bool = True
    labelled: bool = False
    tasks: bool = True
    targets: tuple[str, ...] = ()
    tokens: int = SANDBOX.prompt.tokens
    init: str = SANDBOX.prompt.init
    k: int = SANDBOX.shots[0]
    source: TrainConfig = SANDBOX.source
    full: TrainConfig = ALL_ROWS
    careless: TrainConfig = CARELESS
    few: TrainConfig = SANDBOX.few_shot
    fine: TrainConfig = FINE_TUNING


def chance(task: Task) -> float:
    """Accuracy of guessing: classes are balanced; nobody guesses a word."""
    return 1 / len(task.labels) if task.labels else 0.0


class Study:
    """The measurements of one config; what `out` has of them is read from there."""

    def __init__(self, config: FitnessConfig, say: Callable[[str], None] = print) -> None:
        self.config, self.say = config, say
        self.out = Path(config.out)
        self.lm = FrozenT5.from_pretrained(config.model)
        self.rows = RowStore(SANDBOX.data, self.lm.tokenizer, cache=None)
        self.seeds = range(config.first_seed, config.first_seed + config.seeds)
        self.sources = list(sandbox.SOURCES)
        if unknown := {*config.targets} - {*SANDBOX.targets}:
            raise ConfigError(f"no target of the sandbox: {', '.join(sorted(unknown))}.")
        targets = [t for t in sandbox.TARGETS if config.frozen or t.name not in sandbox.HELD_OUT]
        targets = [t for t in targets if t.name in config.targets or not config.targets]
        self.targets = [t for t in targets if any(self._wanted(s, t) for s in self.sources)]

    def _wanted(self, source: Task, target: Task) -> bool:
        return not self.config.labelled or sandbox.truth()[source.name, target.name] != "neutral"

    def run(self) -> dict[str, np.ndarray]:
        """Everything; per part an array [seeds, test rows]: the share of draws that were right."""
        c, store = self.config, ArtefactStore(self.out / "store")
        with RunTracker(self.out / "metrics.jsonl") as tracker:
            self.runner = StageRunner(self.lm, store, tracker=tracker)
            items, prompts = self._tuned("full", self.sources, 0, c.source)
            items |= self._tuned("scratch", self.targets, c.k, c.few)[0]
            for source in self.sources:
                if targets := [t for t in self.targets if self._wanted(source, t)]:
                    starts = {seed: prompts[source.name, seed] for seed in self.seeds}
                    items |= self._tuned(f"from {source.name}", targets, c.k, c.few, starts)[0]
            if not c.tasks:
                return items
            noisy = [t for t in self.targets if t.name in sandbox.NOISY]
            clean = [t for t in self.targets if t not in noisy]
            items |= self._tuned("full", clean, 0, c.full)[0]
            items |= self._tuned("full", noisy, 0, c.careless)[0]
            for task in (*self.sources, *self.targets):
                params = {
                    RunKey("full_fine_tuning", "fine", task.name, 0, c.first_seed + i): {
                        "lm": self.lm.params
                    }
                    for i in range(c.fine_tuned)
                }
                items |= self._items(self._run("fine", FullFineTuning(), params, c.fine), 1)
        return items

    def _tuned(
        self,
        kind: str,
        tasks: Sequence[Task],
        k: int,
        budget: TrainConfig,
        starts: Mapping[int, np.ndarray] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[tuple[str, int], np.ndarray]]:
        """Items and prompts of some tasks, from scratch or from one prompt for each seed."""
        params, draws = {}, self.config.draws if k else 1
        for task, seed, draw in itertools.product(tasks, self.seeds, range(draws)):
            own = seed + _DRAW * draw
            if starts is None:
                first = parse(self.config.init)(self.lm, self.config.tokens, own).embeddings
            else:
                first = starts[seed]
            key = RunKey("prompt_tuning", kind, task.name, k, own)
            params[key] = {"prompt": np.asarray(first)}
        if not params:
            return {}, {}
        result = self._run(kind, PromptTuning(), params, budget)
        prompts = {(key.task, key.seed): r.prompt for key, r in result.trained.items()}
        return self._items(result, draws), prompts

    def _run(
        self, kind: str, method: BaseMethod, params: Mapping[RunKey, Any], budget: TrainConfig
    ) -> StageResult:
        rows = {key: self.rows.rows(key.task, key.seed, key.k or 0) for key in params}
        replicas = {
            key: Replica(
                key,
                self.rows.feed(key.task, key.seed, key.k or 0, budget.batch_size, "order"),
                start,
                dev=rows[key].dev,
                dev_metrics=rows[key].task.metrics,
            )
            for key, start in params.items()
        }
        began = time.monotonic()
        result = self.runner.run(StageJob(kind, method, replicas, budget, rows))
        mean = np.mean([x.mean() for x in self._items(result, 1).values()])
        self.say(
            f"{kind}: {len(replicas)} replicas, {result.reused} reused, mean {mean:.3f},"
            f" {time.monotonic() - began:.0f} s"
        )
        return result

    def _items(self, result: StageResult, draws: int) -> dict[str, np.ndarray]:
        """By kind and task: the score of every test row [seeds, rows], the mean over draws."""
        scores: dict[str, list[np.ndarray]] = {}
        for key, test in result.tests.items():
            metric = self.rows.task(key.task).metrics[0]
            scores.setdefault(f"{key.stage} {key.task}", []).append(
                test.evaluation.per_item[metric]
            )
        return {
            name: np.stack(each).reshape(len(each) // draws, draws, -1).mean(1)
            for name, each in scores.items()
        }


def judge(study: Study, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the measurements say about the promises."""
    tasks: dict[str, dict[str, float]] = {}
    whole = (*study.sources, *study.targets) if study.config.tasks else ()
    for task in whole:
        base, name = chance(task), task.name
        full, fine = found[f"full {name}"].mean(), found[f"fine {name}"].mean()
        row = {"chance": base, "full": full, "fine": fine, "share": (full - base) / (fine - base)}
        if task in study.targets:
            few = found[f"scratch {name}"]
            row["few"] = few.mean()
            row["shortfall_p"] = statistics.paired_bootstrap(found[f"full {name}"], few).p
        tasks[name] = {k: float(v) for k, v in row.items()}
    families: dict[bool, dict[str, statistics.Comparison]] = {True: {}, False: {}}
    for source in study.sources:
        for target in study.targets:
            if f"from {source.name} {target.name}" not in found:
                continue
            neutral = sandbox.truth()[source.name, target.name] == "neutral"
            compared = statistics.paired_bootstrap(
                found[f"from {source.name} {target.name}"], found[f"scratch {target.name}"]
            )
            families[neutral][f"{source.name} -> {target.name}"] = statistics.bounded(
                compared, -1.0, 1.0
            )
    least = statistics.MINIMUM_EFFECT["sandbox"]
    verdicts = {k: v for f in families.values() for k, v in statistics.judge(f, least).items()}
    pairs = {}
    for (source, target), expected in sandbox.truth().items():
        name = f"{source} -> {target}"
        if name not in verdicts:
            continue
        v = verdicts[name]
        sign = "neutral" if not v.effect else "helps" if v.comparison.difference > 0 else "hurts"
        pairs[name] = {
            "expected": expected,
            "found": sign,
            "difference": v.comparison.difference,
            "low": v.comparison.low,
            "high": v.comparison.high,
            "p_holm": v.p_holm,
        }
    return {"suite": sandbox.content_hash(), "tasks": tasks, "pairs": pairs}


def show(result: Mapping[str, Any], say: Callable[[str], None] = print) -> None:
    """Prints the promises and what was found."""
    for name, row in result["tasks"].items():
        few = f"  k-shot {row['few']:.3f} (p {row['shortfall_p']:.4f})" if "few" in row else ""
        say(
            f"{name:36s} chance {row['chance']:.2f}  prompt {row['full']:.3f}  full FT"
            f" {row['fine']:.3f}  share {row['share']:.2f}{few}"
        )
    for expected in ("helps", "hurts", "neutral"):
        some = [p for p in result["pairs"].values() if p["expected"] == expected]
        if some:
            kept = np.mean([p["found"] == expected for p in some])
            say(f"{expected}: {kept:.0%} of {len(some)} pairs as expected")
    for name, pair in result["pairs"].items():
        if pair["expected"] != "neutral" or pair["found"] != "neutral":
            say(
                f"  {name}: expected {pair['expected']}, {pair['difference']:+.3f}"
                f" {_interval(pair)} p {pair['p_holm']:.4f}"
            )


def _interval(pair: Mapping[str, float]) -> str:
    """An interval, or that so few seeds support none (`statistics.bounded`)."""
    if math.isfinite(pair["low"]) and math.isfinite(pair["high"]):
        return f"[{pair['low']:+.3f}, {pair['high']:+.3f}]"
    return "[no interval: too few seeds]"


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of docs/results/sandbox.md: tasks, and points that a source adds to a target."""
    lines = [
        "| task | chance | prompt, all rows | full fine-tuning | share | prompt, k = 16 |",
        "|-|-|-|-|-|-|",
    ]
    for name, row in result["tasks"].items():
        few = f"{100 * row['few']:.1f} (p {row['shortfall_p']:.4f})" if "few" in row else ""
        lines.append(
            f"| `{_short(name)}` | {100 * row['chance']:.0f} | {100 * row['full']:.1f} |"
            f" {100 * row['fine']:.1f} | {row['share']:.2f} | {few} |"
        )
    sources = [task.name for task in sandbox.SOURCES]
    lines += [
        "",
        "| target | " + " | ".join(f"`{_short(s)}`" for s in sources) + " |",
        "|-|" + "-|" * len(sources),
    ]
    for target in (task.name for task in sandbox.TARGETS):
        pairs = [result["pairs"].get(f"{source} -> {target}") for source in sources]
        if any(pairs):
            frozen = " *" if target in sandbox.HELD_OUT else ""
            cells = " | ".join(_cell(pair) if pair else "" for pair in pairs)
            lines.append(f"| `{_short(target)}`{frozen} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(pair: Mapping[str, Any]) -> str:
    points = f"{100 * pair['difference']:+.0f}"
    points = points if pair["found"] == "neutral" else f"**{points}**"
    return points + {"helps": " (+)", "hurts": " (-)", "neutral": ""}[pair["expected"]]


def _short(name: str) -> str:
    return name.removeprefix("sandbox/")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """The heat map of the pairs: what a source's prompt does to a target, in points."""
    from matplotlib.figure import Figure

    sources = [task.name for task in sandbox.SOURCES]
    targets = [t.name for t in sandbox.TARGETS if any(n.endswith(t.name) for n in result["pairs"])]
    points = np.asarray(
        [[100 * result["pairs"][f"{s} -> {t}"]["difference"] for t in targets] for s in sources]
    )
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(points, cmap="PuOr_r", vmin=-50, vmax=50, aspect="auto")
    axes.set_xticks(range(len(targets)), map(_short, targets), rotation=40, ha="right")
    axes.set_yticks(range(len(sources)), map(_short, sources))
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            pair = result["pairs"][f"{source} -> {target}"]
            mark = {"helps": "+", "hurts": "-", "neutral": ""}[pair["expected"]]
            bold = "bold" if pair["found"] != "neutral" else "normal"
            shade = "white" if abs(points[i, j]) > 32 else "black"
            text = f"{points[i, j]:+.0f}" + (f"\n({mark})" if mark else "")
            axes.text(j, i, text, ha="center", va="center", fontsize=8, weight=bold, color=shade)
    figure.colorbar(image, label="points against prompt tuning from scratch")
    axes.set_title(
        "What a source's prompt does to a target at k = 16. Bold: an effect; (+) (-): expected",
        fontsize=10,
    )
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes `result.json`, `tables.md` and `pairs.svg`."""
    study = Study(configs.override(FitnessConfig(), arguments))
    result = judge(study, study.run())
    result["config"] = dataclasses.asdict(study.config)
    result["model"] = study.lm.weights_hash
    (study.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (study.out / "tables.md").write_text(markdown(result), encoding="utf-8")
    if not study.config.labelled:
        draw(result, study.out / "pairs.svg")
    show(result)


if __name__ == "__main__":
    command.run("fitness", main)
