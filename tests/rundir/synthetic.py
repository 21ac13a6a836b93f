"""A run directory as an experiment leaves it, without an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.prompts import PromptRecord, files
from prompt_jax.run_key import RunKey
from prompt_jax.rundir import results
from prompt_jax.rundir.results import ResultRow

METHODS = ("prompt_tuning", "spot", "full_fine_tuning")
SOURCES, TARGETS = ("s/one", "s/two", "s/three"), ("t/near", "tasks/far.toml")
ITEMS, L, D = 60, 4, 8
# Share of right answers, and what a method adds to it.
CHANCE, LIFT = 0.45, {"spot": 0.3, "full_fine_tuning": 0.1}


def result(
    method: str,
    target: str,
    k: int,
    seed: int,
    value: float,
    metric: str = "accuracy",
    split: str = "test",
    **facts: Any,
) -> ResultRow:
    """A result row whose cost is 1 of everything, unless told otherwise."""
    costs = ("source_steps", "target_steps", "rows_seen", "flops", "wall_s")
    parameters = ("trained_parameters", "stored_parameters")
    known: dict[str, Any] = dict.fromkeys((*costs, *parameters), 1) | facts
    key = RunKey(method, "target", target, k, seed)
    return ResultRow(key=key, metric=metric, split=split, value=value, **known)


def name(task: str) -> str:
    """A task's own name, as data.json has it."""
    return f"mine/{Path(task).stem}" if task.endswith(".toml") else task


def write_run(
    folder: Path,
    *,
    methods: Sequence[str] = METHODS,
    sources: Sequence[str] = SOURCES,
    targets: Sequence[str] = TARGETS,
    shots: Sequence[int] = (16, 0),
    seeds: int = 5,
    lift: Mapping[str, float] = LIFT,
    title: str = "synthetic",
    logged: Mapping[str, Mapping[str, object]] | None = None,
) -> Path:
    """Writes a run directory.

    Args:
      folder: is made.
      methods: specs.
      sources: tasks.
      targets: tasks; those whose first has the lift, the others do not.
      shots: k.
      seeds: how many.
      lift: by method, on the first target.
      title: the experiment's name.
      logged: by method: what its target runs log beside the loss.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    config = {
        "name": title,
        "model": "models/tiny",
        "methods": list(methods),
        "sources": list(sources),
        "targets": list(targets),
        "shots": list(shots),
        "seeds": seeds,
        "prompt": {"tokens": L},
        "data": {"root": "my data", "max_input_tokens": 32},
        "out": str(folder),
    }
    (folder / "config.json").write_text(json.dumps(config))
    facts = {
        "versions": {"jax": "0.10.2"},
        "python": "3.11",
        "device": "1 x cpu (cpu)",
        "model": {"name": "tiny", "weights_sha256": "ab" * 32},
        "command": "prompt-jax run synthetic",
        "started": "2026-01-02T03:04:05Z",
        "seconds": 190.0,
    }
    (folder / "provenance.json").write_text(json.dumps(facts))
    rows: list[ResultRow] = []
    items: dict[RunKey, np.ndarray] = {}
    lines: list[dict[str, object]] = []
    for k in shots:
        for method in methods:
            for target in targets:
                for seed in range(seeds):
                    better = lift.get(method, 0.0) if target == targets[0] else 0.0
                    scores = (rng.random(ITEMS) < CHANCE + better).astype(np.float32)
                    cost = 300 if method == "spot" else 100
                    for split, value in (("dev", 0.5 + seed / 100), ("test", scores.mean())):
                        rows.append(
                            result(
                                method,
                                target,
                                k,
                                seed,
                                float(value),
                                split=split,
                                source_steps=cost - 100,
                                target_steps=100,
                                rows_seen=8 * cost,
                                flops=1e9 * cost,
                                wall_s=cost / 50,
                                trained_parameters=20,
                                stored_parameters=20,
                            )
                        )
                    key = RunKey(method, "target", target, k, seed)
                    items[key] = scores
                    for step in (0, 50, 100):
                        at = {**key.fields(), "step": step}
                        lines.append({**at, "dev": 0.4 + step / 500 + seed / 100})
                        more = (logged or {}).get(method, {})
                        lines.append({**at, "loss": 2 - step / 100 + seed / 20, **more})
    for seed in range(seeds):
        _prompts(folder, rng, seed, methods, sources, targets, shots)
        for source in sources:
            key = RunKey("prompt_tuning", "sources", source, None, seed)
            lines.append({**key.fields(), "step": 1, "loss": 1.0})
    results.write_rows(folder / "results.jsonl", rows)
    results.write_items(folder / "items.npz", items)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cut = {part: {"inputs": 3, "targets": 0} for part in ("train", "dev", "test")}
    data = {
        task: [
            {
                "task": name(task),
                "seed": seed,
                "k": k,
                "cut": cut,
                "notes": ["two rows skipped"],
                "rows": {"train": 30, "dev": 20, "test": ITEMS},
            }
            for k in (shots if task in targets else (0,))
            for seed in range(seeds)
        ]
        for task in (*sources, *targets)
    }
    (folder / "data.json").write_text(json.dumps(data))
    shown = [
        {"text": f"a text {i}", "expected": "no (bad)", "answer": answer, "right": i > 0}
        for i, answer in enumerate(("yes (good)", "no (bad)"))
    ]
    entries = [
        {
            "method": method,
            "target": target,
            "k": k,
            "seed": 0,
            "rows": shown,
            "labels": ["bad", "good"],
            "confusion": [[20, 10], [0, 30]],
        }
        for k in shots
        for method in methods
        for target in targets
    ]
    (folder / "answers.json").write_text(json.dumps({"answers": entries}))
    return folder


def _prompts(
    folder: Path,
    rng: np.random.Generator,
    seed: int,
    methods: Sequence[str],
    sources: Sequence[str],
    targets: Sequence[str],
    shots: Sequence[int],
) -> None:
    """Source prompts anywhere; spot's targets lie near the second source."""
    made = {source: rng.normal(size=(L, D)).astype(np.float32) for source in sources}
    for number, (source, array) in enumerate(made.items()):
        record = PromptRecord(method="prompt_tuning", task=name(source), seed=seed)
        path = folder / "prompts" / "sources" / f"{number}-seed{seed}.safetensors"
        files.write(path, "prompt", array, record)
    for i, method in enumerate(methods[:2]):
        for j, target in enumerate(targets):
            for k in shots:
                array = 0.3 * rng.normal(size=(L, D)).astype(np.float32)
                if method == "spot" and sources:
                    array += made[sources[min(1, len(sources) - 1)]]
                facts = {"k": k, "dev": 0.5 + seed / 100}
                record = PromptRecord(method=method, task=name(target), seed=seed, config=facts)
                path = folder / "prompts" / str(i) / f"{j}-k{k}-seed{seed}.safetensors"
                files.write(path, "prompt", array.astype(np.float32), record)


def write_cells(
    path: Path,
    scores: dict[tuple[str, str], np.ndarray],
    *,
    weights: str = "w",
    suite: str = "s",
    templates: str = "first",
    trained: str = "first",
    items: bool = True,
    chosen: Sequence[tuple[str, ...]] = (),
    first_seed: int = 0,
) -> Path:
    """A run directory with the given items [seeds, rows] of each (method, target).

    Chosen: the sources by seed, of every method but `base`.
    """
    path.mkdir()
    methods, targets = (list(dict.fromkeys(key[i] for key in scores)) for i in (0, 1))
    config = {
        "methods": methods,
        "targets": targets,
        "sources": ["sandbox/sentiment", "sandbox/topic"],
        "shots": [16],
        "data": {"test_rows": 10, "templates": trained, "test_templates": templates},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "provenance.json").write_text(json.dumps({"model": {"weights_sha256": weights}}))
    rows: list[ResultRow] = []
    kept: dict[RunKey, np.ndarray] = {}
    for (method, target), table in scores.items():
        for seed, row in enumerate(table, first_seed):
            for split in ("dev", "test"):
                facts: dict[str, Any] = {"suite": suite}
                if chosen and method != "base":
                    facts["chosen"] = chosen[seed - first_seed]
                value = float(row.mean())
                rows.append(result(method, target, 16, seed, value, split=split, **facts))
            kept[rows[-1].key] = row
    results.write_rows(path / "results.jsonl", rows)
    if items:
        results.write_items(path / "items.npz", kept)
    return path
