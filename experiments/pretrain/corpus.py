"""The rows a T5 is pre-trained on, without those that are held out.

Four parts: instructions about texts of the sandbox, prose of the sandbox, English text, and
registered tasks under their templates. `RESERVED` tasks are refused; rows that share eight
consecutive words with a reserved task's held-out rows are dropped.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.pretrain import instructions
from prompt_jax.data import open_split, registry, render_rows
from prompt_jax.data.ragged import Ragged
from prompt_jax.data.render import Example
from prompt_jax.data.tokenise import TokenisedSplit
from prompt_jax.errors import ConfigError, DataError

_WORD = re.compile(r"[a-z0-9]+")
_RUN = 8  # words
_NO_TEXT = Example("", "")


@dataclass(frozen=True)
class CorpusConfig:
    """What goes into the corpus.

    Attributes:
      rows: rows of one pass over everything.
      worlds: share of instructions about texts of the sandbox; an eighth of them are rows of its
        source tasks under their worded templates, an eighth recalls the partner of a word.
      prose: share of span corruption on prose of the sandbox.
      english: share of span corruption on `texts`.
      texts: text files (also .gz): a paragraph a line, an empty line between documents.
      tasks: registered tasks or TOML files; they have the rest of the rows.
      root: data folder of the tasks.
      max_input: input tokens kept.
      max_target: target tokens kept.
      corrupted: share of tokens that span corruption removes (Raffel et al. 2020: 0.15).
      span: mean length of a removed span, in tokens.
    """

    rows: int = 352_000
    worlds: float = 0.86
    prose: float = 0.05
    english: float = 0.05
    texts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    root: str | None = None
    max_input: int = 56
    max_target: int = 16
    corrupted: float = 0.15
    span: float = 2.5

    def __post_init__(self) -> None:
        if self.rows < 100 or min(self.worlds, self.prose, self.english) < 0:
            raise ConfigError("a corpus needs at least 100 rows and shares that are not negative.")
        if self.worlds + self.prose + self.english > 1:
            raise ConfigError("worlds + prose + english must not exceed 1.")
        for name in self.tasks:
            task = registry.get(name)
            if task.reserved:
                raise ConfigError(
                    f"task '{task.name}' is reserved as a target (registry.RESERVED): a model that"
                    " was trained on it cannot be tested on it. Leave it out."
                )

    def counts(self) -> dict[str, int]:
        """Rows of each part."""
        parts = {"instructions": self.worlds, "prose": self.prose}
        if self.texts:
            parts["english"] = self.english
        if self.tasks:
            parts["tasks"] = 1 - self.worlds - self.prose - self.english
        total = sum(parts.values())
        return {name: round(self.rows * share / total) for name, share in parts.items()}


def normalised(text: str) -> list[str]:
    """Words without case and punctuation."""
    return _WORD.findall(text.lower())


def runs(text: str) -> set[str]:
    """All sequences of eight consecutive words of a text."""
    parts = normalised(text)
    return {" ".join(parts[i : i + _RUN]) for i in range(len(parts) - _RUN + 1)}


@functools.cache
def forbidden(root: str | None) -> frozenset[str]:
    """Sequences of eight words in the held-out rows of every reserved task of real text at hand."""
    phrases: set[str] = set()
    for name in sorted(registry.RESERVED):
        task = registry.get(name)
        if task.make_rows is not None:  # texts of the sandbox are excluded one by one
            continue
        try:
            rows = open_split(task, "validation", root)
        except DataError:
            continue
        for i in range(len(rows)):
            for field in task.fields:
                value = rows[i].get(field)
                for text in value if isinstance(value, list) else [value]:
                    if isinstance(text, str):
                        phrases |= runs(text)
    return frozenset(phrases)


def paragraphs(path: str | Path) -> Iterator[str]:
    """The paragraphs of a text file."""
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from (line.strip() for line in file if line.strip())


def english(texts: Sequence[str], count: int, seed: int, drop: frozenset[str]) -> list[str]:
    """Paragraphs for span corruption, drawn evenly from the files, without those in `drop`."""
    draw = random.Random(f"pretrain english {seed}")
    share = -(-count // max(1, len(texts)))
    drawn: list[str] = []
    for text in texts:
        usable = [p for p in paragraphs(text) if 60 <= len(p) <= 2_000]
        draw.shuffle(usable)
        kept = (p for p in usable if drop.isdisjoint(runs(p)))
        drawn += itertools.islice(kept, share)
    draw.shuffle(drawn)
    return drawn


def task_rows(
    names: Sequence[str], root: str | None, seed: int, drop: frozenset[str]
) -> list[Example]:
    """The training rows of tasks, each under a template drawn for it, without those in `drop`."""
    rows: list[Example] = []
    for name in names:
        task = registry.get(name)
        for example in render_rows(task, open_split(task, "train", root), "cycle", seed):
            if drop.isdisjoint(runs(example.input)):
                rows.append(example)
    return rows


def corrupt(
    ids: Sequence[int], draw: random.Random, config: CorpusConfig, sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Span corruption: sentinels replace spans of tokens; the target holds the replaced tokens.

    Args:
      ids: at least two tokens of a text, without the end of sequence.
      draw: the randomness.
      config: rate and length of spans.
      sentinels: their ids, the first first.

    Returns:
      Input and target, each with the end of sequence.
    """
    wanted = max(1, round(len(ids) * config.corrupted))
    spans = max(1, min(round(wanted / config.span), len(sentinels) - 1, wanted))
    # Lengths of the spans and of the tokens between them: two random partitions.
    taken = _partition(draw, wanted, spans)
    kept = _partition(draw, max(spans, len(ids) - wanted), spans)
    source, target, at = [], [], 0
    for i in range(spans):
        source += [*ids[at : at + kept[i]], sentinels[i]]
        at += kept[i]
        target += [sentinels[i], *ids[at : at + taken[i]]]
        at += taken[i]
    source += ids[at:]
    return [*source, 1], [*target, sentinels[spans], 1]


def _partition(draw: random.Random, total: int, parts: int) -> list[int]:
    cuts = sorted(draw.sample(range(1, total), parts - 1)) if parts > 1 else []
    return [b - a for a, b in itertools.pairwise([0, *cuts, total])]


def build(config: CorpusConfig, tokenizer: object, seed: int) -> TokenisedSplit:
    """The corpus as one split with a task per part.

    Args:
      config: what goes in.
      tokenizer: with `encode` and `sentinel_id`.
      seed: of every draw.
    """
    counts = config.counts()
    drop = forbidden(config.root)
    draw = random.Random(f"pretrain spans {seed}")
    sentinels = [tokenizer.sentinel_id(i) for i in range(24)]  # type: ignore[attr-defined]
    encode = tokenizer.encode  # type: ignore[attr-defined]
    parts: list[TokenisedSplit] = []

    def pairs(name: str, examples: Iterable[Example]) -> None:
        some = list(examples)
        sources, targets = encode([e.input for e in some]), encode([e.target for e in some])
        parts.append(_split(name, sources, targets, config))

    def spans(name: str, texts: Iterable[str], count: int) -> None:
        encoded = encode(list(texts), add_eos=False)
        if not encoded:
            raise DataError(f"'{name}': there is no text to corrupt.")
        corrupted = []
        room = config.max_input - 2
        for ids in itertools.islice(itertools.cycle(encoded), count):
            first = draw.randrange(max(1, len(ids) - room + 1))
            window = ids[first : first + room]
            corrupted.append(corrupt(window, draw, config, sentinels))
        parts.append(_split(name, *zip(*corrupted, strict=True), config))

    asked = counts["instructions"]
    pairs("instructions", itertools.islice(instructions.asked(seed), asked - 2 * (asked // 8)))
    pairs("recall", itertools.islice(instructions.recalled(seed), asked // 8))
    pairs("source tasks", itertools.islice(instructions.worded(seed), asked // 8))
    spans("prose", itertools.islice(instructions.prose(seed), counts["prose"]), counts["prose"])
    if "english" in counts:
        texts = english(config.texts, counts["english"], seed, drop)
        spans("english", texts, counts["english"])
    if "tasks" in counts:
        rows: list[Example] = []
        for epoch in itertools.count():  # another template for a row in another epoch
            rows += task_rows(config.tasks, config.root, seed + epoch, drop)
            if len(rows) >= counts["tasks"]:
                break
        random.Random(f"pretrain tasks {seed}").shuffle(rows)
        pairs("tasks", rows[: counts["tasks"]])
    return _join(parts)


def _split(
    name: str, inputs: Sequence[list[int]], targets: Sequence[list[int]], config: CorpusConfig
) -> TokenisedSplit:
    count = len(inputs)
    long_input = np.asarray([len(row) > config.max_input for row in inputs], bool)
    long_target = np.asarray([len(row) > config.max_target for row in targets], bool)
    nothing, zeros = np.full(count, -1, np.int32), np.zeros(count, np.int32)

    def cut(row: list[int], most: int) -> list[int]:
        return [*row[: most - 1], row[-1]] if len(row) > most else row

    return TokenisedSplit(
        name=name,
        inputs=Ragged.of([cut(row, config.max_input) for row in inputs]),
        targets=Ragged.of([cut(row, config.max_target) for row in targets]),
        label=nothing,
        template=zeros,
        task=zeros,
        candidates=Ragged.of([[]] * count),
        answers=Ragged.of([[1]]),
        input_truncated=long_input,
        target_truncated=long_target,
        examples=(_NO_TEXT,) * count,
        template_names=(name,),
        task_names=(name,),
    )


def _join(parts: Sequence[TokenisedSplit]) -> TokenisedSplit:
    from prompt_jax.data import concat

    return concat(parts, "pretraining")
