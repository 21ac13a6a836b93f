"""The rows of an experiment: every task is opened, split and tokenised once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prompt_jax.arrays import fields_repr
from prompt_jax.data import overlap, registry
from prompt_jax.data.digits import answered
from prompt_jax.data.feed import Feed, Mixture, Mode
from prompt_jax.data.overlap import Overlap
from prompt_jax.data.sources import Source
from prompt_jax.data.splits import Limits, Splits, load_splits
from prompt_jax.data.tasks import Task
from prompt_jax.data.tokenise import TokenisedSplit, concat, render_rows, task_for, tokenise_rows
from prompt_jax.evaluation import ties
from prompt_jax.recipes.config import DataConfig


@dataclass(frozen=True, eq=False)
class TaskRows:
    """The three tokenised sets of a task, for one seed and k.

    `overlap` counts the rows of "dev" that are in `train` too, and of "test" in `train` or `dev`;
    `texts` are the `fingerprints` of the rows of each set, before templates.
    """

    task: Task
    train: TokenisedSplit
    dev: TokenisedSplit
    test: TokenisedSplit
    notes: tuple[str, ...]
    overlap: dict[str, Overlap]
    texts: dict[str, np.ndarray]

    __repr__ = fields_repr


class RowStore:
    """Opens tasks on demand and remembers what it opened."""

    def __init__(self, config: DataConfig, tokenizer: Any, cache: Path | None) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.cache = None if cache is None else cache / "rows"
        self.warnings: list[str] = []  # about rows that cannot be scored as they are meant
        self._memo: dict[tuple[str, int, int], TaskRows] = {}
        self._tests: dict[str, TokenisedSplit] = {}
        self._tested: dict[str, np.ndarray] = {}  # fingerprints of `_tests`
        self._tasks: dict[str, Task] = {}

    def task(self, name: str) -> Task:
        """A registered or user-defined task, as it was when it was first asked for.

        A task file may be edited or lost while an experiment runs. Its label words are those that
        the model answers with.
        """
        if name not in self._tasks:
            named = task_for(self.tokenizer, registry.get(name))
            self._tasks[name] = answered(named, self.config.answers)
        return self._tasks[name]

    def rows(self, name: str, seed: int, k: int = 0) -> TaskRows:
        """The rows of a task for one seed; k = 0: all of them."""
        key = (name, seed, k)
        if key not in self._memo:
            self._memo[key] = self._open(name, seed, k)
        return self._memo[key]

    def _open(self, name: str, seed: int, k: int) -> TaskRows:
        c, task = self.config, self.task(name)
        limits = Limits(c.train_rows, c.dev_rows, c.test_rows)
        splits = load_splits(task, c.root, c.protocol, seed, limits, k, c.shots_count)
        tokenise = functools.partial(
            tokenise_rows,
            task,
            tokenizer=self.tokenizer,
            max_input=c.max_input_tokens,
            max_target=c.max_target_tokens,
            cache_dir=self.cache,
        )

        def encode(rows: Source, **options: Any) -> TokenisedSplit:
            return replace(tokenise(rows, **options), rank_by=c.rank_by)

        if name not in self._tests:
            self._tests[name] = encode(splits.test, templates=c.test_templates)
            self._tested[name] = overlap.fingerprints(task, splits.test)
        # Choices are made under the wordings of training: a held-out one is seen by tests alone.
        train, dev = (
            encode(part, templates=c.templates, seed=seed) for part in (splits.train, splits.dev)
        )
        ambiguous = [
            note
            for part, rows in (("development", dev), ("test", self._tests[name]))
            if (note := _ambiguous(task, part, rows, c.max_target_tokens))
        ]
        self.warnings += [note for note in ambiguous if note not in self.warnings]
        notes = (*splits.notes, *ambiguous)
        shared = self._overlaps(task, splits, train, dev, self._tests[name])
        texts = {
            "train": overlap.fingerprints(task, splits.train),
            "dev": overlap.fingerprints(task, splits.dev),
            "test": self._tested[name],
        }
        return TaskRows(task, train, dev, self._tests[name], notes, shared, texts)

    def _overlaps(
        self,
        task: Task,
        splits: Splits,
        train: TokenisedSplit,
        dev: TokenisedSplit,
        test: TokenisedSplit,
    ) -> dict[str, Overlap]:
        """Of the rows that are chosen on and tested on with those before them."""
        before, chosen = (
            # Other rows may be under other wordings, which hide that they are the same.
            tokenised.examples if self.config.templates == "first" else render_rows(task, rows)
            for tokenised, rows in ((train, splits.train), (dev, splits.dev))
        )
        first = task.template().name
        tested = [example for example in test.examples if example.template == first]
        return {
            "dev": overlap.count(before, chosen),
            "test": overlap.count([*before, *chosen], tested),
        }

    def feed(self, name: str, seed: int, k: int, batch_size: int, stream: str) -> Feed:
        """Shuffled epochs over one task's training rows."""
        return Feed(self.rows(name, seed, k).train, batch_size, seed, stream)

    def mixture(
        self,
        names: tuple[str, ...],
        seed: int,
        batch_size: int,
        mixing: Mode = "proportional",
        k: int = 0,
        stream: str = "source",
    ) -> Mixture:
        """The training rows of several tasks, mixed (see `Mixture`)."""
        parts = [self.rows(name, seed, k).train for name in names]
        return Mixture(concat(parts), batch_size, seed, stream, mixing)

    def dev_parts(
        self, names: tuple[str, ...], seed: int, k: int
    ) -> tuple[tuple[TokenisedSplit, tuple[str, ...]], ...]:
        """The development rows of several tasks, numbered as in their mixture, with the metrics.

        Tasks without development rows are left out.
        """
        rows = [self.rows(name, seed, k) for name in names]
        together = concat([part.dev for part in rows])
        ends = np.cumsum([len(part.dev) for part in rows])
        return tuple(
            (together.take(np.arange(end - len(part.dev), end)), part.task.metrics)
            for part, end in zip(rows, ends, strict=True)
            if len(part.dev)
        )

    def report(self, sources: Sequence[str] = (), targets: Sequence[str] = ()) -> dict[str, Any]:
        """Rows, truncated texts and notes of every task; JSON-able.

        Args:
          sources: tasks that are trained on for others; their rows are looked for among those of
            targets.
          targets: the others.
        """
        found: dict[str, Any] = {}
        for (name, seed, k), rows in sorted(self._memo.items()):
            sizes = {part: len(getattr(rows, part)) for part in ("train", "dev", "test")}
            cut = {
                part: {
                    "inputs": getattr(rows, part).truncated_inputs,
                    "targets": getattr(rows, part).truncated_targets,
                }
                for part in ("train", "dev", "test")
            }
            entry = {
                "task": rows.task.name,
                "seed": seed,
                "k": k,
                "rows": sizes,
                "cut": cut,
                "cut_answers": {part: getattr(rows, part).truncated_answers for part in cut},
                "notes": list(rows.notes),
                "overlap": {part: shared._asdict() for part, shared in rows.overlap.items()},
            }
            if shared := self._trained_elsewhere(name, seed, k, sources if name in targets else ()):
                entry["sources"] = shared
            found.setdefault(name, []).append(entry)
        return found

    def _trained_elsewhere(
        self, name: str, seed: int, k: int, sources: Sequence[str]
    ) -> dict[str, dict[str, dict[str, int]]]:
        """By source and set: how many rows of a target are training rows of that source."""
        own, found = self._memo[name, seed, k].texts, {}
        for source in sources:
            opened = self._memo.get((source, seed, 0))
            if opened is None or source == name:
                continue
            counts = {
                part: {"same": int(np.isin(own[part], opened.texts["train"]).sum())}
                | {"rows": len(own[part])}
                for part in ("dev", "test")
            }
            if any(count["same"] for count in counts.values()):
                found[opened.task.name] = counts
        return found


def _ambiguous(task: Task, part: str, rows: TokenisedSplit, limit: int) -> str:
    """A warning about rows in which two choices are the same tokens; "" without such rows."""
    same = int(ties.rows_with_same_tokens(rows).sum())
    if not same:
        return ""
    remedy = "; raise data.max_target_tokens" if rows.truncated_answers else ""
    return (
        f"{task.name}: in {same:,} of {len(rows):,} {part} rows two choices are the same tokens (at"
        f" most {limit}); a tie counts as 1 / its number of choices{remedy}"
    )
